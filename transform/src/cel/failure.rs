//! The crate's errors in our words, without the values they carry: contents of records stay out of messages.

use cel::{ExecutionError, Value};

use crate::error::{Failure, Reason};

/// Longest name of a field in a message.
const MAX_NAME: usize = 80;

/// Turns an error of an evaluation into a reason and a message. `source` is the expression: names of fields are only
/// told if they are written in it.
pub(super) fn failure(error: &ExecutionError, source: &str) -> Failure {
    match error {
        ExecutionError::NoSuchKey(name) => {
            Failure::new(Reason::MissingField, format!("there is no field {}", known_name(name, source)))
        }
        ExecutionError::IndexOutOfBounds(_) => Failure::new(Reason::MissingField, "the index is outside the list"),
        ExecutionError::NoSuchOverload(overload) => {
            Failure::new(Reason::TypeError, applied(overload.function(), overload.argument_types()))
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            Failure::new(Reason::TypeError, arithmetic(operator, left, right))
        }
        ExecutionError::UnexpectedType { got, want } => {
            Failure::new(Reason::TypeError, format!("got {got} where {want} is needed"))
        }
        ExecutionError::UnsupportedKeyType(_) | ExecutionError::UnsupportedIndex(..) => {
            Failure::new(Reason::TypeError, "a value of this type cannot be an index")
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            Failure::new(Reason::ExpressionError, "division by zero")
        }
        ExecutionError::Overflow(operator, ..) => {
            Failure::new(Reason::ExpressionError, format!("the result of {} does not fit in 64 bits", word(operator)))
        }
        ExecutionError::FunctionError { function, .. } => {
            Failure::new(Reason::ExpressionError, format!("{function}() cannot take this value"))
        }
        ExecutionError::DuplicateKey(_) => Failure::new(Reason::ExpressionError, "a map literal repeats a key"),
        ExecutionError::InvalidArgumentCount { .. } | ExecutionError::MissingArgumentOrTarget => {
            Failure::new(Reason::TypeError, "a function got another number of arguments than it takes")
        }
        ExecutionError::UndeclaredReference(name) => {
            Failure::new(Reason::ExpressionError, format!("{} is not known here", known_name(name, source)))
        }
        _ => Failure::new(Reason::ExpressionError, "the expression cannot be evaluated"),
    }
}

fn known_name(name: &str, source: &str) -> String {
    if name.len() <= MAX_NAME && source.contains(name) { format!("{name:?}") } else { "of that name".to_owned() }
}

fn applied(function: &str, types: &[String]) -> String {
    let operator = function.trim_matches('_');
    match (operator, types) {
        (".", [operand, ..]) => format!("a value of type {operand} has no fields"),
        ("[" | "[_]", [operand, index]) => format!("a value of type {operand} has no index of type {index}"),
        _ => format!("{} cannot be applied to ({})", operator.trim_start_matches('@'), types.join(", ")),
    }
}

fn arithmetic(operator: &str, left: &Value, right: &Value) -> String {
    let (left, right) = (type_name(left), type_name(right));
    let numbers = ["int", "uint", "double"];
    let hint = if left == right || !numbers.contains(&left) || !numbers.contains(&right) {
        ""
    } else if left == "double" || right == "double" {
        ": use double(x)"
    } else {
        ": use int(x)"
    };
    format!("{} of {left} and {right} is not defined{hint}", word(operator))
}

fn word(operator: &str) -> &'static str {
    match operator {
        "add" => "+",
        "sub" => "-",
        "mul" => "*",
        "div" => "/",
        "rem" => "%",
        _ => "the operation",
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::List(_) => "list",
        Value::Map(_) => "map",
        Value::Int(_) => "int",
        Value::UInt(_) => "uint",
        Value::Float(_) => "double",
        Value::String(_) => "string",
        Value::Bytes(_) => "bytes",
        Value::Bool(_) => "bool",
        // Our own values have no counterpart here and come as null too.
        Value::Null => "null, map or list",
        _ => "another type",
    }
}
