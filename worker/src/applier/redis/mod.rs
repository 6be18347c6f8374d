//! The applier's calls to Redis.
//!
//! ```text
//! apply.lua  compare-and-advance        script.rs  its arguments and answers (pure)
//! adopt.lua  makes the hash of records  open.rs    finds it, proves it, brings it to its place, reads it
//!                                       hashes.rs  how it is asked for and read
//! ```

mod hashes;
mod open;
mod script;

pub use open::{Looked, Opener};
pub use script::{By, Scripts, read_outcome};
