//! Events and metrics about reconciles. Never in the way of them: what cannot be published is logged.

use kube::runtime::events::{Event, EventType};
use sluice_crds::conditions::{ConditionType, Reason};
use sluice_crds::v1alpha1::Status;

use super::context::Context;
use super::kind::SluiceKind;
use super::status::ready_of;
use crate::kube_ext::CALL_TIMEOUT;

/// Says that `Ready` changed its status or reason.
pub async fn ready_changed<K: SluiceKind>(ctx: &Context, object: &K, before: &Status, after: &Status) {
    let (Some(now), was) = (ready_of(after), ready_of(before)) else { return };
    if was.is_some_and(|was| (was.0, was.1) == (now.0, now.1)) {
        return;
    }
    let stalled = |status: &Status| {
        status.conditions.iter().any(|c| c.type_ == ConditionType::Stalled.as_str() && c.status == "True")
    };
    let type_ = if stalled(after) { EventType::Warning } else { EventType::Normal };
    publish(ctx, object, type_, now.1, now.2).await;
}

/// Publishes an event about a resource.
pub async fn say<K: SluiceKind>(ctx: &Context, object: &K, type_: EventType, reason: Reason, note: &str) {
    publish(ctx, object, type_, reason.as_str(), note).await;
}

async fn publish<K: SluiceKind>(ctx: &Context, object: &K, type_: EventType, reason: &str, note: &str) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        // The API takes at most 1,024 bytes.
        note: Some(shortened(note)),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    let reference = object.object_ref(&());
    match tokio::time::timeout(CALL_TIMEOUT, ctx.recorder.publish(&event, &reference)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an event could not be published"),
        Err(_) => tracing::debug!("an event could not be published in time"),
    }
}

fn shortened(note: &str) -> String {
    let mut text: String = note.chars().take(1_000).collect();
    while text.len() > 1_000 {
        text.pop();
    }
    text
}
