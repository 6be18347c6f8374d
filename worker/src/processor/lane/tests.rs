//! On librdkafka's own mock brokers: a whole lane, from its commands to what it says of itself.

use std::sync::mpsc::channel;

use prometheus_client::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka_sys::RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED as REFUSED;
use rdkafka_sys::types::RDKafkaApiKey;
use sluice_clients::kafka::consumer::{Consumer, Polled, consumer_config};
use sluice_clients::kafka::producer::{ProducerLimits, producer_config};
use sluice_crds::v1alpha1::Format;
use sluice_transform::{Limits, Program};

use super::*;
use crate::health::Health;
use crate::processor::lane::outgoing::Topics;
use crate::processor::lease::Lease;
use crate::processor::lookups::{Cache, Lookups};
use crate::processor::watchdog::CallClock;

const PATIENCE: Duration = Duration::from_secs(60);
const MOST: usize = 1 << 20;

type Brokers = MockCluster<'static, DefaultProducerContext>;

fn client(brokers: &Brokers) -> ClientConfig {
    ClientConfig::new().set("bootstrap.servers", brokers.bootstrap_servers()).clone()
}

/// Steps and routes that let everything through.
fn program() -> Program {
    let routing = serde_json::json!({"match": "First", "onNoMatch": "DeadLetter", "routes": [
        {"name": "out", "topic": "out", "hasViews": false, "compacted": false}]});
    let routing = serde_json::from_value(routing).unwrap();
    Program::compile(Format::Json, &[], &routing, Limits { max_record_bytes: MOST }).unwrap()
}

/// A lane with its ends.
fn lane(brokers: &Brokers, health: &Health) -> (Lane, Sender<Command>, Receiver<Notice>) {
    let ((to_lane, commands), (notices, from_lane)) = (channel(), channel());
    let metrics = ProcessorMetrics::register(&mut Registry::default());
    let limits = ProducerLimits { max_record_bytes: 1 << 20, queue_bytes: 1 << 20 };
    let topics = Topics::new(["out"], None, 1 << 20);
    let config = producer_config(client(brokers), "sluice/test/0", limits);
    let lane = Lane {
        id: LaneId(0),
        commands,
        notices,
        load: Arc::default(),
        limits: BatchLimits { records: 10, bytes: MOST, interval: Duration::ZERO },
        steps: Steps::new(
            Arc::new(program()),
            Lookups::new(Cache::new(0, Duration::ZERO), None, metrics.clone()),
            MOST,
        ),
        transactor: Transactor::new(config, topics, CallClock::new(), metrics.clone()),
        topic_ids: TopicIds::default(),
        metrics,
        health: health.register("lane 0", PATIENCE, Some("TransactionalProducer")),
    };
    (lane, to_lane, from_lane)
}

/// A member of a group that reads the topic `in`.
fn member(brokers: &Brokers) -> (Consumer, Arc<GroupMetadata>) {
    let consumer = Consumer::new(&consumer_config(client(brokers), "g")).unwrap();
    consumer.subscribe(["in"]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no partitions");
        if let Some(Polled::Assign(partitions)) = consumer.poll(Duration::from_millis(100)) {
            consumer.incremental_assign(partitions.iter().map(|partition| (partition, 0))).unwrap();
            let group = Arc::new(consumer.group_metadata().unwrap());
            return (consumer, group);
        }
    }
}

/// Found on the stack: partitions came while the brokers were slow to give the first id, so the transaction of the first
/// batch got it. The worker worked, and was never ready.
#[test]
fn a_lane_whose_first_work_gets_the_producer_its_id_is_ready() {
    let brokers = MockCluster::new(1).unwrap();
    brokers.create_topic("in", 1, 1).unwrap();
    brokers.create_topic("out", 1, 1).unwrap();
    let (health, (_consumer, group)) = (Health::default(), member(&brokers));
    let (lane, commands, notices) = lane(&brokers, &health);
    let metrics = lane.metrics.clone();
    brokers.request_errors(RDKafkaApiKey::InitProducerId, &[REFUSED]);
    // There before the lane runs: its first attempt fails, and this comes before the next one.
    let lease = Lease::new(TopicPartition::new("in", 0), Incarnation(1), LaneId(0), 0);
    commands.send(Command::End(lease, 1, group)).unwrap();
    let thread = std::thread::spawn(move || lane.run());

    let deadline = Instant::now() + PATIENCE;
    while !health.waiting().is_empty() {
        assert!(Instant::now() < deadline, "it waits for {:?}", health.waiting());
        std::thread::sleep(Duration::from_millis(10));
    }
    commands.send(Command::Stop).unwrap();
    thread.join().unwrap();
    assert!(notices.try_recv().is_err(), "nothing was given back");
    assert_eq!(metrics.transactions.get(), 1, "the work was there before the second attempt");
}
