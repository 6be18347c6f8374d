//! What flows: reference data, orders at a pace, and a topic that another team writes.

use std::time::Duration;

use super::Options;
use crate::datapath::loader::{Loaded, Loader};
use crate::datapath::redis::{RedisReader, load_reference};
use crate::datapath::{HarnessError, kafka, wait_for};
use crate::generator::{GeneratedOrder, Generator, Mix, Profile, RecordId};
use crate::stack::{Kafka, Stack};

/// Partitions of every topic of the example.
pub(super) const PARTITIONS: u32 = 4;
/// The topic of `order-cache`, which Sluice only reads.
pub(super) const STATE_TOPIC: &str = "order.state";
/// Source of `enrich-orders`.
pub(super) const SOURCE_TOPIC: &str = "order.created";
/// Topics that the example's pipelines make.
pub(super) const MADE: [&str; 5] =
    [SOURCE_TOPIC, "order.enriched", "order.review", "order.rejected", "order.read-model"];
/// Redis keys of the example and of its reference data.
pub(super) const KEY_PATTERNS: [&str; 4] = ["order:*", "state:*", "price:*", "stock:*"];

/// The orders of one demo.
pub(super) struct Traffic {
    profile: Profile,
    orders: u64,
    per_second: u32,
}

/// Orders on their way.
pub(super) struct Loading {
    loader: Loader,
}

impl Traffic {
    /// Starts from nothing: no topics, no keys of an earlier run; then reference data and the other team's topic.
    pub(super) fn prepare(stack: &Stack, options: &Options) -> Result<Self, HarnessError> {
        let (kafka, redis) = (stack.kafka()?, RedisReader::new(stack.redis()?)?);
        forget_topics(kafka)?;
        for master in redis.masters()? {
            for pattern in KEY_PATTERNS {
                redis.delete(&master, pattern)?;
            }
        }
        let profile = Profile {
            seed: options.seed,
            partitions: PARTITIONS,
            orders: 5_000,
            customers: 2_000,
            skus: 1_000,
            value_bytes: 600,
            mix: Mix::MIXED,
        };
        let traffic = Self { profile, orders: options.orders, per_second: options.per_second };
        load_reference(&redis, "", Generator::new(profile).known_skus())?;
        let spec = kafka::TopicSpec { name: STATE_TOPIC, partitions: 4, config: &[("cleanup.policy", "compact")] };
        kafka::create_topics(kafka, &[spec])?;
        Loader::start(kafka, STATE_TOPIC, states(profile), 0)?.finish()?;
        Ok(traffic)
    }

    /// Number of products with a price.
    pub(super) fn products(&self) -> usize {
        Generator::new(self.profile).known_skus().count()
    }

    /// Starts producing.
    pub(super) fn start(&self, stack: &Stack) -> Result<Loading, HarnessError> {
        let orders = usize::try_from(self.orders).unwrap_or(usize::MAX);
        let orders = Generator::new(self.profile).take(orders);
        Ok(Loading { loader: Loader::start(stack.kafka()?, SOURCE_TOPIC, orders, self.per_second)? })
    }
}

impl Loading {
    /// Waits until so many orders are sent.
    pub(super) fn wait_for(&self, orders: u64) -> Result<(), HarnessError> {
        wait_for(&format!("{orders} orders sent"), Duration::from_secs(600), || {
            Ok((self.loader.sent() >= orders || self.loader.is_finished()).then_some(()))
        })
    }

    /// Waits until all are acknowledged.
    pub(super) fn finish(self) -> Result<Loaded, HarnessError> {
        self.loader.finish()
    }
}

/// States of orders as another team writes them: later ones replace earlier ones, some close, some are deleted.
fn states(profile: Profile) -> impl Iterator<Item = GeneratedOrder> + Send + 'static {
    let named = ["NEW", "PAID", "SENT", "CLOSED"];
    let orders =
        Generator::new(Profile { mix: Mix { tombstone: 50, ..Mix::CLEAN }, value_bytes: 0, ..profile }).take(8_000);
    orders.map(move |mut order| {
        let RecordId { partition, sequence } = order.id;
        let state = named[usize::try_from(sequence % 4).unwrap_or(0)];
        order.value = order.value.map(|_| {
            format!(
                r#"{{"state":"{state}","step":{sequence},"by":{{"node":{partition}}},"open":{},"none":null}}"#,
                state != "CLOSED"
            )
            .into_bytes()
        });
        order
    })
}

/// Deletes the topics of an earlier demo and waits until they are gone.
fn forget_topics(kafka: &Kafka) -> Result<(), HarnessError> {
    let names: Vec<String> = MADE.into_iter().chain([STATE_TOPIC]).map(str::to_owned).collect();
    kafka::delete_topics(kafka, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    kafka::wait_gone(kafka, &names)
}
