//! One reconcile of one valid resource: what its stages share and leave behind.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use sluice_crds::conditions::{ConditionType, Finding, Outcome};

use super::context::Context;
use super::kind::SluiceKind;
use super::replicas::{self, Wanted};
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
    /// What was found, at most one finding a condition; see [`Round::note`] for which of several.
    pub findings: Vec<Finding>,
    /// Seconds since 1970.
    pub now: i64,
}

impl<K: SluiceKind> Round<'_, K> {
    /// Notes a finding. One that is not well replaces one that is, and one that waits for a person replaces one that time
    /// heals: a worker may never become ready while another one's partition stands still.
    pub fn note(&mut self, finding: Finding) {
        let waits = finding.outcome == Outcome::Stalled;
        match self.findings.iter_mut().find(|known| known.type_ == finding.type_) {
            None => self.findings.push(finding),
            Some(known) if known.status == Some(true) => *known = finding,
            Some(known) if waits && known.outcome != Outcome::Stalled => *known = finding,
            Some(_) => {}
        }
    }

    /// True when the condition was found to be well, or was not looked at.
    pub fn is_well(&self, condition: ConditionType) -> bool {
        self.findings.iter().all(|finding| finding.type_ != condition || finding.status == Some(true))
    }

    /// How many workers the Deployment shall have.
    pub fn wanted(&self) -> Wanted {
        let remembered = self.status.stored().autoscaling.as_ref().and_then(|scaled| scaled.desired_replicas);
        replicas::wanted(self.resource, self.live.as_ref(), remembered)
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_crds::conditions::Reason;
    use sluice_crds::v1alpha1::EventPipeline;

    use super::*;
    use crate::controller::test_support::{PIPELINE, api_server, in_round, settings};

    #[tokio::test]
    async fn what_waits_for_a_person_is_not_hidden_behind_what_time_heals() {
        use Reason::{Reconciled, RecordStalled, WorkersStarting, WorkersUnavailable};
        let type_ = ConditionType::WorkersReady;
        let finding = |reason| match reason {
            Reconciled => Finding::well(type_, reason, ""),
            WorkersStarting => Finding::progressing(type_, reason, ""),
            _ => Finding::stalled(type_, reason, ""),
        };
        let object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        let (client, _calls) = api_server(|_| (200, json!({})));
        in_round(&object, client, settings(), None, async |round| {
            for (noted, stays) in [
                ([Reconciled, WorkersStarting], WorkersStarting),
                ([WorkersStarting, Reconciled], WorkersStarting),
                ([WorkersStarting, RecordStalled], RecordStalled),
                ([RecordStalled, WorkersStarting], RecordStalled),
                ([WorkersUnavailable, RecordStalled], WorkersUnavailable),
            ] {
                round.findings.clear();
                for reason in noted {
                    round.note(finding(reason));
                }
                let found: Vec<Reason> = round.findings.iter().map(|finding| finding.reason).collect();
                assert_eq!(found, [stays], "{noted:?}");
            }
        })
        .await;
    }
}
