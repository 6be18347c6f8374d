//! `labelSelector` as Kubernetes writes it. Pure.
//!
//! `a=b, a==b, a!=b, a in (b,c), a notin (b,c), a, !a`, joined by commas: all of them must hold. As in Kubernetes, `!=` and
//! `notin` hold for what does not have the label. `<` and `>` are refused: none of our labels is a number.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

/// Longest text, in bytes.
const MAX_TEXT: usize = 4_096;
/// Most requirements, and most values of one.
const MAX_PARTS: usize = 64;

/// What labels must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// None: the label must be there, whatever it is.
    values: Option<BTreeSet<String>>,
    negated: bool,
}

/// Why a text is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Too long, or too many parts.
    #[error(
        "the label selector is too large: at most {MAX_TEXT} bytes, {MAX_PARTS} requirements and {MAX_PARTS} values are taken"
    )]
    TooLarge,
    /// Something else was expected.
    #[error("the label selector {text:?} is not understood at {at:?}: expected {expected}")]
    Syntax {
        /// All of it.
        text: String,
        /// What was found; empty at the end.
        at: String,
        /// What belongs there.
        expected: &'static str,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(&'static str),
}

type Tokens = Peekable<IntoIter<Token>>;

impl Selector {
    /// Reads a selector; the empty one selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_TEXT {
            return Err(SelectorError::TooLarge);
        }
        let mut tokens = tokens(text)?.into_iter().peekable();
        let mut requirements = Vec::new();
        while tokens.peek().is_some() {
            requirements.push(requirement(text, &mut tokens)?);
            if requirements.len() > MAX_PARTS {
                return Err(SelectorError::TooLarge);
            }
            match tokens.next() {
                None => {}
                Some(Token::Sign(",")) if tokens.peek().is_some() => {}
                other => return Err(unexpected(text, other.as_ref(), "',' or the end")),
            }
        }
        Ok(Self(requirements))
    }

    /// True when these labels are as wanted.
    pub fn matches(&self, labels: &[(&str, &str)]) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.iter().find(|(key, _)| *key == requirement.key).map(|(_, value)| *value);
            let holds = match (&requirement.values, value) {
                (None, value) => value.is_some(),
                (Some(wanted), Some(value)) => wanted.contains(value),
                (Some(_), None) => false,
            };
            holds != requirement.negated
        })
    }
}

fn requirement(text: &str, tokens: &mut Tokens) -> Result<Requirement, SelectorError> {
    let absent = tokens.next_if_eq(&Token::Sign("!")).is_some();
    let key = word(text, tokens, "the name of a label")?;
    if absent {
        return Ok(Requirement { key, values: None, negated: true });
    }
    let (values, negated) = match tokens.peek() {
        None | Some(Token::Sign(",")) => (None, false),
        Some(Token::Sign(sign @ ("=" | "==" | "!="))) => {
            let negated = *sign == "!=";
            tokens.next();
            // `a=` asks for an empty value.
            let value = if matches!(tokens.peek(), Some(Token::Word(_))) {
                word(text, tokens, "a value")?
            } else {
                String::new()
            };
            (Some(BTreeSet::from([value])), negated)
        }
        Some(Token::Word(operator)) if operator == "in" || operator == "notin" => {
            let negated = operator == "notin";
            tokens.next();
            (Some(set(text, tokens)?), negated)
        }
        other => return Err(unexpected(text, other, "'=', '==', '!=', 'in', 'notin', ',' or the end")),
    };
    Ok(Requirement { key, values, negated })
}

/// `(a,b)`.
fn set(text: &str, tokens: &mut Tokens) -> Result<BTreeSet<String>, SelectorError> {
    sign(text, tokens, "(", "'('")?;
    let mut values = BTreeSet::new();
    loop {
        values.insert(word(text, tokens, "a value")?);
        if values.len() > MAX_PARTS {
            return Err(SelectorError::TooLarge);
        }
        if tokens.next_if_eq(&Token::Sign(",")).is_none() {
            sign(text, tokens, ")", "',' or ')'")?;
            return Ok(values);
        }
    }
}

fn word(text: &str, tokens: &mut Tokens, expected: &'static str) -> Result<String, SelectorError> {
    match tokens.next() {
        Some(Token::Word(word)) => Ok(word),
        other => Err(unexpected(text, other.as_ref(), expected)),
    }
}

fn sign(text: &str, tokens: &mut Tokens, wanted: &'static str, expected: &'static str) -> Result<(), SelectorError> {
    match tokens.next() {
        Some(Token::Sign(found)) if found == wanted => Ok(()),
        other => Err(unexpected(text, other.as_ref(), expected)),
    }
}

fn unexpected(text: &str, found: Option<&Token>, expected: &'static str) -> SelectorError {
    let at = match found {
        None => String::new(),
        Some(Token::Word(word)) => word.clone(),
        Some(Token::Sign(sign)) => (*sign).to_owned(),
    };
    SelectorError::Syntax { text: text.to_owned(), at, expected }
}

fn tokens(text: &str) -> Result<Vec<Token>, SelectorError> {
    let (mut tokens, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let sign = ["==", "!=", "=", "!", ",", "(", ")"].into_iter().find(|sign| rest.starts_with(sign));
        let length = if let Some(sign) = sign {
            tokens.push(Token::Sign(sign));
            sign.len()
        } else {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            let length = rest.find(|c| !plain(c)).unwrap_or(rest.len());
            if length == 0 {
                let at = rest.chars().take(1).collect();
                let expected = "letters, digits, '-', '_', '.', '/' and operators";
                return Err(SelectorError::Syntax { text: text.to_owned(), at, expected });
            }
            tokens.push(Token::Word(rest[..length].to_owned()));
            length
        };
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(text: &str, labels: &[(&str, &str)]) -> bool {
        Selector::parse(text).unwrap_or_else(|error| panic!("{error}")).matches(labels)
    }

    #[test]
    fn all_requirements_must_hold() {
        let labels = [("group", "billing"), ("topic", "order.created")];
        for (text, expected) in [
            ("", true),
            ("  ", true),
            ("group=billing", true),
            ("group==billing,topic=order.created", true),
            ("group = billing , topic = other", false),
            ("group in (a, billing)", true),
            ("group in (in)", false),
            ("topic notin (a,b)", true),
            ("other notin (a)", true),
            ("other!=a", true),
            ("group!=billing", false),
            ("group", true),
            ("other", false),
            ("!other", true),
            ("!group", false),
            ("group=", false),
            ("in in (in)", false),
        ] {
            assert_eq!(selects(text, &labels), expected, "{text}");
        }
        assert!(selects("in in (in)", &[("in", "in")]) && selects("a=", &[("a", "")]));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            ",", "a,", "a,,b", "a=b c", "=b", "a in b", "a in (", "a in ()", "a in (b", "a>1", "a=b;c", "!", "!a=b",
            "a=é", "a(b)",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert_eq!(Selector::parse(&"a".repeat(MAX_TEXT + 1)), Err(SelectorError::TooLarge));
        assert_eq!(Selector::parse(&vec!["a"; MAX_PARTS + 1].join(",")), Err(SelectorError::TooLarge));
        let values: Vec<String> = (0..=MAX_PARTS).map(|n| n.to_string()).collect();
        assert_eq!(Selector::parse(&format!("a in ({})", values.join(","))), Err(SelectorError::TooLarge));
    }
}
