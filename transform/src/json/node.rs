//! Reading a scanned text.

use std::borrow::Cow;

use super::scan::{Entry, JsonError, Kind, name_hash, scan};

/// A JSON text with its tape.
#[derive(Debug)]
pub(crate) struct Json {
    text: String,
    tape: Vec<Entry>,
}

impl Json {
    /// Scans and keeps a text.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, JsonError> {
        let mut tape = Vec::new();
        scan(&bytes, &mut tape)?;
        tape.shrink_to_fit();
        let text = String::from_utf8(bytes).map_err(|_| JsonError { offset: 0, problem: "invalid UTF-8" })?;
        Ok(Self { text, tape })
    }

    pub(crate) fn doc(&self) -> Doc<'_> {
        Doc { text: &self.text, tape: &self.tape }
    }

    /// Bytes of memory.
    pub(crate) fn size(&self) -> usize {
        self.text.capacity() + self.tape.capacity() * size_of::<Entry>()
    }
}

/// A borrowed text with its tape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doc<'a> {
    pub(crate) text: &'a str,
    pub(crate) tape: &'a [Entry],
}

impl<'a> Doc<'a> {
    pub(crate) fn root(self) -> Node<'a> {
        Node { doc: self, index: 0 }
    }
}

/// One value in a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    doc: Doc<'a>,
    index: usize,
}

impl<'a> Node<'a> {
    fn entry(self) -> Entry {
        self.doc.tape[self.index]
    }

    pub(crate) fn kind(self) -> Kind {
        self.entry().kind
    }

    /// First byte and one past the last.
    pub(crate) fn span(self) -> (usize, usize) {
        let entry = self.entry();
        (entry.start as usize, entry.end as usize)
    }

    /// The value's own text.
    pub(crate) fn raw(self) -> &'a str {
        let (start, end) = self.span();
        &self.doc.text[start..end]
    }

    /// The text of a string (or name) without quotes and escapes.
    pub(crate) fn string(self) -> Cow<'a, str> {
        let raw = self.raw();
        let inner = &raw[1..raw.len() - 1];
        match self.kind() {
            Kind::EscapedString | Kind::EscapedName => unescape(inner),
            _ => Cow::Borrowed(inner),
        }
    }

    /// Members of an object; nothing for other values.
    pub(crate) fn members(self) -> Members<'a> {
        let end = if self.kind() == Kind::Object { self.entry().next as usize } else { 0 };
        Members { doc: self.doc, at: self.index + 1, end }
    }

    /// Elements of an array; nothing for other values.
    pub(crate) fn elements(self) -> impl Iterator<Item = Node<'a>> {
        let end = if self.kind() == Kind::Array { self.entry().next as usize } else { 0 };
        let mut at = self.index + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let node = Node { doc: self.doc, index: at };
                at = node.entry().next as usize;
                node
            })
        })
    }

    /// The member of an object with a name.
    pub(crate) fn member(self, name: &str) -> Option<Member<'a>> {
        let hash = name_hash(name.as_bytes());
        self.members().find(|member| member.name.entry().next == hash && member.name.string() == name)
    }

    pub(crate) fn get(self, name: &str) -> Option<Node<'a>> {
        self.member(name).map(|member| member.value)
    }

    /// What the value is, for messages.
    pub(crate) fn type_name(self) -> &'static str {
        match self.kind() {
            Kind::Null => "null",
            Kind::False | Kind::True => "a bool",
            Kind::Integer | Kind::Number => "a number",
            Kind::String | Kind::EscapedString | Kind::Name | Kind::EscapedName => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        }
    }
}

/// A member: its name and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) name: Node<'a>,
    pub(crate) value: Node<'a>,
}

/// Members in the order of the text.
pub(crate) struct Members<'a> {
    doc: Doc<'a>,
    at: usize,
    end: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        if self.at >= self.end {
            return None;
        }
        let name = Node { doc: self.doc, index: self.at };
        let value = Node { doc: self.doc, index: self.at + 1 };
        self.at = value.entry().next as usize;
        Some(Member { name, value })
    }
}

/// Resolves the escapes of a scanned string. The scanner let only well-formed ones through.
pub(crate) fn unescape(inner: &str) -> Cow<'_, str> {
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or_default();
        match escape {
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => rest = unescape_unit(rest, &mut out),
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Resolves `XXXX` (and a second half `\uXXXX` of a surrogate pair) at the start of `rest`; gives what follows.
fn unescape_unit<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let unit = |at: usize| rest.get(at..at + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let high = unit(0);
    if (0xD800..0xDC00).contains(&high) {
        let code = 0x10000 + ((high - 0xD800) << 10) + unit(6).wrapping_sub(0xDC00);
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        return rest.get(10..).unwrap_or_default();
    }
    out.push(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
    rest.get(4..).unwrap_or_default()
}
