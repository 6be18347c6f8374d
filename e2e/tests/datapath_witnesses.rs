//! The witnesses themselves: what was loaded is read back the same by librdkafka, by Kafka's own consumer and from Redis.

use std::collections::BTreeMap;

use sluice_e2e::checker::Held;
use sluice_e2e::datapath::loader::Loader;
use sluice_e2e::datapath::scenario::{Engines, Scenario};
use sluice_e2e::datapath::{console, kafka};
use sluice_e2e::generator::{Generator, Profile, Sku};
use sluice_e2e::stack::{Group, require};

#[test]
fn both_readers_see_every_byte_that_was_loaded() {
    let Some(stack) = require(&[Group::Kafka, Group::Redis]) else { return };
    let (kafka, redis) = (stack.kafka().expect("there"), stack.redis().expect("there"));
    let scenario = Scenario::create("witnesses", kafka, redis, 4, Engines::Both).expect("topics are made");
    let profile = Profile::mixed(11, 4);
    let producer = Loader::start(kafka, &scenario.source(), Generator::new(profile).take(500), 0).expect("a producer");
    let loaded = producer.finish().expect("all orders are acknowledged, in the partitions their ids name");
    assert_eq!(loaded.expected.len(), 500);

    let dump = kafka::dump(kafka, &scenario.source()).expect("a dump");
    let printed = console::dump(kafka, &scenario.source(), &dump).expect("another dump");
    let differs = dump.records.iter().zip(&printed.records).find(|(one, other)| one != other);
    assert!(differs.is_none(), "{differs:?}");
    assert_eq!(dump.records.len(), printed.records.len());
    let made: BTreeMap<_, _> = Generator::new(profile).take(500).map(|order| (order.id, order)).collect();
    assert_eq!(dump.records.len(), made.len());
    for record in &dump.records {
        let order = &made[&record.id().expect("every order has an id")];
        assert_eq!(
            (record.key.as_ref(), &record.value, &record.headers),
            (Some(&order.key), &order.value, &order.headers)
        );
        // Nobody else writes this topic, so an order's sequence number is its offset.
        assert_eq!(u64::try_from(record.offset), Ok(order.id.sequence));
    }
    let start = kafka::committed(kafka, &scenario.processor_group(), &scenario.source()).expect("start offsets");
    assert_eq!(start, (0..4).map(|partition| (partition, 0)).collect());
}

#[test]
fn a_dump_of_redis_is_what_was_written() {
    let Some(stack) = require(&[Group::Kafka, Group::Redis]) else { return };
    let (kafka, redis) = (stack.kafka().expect("there"), stack.redis().expect("there"));
    let scenario = Scenario::create("dump", kafka, redis, 1, Engines::Both).expect("topics are made");
    scenario.load_reference((0..50).map(Sku)).expect("reference data is loaded");
    let dump = scenario.reader.dump(&format!("{}*", scenario.key_prefix())).expect("a dump");
    let mut wanted: BTreeMap<String, Held> = BTreeMap::new();
    for sku in (0..50).map(Sku) {
        let (key, text) = sku.price_entry(&scenario.key_prefix());
        wanted.insert(key, Held::Text(text.into_bytes()));
        if let Some((key, pieces)) = sku.stock_entry(&scenario.key_prefix()) {
            wanted.insert(key, Held::Hash([(b"onHand".to_vec(), pieces.into_bytes())].into()));
        }
    }
    let found: BTreeMap<String, Held> = dump.keys.into_iter().map(|(key, entry)| (key, entry.held)).collect();
    assert_eq!(found, wanted);
    assert!(dump.from_ms > 1_700_000_000_000 && dump.from_ms <= dump.until_ms);
    scenario.forget_keys().expect("keys are deleted");
    assert!(scenario.reader.dump(&format!("{}*", scenario.key_prefix())).expect("a dump").keys.is_empty());
}
