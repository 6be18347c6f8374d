//! JSON as text with an index.
//!
//! A value is scanned once into a flat *tape* of entries that point into the text; nothing is converted or copied.
//! Members are read by walking the tape, and changes are splices of the text, so what nobody touched keeps its exact
//! bytes: number formats, escapes and white space.

mod edit;
mod node;
mod scan;
mod write;

pub(crate) use edit::{PathConflict, PathTree, Splices};
pub(crate) use node::{Doc, Json, Node};
pub(crate) use scan::{Entry, Kind, MAX_DEPTH, scan};
pub(crate) use write::{write_double, write_string};
