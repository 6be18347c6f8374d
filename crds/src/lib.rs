//! The contract of Sluice: what a user writes, what the operator hands to a worker, and the names both agree on.
//!
//! Pure library: no clock, no randomness, no network and no async runtime in its dependency tree (CI asserts it).
//!
//! ```text
//! v1alpha1/        the API: EventPipeline, CacheSync, their status and the CEL rules an API server enforces
//! conditions.rs    condition types and reasons, and the merge that moves lastTransitionTime only on a flip
//! names/           newtypes and derived names: principals, groups, transactional ids, Redis users, watermark keys, children, labels
//! worker_config.rs the versioned file a worker starts from; everything the operator resolved, nothing it has to look up
//! report.rs        what a worker tells the operator in the metadata of its offset commits
//! bin/crdgen.rs    prints the CustomResourceDefinitions as YAML
//! ```
//!
//! Data flows one way: `v1alpha1` (what was asked) → operator's validate → `worker_config` (what was resolved) → worker.
#![forbid(unsafe_code)]

pub mod conditions;
pub mod names;
pub mod report;
pub mod v1alpha1;
pub mod worker_config;
