//! How long Kafka keeps the offsets of a group without members. IO; what it comes to is PURE.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use sluice_clients::kafka::admin::{AdminError, TopicConfig, TopicDescription};

use crate::connections::KafkaClient;

/// The topic of all committed offsets: whoever leads one of its partitions forgets by its own setting.
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const SETTING: &str = "offsets.retention.minutes";
/// The setting needs a restart of a broker to change.
const READ_EVERY: Duration = Duration::from_secs(3_600);
/// What could not be read is tried again after so long.
const TRY_EVERY: Duration = Duration::from_secs(600);
/// Brokers asked at the same time, and the longest that all may take together.
const BROKERS_AT_ONCE: usize = 16;
const LONGEST: Duration = Duration::from_secs(10);

/// What is known of it on one connection.
#[derive(Debug, Default)]
pub(super) struct Retention {
    known: Option<Duration>,
    due: Option<Instant>,
}

impl Retention {
    /// The shortest time of any broker, as it was when it could last be read.
    pub fn known(&self) -> Option<Duration> {
        self.known
    }

    /// Reads it when that was long ago.
    pub async fn look(&mut self, kafka: &KafkaClient) {
        if self.due.is_some_and(|due| Instant::now() < due) {
            return;
        }
        let read = tokio::time::timeout(LONGEST, read(kafka)).await.unwrap_or(Err(AdminError::Incomplete(SETTING)));
        let wait = match read {
            Ok(known) => {
                self.known = Some(known);
                READ_EVERY
            }
            Err(error) => {
                tracing::info!(%error, "{SETTING} cannot be read: groups sleep as if it were a day, or what it was");
                TRY_EVERY
            }
        };
        self.due = Some(Instant::now() + wait);
    }
}

async fn read(kafka: &KafkaClient) -> Result<Duration, AdminError> {
    let topic = [OFFSETS_TOPIC.to_owned()];
    let mut described = kafka.call(|admin| async move { admin.describe_topics(&topic).await }).await?;
    let described = described.remove(OFFSETS_TOPIC).unwrap_or(Ok(None))?;
    let configs = futures::stream::iter(leaders(described.as_ref()))
        // One broker that is away is not the connection.
        .map(|broker| kafka.call_group(move |admin| async move { admin.describe_broker_config(broker).await }))
        .buffer_unordered(BROKERS_AT_ONCE);
    let configs: Vec<TopicConfig> = configs.try_collect().await?;
    shortest(&configs)
}

fn leaders(topic: Option<&TopicDescription>) -> BTreeSet<i32> {
    topic.into_iter().flat_map(|topic| &topic.partitions).filter_map(|partition| partition.leader).collect()
}

/// The shortest of all; an error when one does not say it, or there is none.
fn shortest(configs: &[TopicConfig]) -> Result<Duration, AdminError> {
    let minutes = |config: &TopicConfig| config.get(SETTING)?.value.as_ref()?.parse::<u32>().ok();
    let all: Option<Vec<u32>> = configs.iter().map(minutes).collect();
    let shortest = all.and_then(|all| all.into_iter().min());
    shortest.map(|minutes| Duration::from_secs(u64::from(minutes) * 60)).ok_or(AdminError::Incomplete(SETTING))
}

#[cfg(test)]
mod tests {
    use sluice_clients::kafka::admin::{ConfigEntry, ConfigSource};

    use super::*;

    fn config(value: Option<&str>) -> TopicConfig {
        let value = value.map(str::to_owned);
        [(SETTING.to_owned(), ConfigEntry { value, source: ConfigSource::Default, read_only: true })].into()
    }

    #[test]
    fn the_broker_that_forgets_first_counts_and_one_that_does_not_say_is_none_at_all() {
        let both = vec![config(Some("10080")), config(Some("1440"))];
        assert_eq!(shortest(&both).unwrap(), Duration::from_secs(86_400));
        for configs in
            [vec![], vec![config(Some("10080")), config(None)], vec![config(Some("-1"))], vec![TopicConfig::new()]]
        {
            assert!(shortest(&configs).is_err());
        }
    }
}
