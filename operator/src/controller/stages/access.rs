//! Kafka user and ACLs. Widened before a roll-out, narrowed when only new pods are left.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use sluice_clients::kafka::admin::AclBinding;
use sluice_crds::conditions::{ConditionType, Finding, Reason};

use crate::connections::KafkaClient;
use crate::controller::build::{self, Children, Prepared};
use crate::controller::halt::Halt;
use crate::controller::kafka::{change, finding, rights};
use crate::controller::kind::SluiceKind;
use crate::controller::round::Round;
use crate::controller::validated::WorkerAccess;
use crate::kube_ext::timed;
use crate::secrets::Purpose;

/// Makes the user and gives it what the spec needs; takes what it does not need any more when `settled`.
pub async fn run<K: SluiceKind>(
    round: &mut Round<'_, K>,
    kafka: &KafkaClient,
    children: &Children<Prepared>,
    settled: bool,
) -> Result<(), Halt> {
    let message = match &round.resource.kafka.access {
        WorkerAccess::Generated => {
            let failed = |error| Halt::found(finding(ConditionType::AccessReady, "kafka user and acls", &error));
            user(round, kafka, children).await?;
            acls(round, kafka, settled).await.map_err(failed)?;
            "the kafka user has the rights the spec needs"
        }
        WorkerAccess::Provided { .. } => "the kafka user is provided",
        WorkerAccess::Open => "this kafka has no users",
    };
    round.note(Finding::well(ConditionType::AccessReady, Reason::Reconciled, message));
    Ok(())
}

async fn user<K: SluiceKind>(
    round: &Round<'_, K>,
    kafka: &KafkaClient,
    children: &Children<Prepared>,
) -> Result<(), Halt> {
    let (slot, generation) = build::CURRENT_CREDENTIALS;
    let id = &round.resource.id;
    let Some(secret) = &children.secret else { return Ok(()) };
    // Kafka does not tell passwords. A Secret of this content was only ever made after its password was set.
    let known = timed("get secret metadata", round.api::<Secret>().get_metadata_opt(&secret.name_any())).await?;
    let password = round.ctx.install_key.password(id, Purpose::Kafka, slot, generation);
    let salt = round.ctx.install_key.salt(id, slot, generation);
    change::user(kafka, &id.scram_user(slot), password, salt, known.is_none())
        .await
        .map_err(|error| Halt::found(finding(ConditionType::AccessReady, "kafka user", &error)))?;
    Ok(())
}

async fn acls<K: SluiceKind>(
    round: &Round<'_, K>,
    kafka: &KafkaClient,
    settled: bool,
) -> Result<(), sluice_clients::kafka::admin::AdminError> {
    let (slot, _) = build::CURRENT_CREDENTIALS;
    let wanted = rights::acls(round.resource, slot);
    let there = change::acls_of(kafka, &rights::principal(round.resource, slot)).await?;
    let missing: Vec<AclBinding> = wanted.difference(&there).cloned().collect();
    change::create_acls(kafka, missing).await?;
    if settled {
        let surplus: BTreeSet<AclBinding> = there.difference(&wanted).cloned().collect();
        change::delete_acls(kafka, surplus.into_iter().collect()).await?;
    }
    Ok(())
}
