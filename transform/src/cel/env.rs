//! The functions we promise, and the environment they are declared in.

use std::sync::{Arc, LazyLock};

use cel::common::types::{CelDouble, CelString, DYN_TYPE};
use cel::common::value::CowVal;
use cel::{Env, ExecutionError, extensions};

use super::equality::{contains, equal};
use super::patterns::{self, MATCHES};
use super::rewrite::{CONTAINS, EQUALS};
use super::values::{BIG_NUMBER, BigNumber, bool_val};

/// How a function may be called.
pub(super) struct Signature {
    pub(super) name: &'static str,
    /// Called as `x.name(…)`, not as `name(…)`.
    pub(super) member: bool,
    /// Argument counts, without the target.
    pub(super) least: usize,
    pub(super) most: usize,
}

const fn global(name: &'static str, least: usize, most: usize) -> Signature {
    Signature { name, member: false, least, most }
}

const fn member(name: &'static str, least: usize, most: usize) -> Signature {
    Signature { name, member: true, least, most }
}

/// Every function an expression may call. Operators and macros (`has`, `all`, `exists`, `exists_one`, `map`,
/// `filter`) come on top.
pub(super) const FUNCTIONS: &[Signature] = &[
    global("bool", 1, 1),
    global("bytes", 1, 1),
    global("double", 1, 1),
    global("duration", 1, 1),
    global("dyn", 1, 1),
    global("int", 1, 1),
    global("matches", 2, 2),
    global("size", 1, 1),
    global("string", 1, 1),
    global("timestamp", 1, 1),
    global("type", 1, 1),
    global("uint", 1, 1),
    global("optional.none", 0, 0),
    global("optional.of", 1, 1),
    global("optional.ofNonZeroValue", 1, 1),
    global("math.abs", 1, 1),
    global("math.ceil", 1, 1),
    global("math.floor", 1, 1),
    global("math.greatest", 1, 8),
    global("math.least", 1, 8),
    global("math.round", 1, 1),
    global("math.sign", 1, 1),
    global("math.trunc", 1, 1),
    member("charAt", 1, 1),
    member("contains", 1, 1),
    member("endsWith", 1, 1),
    member("getDate", 0, 1),
    member("getDayOfMonth", 0, 1),
    member("getDayOfWeek", 0, 1),
    member("getDayOfYear", 0, 1),
    member("getFullYear", 0, 1),
    member("getHours", 0, 1),
    member("getMilliseconds", 0, 1),
    member("getMinutes", 0, 1),
    member("getMonth", 0, 1),
    member("getSeconds", 0, 1),
    member("hasValue", 0, 0),
    member("indexOf", 1, 2),
    member("join", 0, 1),
    member("lastIndexOf", 1, 2),
    member("lowerAscii", 0, 0),
    member("matches", 1, 1),
    member("or", 1, 1),
    member("orValue", 1, 1),
    member("replace", 2, 3),
    member("reverse", 0, 0),
    member("size", 0, 0),
    member("split", 1, 2),
    member("startsWith", 1, 1),
    member("substring", 1, 2),
    member("trim", 0, 0),
    member("upperAscii", 0, 0),
    member("value", 0, 0),
];

/// The environment all expressions are compiled and run in.
pub(super) fn env() -> &'static Arc<Env> {
    static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(build()));
    &ENV
}

fn build() -> Env {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings).expect("the strings library should be new to the standard environment");
    env.add_extension(extensions::math).expect("the math library should be new to the standard environment");
    env.add_overload(EQUALS, "sluice_equals", vec![DYN_TYPE, DYN_TYPE], equals).expect("name should be ours alone");
    env.add_overload(CONTAINS, "sluice_contains", vec![DYN_TYPE, DYN_TYPE], is_in).expect("name should be ours alone");
    env.add_overload(MATCHES, "sluice_matches", vec![DYN_TYPE, DYN_TYPE], patterns::matches)
        .expect("name should be ours alone");
    env.add_overload("double", "sluice_big_number_to_double", vec![BIG_NUMBER], big_to_double)
        .expect("type should be ours alone");
    env.add_overload("string", "sluice_big_number_to_string", vec![BIG_NUMBER], big_to_string)
        .expect("type should be ours alone");
    env
}

// The crate's type of functions takes its arguments by value.
#[allow(clippy::needless_pass_by_value)]
fn equals<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    match args.as_slice() {
        [one, other] => Ok(bool_val(equal(one.as_ref(), other.as_ref()))),
        _ => Err(ExecutionError::invalid_argument_count(2, args.len())),
    }
}

#[allow(clippy::needless_pass_by_value)]
fn is_in<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    match args.as_slice() {
        [item, all] => contains(all.as_ref(), item.as_ref()).map(bool_val),
        _ => Err(ExecutionError::invalid_argument_count(2, args.len())),
    }
}

fn big<'a>(args: &'a [CowVal<'_, '_>], function: &str) -> Result<&'a BigNumber, ExecutionError> {
    args.first()
        .and_then(|arg| arg.downcast_ref::<BigNumber>())
        .ok_or_else(|| ExecutionError::function_error(function, "not a number"))
}

#[allow(clippy::needless_pass_by_value)]
fn big_to_double<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    match big(&args, "double")?.text().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(CowVal::owned(CelDouble::from(number))),
        _ => Err(ExecutionError::function_error("double", "number out of range")),
    }
}

#[allow(clippy::needless_pass_by_value)]
fn big_to_string<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(CowVal::owned(CelString::from(big(&args, "string")?.text().to_owned())))
}
