//! A reconcile that stops before its end: not an error, but a finding with a time to look again.

use std::time::Duration;

use sluice_crds::conditions::{ConditionType, Finding, Reason};

use super::status::StatusError;
use crate::kube_ext::KubeError;

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After this long: something known is under way.
    After(Duration),
    /// After a growing while: something failed.
    Backoff,
    /// When the object, the settings or another resource changes, and at the slow resync.
    OnChange,
}

/// Why and until when a reconcile stops.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// A domain is not well, and what follows needs it.
    #[error("{}: {}", .0.reason, .0.message)]
    Found(Finding, Retry),
    /// The API server failed us.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// Status could not be written.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The reconcile as a whole took too long.
    #[error("the reconcile took too long; it is tried again")]
    TimedOut,
    /// The resource is not there any more.
    #[error("the resource is gone")]
    Gone,
}

impl Halt {
    /// Something known is under way: a short look-again.
    pub fn waiting(finding: Finding, after: Duration) -> Self {
        Self::Found(finding, Retry::After(after))
    }

    /// What to tell of it; none when it only means to look again at once.
    pub fn finding(&self) -> Option<Finding> {
        let condition = ConditionType::WorkersReady;
        match self {
            Self::Found(finding, _) => Some(finding.clone()),
            _ if self.is_conflict() || self.is_gone() => None,
            Self::Kube(error) | Self::Status(StatusError::Kube(error)) if error.is_refused() => {
                Some(Finding::stalled(condition, Reason::InternalError, error.to_string()))
            }
            failed => Some(Finding::progressing(condition, Reason::InternalError, failed.to_string())),
        }
    }

    /// Bounded label for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Found(finding, _) => finding.reason.as_str(),
            Self::Kube(error) | Self::Status(StatusError::Kube(error)) => error.category(),
            Self::TimedOut => "reconcile_timeout",
            Self::Gone => "gone",
        }
    }

    /// True when somebody else wrote between our reading and writing.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube(error) | Self::Status(StatusError::Kube(error)) if error.is_conflict())
    }

    /// True when the resource went away under the reconcile: nothing is left to do.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone)
            || matches!(self, Self::Kube(error) | Self::Status(StatusError::Kube(error)) if error.is_not_found())
    }

    /// A finding, with the retry that its outcome calls for. What waits for a person is looked at again too, slowly:
    /// the person may change something that we do not watch.
    pub fn found(finding: Finding) -> Self {
        Self::Found(finding, Retry::Backoff)
    }
}
