//! On somebody's own cluster the demo starts from nothing only where nothing of theirs is.

use super::cluster::Cluster;
use super::traffic::{KEY_PATTERNS, MADE, STATE_TOPIC};
use super::{INSTANCE, NAMESPACE};
use crate::datapath::redis::RedisReader;
use crate::datapath::{HarnessError, kafka};
use crate::stack::Stack;

/// Refuses when another Sluice, a namespace, topics or keys of the example's names are there that no demo has made. An earlier
/// demo is known by its namespace's label.
pub(super) fn nothing_of_others(stack: &Stack, cluster: &Cluster<'_>) -> Result<(), HarnessError> {
    if let Some(other) = cluster.installed_instance()?.filter(|id| id != INSTANCE) {
        return Err(refusal(&format!("Sluice is installed in this cluster as instance {other:?}")));
    }
    match cluster.namespace_is_ours()? {
        Some(true) => return Ok(()),
        Some(false) => return Err(refusal(&format!("there is a namespace {NAMESPACE:?} that no demo has made"))),
        None => {}
    }
    let names: Vec<String> = MADE.into_iter().chain([STATE_TOPIC]).map(str::to_owned).collect();
    if let Some(topic) = kafka::existing(stack.kafka()?, &names)?.first() {
        return Err(refusal(&format!("there is a topic {topic:?}")));
    }
    let reader = RedisReader::new(stack.redis()?)?;
    for master in reader.masters()? {
        let mut connection = reader.connect(&master.address)?;
        for pattern in KEY_PATTERNS {
            if let Some(key) = reader.find_key(&mut connection, pattern)? {
                return Err(refusal(&format!("there is a Redis key {key:?}")));
            }
        }
    }
    Ok(())
}

fn refusal(found: &str) -> HarnessError {
    let names = [MADE.as_slice(), &[STATE_TOPIC], KEY_PATTERNS.as_slice()].concat().join(", ");
    HarnessError::Process {
        name: "this cluster is in use".into(),
        message: format!(
            "{found}. The demo deletes namespace {NAMESPACE}, topics and keys {names}. If all of them may go: OVERWRITE=true"
        ),
    }
}
