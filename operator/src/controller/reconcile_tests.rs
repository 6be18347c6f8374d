use serde_json::{Value, json};
use sluice_crds::v1alpha1::EventPipeline;

use super::*;
use crate::controller::test_support::{Asked, Calls, PIPELINE, api_server, context, pipeline, refusal};
use crate::kube_ext::KubeError;

fn object() -> EventPipeline {
    let mut object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
    object.metadata.resource_version = Some("1".to_owned());
    object
}

/// The pipeline as a reconcile before left it: ready.
fn ready() -> EventPipeline {
    let mut object = object();
    let findings = ConditionType::DOMAINS.map(|type_| Finding::well(type_, Reason::Reconciled, ""));
    let all = conditions::summarise(&findings, Mode::Running);
    let conditions = conditions::merge(&[], &all, Some(3), &Time(jiff::Timestamp::UNIX_EPOCH));
    object.status = Some(serde_json::from_value(json!({"observedGeneration": 3, "conditions": conditions})).unwrap());
    object
}

/// What an API server does about the pipeline itself.
fn about(object: &EventPipeline, asked: &Asked) -> (u16, Value) {
    match asked.method.as_str() {
        "POST" => (201, asked.body.clone()),
        _ => (200, serde_json::to_value(object).unwrap()),
    }
}

fn exists(ctx: &Context, object: &EventPipeline) -> Claimant {
    let who = claimant(Kind::EventPipeline, object);
    ctx.board.born(Trigger::from(&who), who.uid.clone());
    who
}

/// The last status written: status, reason and message of each condition.
fn told(calls: &Calls, type_: &str) -> (String, String, String) {
    let calls = calls.lock().unwrap();
    let written = calls.iter().rev().find(|asked| asked.is("PATCH", "/eventpipelines/enrich/status")).unwrap();
    let conditions = written.body["status"]["conditions"].as_array().unwrap();
    let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
    let text = |field: &str| condition[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"), text("message"))
}

/// Reconciles a ready pipeline while Deployments are answered so.
async fn with_deployments(answer: (u16, Value)) -> (Result<Action, Halt>, Calls) {
    let pipeline = ready();
    let there = pipeline.clone();
    let (client, calls) =
        api_server(
            move |asked| {
                if asked.uri.contains("/deployments/") { answer.clone() } else { about(&there, asked) }
            },
        );
    let (ctx, _triggers) = context(client);
    exists(&ctx, &pipeline);
    (Box::pin(reconcile(&pipeline, &ctx)).await, calls)
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_and_waits_for_a_person() {
    for (code, reason) in [(403, "Forbidden"), (422, "Invalid"), (400, "BadRequest")] {
        let (outcome, calls) = with_deployments(refusal(code, reason, "exceeded quota: pods")).await;
        assert!(outcome.is_err(), "it backs off");
        let (status, said, message) = told(&calls, "Stalled");
        assert_eq!((status.as_str(), said.as_str()), ("True", "InternalError"));
        assert!(message.contains("exceeded quota: pods"), "{message}");
        assert_eq!(told(&calls, "Ready").0, "False");
    }
}

#[tokio::test]
async fn what_the_api_server_cannot_do_now_is_told_and_passes_by_itself() {
    let (outcome, calls) = with_deployments(refusal(500, "InternalError", "etcd is away")).await;
    assert!(outcome.is_err());
    let (status, said, message) = told(&calls, "Reconciling");
    assert_eq!((status.as_str(), said.as_str()), ("True", "InternalError"));
    assert!(message.contains("etcd is away"), "{message}");
    assert_eq!(told(&calls, "Ready").0, "False");
}

#[test]
fn time_outs_are_told_and_pass_by_themselves() {
    for halt in [Halt::TimedOut, KubeError::TimedOut("create child").into()] {
        let finding = halt.finding().unwrap();
        assert_eq!((finding.reason, finding.outcome), (Reason::InternalError, conditions::Outcome::Progressing));
    }
}

#[tokio::test]
async fn somebody_elses_write_between_ours_is_no_failure_to_tell() {
    let (outcome, calls) = with_deployments(refusal(409, "Conflict", "changed")).await;
    assert!(outcome.unwrap_err().is_conflict());
    assert!(calls.lock().unwrap().iter().all(|asked| asked.method == "GET"));
}

#[tokio::test]
async fn a_reconcile_that_is_older_than_the_deletion_leaves_nothing_behind() {
    let pipeline = ready();
    let there = pipeline.clone();
    let (client, calls) = api_server(move |asked| about(&there, asked));
    let (ctx, _triggers) = context(client);
    let who = exists(&ctx, &pipeline);
    ctx.board.gone(&who.uid, &Trigger::from(&who));
    assert!(Box::pin(reconcile(&pipeline, &ctx)).await.unwrap_err().is_gone());
    assert_eq!(ctx.claims.lock().claimants().count(), 0);
    assert!(calls.lock().unwrap().iter().all(|asked| asked.method == "GET"));
}

#[tokio::test]
async fn others_that_a_claim_concerns_are_told() {
    let object = ready();
    let there = object.clone();
    let (client, _calls) = api_server(move |asked| {
        let refused = refusal(403, "Forbidden", "no");
        if asked.uri.contains("/deployments/") { refused } else { about(&there, asked) }
    });
    let (ctx, mut triggers) = context(client);
    let who = exists(&ctx, &object);
    let rival = Claimant { name: "rival".to_owned(), uid: "zzz".to_owned(), ..who };
    ctx.claims.lock().insert(&rival, Claims::of(&pipeline(PIPELINE).unwrap()));
    assert!(Box::pin(reconcile(&object, &ctx)).await.is_err());
    assert_eq!(triggers.recv().await, Some(Trigger::from(&rival)));
}
