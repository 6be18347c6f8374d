//! IO: what has to be looked at all the time: whom to believe, our certificates, our registration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use sluice_crds::names::FIELD_MANAGER;
use tokio::sync::watch;

use super::certificates::{CertificateError, Generations};
use super::identity::{Trust, TrustError};
use super::registration::{self, Decision, Wanted};
use super::tls::{Serving, TlsError};
use super::{Options, Standing};
use crate::kube_ext::{KubeError, timed};

/// Between two looks. Each is four small readings, and no writing unless something is to be changed.
const EVERY: Duration = Duration::from_secs(30);
/// While something is wrong.
const SOON: Duration = Duration::from_secs(5);
/// Where the API server says who it is.
const AUTHENTICATION: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
/// On our Secret, so that we never write over one that somebody made for something else.
const MARK: (&str, &str) = ("app.kubernetes.io/managed-by", FIELD_MANAGER);

/// Why the API is not served, or not asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The API server.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// Nobody can be believed.
    #[error("kube-system/extension-apiserver-authentication: {0}")]
    Trust(#[from] TrustError),
    /// No certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Certificates that TLS does not take.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A Secret of the name is there, and is not ours.
    #[error("secret {0:?} exists and is not ours: remove or rename it")]
    ForeignSecret(String),
    /// The `APIService` belongs to somebody else.
    #[error(
        "the APIService v1beta1.external.metrics.k8s.io belongs to {0}: there is one in a cluster, and it is left alone; remove \
         it, or switch ours off (externalMetrics.enabled)"
    )]
    Taken(String),
    /// It is on its way out.
    #[error("the APIService v1beta1.external.metrics.k8s.io is being deleted")]
    Going,
}

/// Keeps everything as it should be, for ever.
pub async fn run(client: Client, options: Options, serving: watch::Sender<Option<Arc<Serving>>>, standing: &Standing) {
    loop {
        let looked = look(&client, &options, &serving).await;
        match &looked {
            Ok(()) => standing.well(),
            Err(error) => standing.problem(error),
        }
        tokio::time::sleep(if looked.is_ok() { EVERY } else { SOON }).await;
    }
}

/// One look.
async fn look(
    client: &Client,
    options: &Options,
    serving: &watch::Sender<Option<Arc<Serving>>>,
) -> Result<(), KeeperError> {
    let now = jiff::Timestamp::now().as_second();
    let trust = trust(client).await?;
    let generations = generations(client, options, now).await?;
    let next = Serving::new(trust, &generations, now)?;
    serving.send_if_modified(|present| {
        let changed = present.as_ref().is_none_or(|present| !present.is_same(&next));
        if changed {
            tracing::info!("the external metrics API is served with new certificates or authorities");
            *present = Some(Arc::new(next));
        }
        changed
    });
    register(client, options, generations.bundle()).await
}

async fn trust(client: &Client) -> Result<Trust, KeeperError> {
    let (namespace, name) = AUTHENTICATION;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = timed("get extension-apiserver-authentication", api.get(name)).await?;
    Ok(Trust::parse(&found.data.unwrap_or_default())?)
}

/// Our certificates, as they should be now.
async fn generations(client: &Client, options: &Options, now: i64) -> Result<Generations, KeeperError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &options.namespace);
    let present = timed("get certificates", api.get_opt(&options.name)).await?;
    if let Some(other) = present.as_ref().filter(|secret| secret.labels().get(MARK.0).is_none_or(|mark| mark != MARK.1))
    {
        return Err(KeeperError::ForeignSecret(other.name_any()));
    }
    let there = present.as_ref().and_then(|secret| secret.data.as_ref()).map(Generations::read).unwrap_or_default();
    let names = [format!("{}.{}.svc", options.name, options.namespace)];
    let Some(due) = there.due(&names, now)? else { return Ok(there) };
    if let Some(present) = &present {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(rotation(present, &due));
        timed("rotate certificates", api.patch(&options.name, &params, &patch)).await?;
    } else {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        timed("create certificates", api.create(&params, &secret(options, &due))).await?;
    }
    tracing::info!(secret = options.name, "certificates of the external metrics API were made");
    Ok(due)
}

fn secret(options: &Options, generations: &Generations) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(options.name.clone()),
            namespace: Some(options.namespace.clone()),
            labels: Some([(MARK.0.to_owned(), MARK.1.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(generations.write()),
        ..Secret::default()
    }
}

/// What makes the Secret hold these generations and no others, if it is still of the version that was read: what another
/// operator has made meanwhile is read in the next look. What goes is named: a server-side apply without it would leave what
/// was not applied in the first place but created, or restored by somebody.
fn rotation(present: &Secret, next: &Generations) -> Value {
    let gone = present.data.iter().flatten().map(|(key, _)| (key.clone(), None));
    let mut data: BTreeMap<String, Option<ByteString>> = gone.collect();
    data.extend(next.write().into_iter().map(|(key, value)| (key, Some(value))));
    json!({"metadata": {"resourceVersion": present.metadata.resource_version}, "data": data})
}

async fn register(client: &Client, options: &Options, bundle: String) -> Result<(), KeeperError> {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let owner = timed("get own cluster role", roles.get_metadata(&options.name)).await?;
    let wanted = Wanted {
        owner: (options.name.clone(), owner.metadata.uid.unwrap_or_default()),
        service: (options.namespace.clone(), options.name.clone()),
        bundle,
    };
    let api: Api<APIService> = Api::all(client.clone());
    let present = timed("get APIService", api.get_opt(registration::NAME)).await?;
    let params = PatchParams::apply(FIELD_MANAGER);
    match registration::decide(present.as_ref(), &wanted) {
        Decision::Leave => Ok(()),
        Decision::Wait => Err(KeeperError::Going),
        Decision::Refuse(other) => Err(KeeperError::Taken(other)),
        Decision::Create => {
            // Not forced: if somebody makes theirs meanwhile, the server refuses.
            let desired = registration::desired(&wanted, None);
            timed("create APIService", api.patch(registration::NAME, &params, &Patch::Apply(&desired))).await?;
            tracing::info!("the external metrics API is registered");
            Ok(())
        }
        Decision::Update { version } => {
            // Forced, as it is ours; and only the one we have looked at.
            let desired = registration::desired(&wanted, Some(version));
            timed("update APIService", api.patch(registration::NAME, &params.force(), &Patch::Apply(&desired))).await?;
            tracing::info!("the APIService has our present authorities");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_served_its_time_leaves_the_secret() {
        const START: i64 = 1_700_000_000;
        const DAY: i64 = 86_400;
        let names = ["sluice-external-metrics.sluice-system.svc".to_owned()];
        let next = |there: &Generations, day: i64| there.due(&names, START + day * DAY).unwrap().unwrap();
        let both = next(&next(&Generations::default(), 0), 60);
        let mut present = Secret { data: Some(both.write()), ..Secret::default() };
        present.metadata.resource_version = Some("7".to_owned());

        let patch = rotation(&present, &next(&both, 62));
        assert_eq!(patch["metadata"], json!({"resourceVersion": "7"}));
        let data = patch["data"].as_object().unwrap();
        let (gone, kept): (Vec<_>, Vec<_>) = data.iter().partition(|(_, value)| value.is_null());
        assert!(gone.len() == 3 && gone.iter().all(|(key, _)| key.starts_with(&format!("{START}."))), "{gone:?}");
        let kept = kept.into_iter().map(|(key, value)| (key.clone(), serde_json::from_value(value.clone()).unwrap()));
        assert_eq!(kept.collect::<BTreeMap<String, ByteString>>(), next(&both, 62).write());
    }
}
