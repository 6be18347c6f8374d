//! The scanner: text in, tape out. Strict RFC 8259, and stricter where two readers could disagree: duplicate member
//! names, lone surrogate escapes and a byte order mark are refused.

use std::fmt;

/// Deepest nesting of arrays and objects.
pub(crate) const MAX_DEPTH: usize = 128;
/// Up to this many members, duplicate names are found by comparing all pairs of hashes; above, by sorting.
const PAIRWISE_MEMBERS: usize = 48;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    False,
    True,
    /// A number without fraction and exponent.
    Integer,
    /// A number with fraction or exponent.
    Number,
    /// A string without escapes.
    String,
    /// A string with escapes.
    EscapedString,
    /// A member's name without escapes; the next entry is its value.
    Name,
    /// A member's name with escapes.
    EscapedName,
    Array,
    Object,
}

/// One token, or one array or object with everything in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// First byte.
    pub(crate) start: u32,
    /// One past the last byte.
    pub(crate) end: u32,
    /// Index of the entry after this one and what it holds; for names, the hash of the name.
    pub(crate) next: u32,
    pub(crate) kind: Kind,
}

/// Why a text is not JSON we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JsonError {
    pub(crate) offset: usize,
    pub(crate) problem: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.problem, self.offset)
    }
}

/// Scans one JSON text into `tape` (cleared first).
pub(crate) fn scan<'a>(bytes: &'a [u8], tape: &mut Vec<Entry>) -> Result<&'a str, JsonError> {
    tape.clear();
    if u32::try_from(bytes.len()).is_err() {
        return Err(JsonError { offset: 0, problem: "text longer than 4 GiB" });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError { offset: 0, problem: "byte order mark" });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|e| JsonError { offset: e.valid_up_to(), problem: "invalid UTF-8" })?;
    tape.reserve(bytes.len() / 8 + 4);
    let mut scanner = Scanner { text, bytes, at: 0, tape };
    scanner.space();
    scanner.value(0)?;
    scanner.space();
    if scanner.at < bytes.len() {
        return scanner.fail("text after the value");
    }
    Ok(text)
}

/// Hash of a member's name, cheap rather than good: it only spares comparisons.
pub(crate) fn name_hash(name: &[u8]) -> u32 {
    let len = name.len();
    let word = |at: usize| u32::from_le_bytes([name[at], name[at + 1], name[at + 2], name[at + 3]]);
    let mix = if len >= 4 {
        word(0) ^ word(len - 4).rotate_left(15) ^ word(len / 2 - 2).rotate_left(7)
    } else {
        name.iter().fold(0, |mix, byte| (mix << 8) | u32::from(*byte))
    };
    (mix ^ u32::try_from(len).unwrap_or(u32::MAX)).wrapping_mul(0x9E37_79B1)
}

struct Scanner<'a, 't> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    tape: &'t mut Vec<Entry>,
}

/// Offsets fit: the length of the text was checked, and no tape has more entries than the text has bytes.
#[allow(clippy::cast_possible_truncation)]
fn small(offset: usize) -> u32 {
    offset as u32
}

impl Scanner<'_, '_> {
    fn fail<T>(&self, problem: &'static str) -> Result<T, JsonError> {
        Err(JsonError { offset: self.at, problem })
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string(Kind::String, Kind::EscapedString),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Kind::True),
            Some(b'f') => self.word("false", Kind::False),
            Some(b'n') => self.word("null", Kind::Null),
            Some(_) => self.fail("expected a value"),
            None => self.fail("unexpected end"),
        }
    }

    fn push(&mut self, start: usize, kind: Kind) {
        let next = small(self.tape.len() + 1);
        self.tape.push(Entry { start: small(start), end: small(self.at), next, kind });
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return self.fail("expected a value");
        }
        let start = self.at;
        self.at += word.len();
        self.push(start, kind);
        Ok(())
    }

    fn open(&mut self, depth: usize, kind: Kind) -> Result<usize, JsonError> {
        if depth >= MAX_DEPTH {
            return self.fail("nested deeper than 128 levels");
        }
        let index = self.tape.len();
        self.push(self.at, kind);
        self.at += 1;
        self.space();
        Ok(index)
    }

    fn close(&mut self, index: usize) {
        self.at += 1;
        let next = small(self.tape.len());
        let entry = &mut self.tape[index];
        entry.end = small(self.at);
        entry.next = next;
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(depth, Kind::Array)?;
        if self.peek() == Some(b']') {
            self.close(index);
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.close(index);
                    return Ok(());
                }
                Some(_) => return self.fail("expected , or ]"),
                None => return self.fail("unexpected end"),
            }
            self.space();
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let index = self.open(depth, Kind::Object)?;
        if self.peek() == Some(b'}') {
            self.close(index);
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.fail("expected a member's name");
            }
            self.string(Kind::Name, Kind::EscapedName)?;
            self.hash_name();
            self.space();
            if self.peek() != Some(b':') {
                return self.fail("expected :");
            }
            self.at += 1;
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.close(index);
                    return self.refuse_duplicates(index);
                }
                Some(_) => return self.fail("expected , or }"),
                None => return self.fail("unexpected end"),
            }
            self.space();
        }
    }

    fn hash_name(&mut self) {
        let Some(entry) = self.tape.last_mut() else { return };
        let inner = &self.text[entry.start as usize + 1..entry.end as usize - 1];
        entry.next = if entry.kind == Kind::EscapedName {
            name_hash(super::node::unescape(inner).as_bytes())
        } else {
            name_hash(inner.as_bytes())
        };
    }

    #[inline(never)]
    fn refuse_duplicates(&self, object: usize) -> Result<(), JsonError> {
        let end = self.tape[object].next as usize;
        let mut at = object + 1;
        let mut seen = [(0_u32, 0_usize); PAIRWISE_MEMBERS];
        let mut count = 0;
        while at < end {
            let hash = self.tape[at].next;
            if count == PAIRWISE_MEMBERS {
                return self.refuse_duplicates_among_many(object);
            }
            for (_, other) in seen[..count].iter().filter(|(seen, _)| *seen == hash) {
                self.refuse_same_name(*other, at)?;
            }
            seen[count] = (hash, at);
            count += 1;
            at = self.tape[at + 1].next as usize;
        }
        Ok(())
    }

    fn refuse_duplicates_among_many(&self, object: usize) -> Result<(), JsonError> {
        let end = self.tape[object].next as usize;
        let mut names = Vec::new();
        let mut at = object + 1;
        while at < end {
            names.push((self.name(at), at));
            at = self.tape[at + 1].next as usize;
        }
        names.sort();
        names.windows(2).try_for_each(|pair| self.refuse_same_name(pair[0].1, pair[1].1))
    }

    fn name(&self, at: usize) -> std::borrow::Cow<'_, str> {
        let entry = self.tape[at];
        let inner = &self.text[entry.start as usize + 1..entry.end as usize - 1];
        if entry.kind == Kind::EscapedName { super::node::unescape(inner) } else { inner.into() }
    }

    fn refuse_same_name(&self, one: usize, other: usize) -> Result<(), JsonError> {
        if self.name(one) == self.name(other) {
            let offset = self.tape[other].start as usize;
            return Err(JsonError { offset, problem: "member name repeated in its object" });
        }
        Ok(())
    }

    fn string(&mut self, plain: Kind, escaped: Kind) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        let mut kind = plain;
        loop {
            self.at = skip_plain(self.bytes, self.at);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.push(start, kind);
                    return Ok(());
                }
                Some(b'\\') => {
                    kind = escaped;
                    self.escape()?;
                }
                Some(_) => return self.fail("control character in a string"),
                None => return self.fail("unexpected end"),
            }
        }
    }

    /// Steps over one escape; a surrogate must come with its other half.
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.unit()?;
                match unit {
                    0xD800..=0xDBFF => {
                        if self.bytes.get(self.at) != Some(&b'\\') || self.bytes.get(self.at + 1) != Some(&b'u') {
                            return self.fail("lone surrogate in a string");
                        }
                        match self.unit()? {
                            0xDC00..=0xDFFF => Ok(()),
                            _ => self.fail("lone surrogate in a string"),
                        }
                    }
                    0xDC00..=0xDFFF => self.fail("lone surrogate in a string"),
                    _ => Ok(()),
                }
            }
            _ => self.fail("unknown escape in a string"),
        }
    }

    /// Steps over `\uXXXX` and gives XXXX.
    fn unit(&mut self) -> Result<u32, JsonError> {
        let digits = self.bytes.get(self.at + 2..self.at + 6).unwrap_or_default();
        let mut unit = 0;
        for digit in digits {
            match char::from(*digit).to_digit(16) {
                Some(digit) => unit = unit * 16 + digit,
                None => return self.fail("unknown escape in a string"),
            }
        }
        if digits.len() < 4 {
            return self.fail("unexpected end");
        }
        self.at += 6;
        Ok(unit)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.fail("expected a digit");
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let mut kind = Kind::Integer;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return self.fail("number with a leading zero");
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            kind = Kind::Number;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            kind = Kind::Number;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.push(start, kind);
        Ok(())
    }
}

/// Index of the next quote, backslash or control character from `at` on, or the length. Eight bytes at a time.
fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // Bytes that are zero in `word` have their high bit set in the result; false positives only above a true one.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunk should have eight bytes"));
        let quote = zeros(word ^ (ONES * u64::from(b'"')));
        let backslash = zeros(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let special = quote | backslash | control;
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}
