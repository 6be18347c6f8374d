//! What a change of the number of workers costs, and how late records are meanwhile: measured on real workers.
//!
//! ```text
//! tracer.rs  IO: asks Kafka five times a second who is in the group, what it has committed and where partitions end
//! costs.rs   PURE: moments → times of start, pauses of partitions that moved, lateness
//! report.rs  PURE: a run → docs/autoscaling/live.md
//! ```

mod costs;
mod report;
mod tracer;

pub use costs::{Lateness, Times, lateness, pauses, start_ups};
pub use report::{Move, Phase, Run, render};
pub use tracer::{Moment, Tracer};
