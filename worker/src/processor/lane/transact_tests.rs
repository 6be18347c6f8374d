//! On librdkafka's own mock brokers: what no error code tells, and real brokers do not do at will.

use prometheus_client::registry::Registry;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use sluice_clients::kafka::error::{ErrorCode, ErrorFlags};
use sluice_clients::kafka::producer::{ProducerLimits, producer_config};

use super::*;

const BROKER: i32 = 1;

struct Scene {
    brokers: MockCluster<'static, DefaultProducerContext>,
    transactor: Transactor,
}

impl Scene {
    fn new() -> Self {
        let brokers = MockCluster::new(BROKER).unwrap();
        brokers.create_topic("out", 1, 1).unwrap();
        let mut base = ClientConfig::new();
        base.set("bootstrap.servers", brokers.bootstrap_servers());
        let limits = ProducerLimits { max_record_bytes: 1 << 20, queue_bytes: 1 << 20 };
        let transactor = Transactor::new(
            producer_config(base, "sluice/test/0", limits),
            Topics::new(["out"], None, 1 << 20),
            CallClock::new(),
            ProcessorMetrics::register(&mut Registry::default()),
        );
        Self { brokers, transactor }
    }

    /// A producer that has an id.
    fn ready() -> Self {
        let mut scene = Self::new();
        scene.make_ready();
        scene
    }

    /// How many calls that took.
    fn make_ready(&mut self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut calls = 1;
        while let Err(error) = self.transactor.make_ready() {
            assert!(Instant::now() < deadline, "{error}");
            calls += 1;
        }
        calls
    }

    /// A transaction with a record in it that fails so.
    fn fail(
        &mut self,
        code: Code,
        pace: Pace,
        while_aborting: impl FnOnce(&MockCluster<'static, DefaultProducerContext>),
    ) -> Attempt {
        let producer = self.transactor.obtain().unwrap();
        producer.begin().unwrap();
        let record = Outgoing { key: None, value: Some(b"v"), timestamp: None, headers: &[], tag: 0 };
        produce(&producer, 0, &record, Instant::now()).map_err(|failed| failed.error).unwrap();
        // On the brokers, so that ending the transaction is a call to them.
        let deadline = Instant::now() + Duration::from_secs(60);
        while producer.in_flight() > 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        while_aborting(&self.brokers);
        let flags = ErrorFlags { abort: true, ..ErrorFlags::default() };
        let error = KafkaError::Call { call: "test", code: ErrorCode(code), detail: String::new(), flags };
        self.transactor.recover(producer, Failed::of(Operation::SendOffsets, error), pace)
    }

    fn made_anew(&self, why: &'static str) -> u64 {
        self.transactor.metrics.producers.get_or_create(&reason(why)).get()
    }
}

#[test]
fn an_abort_keeps_the_producer() {
    let mut scene = Scene::ready();
    let attempt = scene.fail(Code::TopicAuthorizationFailed, Pace::Usual, |_| {});
    assert!(matches!(attempt, Attempt::Aborted(_)), "{attempt:?}");
    assert!(scene.transactor.is_ready());
    assert_eq!(scene.made_anew("SlowAbort"), 0);
}

/// The answer to the first `EndTxn` may still be on the way when the next transaction begins.
#[test]
fn a_slow_abort_is_the_last_thing_of_its_producer() {
    let mut scene = Scene::ready();
    let slow = |brokers: &MockCluster<'static, DefaultProducerContext>| {
        brokers.broker_round_trip_time(BROKER, SLOW + Duration::from_millis(300)).unwrap();
    };
    let attempt = scene.fail(Code::TopicAuthorizationFailed, Pace::Usual, slow);
    assert!(matches!(attempt, Attempt::Aborted(_)), "{attempt:?}");
    assert_eq!(scene.made_anew("SlowAbort"), 1);
}

#[test]
fn offsets_that_were_sent_again_are_the_last_thing_of_their_producer_too() {
    let mut scene = Scene::ready();
    let attempt = scene.fail(Code::IllegalGeneration, Pace::Slow, |_| {});
    assert!(matches!(attempt, Attempt::Rewind(_)), "{attempt:?}");
    assert_eq!(scene.made_anew("SlowAbort"), 1);
}

/// Every step on the way to an id, connections included, is an answer that takes this long.
#[test]
fn an_id_that_takes_longer_than_a_call_is_still_got() {
    let mut scene = Scene::new();
    scene.brokers.broker_round_trip_time(BROKER, INIT / 4).unwrap();
    assert!(scene.make_ready() > 1, "the first call should have timed out");
    // So that the end of the producer does not take as long.
    scene.brokers.broker_round_trip_time(BROKER, Duration::ZERO).unwrap();
}
