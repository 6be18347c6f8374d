//! The judge: from what Kafka and Redis hold, and what was sampled while faults were injected, to broken promises.
//!
//! ```text
//!  input, outputs, dead letters, offsets ─▶ pipeline.rs  I1 exactly once · I2 order per key · I3 offsets and outputs together
//!  view topic ─▶ fold.rs ─▶ timeline of each Redis key ─┬▶ view.rs       I4 Redis is the fold; expiry is absolute
//!                                                       ├▶ samples.rs    I5 only committed values · I6 never backwards
//!                                                       └▶ watermark.rs  I7 a record proves its data · caught up
//!  committed offsets, ends ─▶ lag.rs  I9
//! ```
//!
//! Everything here is pure: dumps in, [`Report`] out. [`read`] fills the dumps by means that share no code with the worker.
//! A judge that never convicts is worth nothing, so `mutants.rs` corrupts a good history in every way we can think of and
//! wants each corruption reported.

mod fault;
mod fold;
mod json;
mod lag;
#[cfg(test)]
mod mutants;
mod pipeline;
mod record;
mod report;
mod samples;
#[cfg(test)]
mod synthetic;
mod view;
mod violation;
mod watermark;

pub use fault::{FaultKind, FaultLog, FaultWindow};
pub use fold::{Folded, Timeline, Version, ViewKind, ViewSpec, fold};
pub use lag::check_lag;
pub use pipeline::{Content, Fate, OffsetProbe, PipelineHistory, Placement, check_pipeline, check_probes};
pub use record::{Record, TopicDump};
pub use report::Report;
pub use samples::{Sample, check_samples};
pub use view::{Entry, Held, RedisDump, check_view};
pub use violation::Violation;
pub use watermark::{Mark, ShardSnapshot, SlotRange, check_caught_up, check_snapshot, slot_of};
