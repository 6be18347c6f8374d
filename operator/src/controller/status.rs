//! Status: computed as a value, written once and only if it differs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use sluice_crds::conditions::{self, ConditionType, Finding, Mode};
use sluice_crds::v1alpha1::Status;

use super::kind::SluiceKind;
use crate::kube_ext::{KubeError, timed};

/// Writer of `.status`, apart from the writer of children.
const STATUS_MANAGER: &str = "sluice-operator-status";

/// Why status could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The API server failed us.
    #[error(transparent)]
    Kube(#[from] KubeError),
}

/// Status of one resource during one reconcile: what the API server has, and what we have found since.
#[derive(Debug)]
pub struct StatusWriter<K> {
    api: Api<K>,
    name: String,
    resource_version: Option<String>,
    /// As the API server has it.
    stored: Status,
    /// As it shall be.
    pub draft: Status,
}

impl<K: SluiceKind> StatusWriter<K> {
    /// For an object that was just read.
    pub fn new(api: Api<K>, object: &K) -> Self {
        let stored = object.status().cloned().unwrap_or_default();
        Self {
            api,
            name: object.name_any(),
            resource_version: object.resource_version(),
            draft: stored.clone(),
            stored,
        }
    }

    /// True before the first write.
    pub fn is_first_visit(&self) -> bool {
        self.stored.conditions.is_empty()
    }

    /// The status the API server has.
    pub fn stored(&self) -> &Status {
        &self.stored
    }

    /// Goes on from a write of ours to the same object: what was read before it is still what there is.
    pub fn follow(&mut self, written: &K) {
        self.resource_version = written.resource_version();
    }

    /// The version of the object that the next write is allowed to replace.
    pub fn version(&self) -> Option<&str> {
        self.resource_version.as_deref()
    }

    /// Puts findings into the draft's conditions.
    pub fn conclude(&mut self, findings: &[Finding], mode: Mode, generation: Option<i64>, now: &Time) {
        let all = conditions::summarise(findings, mode);
        self.draft.conditions = conditions::merge(&self.stored.conditions, &all, generation, now);
        self.draft.observed_generation = generation;
    }

    /// Writes the draft if it differs from what is stored; true = written. Refused by the API server if anybody wrote
    /// the object since it was read: then it is read and reconciled again.
    pub async fn write(&mut self) -> Result<bool, StatusError> {
        if self.draft == self.stored {
            return Ok(false);
        }
        let mut status = self.draft.clone();
        // Conditions of others stay theirs: an apply with them would make us co-owner.
        status.conditions.retain(|condition| ConditionType::of(&condition.type_).is_some());
        let body = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": self.name, "resourceVersion": self.resource_version},
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let written = timed("write status", self.api.patch_status(&self.name, &params, &Patch::Apply(&body))).await?;
        self.resource_version = written.resource_version();
        self.stored = self.draft.clone();
        Ok(true)
    }
}

/// Reason and message of `Ready` in a status.
pub fn ready_of(status: &Status) -> Option<(&str, &str, &str)> {
    let ready = status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready.as_str())?;
    Some((&ready.status, &ready.reason, &ready.message))
}

/// A resource's object reference and generation, for reports.
pub fn generation_of<K: Resource>(object: &K) -> Option<i64> {
    object.meta().generation
}
