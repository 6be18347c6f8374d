//! The gate of every test that needs the stack.

use super::Stack;
use crate::stack::error::StackError;
use crate::stack::install::Group;

/// Set to `1` where a skipped test must be a failed one.
const STRICT: &str = "SLUICE_REQUIRE_STACK";

/// The stack, if these groups of it are there. Else prints `skipped: why` and answers `None`; with `SLUICE_REQUIRE_STACK=1`
/// it panics instead, so that no test is left out unseen.
///
/// ```no_run
/// # use sluice_e2e::stack::{Group, require};
/// let Some(stack) = require(&[Group::Kafka, Group::Redis]) else { return };
/// ```
pub fn require(groups: &[Group]) -> Option<Stack> {
    gate(Stack::attach().and_then(|stack| {
        for group in groups {
            match group {
                Group::Kafka => stack.kafka().map(drop),
                Group::Redis => stack.redis().map(drop),
                Group::Kube => stack.kube().map(drop),
            }?;
        }
        Ok(stack)
    }))
}

/// As [`require`], for tests that kill or freeze parts: an existing cluster will not do.
pub fn require_local(groups: &[Group]) -> Option<Stack> {
    let stack = require(groups)?;
    if stack.is_local() {
        return Some(stack);
    }
    gate(Err(StackError::NotLocal("this test")))
}

fn gate(stack: Result<Stack, StackError>) -> Option<Stack> {
    match stack {
        Ok(stack) => Some(stack),
        Err(error) if std::env::var(STRICT).is_ok_and(|value| value == "1") => {
            panic!("{STRICT}=1 and the stack cannot be used: {error}")
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}
