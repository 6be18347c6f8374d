//! What `ensure` sends to an API server, call by call: nothing but a read when an object is as desired, never a word over
//! somebody else's object.

use http::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};
use sluice_crds::names::{DESIRED_HASH_ANNOTATION, FIELD_MANAGER};
use sluice_operator::kube_ext::{Applied, KubeError, ensure};
use tower_test::mock::Handle;

type Server = Handle<Request<Body>, Response<Body>>;

fn desired() -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {
            "name": "child", "namespace": "shop",
            "annotations": {DESIRED_HASH_ANNOTATION: "h"},
            "ownerReferences": [{"apiVersion": "sluice.dev/v1alpha1", "kind": "EventPipeline", "name": "o", "uid": "u", "controller": true}],
        },
        "data": {"x": "1"},
    }))
    .expect("an object")
}

/// The child as an API server describes it after our apply.
fn applied() -> Value {
    let mut object = serde_json::to_value(desired()).expect("JSON");
    object["apiVersion"] = "meta.k8s.io/v1".into();
    object["kind"] = "PartialObjectMetadata".into();
    object["metadata"]["managedFields"] = json!([{
        "manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:data": {"f:x": {}},
            "f:metadata": {
                "f:annotations": {format!("f:{DESIRED_HASH_ANNOTATION}"): {}},
                "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}},
            },
        },
    }]);
    object.as_object_mut().expect("an object").remove("data");
    object
}

fn client() -> (Api<ConfigMap>, Server) {
    let (service, handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    (Api::namespaced(Client::new(service, "shop"), "shop"), handle)
}

/// Answers the next request; its method, path with query, and body.
async fn answer(server: &mut Server, status: StatusCode, body: Value) -> (String, String, Value) {
    let (request, respond) = server.next_request().await.expect("a request");
    let (method, uri) = (request.method().to_string(), request.uri().to_string());
    let sent = request.into_body().collect_bytes().await.expect("a body");
    respond.send_response(
        Response::builder()
            .status(status)
            .body(Body::from(serde_json::to_vec(&body).expect("JSON")))
            .expect("a response"),
    );
    (method, uri, serde_json::from_slice(&sent).unwrap_or(Value::Null))
}

fn not_found() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no"})
}

#[tokio::test]
async fn an_object_as_desired_costs_one_read() {
    let (api, mut server) = client();
    let task = tokio::spawn(async move { ensure(&api, &desired()).await });
    let (method, uri, _) = answer(&mut server, StatusCode::OK, applied()).await;
    assert_eq!((method.as_str(), uri.contains("/configmaps/child")), ("GET", true), "{uri}");
    assert_eq!(task.await.expect("no panic").expect("no error"), Applied::Unchanged);
    assert!(server.next_request().await.is_none(), "nothing else is sent");
}

#[tokio::test]
async fn an_absent_object_is_created_without_force() {
    let (api, mut server) = client();
    let task = tokio::spawn(async move { ensure(&api, &desired()).await });
    answer(&mut server, StatusCode::NOT_FOUND, not_found()).await;
    let (method, uri, sent) =
        answer(&mut server, StatusCode::CREATED, serde_json::to_value(desired()).expect("JSON")).await;
    assert_eq!(method, "PATCH");
    assert!(uri.contains(&format!("fieldManager={FIELD_MANAGER}")) && !uri.contains("force"), "{uri}");
    assert_eq!(sent["data"]["x"], "1");
    assert_eq!(task.await.expect("no panic").expect("no error"), Applied::Created);
}

#[tokio::test]
async fn a_field_that_somebody_took_is_taken_back() {
    let (api, mut server) = client();
    let task = tokio::spawn(async move { ensure(&api, &desired()).await });
    let mut taken = applied();
    taken["metadata"]["managedFields"][0]["fieldsV1"]["f:data"] = json!({"f:y": {}});
    answer(&mut server, StatusCode::OK, taken).await;
    let (method, uri, _) = answer(&mut server, StatusCode::OK, serde_json::to_value(desired()).expect("JSON")).await;
    assert_eq!((method.as_str(), uri.contains("force=true")), ("PATCH", true), "{uri}");
    assert_eq!(task.await.expect("no panic").expect("no error"), Applied::Changed);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone() {
    let (api, mut server) = client();
    let task = tokio::spawn(async move { ensure(&api, &desired()).await });
    let mut foreign = applied();
    foreign["metadata"]["ownerReferences"][0]["uid"] = "another".into();
    answer(&mut server, StatusCode::OK, foreign).await;
    assert!(matches!(task.await.expect("no panic"), Err(KubeError::NotOurs { .. })));
    assert!(server.next_request().await.is_none(), "nothing is written");
}
