//! A coordinator that comes back when nobody waits for it any more, on librdkafka's own mock brokers. What went wrong here ended
//! the process, so a failure is not a failed assertion.

use std::time::Instant;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

const BROKER: i32 = 1;
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

struct Scene {
    brokers: MockCluster<'static, DefaultProducerContext>,
    admin: Admin,
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
}

impl Scene {
    fn new() -> Self {
        let brokers = MockCluster::new(BROKER).unwrap();
        brokers.create_topic("t", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers.bootstrap_servers()).set("reconnect.backoff.max.ms", "200");
        let admin = Admin::new(&config, LONG).unwrap();
        let offset = CommittedOffset { offset: 1, metadata: String::new() };
        Self { brokers, admin, offsets: [(TopicPartition::new("t", 0), offset)].into() }
    }

    async fn ask(&self, deadline: Duration) -> Result<(), AdminError> {
        let outcomes = self.admin.with_deadline(deadline).alter_group_offsets("g", &self.offsets).await?;
        outcomes.into_values().collect()
    }

    /// Asks until there is an answer.
    async fn answered(&self) {
        let began = Instant::now();
        while let Err(error) = self.ask(SHORT * 10).await {
            assert!(began.elapsed() < LONG, "{error}");
        }
    }

    /// Takes the broker away until a call has waited for it in vain. A call that was under way fails at once instead.
    async fn outage(&self) {
        self.brokers.broker_down(BROKER).unwrap();
        let began = Instant::now();
        while !matches!(self.ask(SHORT).await, Err(AdminError::TimedOut { .. })) {
            assert!(began.elapsed() < LONG, "the broker should be away");
        }
    }
}

#[tokio::test]
async fn a_coordinator_may_come_back_after_a_call_has_given_up() {
    let scene = Scene::new();
    for _ in 0..5 {
        scene.answered().await;
        scene.outage().await;
        scene.brokers.broker_up(BROKER).unwrap();
    }
    scene.answered().await;
}

#[tokio::test]
async fn a_coordinator_may_come_back_after_a_caller_has_gone() {
    let scene = Scene::new();
    scene.answered().await;
    scene.outage().await;
    let first = scene.admin.handle().unwrap();
    let other = scene.ask(LONG);
    tokio::pin!(other);
    assert!(futures::poll!(&mut other).is_pending());
    assert!(tokio::time::timeout(SHORT, scene.ask(LONG)).await.is_err(), "the broker is away");
    assert!(first.is_spent(), "a call that nobody waits for is as dangerous as one that is late");
    drop(first);
    scene.brokers.broker_up(BROKER).unwrap();
    other.await.expect("who began before goes on");
    scene.answered().await;
}

#[tokio::test]
async fn only_calls_to_coordinators_use_a_client_up() {
    let scene = Scene::new();
    scene.answered().await;
    let first = scene.admin.handle().unwrap();
    scene.brokers.broker_down(BROKER).unwrap();
    let topics = ["t".to_owned()];
    let admin = scene.admin.with_deadline(SHORT);
    while !matches!(admin.describe_topics(&topics).await, Err(AdminError::TimedOut { .. })) {}
    assert!(Arc::ptr_eq(&first, &scene.admin.handle().unwrap()));
    scene.outage().await;
    assert!(!Arc::ptr_eq(&first, &scene.admin.handle().unwrap()));
}

/// Brokers that restart hand their groups over all the time.
#[tokio::test]
async fn a_coordinator_may_have_moved_meanwhile() {
    let scene = Scene::new();
    scene.answered().await;
    for error in [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR, RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT] {
        scene.brokers.request_errors(RDKafkaApiKey::OffsetCommit, &[error]);
        let refused = scene.ask(LONG).await.expect_err("this is not the coordinator");
        assert!(refused.retryable(), "{refused:?}");
        scene.answered().await;
    }
}
