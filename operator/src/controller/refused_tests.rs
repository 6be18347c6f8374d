//! Whole reconciles of a resource whose spec is refused, against an API server that has its workers.

use kube::runtime::controller::Action;
use serde_json::{Value, json};
use sluice_crds::names::Kind;
use sluice_crds::v1alpha1::EventPipeline;

use super::*;
use crate::claims::Verdict;
use crate::controller::reconcile::{claimant, reconcile};
use crate::controller::test_support::{
    Calls, PIPELINE, SETTINGS, api_server, built, context, pipeline, refusal, settings_of,
};
use crate::settings::SettingsHandle;

/// The pipeline of [`PIPELINE`] with another text of its spec, as a reconcile before left it: granted, with workers.
fn edited(from: &str, to: &str) -> EventPipeline {
    assert!(PIPELINE.contains(from), "{from:?} should be in the pipeline");
    let mut object: EventPipeline = serde_saphyr::from_str(&PIPELINE.replacen(from, to, 1)).unwrap();
    object.metadata.resource_version = Some("1".to_owned());
    let view = json!({"name": "order", "keyPrefix": "order:{", "topic": "t", "definition": "d"});
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Reconciled", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = json!({"claims": "Held", "epoch": 7, "views": [view], "conditions": [condition]});
    object.status = Some(serde_json::from_value(status).unwrap());
    object
}

/// What came of a reconcile.
struct Seen {
    outcome: Result<Action, Halt>,
    calls: Calls,
    ctx: Context,
    who: Claimant,
}

impl Seen {
    /// Replicas that the Deployment was given, in order.
    fn scaled(&self) -> Vec<i64> {
        let calls = self.calls.lock().unwrap();
        let scaled = calls.iter().filter(|asked| asked.is("PATCH", "/deployments/evp-enrich"));
        scaled.map(|asked| asked.body["spec"]["replicas"].as_i64().unwrap()).collect()
    }

    /// Status as it was last written.
    fn status(&self) -> Value {
        let calls = self.calls.lock().unwrap();
        let written = calls.iter().rev().find(|asked| asked.is("PATCH", "/eventpipelines/enrich/status"));
        written.expect("status should be written").body["status"].clone()
    }

    /// Status, reason and message of a condition.
    fn told(&self, type_: &str) -> (String, String, String) {
        let status = self.status();
        let mut conditions = status["conditions"].as_array().unwrap().iter();
        let condition = conditions.find(|condition| condition["type"] == type_).unwrap();
        let text = |field: &str| condition[field].as_str().unwrap().to_owned();
        (text("status"), text("reason"), text("message"))
    }
}

/// Reconciles it with these settings while `workers` run; `before` is what happened to the claims.
async fn seen(object: EventPipeline, settings: &str, workers: i32, before: impl FnOnce(&Context, &Claimant)) -> Seen {
    let built = built(&pipeline(PIPELINE).unwrap());
    let mut live = serde_json::to_value(&built.deployment).unwrap();
    live["spec"]["replicas"] = workers.into();
    live["status"] =
        json!({"replicas": workers, "readyReplicas": workers, "updatedReplicas": workers, "observedGeneration": 1});
    let map = serde_json::to_value(&built.config_map).unwrap();
    let pods = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "items": (0..workers).map(|_| json!({"metadata": {"name": "pod"}})).collect::<Vec<_>>()});
    let there = serde_json::to_value(&object).unwrap();
    let (client, calls) = api_server(move |asked| match asked.method.as_str() {
        "POST" => (201, asked.body.clone()),
        _ if asked.uri.contains("/deployments/evp-enrich") => (200, live.clone()),
        _ if asked.uri.contains("/configmaps/") => (200, map.clone()),
        _ if asked.uri.contains("/pods") => (200, pods.clone()),
        _ if asked.uri.contains("/eventpipelines/") => (200, there.clone()),
        _ => refusal(404, "NotFound", "no"),
    });
    let (mut ctx, _triggers) = context(client);
    ctx.settings = SettingsHandle::fixed(settings_of(settings));
    let who = claimant(Kind::EventPipeline, &object);
    ctx.board.born(Trigger::from(&who), who.uid.clone());
    {
        // As before the edit.
        let mut claims = ctx.claims.lock();
        claims.insert(&who, Claims::of(&pipeline(PIPELINE).unwrap()));
        assert_eq!(claims.decide(&who), Verdict::Granted);
    }
    before(&ctx, &who);
    let outcome = Box::pin(reconcile(&object, &ctx)).await;
    Seen { outcome, calls, ctx, who }
}

const MISTAKE: (&str, &str) = ("value.status == ", "value.status === ");

/// Another resource asks for what this one had before the edit.
fn rival(ctx: &Context, who: &Claimant) -> Claimant {
    let rival = Claimant { uid: "rival".to_owned(), name: "rival".to_owned(), created: i64::MIN, ..who.clone() };
    ctx.claims.lock().insert(&rival, Claims::of(&pipeline(PIPELINE).unwrap()));
    rival
}

#[tokio::test]
async fn a_mistake_in_an_edit_is_told_with_its_place_and_stops_nothing() {
    let (from, to) = MISTAKE;
    let seen = seen(edited(from, to), SETTINGS, 2, |_, _| ()).await;
    assert!(seen.outcome.is_ok(), "it waits for a change");
    assert!(seen.scaled().is_empty());
    assert_eq!(seen.told("Ready").0, "False");
    let (status, reason, message) = seen.told("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "InvalidExpression"));
    for part in ["\"keep\"", "column", "the workers go on as before"] {
        assert!(message.contains(part), "{part:?} should be in {message:?}");
    }
    assert_eq!(seen.status()["replicas"], 2, "the old ones are well");
    let rival = rival(&seen.ctx, &seen.who);
    assert!(matches!(seen.ctx.claims.lock().decide(&rival), Verdict::Refused(_)), "and write what they wrote");
}

#[tokio::test]
async fn that_no_worker_shall_run_is_heard_whatever_is_wrong_with_the_rest() {
    let (from, to) = MISTAKE;
    for (more, text) in [("replicas: 2", "replicas: 0"), ("\n  worker:", "\n  state: Stopped\n  worker:")] {
        let mut object = edited(from, to);
        let other: EventPipeline = serde_saphyr::from_str(&PIPELINE.replacen(more, text, 1)).unwrap();
        (object.spec.state, object.spec.worker) = (other.spec.state, other.spec.worker);
        let seen = seen(object, SETTINGS, 2, |_, _| ()).await;
        assert_eq!(seen.scaled(), [0], "{text}");
        assert_eq!(seen.told("Stalled").1, "InvalidExpression");
    }
}

#[tokio::test]
async fn an_edit_beyond_the_policy_stops_nothing_and_a_policy_taken_back_does() {
    let seen_ = seen(edited("topic: order.enriched,", "topic: customer.enriched,"), SETTINGS, 2, |_, _| ()).await;
    assert_eq!((seen_.told("Stalled").1.as_str(), seen_.scaled()), ("NotAllowed", vec![]));
    for (policy, without) in [
        ("own: [order.]", "own: [other.]"),
        ("consume: [customer.]", "consume: []"),
        ("{name: shop, own:", "{name: else, own:"),
        ("write: [\"order:\"]", "write: []"),
    ] {
        let revoked = SETTINGS.replacen(policy, without, 1);
        let seen = seen(edited("replicas: 2", "replicas: 2"), &revoked, 2, |_, _| ()).await;
        assert_eq!(seen.scaled(), [0], "{without}");
        let (status, reason, message) = seen.told("Stalled");
        assert_eq!((status.as_str(), reason.as_str()), ("True", "NotAllowed"));
        assert!(message.contains("its workers are stopped"), "{message}");
        assert!(seen.status()["claims"] == "Held", "they may still be writing");
        let rival = rival(&seen.ctx, &seen.who);
        assert!(matches!(seen.ctx.claims.lock().decide(&rival), Verdict::Refused(_)), "{without}");
    }
}

#[tokio::test]
async fn when_the_last_worker_of_a_policy_taken_back_has_ended_others_may_have_what_was_its() {
    let revoked = SETTINGS.replacen("own: [order.]", "own: [other.]", 1);
    let seen = seen(edited("replicas: 2", "replicas: 2"), &revoked, 0, |_, _| ()).await;
    assert!(seen.scaled().is_empty());
    assert_eq!(seen.status()["claims"], "Released");
    let rival = rival(&seen.ctx, &seen.who);
    assert_eq!(seen.ctx.claims.lock().decide(&rival), Verdict::Granted);
}

#[tokio::test]
async fn an_edit_onto_what_another_one_holds_stops_nothing() {
    let object = edited("'order:{'", "'order:young:{'");
    let seen = seen(object, SETTINGS, 2, |ctx, who| {
        let young = Claimant { uid: "young".to_owned(), name: "young".to_owned(), created: i64::MAX, ..who.clone() };
        let theirs = PIPELINE.replace("'order:{'", "'order:young:'").replace("order.", "order.young.");
        let theirs = theirs.replace("name: enrich,", "name: young,");
        let mut claims = ctx.claims.lock();
        claims.insert(&young, Claims::of(&pipeline(&theirs).unwrap()));
        assert_eq!(claims.decide(&young), Verdict::Granted);
    })
    .await;
    assert!(seen.scaled().is_empty());
    let (status, reason, message) = seen.told("Stalled");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "KeyPrefixConflict"));
    assert!(message.contains("\"young\"") && message.contains("go on as before"), "{message}");
}

#[tokio::test]
async fn the_younger_of_two_that_wrote_the_same_at_a_start_is_stopped() {
    let seen = seen(edited("replicas: 2", "replicas: 2"), SETTINGS, 2, |ctx, who| {
        let old = rival(ctx, who);
        ctx.claims.lock().keep(&old, Claims::of(&pipeline(PIPELINE).unwrap()));
    })
    .await;
    assert_eq!(seen.scaled(), [0]);
    assert!(seen.told("Stalled").2.contains("its workers are stopped"));
}
