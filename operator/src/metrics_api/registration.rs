//! The `APIService` that brings the API server's questions to us. Pure: what to do about the one that is there.
//!
//! There is one `v1beta1.external.metrics.k8s.io` in a cluster, and several programs want it. Ours carries an owner reference
//! to a `ClusterRole` of our chart: it goes when the chart goes, and nobody else's ever looks like ours.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference};

use super::route::{GROUP, VERSION};

/// Name of the `APIService`.
pub const NAME: &str = "v1beta1.external.metrics.k8s.io";

/// What the `APIService` should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The `ClusterRole` whose end is its end: name and uid.
    pub owner: (String, String),
    /// Our Service: namespace and name.
    pub service: (String, String),
    /// PEM of the authorities that sign our certificates.
    pub bundle: String,
}

/// What to do about the one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is none: make it.
    Create,
    /// It is ours and says what it should.
    Leave,
    /// It is ours and has other authorities: say so, if it is still the one of this version.
    Update {
        /// Its `resourceVersion`.
        version: String,
    },
    /// It is somebody else's: hands off, with whom it belongs to.
    Refuse(String),
    /// It is being deleted: look again.
    Wait,
}

/// What to do.
pub fn decide(present: Option<&APIService>, wanted: &Wanted) -> Decision {
    let Some(present) = present else { return Decision::Create };
    let spec = present.spec.as_ref();
    let service = spec.and_then(|spec| spec.service.as_ref());
    let route = |service: &ServiceReference| {
        (service.namespace.clone().unwrap_or_default(), service.name.clone().unwrap_or_default())
    };
    let owners = present.metadata.owner_references.iter().flatten();
    let is_owned = owners.clone().any(|owner| owner.uid == wanted.owner.1);
    // Whoever applies theirs over ours leaves our owner reference in it: where it leads decides as well.
    if !is_owned || service.map(route).as_ref() != Some(&wanted.service) {
        // Of an earlier release of ours, whose role has gone: Kubernetes removes it.
        let of_ours = owners.clone().any(|owner| owner.kind == "ClusterRole" && owner.name == wanted.owner.0);
        if of_ours && service.map(route).as_ref() == Some(&wanted.service) {
            return Decision::Wait;
        }
        return Decision::Refuse(service.map_or_else(
            || "the API server itself".to_owned(),
            |service| {
                let (namespace, name) = route(service);
                format!("service {name} in namespace {namespace}")
            },
        ));
    }
    if present.metadata.deletion_timestamp.is_some() {
        return Decision::Wait;
    }
    if spec == desired(wanted, None).spec.as_ref() {
        return Decision::Leave;
    }
    Decision::Update { version: present.metadata.resource_version.clone().unwrap_or_default() }
}

/// The whole object; with a version it only replaces that one.
pub fn desired(wanted: &Wanted, version: Option<String>) -> APIService {
    let (namespace, name) = wanted.service.clone();
    let owner = OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".to_owned(),
        kind: "ClusterRole".to_owned(),
        name: wanted.owner.0.clone(),
        uid: wanted.owner.1.clone(),
        ..OwnerReference::default()
    };
    APIService {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            resource_version: version,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            ca_bundle: Some(ByteString(wanted.bundle.clone().into_bytes())),
            group: Some(GROUP.to_owned()),
            version: Some(VERSION.to_owned()),
            group_priority_minimum: 100,
            version_priority: 100,
            insecure_skip_tls_verify: None,
            service: Some(ServiceReference { name: Some(name), namespace: Some(namespace), port: Some(443) }),
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            owner: ("sluice-external-metrics".to_owned(), "u1".to_owned()),
            service: ("sluice-system".to_owned(), "sluice-external-metrics".to_owned()),
            bundle: "PEM".to_owned(),
        }
    }

    fn present(edit: impl FnOnce(&mut APIService)) -> APIService {
        let mut present = desired(&wanted(), Some("7".to_owned()));
        edit(&mut present);
        present
    }

    #[test]
    fn only_one_that_is_absent_or_ours_is_written() {
        let decide = |present: &APIService| decide(Some(present), &wanted());
        assert_eq!(super::decide(None, &wanted()), Decision::Create);
        assert_eq!(decide(&present(|_| {})), Decision::Leave);
        let bundle = present(|object| object.spec.as_mut().unwrap().ca_bundle = Some(ByteString(b"OLD".to_vec())));
        assert_eq!(decide(&bundle), Decision::Update { version: "7".to_owned() });
        let insecure = present(|object| object.spec.as_mut().unwrap().insecure_skip_tls_verify = Some(true));
        assert!(matches!(decide(&insecure), Decision::Update { .. }));
        let going = present(|object| {
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
            object.metadata.deletion_timestamp = Some(now);
        });
        assert_eq!(decide(&going), Decision::Wait);
        let earlier = present(|object| object.metadata.owner_references.as_mut().unwrap()[0].uid = "u0".to_owned());
        assert_eq!(decide(&earlier), Decision::Wait, "an earlier release's, which goes with its role");
    }

    #[test]
    fn somebody_elses_is_refused_by_name() {
        let keda = |object: &mut APIService| {
            let service = object.spec.as_mut().unwrap().service.as_mut().unwrap();
            (service.namespace, service.name) = (Some("keda".to_owned()), Some("keda-metrics".to_owned()));
        };
        let others = [
            present(|object| {
                object.metadata.owner_references = None;
                keda(object);
            }),
            // Theirs was applied over ours.
            present(keda),
        ];
        for other in others {
            let refused = Decision::Refuse("service keda-metrics in namespace keda".to_owned());
            assert_eq!(decide(Some(&other), &wanted()), refused);
        }
        let unmarked = present(|object| object.metadata.owner_references = None);
        assert!(matches!(decide(Some(&unmarked), &wanted()), Decision::Refuse(_)));
        let local = present(|object| object.spec.as_mut().unwrap().service = None);
        assert_eq!(decide(Some(&local), &wanted()), Decision::Refuse("the API server itself".to_owned()));
    }
}
