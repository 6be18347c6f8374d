//! `sluice.dev/v1alpha1`: the kinds `EventPipeline` (`evp`) and `CacheSync` (`csync`).
//!
//! Unions are structs of `Option`s, checked exactly-one-of by CEL in the API server and turned into an enum by the
//! operator's validate: an operator that is older than the CRD then meets an unknown member as a condition on the
//! resource, not as an object it cannot read. Inside list items nothing has a schema default (Argo CD would
//! report drift for ever); absent means the documented default.

mod autoscaling;
mod cache_sync;
mod connection;
mod definitions;
mod event_pipeline;
mod patterns;
mod routing;
mod status;
mod steps;
mod topics;
mod views;
mod worker;

pub use autoscaling::*;
pub use cache_sync::*;
pub use connection::*;
pub use definitions::definitions;
pub use event_pipeline::*;
pub use routing::*;
pub use status::*;
pub use steps::*;
pub use topics::*;
pub use views::*;
pub use worker::*;

/// API group of both kinds.
pub const GROUP: &str = "sluice.dev";
/// API version of both kinds.
pub const VERSION: &str = "v1alpha1";
