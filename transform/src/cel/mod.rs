//! CEL, behind our own interface: the crate's API changes between releases, so it is named in this folder only.
//!
//! ```text
//! env.rs      the functions we promise, and the environment they are declared in
//! parse.rs    the crate's parser, guarded against expressions that exhaust the stack
//! check.rs    what the crate lacks: unknown variables and functions, wrong argument counts, before the first record
//! rewrite.rs  changes to the syntax tree: equality of our values, a budget for comprehensions
//! paths.rs    value.a.b in one step
//! patterns.rs regular expressions, compiled with the expression
//! values.rs   our values: JSON nodes, headers and hashes that borrow, big numbers
//! equality.rs == and in, for our values and the crate's
//! scope.rs    the variables of one record
//! expr.rs     a compiled expression and what its result may be
//! failure.rs  the crate's errors, without the values they carry
//! ```

mod check;
mod env;
mod equality;
mod expr;
mod failure;
mod parse;
mod paths;
mod patterns;
mod rewrite;
mod scope;
mod values;

pub(crate) use check::{RECORD_VARIABLES, VIEW_KEY_VARIABLES, reserved_name};
pub(crate) use expr::Expr;
pub(crate) use scope::{Scope, Value};
