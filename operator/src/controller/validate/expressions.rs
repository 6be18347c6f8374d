//! What must be known of an expression before it runs: that it compiles, and the literal its result begins with.

use sluice_crds::names::KeyPrefix;
use sluice_crds::v1alpha1::Expression;
use sluice_transform::{CompileError, Program, ViewProgram, literal_prefix};

use super::Invalid;
use crate::controller::validated::{Applier, Processor};

/// Mistakes named in one message.
const MAX_ERRORS: usize = 5;

/// The prefix of every key that an expression gives: the one the spec names, which must agree with what the expression
/// shows, or the expression's own first literal. `known` are the variables it may name.
pub fn key_prefix(
    field: &str,
    expression: &Expression,
    given: Option<&str>,
    known: &[&str],
) -> Result<KeyPrefix, Invalid> {
    let shown = literal_prefix(expression, known);
    let prefix = match (given, shown) {
        (Some(given), Some(shown)) if !shown.starts_with(given) => {
            let problem = format!("keyPrefix {given:?} is not how the keys begin: they begin with {shown:?}");
            return Err(Invalid::Contradiction { field: field.to_owned(), problem });
        }
        (Some(given), _) => given.to_owned(),
        (None, Some(shown)) => shown,
        (None, None) => {
            return Err(Invalid::NoKeyPrefix { field: field.to_owned(), expression: expression.0.clone() });
        }
    };
    KeyPrefix::parse(prefix).map_err(|problem| Invalid::Name { field: format!("{field} (key prefix)"), problem })
}

/// Compiles steps, routes and views as the worker will, so that no worker ever starts with an expression that does not.
pub fn compile(processor: Option<&Processor>, applier: Option<&Applier>) -> Result<(), Invalid> {
    let mut errors: Vec<CompileError> = Vec::new();
    if let Some(processor) = processor {
        // How large a record may be and what is compacted is not known yet, and does not matter here.
        let routing = processor.routing(|_| false);
        let limits = sluice_transform::Limits { max_record_bytes: usize::MAX };
        if let Err(found) = Program::compile(processor.format, &processor.steps, &routing, limits) {
            errors.extend(found);
        }
    }
    for topic in applier.iter().flat_map(|applier| &applier.topics) {
        if let Err(found) = ViewProgram::compile("views", topic.format, &topic.views) {
            errors.extend(found.into_iter().filter(|error| !errors.contains(error)).collect::<Vec<_>>());
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let mut text: Vec<String> = errors.iter().take(MAX_ERRORS).map(ToString::to_string).collect();
    if errors.len() > MAX_ERRORS {
        text.push(format!("and {} more", errors.len() - MAX_ERRORS));
    }
    Err(Invalid::Expression(text.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_prefix_must_agree_with_the_expression() {
        let expression = |text: &str| Expression(text.to_owned());
        assert_eq!(key_prefix("f", &expression("key"), Some("a:"), &["key"]).unwrap().as_str(), "a:");
        assert_eq!(key_prefix("f", &expression("'a:b:' + key"), Some("a:"), &["key"]).unwrap().as_str(), "a:");
        assert!(matches!(
            key_prefix("f", &expression("'b:' + key"), Some("a:"), &["key"]),
            Err(Invalid::Contradiction { .. })
        ));
        assert!(matches!(key_prefix("f", &expression("key"), None, &["key"]), Err(Invalid::NoKeyPrefix { .. })));
        assert!(matches!(key_prefix("f", &expression("'sluice/' + key"), None, &["key"]), Err(Invalid::Name { .. })));
    }
}
