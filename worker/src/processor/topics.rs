//! Are the source topics the ones that the configuration was made for? A topic that was deleted and made anew has the
//! same name and other records: committed offsets mean nothing in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_clients::kafka::admin::Admin;
use sluice_clients::kafka::config::client_config;
use sluice_crds::report::TopicId;

use crate::engine::{EngineContext, ShutdownTrigger};
use crate::health::HealthHandle;

const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks while the processor runs. Each is a connection of its own.
const PERIOD: Duration = Duration::from_secs(30);

/// Asks until the brokers answer. None: the process must stop, or they are other topics and it was said until the
/// stop signal came (the operator rolls out a new configuration then; restarting would not help).
pub async fn are_ours(expected: &BTreeMap<String, TopicId>, context: &EngineContext) -> Option<HealthHandle> {
    let health = context.health.register("topics", Duration::MAX, Some("TopicIds"));
    loop {
        match differing(expected, context).await {
            Ok(None) => {
                health.ready();
                return Some(health);
            }
            Ok(Some(topic)) => {
                say_replaced(&topic, &health);
                context.shutdown.raised().await;
                return None;
            }
            Err(message) => tracing::info!(message, "topic ids are not to be had yet"),
        }
        if tokio::time::timeout(PAUSE, context.shutdown.raised()).await.is_ok() {
            return None;
        }
    }
}

/// Asks again and again while the processor runs: a topic may be made again with more records than the old one had, and
/// then no position is out of range. Raises `stop` when it was, or when the process stops. True: it was.
pub async fn watch(
    expected: Arc<BTreeMap<String, TopicId>>,
    context: EngineContext,
    health: HealthHandle,
    stop: ShutdownTrigger,
) -> bool {
    let replaced = loop {
        if tokio::time::timeout(PERIOD, context.shutdown.raised()).await.is_ok() {
            break false;
        }
        match differing(&expected, &context).await {
            Ok(None) => {}
            Ok(Some(topic)) => {
                say_replaced(&topic, &health);
                break true;
            }
            // Brokers that are away are everybody's trouble, and said elsewhere.
            Err(message) => tracing::debug!(message, "topic ids are not to be had"),
        }
    };
    stop.raise();
    replaced
}

fn say_replaced(topic: &str, health: &HealthHandle) {
    tracing::error!(topic, "the topic is not the one this configuration was made for: nothing more is processed");
    health.wait_for("TopicReplaced");
}

/// The first topic that has another id. The client lives only for the question.
async fn differing(expected: &BTreeMap<String, TopicId>, context: &EngineContext) -> Result<Option<String>, String> {
    let config = client_config(&context.kafka, context.kafka_credentials.as_ref());
    let admin = Admin::new(&config, DEADLINE).map_err(|error| error.to_string())?;
    let names: Vec<String> = expected.keys().cloned().collect();
    let found = admin.describe_topics(&names).await.map_err(|error| error.to_string())?;
    for (name, id) in expected {
        match found.get(name) {
            Some(Ok(Some(topic))) if topic.id.as_str() == id.as_str() => {}
            Some(Ok(Some(_))) => return Ok(Some(name.clone())),
            // Brokers learn of a new topic one after another.
            Some(Ok(None)) => return Err(format!("topic {name:?} is not there")),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(format!("no answer for {name:?}")),
        }
    }
    Ok(None)
}
