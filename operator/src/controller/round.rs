//! One reconcile of one valid resource: what its stages share and leave behind.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use sluice_crds::conditions::{ConditionType, Finding};

use super::context::Context;
use super::kind::SluiceKind;
use super::status::StatusWriter;
use super::validated::ValidatedResource;
use crate::claims::Claimant;
use crate::settings::Settings;

/// One reconcile of one valid resource.
pub struct Round<'a, K> {
    /// What all reconciles share.
    pub ctx: &'a Context,
    /// The settings of this reconcile: they do not change under way.
    pub settings: Arc<Settings>,
    /// The object as it was read.
    pub object: &'a K,
    /// Who it is among the others.
    pub claimant: &'a Claimant,
    /// What its spec means.
    pub resource: &'a ValidatedResource,
    /// Its status.
    pub status: &'a mut StatusWriter<K>,
    /// Its Deployment as it was read; none = there is none.
    pub live: Option<Deployment>,
    /// What was found, at most one finding a condition; the first of a condition stays.
    pub findings: Vec<Finding>,
    /// Seconds since 1970.
    pub now: i64,
}

impl<K: SluiceKind> Round<'_, K> {
    /// Notes a finding. One that is not well replaces one that is.
    pub fn note(&mut self, finding: Finding) {
        match self.findings.iter_mut().find(|known| known.type_ == finding.type_) {
            None => self.findings.push(finding),
            Some(known) if known.status == Some(true) => *known = finding,
            Some(_) => {}
        }
    }

    /// True when the condition was found to be well, or was not looked at.
    pub fn is_well(&self, condition: ConditionType) -> bool {
        self.findings.iter().all(|finding| finding.type_ != condition || finding.status == Some(true))
    }

    /// Objects of a kind in the resource's namespace.
    pub fn api<C>(&self) -> Api<C>
    where
        C: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        C::DynamicType: Default,
    {
        Api::namespaced(self.ctx.client.clone(), self.resource.id.namespace.as_str())
    }
}
