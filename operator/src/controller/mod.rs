//! The reconcile loop of both kinds.
//!
//! ```text
//! streams.rs     watches: resources, labelled children (metadata only), triggers → reconciles; claims are fed here
//! reconcile.rs   one reconcile: fresh object → mode → stages → one status write
//! kind.rs        what the loop needs to know of a kind       event_pipeline/  cache_sync/   what is their own
//! validate/      spec + settings → validated.rs              PURE, every failure of a spec is here
//! stages/        IO around pure plans, in order              round.rs  what they share    halt.rs  why one stops
//! kafka/         plans for topics, rights, offsets (PURE) and the calls that carry them out
//! replicas.rs    PURE: how many workers, and who says so         scaling.rs  what the autoscaler may do and shows
//! turns.rs       PURE: how many roll out at the same time
//! epoch.rs       PURE: when views are rebuilt                rollout.rs  PURE: what a Deployment's status says
//! refused.rs     what becomes of workers whose spec is refused  entitled.rs  PURE: whether they may go on
//! held.rs        PURE: claims by status      linger.rs  workers that outlive their resource
//! build/         validated.rs + facts → children             PURE, infallible, one file a child kind
//! deletion/      what goes when the resource goes            finalizer.rs  whether it has to wait for that
//! clearing.rs    PURE: keys that a new epoch must not find    redis_keys.rs  deletes keys
//! status.rs      one write, only if it differs               report.rs  events       backoff.rs  when to look again
//! ```

pub mod backoff;
pub mod build;
pub mod cache_sync;
pub mod clearing;
pub mod context;
pub mod deletion;
pub mod entitled;
pub mod epoch;
pub mod event_pipeline;
pub mod finalizer;
pub mod halt;
pub mod held;
pub mod kafka;
pub mod kind;
pub mod linger;
pub mod reconcile;
pub mod redis_keys;
pub mod refused;
pub mod replicas;
pub mod report;
pub mod rollout;
pub mod round;
pub mod scaling;
pub mod stages;
pub mod status;
pub mod streams;
pub mod turns;
pub mod validate;
pub mod validated;

#[cfg(test)]
pub(crate) mod test_support;
