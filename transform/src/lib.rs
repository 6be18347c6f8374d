//! The step language: what happens to a record between a source topic, Redis lookups, output topics and Redis views.
//!
//! Pure library: no clock, no randomness, no network and no async runtime in its dependency tree (CI asserts it). The
//! worker runs records through it; the operator compiles with it, so that a mistake in an expression is a condition on
//! the resource and never a surprise in a worker.
//!
//! ```text
//! program/    Program: steps and routing, compiled once. start(record) → Progress:
//!               NeedLookups(pending): ask Redis for pending.requests(), then pending.resume(results)
//!               Done(outcome): Filtered | Discarded | NoRoute | DeadLetter | Outputs
//! lookup.rs   what Redis gave → PreparedLookup, parsed once and cached by the caller
//! views.rs    ViewProgram: records of a committed topic → mutations of Redis keys
//! inspect.rs  literal prefixes, variables and key forms of expressions, for the operator
//! cel/        expressions: compiling, checking, variables, results; the only place that names the CEL crate
//! json/       JSON as text with an index: reading without copying, changing by splices
//! record.rs   a borrowed Kafka record          error.rs  reasons, dead letters, compile errors
//! ```
//!
//! # What we promise about values
//!
//! - **Untouched bytes.** A value that no step changed goes out as it came. After a change every other member keeps its
//!   exact text: number formats, escapes, order and white space. New members come last, in the order given. An
//!   expression that is only a path (`value.a.b`) copies the text too.
//! - **JSON** is RFC 8259, and stricter where two readers could disagree: a byte order mark, a repeated member name, a
//!   lone surrogate escape and more than 128 levels are `InvalidJson`.
//! - **Numbers.** A JSON number without fraction and exponent is an `int`; beyond 64 bits signed a `uint`; others are
//!   `double`. A number that none of them holds can only be copied, compared for equality, and made a `double` or a
//!   `string` on request: digits are never lost unasked. Arithmetic does not mix types, and the message says so.
//! - **Variables.** `key`: a string if it is UTF-8, else bytes, null if there is none. `value`: the JSON value, bytes
//!   with format Raw, null for a tombstone. `headers`: a map, the last header of a name counts; values like `key`.
//!   `topic` and `partition`, `offset`: string and ints. `timestamp`: a CEL timestamp, null if the record has none.
//!   Each lookup by its step's name: String as string (bytes if not UTF-8), Json as the value it says, Hash as a map of
//!   strings, null if it missed and `onMiss` is `Continue`.
//! - **Set.** All expressions of a step see the record as it entered the step. Missing objects on the way are made; a
//!   way through something else than an object is a `TypeError`. Map literals come out with sorted names.
//! - **Keys.** A route's key may be a string, bytes, an int, a bool (as text) or null (no key).
//! - **Tombstones** bypass the steps and go to every route with a view, whatever its `when`; without such a route they
//!   follow the routing. Key expressions then see `value == null`: write `value == null ? key : value.id`.
//! - **Failures** cost one record. The first step that fails, in their order, names the dead letter; a failure in one
//!   route is a failure of the record, no matter how many others took it.
//! - **Bounds.** Expressions draw on a budget of 100,000 iterations; a result larger than the limit is `TooLarge`.
//! - **Views.** The expiry is the record's timestamp plus `ttlSeconds`, without jitter.
#![forbid(unsafe_code)]

mod cel;
mod error;
mod inspect;
mod json;
mod lookup;
mod program;
mod record;
mod views;

pub use error::{CompileError, DeadLetter, MAX_MESSAGE_BYTES, Position, ROUTING, Reason, SOURCE};
pub use inspect::{KeyForm, key_form, literal_prefix, variables};
pub use lookup::{LookupRequest, LookupValue, PreparedLookup, prepare_lookup};
pub use program::{Limits, Outcome, Outputs, Pending, Program, Progress, RoutedKey};
pub use record::{Header, RecordView};
pub use views::{Mutation, Op, ViewError, ViewProgram};

/// Variables of every record, in every expression but the keys of views.
pub const RECORD_VARIABLES: [&str; 7] = cel::RECORD_VARIABLES;
/// Variables that the key of a view may name.
pub const VIEW_KEY_VARIABLES: [&str; 2] = cel::VIEW_KEY_VARIABLES;
