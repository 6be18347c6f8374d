//! The stages of a reconcile, in their order. Each does its IO around pure plans, and stops the reconcile with a
//! [`Halt`](super::halt::Halt) when what follows needs what it could not do.
//!
//! ```text
//! secrets.rs   Secrets that the spec names are there
//! topics.rs    topics exist and match
//! quiesce.rs   workers gone and groups empty, when an epoch or a start offset must change
//! views.rs     keys that a new epoch must not find are deleted
//! offsets.rs   the processor's group has an offset for every partition
//! epochs.rs    the epoch of the views, above all that Redis knows of
//! access.rs    Kafka user and ACLs: widened before the roll-out, narrowed after it
//! cache.rs     Redis user, settings, eviction; the views' progress
//! workers.rs   children applied; old configurations pruned
//! hpa.rs       the autoscaler of mode `Hpa`, made after the workers and removed before them
//! ```

pub mod access;
pub mod cache;
pub mod epochs;
pub mod hpa;
pub mod offsets;
pub mod quiesce;
pub mod secrets;
pub mod topics;
pub mod views;
pub mod workers;
