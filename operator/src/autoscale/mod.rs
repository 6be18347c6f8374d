//! How many workers there are, by the load: the autoscaler's eyes and hands. Its brain is the crate `sluice-autoscaler`.
//!
//! ```text
//! measure.rs   PURE: offsets, ends and reports of one partition over time → rates, lag
//! inputs.rs    PURE: what a round has read → the brain's inputs for each resource
//! shown.rs     PURE: decision → status, only when something of it has changed for good
//! retention.rs IO: how long Kafka keeps the offsets of a group that sleeps
//! rivals.rs    who else scales the same workers: HPAs and ScaledObjects (listing is IO, the rest PURE)
//! book.rs      what reconciles allow, and what they show: the meeting place of the two
//! hands.rs     IO: writes `/scale` of a Deployment
//! round.rs     IO: one round over a Kafka connection, after each round of the sweep
//! ```
//! Nothing here runs inside a reconcile. A reconcile allows scaling when it has come to its end, and forbids it before it stops
//! workers itself; the two never write the number of workers at the same time (docs/adr/0009).

mod book;
mod hands;
mod inputs;
mod measure;
mod retention;
mod rivals;
mod round;
mod shown;

#[cfg(test)]
pub(crate) use book::tests;
pub use book::{Forbidden, Hpa, Plan, ScalingBook, Subject};
pub use hands::SCALE_MANAGER;
pub use round::{Memory, Swept, round};
pub use shown::seed;
