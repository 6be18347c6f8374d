//! Conditions: what a resource's status says, and how `kubectl wait`, kstatus, Helm and Argo CD will read it.
//!
//! ```text
//! reasons.rs   every condition type and every reason, bounded
//! summary.rs   PURE: findings of the domains → Ready, Reconciling, Stalled
//! merge.rs     PURE: findings + what the status said before → conditions; times move only when a status flips
//! ```

mod merge;
mod reasons;
mod summary;

pub use merge::merge;
pub use reasons::{ConditionType, Reason};
pub use summary::{Finding, Mode, Outcome, first_visit, summarise};
