//! What is looked at all the time, once a connection and not once a resource: lag, reports of workers, servers that are
//! away, users of resources that are gone.
//!
//! ```text
//! board.rs     what the sweeps know of each resource, and what reconciles told them to look at
//! lag.rs       PURE: offsets over time → seconds, coarse steps that have lasted, progress of views
//! sums.rs      PURE: lag of a group in a topic, while all of it is known
//! monitors.rs  IO: groups of others that the settings name
//! offsets.rs   PURE: offsets that a running pipeline has lost
//! kafka.rs     IO: one round over a Kafka connection        redis.rs   IO: one round over a Redis connection
//! orphans.rs   IO: users, ACLs of resources that are gone
//! run.rs       the loop
//! ```
//! Reconciles read the board; a change on it triggers a reconcile. Nothing here writes to Kubernetes.

mod board;
mod kafka;
mod lag;
mod monitors;
mod offsets;
pub mod orphans;
mod redis;
mod run;
mod sums;

pub use board::{Board, GroupTarget, StalledPartition, Target, Trigger, Triggers, ViewProgress, ViewTarget};
pub(crate) use kafka::{Ends, bounds};
pub(crate) use lag::{EndHistory, step as lag_step};
pub(crate) use offsets::{Bounds, Committed};
pub use run::run;
pub use sums::{Granted, TopicLag, oldest_known};

#[cfg(test)]
pub(crate) mod tests_support {
    use super::Target;
    use crate::claims::Claimant;
    use crate::controller::test_support::{PIPELINE, facts, pipeline};

    /// What is looked at for the pipeline that tests share.
    pub fn target() -> Target {
        let resource = pipeline(PIPELINE).unwrap();
        let claimant = Claimant {
            created: 1,
            uid: "u".to_owned(),
            kind: sluice_crds::names::Kind::EventPipeline,
            namespace: "shop".to_owned(),
            name: "enrich".to_owned(),
        };
        Target::of(claimant, &resource, &facts(&resource), 1, true)
    }
}
