//! IO: writes `/scale` of a Deployment, and nothing else of it.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::kube_ext::{KubeError, timed};

/// Who owns the number of workers then, apart from who owns the rest of the Deployment.
pub const SCALE_MANAGER: &str = "sluice-autoscaler";

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scaled {
    /// It is as wanted.
    Done,
    /// It was not as it was decided upon; it asks for so many.
    Other(u32),
    /// It is another object of the name, or none.
    Gone,
}

/// Changes the number of workers, if it is still `from` and nobody writes the Deployment meanwhile.
pub(super) async fn scale(
    api: &Api<Deployment>,
    (name, uid): &(String, String),
    from: u32,
    to: u32,
) -> Result<Scaled, KubeError> {
    let scale = match timed("get scale", api.get_scale(name)).await {
        Err(error) if error.is_not_found() => return Ok(Scaled::Gone),
        scale => scale?,
    };
    if scale.metadata.uid.as_deref() != Some(uid) {
        return Ok(Scaled::Gone);
    }
    // None at all is left out of what the server says.
    let asked = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0).unsigned_abs();
    if asked != from {
        return Ok(Scaled::Other(asked));
    }
    // With the version that was read: whoever has written since, a stop above all, is not overwritten.
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": scale.metadata.resource_version},
        "spec": {"replicas": to},
    }));
    let params = PatchParams { field_manager: Some(SCALE_MANAGER.to_owned()), ..PatchParams::default() };
    timed("write scale", api.patch_scale(name, &params, &patch)).await?;
    Ok(Scaled::Done)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::controller::test_support::{Asked, api_server, refusal};

    fn there(replicas: i32, uid: &str) -> Value {
        json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": "evp-enrich", "namespace": "shop", "uid": uid, "resourceVersion": "7"},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas},
        })
    }

    async fn scaled(
        answer: impl FnMut(&Asked) -> (u16, Value) + Send + 'static,
    ) -> (Result<Scaled, KubeError>, Vec<Asked>) {
        let (client, calls) = api_server(answer);
        let deployment = ("evp-enrich".to_owned(), "d".to_owned());
        let done = scale(&Api::namespaced(client, "shop"), &deployment, 2, 5).await;
        let calls = calls.lock().unwrap().clone();
        (done, calls)
    }

    #[tokio::test]
    async fn only_scale_is_written_under_a_name_of_its_own_and_with_the_version_that_was_read() {
        let (done, calls) = scaled(|_| (200, there(2, "d"))).await;
        assert_eq!(done.unwrap(), Scaled::Done);
        assert_eq!(calls.len(), 2, "{calls:?}");
        assert!(calls[1].is("PATCH", "/deployments/evp-enrich/scale"), "{calls:?}");
        assert!(calls[1].uri.contains("fieldManager=sluice-autoscaler"), "{calls:?}");
        assert_eq!(calls[1].body, json!({"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 5}}));
    }

    #[tokio::test]
    async fn what_somebody_else_has_changed_is_left_alone() {
        let mut none = there(0, "d");
        none["spec"] = json!({});
        for (answer, expected) in [
            ((200, none.clone()), Scaled::Other(0)),
            ((200, there(2, "another")), Scaled::Gone),
            (refusal(404, "NotFound", "no"), Scaled::Gone),
        ] {
            let (done, calls) = scaled(move |_| answer.clone()).await;
            assert_eq!(done.unwrap(), expected);
            assert_eq!(calls.len(), 1, "{calls:?}");
        }
        let conflict = |asked: &Asked| match asked.method.as_str() {
            "GET" => (200, there(2, "d")),
            _ => refusal(409, "Conflict", "the object has been modified"),
        };
        assert!(scaled(conflict).await.0.unwrap_err().is_conflict());
    }
}
