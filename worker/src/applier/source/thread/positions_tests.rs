//! Positions that are taken while brokers answer slowly or not at all, on librdkafka's own mock brokers. What went wrong here lost
//! records: half a second after an outdated answer on where the log ends, reading went on from there.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use tokio::sync::mpsc;

use super::*;
use crate::applier::engine::LineId;
use crate::health::Health;

const BROKER: i32 = 1;
/// Longer than a poll and a command, so that every answer comes after what outdates it.
const ROUND_TRIP: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(60);
/// Each is an answer of its own: reading them all takes far longer than librdkafka waits before it asks again.
const RECORDS: i64 = 12;
const BEGIN: i64 = 2;

fn settings(brokers: &MockCluster<'_, DefaultProducerContext>) -> SourceSettings {
    let topic = serde_json::json!({
        "topic": {"name": "t", "id": "7Wc2m-Qd_kOZr4hV0nH3xA"},
        "format": "Json",
        "views": [{"name": "v", "key": "'v:' + key", "keyPrefix": "v:", "viewType": "Json"}]
    });
    let decoder = Decoder::compile(&serde_json::from_value(topic).unwrap()).unwrap();
    SourceSettings {
        kafka: KafkaEndpoint { brokers: vec![brokers.bootstrap_servers()], tls: None, sasl: None },
        credentials: None,
        group: "g".to_owned(),
        decoders: Arc::new(vec![decoder]),
        health: Health::default().register("source", PATIENCE, None),
    }
}

/// Records in batches of one: the mock answers a fetch with one batch.
fn produce(brokers: &MockCluster<'_, DefaultProducerContext>, partition: i32) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers.bootstrap_servers()).create().unwrap();
    for _ in 0..RECORDS {
        producer.send(BaseRecord::<str, str>::to("t").partition(partition).key("k").payload("{}")).unwrap();
        producer.flush(PATIENCE).unwrap();
    }
}

/// Offsets that are told of a partition until its end, when all that are assigned are read from `first`.
fn read(brokers: &MockCluster<'_, DefaultProducerContext>, of: i32, first: i64) -> Vec<i64> {
    let ((commands, taken), (tell, mut told)) = (std::sync::mpsc::channel(), mpsc::channel(64));
    let source = Source::new(settings(brokers), Mode::Group, taken, tell);
    let thread = std::thread::spawn(move || source.run());
    let (mut offsets, began) = (Vec::new(), Instant::now());
    loop {
        assert!(began.elapsed() < PATIENCE, "the end should come, after {offsets:?}");
        match told.blocking_recv().expect("the source goes on") {
            Told::Event(Event::Assigned(partitions)) => {
                for partition in partitions {
                    let reading = Reading { partition, line: LineId::Main, incarnation: 1 };
                    commands.send(Command::Read { reading, offset: first }).unwrap();
                }
            }
            Told::Event(Event::Fetched { reading, changes }) if reading.partition.partition == of => {
                offsets.extend(changes.iter().map(|change| change.offset));
            }
            Told::Event(Event::End { reading, offset }) if reading.partition.partition == of && offset == RECORDS => {
                break;
            }
            Told::Fatal(error) => panic!("{error}"),
            _ => {}
        }
    }
    drop(commands);
    // What is told while it leaves the group is not waited for.
    drop(told);
    thread.join().unwrap();
    offsets
}

#[test]
fn no_answer_that_comes_late_moves_the_position() {
    let brokers = MockCluster::new(BROKER).unwrap();
    brokers.create_topic("t", 1, 1).unwrap();
    produce(&brokers, 0);
    brokers.broker_round_trip_time(BROKER, ROUND_TRIP).unwrap();
    assert_eq!(read(&brokers, 0, BEGIN), (BEGIN..RECORDS).collect::<Vec<_>>());
}

#[test]
fn a_partition_without_a_leader_holds_up_no_other_one() {
    let brokers = MockCluster::new(BROKER).unwrap();
    brokers.create_topic("t", 2, 1).unwrap();
    produce(&brokers, 1);
    brokers.partition_leader("t", 0, None).unwrap();
    assert_eq!(read(&brokers, 1, 0), (0..RECORDS).collect::<Vec<_>>());
}
