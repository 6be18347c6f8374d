//! Against brokers of the test's own, which answer what a test tells them to.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, OffsetFetchRequest, OffsetFetchResponse,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes, decode_request_header_from_buffer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;
use crate::kafka::admin::{GroupOffsets, TopicPartition};

const LONG: Duration = Duration::from_secs(60);
const NOT_COORDINATOR: i16 = 16;

/// A broker: it coordinates every group that the scene says, and commits its own number for each.
struct Broker {
    number: usize,
    port: u16,
    /// Takes requests and never answers them.
    is_silent: AtomicBool,
    silent: Notify,
    connections: AtomicUsize,
}

struct Scene {
    brokers: Vec<Broker>,
    /// Which broker coordinates a group, by its name.
    coordinator: Mutex<fn(&str) -> usize>,
}

impl Scene {
    async fn start(count: usize, coordinator: fn(&str) -> usize) -> Arc<Self> {
        let (mut brokers, mut listeners) = (Vec::new(), Vec::new());
        for number in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            listeners.push(listener);
            let (is_silent, silent, connections) = Default::default();
            brokers.push(Broker { number, port, is_silent, silent, connections });
        }
        let scene = Arc::new(Self { brokers, coordinator: Mutex::new(coordinator) });
        for (number, listener) in listeners.into_iter().enumerate() {
            let scene = Arc::clone(&scene);
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    scene.brokers[number].connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(Arc::clone(&scene), number, stream));
                }
            });
        }
        scene
    }

    fn coordinators(&self) -> Coordinators {
        let brokers: Vec<String> = self.brokers.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers.join(","));
        Coordinators::new(&config, Sent::default()).unwrap()
    }

    fn move_to(&self, coordinator: fn(&str) -> usize) {
        *lock(&self.coordinator) = coordinator;
    }

    fn silence(&self, number: usize) {
        self.brokers[number].is_silent.store(true, Ordering::SeqCst);
    }

    fn answer(&self, number: usize, mut request: Bytes) -> BytesMut {
        let header = decode_request_header_from_buffer(&mut request).unwrap();
        let (version, mut answer) = (header.request_api_version, BytesMut::new());
        let head = ResponseHeader::default().with_correlation_id(header.correlation_id);
        let of = |group: &str| (lock(&self.coordinator))(group);
        match ApiKey::try_from(header.request_api_key).unwrap() {
            ApiKey::FindCoordinator => {
                let asked = FindCoordinatorRequest::decode(&mut request, version).unwrap();
                let found = asked.coordinator_keys.into_iter().map(|key| {
                    let broker = &self.brokers[of(&key)];
                    Coordinator::default()
                        .with_node_id(BrokerId(1))
                        .with_host(StrBytes::from_static_str("127.0.0.1"))
                        .with_port(broker.port.into())
                        .with_key(key)
                });
                head.encode(&mut answer, FindCoordinatorResponse::header_version(version)).unwrap();
                let body = FindCoordinatorResponse::default().with_coordinators(found.collect());
                body.encode(&mut answer, version).unwrap();
            }
            ApiKey::OffsetFetch => {
                let asked = OffsetFetchRequest::decode(&mut request, version).unwrap();
                let found = asked.groups.into_iter().map(|group| {
                    let is_here = of(&group.group_id) == number;
                    let partition = OffsetFetchResponsePartitions::default()
                        .with_committed_offset(i64::try_from(number).unwrap())
                        .with_metadata(Some(StrBytes::from_string(group.group_id.to_string())));
                    let topic = OffsetFetchResponseTopics::default()
                        .with_name(TopicName(StrBytes::from_static_str("t")))
                        .with_partitions(vec![partition]);
                    let found = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
                    if is_here { found.with_topics(vec![topic]) } else { found.with_error_code(NOT_COORDINATOR) }
                });
                head.encode(&mut answer, OffsetFetchResponse::header_version(version)).unwrap();
                OffsetFetchResponse::default().with_groups(found.collect()).encode(&mut answer, version).unwrap();
            }
            other => panic!("{other:?} was not expected"),
        }
        answer
    }
}

async fn serve(scene: Arc<Scene>, number: usize, mut stream: TcpStream) {
    let broker = &scene.brokers[number];
    while let Ok(length) = stream.read_u32().await {
        let mut request = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut request).await.unwrap();
        if broker.is_silent.load(Ordering::SeqCst) {
            broker.silent.notify_one();
            continue;
        }
        let answer = scene.answer(broker.number, request.into());
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(answer.len()).unwrap());
        frame.extend_from_slice(&answer);
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}

const ALL: Offsets<'static> = Offsets { partitions: None, require_stable: false };

fn names(count: usize) -> BTreeSet<String> {
    (0..count).map(|number| format!("g{number}")).collect()
}

fn by_last_digit(group: &str) -> usize {
    usize::from(group.ends_with(['1', '3', '5', '7', '9']))
}

/// Which broker a group's offsets came from; each answer must be the group's own.
fn told_by(group: &str, offsets: &GroupOffsets) -> usize {
    let committed = &offsets.committed[&TopicPartition::new("t", 0)];
    assert_eq!(committed.metadata, group);
    usize::try_from(committed.offset).unwrap()
}

fn sent(coordinators: &Coordinators, request: &str) -> u64 {
    lock(&coordinators.sent).get(request).copied().unwrap_or(0)
}

#[tokio::test]
async fn thousands_of_groups_are_a_few_requests() {
    let scene = Scene::start(2, by_last_digit).await;
    let (coordinators, groups) = (scene.coordinators(), names(2_500));
    for round in 1..=3 {
        let found = coordinators.ask(&ALL, groups.clone(), LONG).await.unwrap();
        assert_eq!(found.len(), 2_500);
        for (group, offsets) in &found {
            assert_eq!(told_by(group, offsets.as_ref().unwrap()), by_last_digit(group));
        }
        assert_eq!(sent(&coordinators, "FindCoordinator"), 3, "once for all rounds, a thousand at a time");
        assert_eq!(sent(&coordinators, "OffsetFetch"), round * 4, "two for each broker");
    }
}

#[tokio::test]
async fn a_group_that_has_moved_is_found_within_the_same_call() {
    let scene = Scene::start(2, |_| 0).await;
    let (coordinators, groups) = (scene.coordinators(), names(10));
    coordinators.ask(&ALL, groups.clone(), LONG).await.unwrap();
    scene.move_to(by_last_digit);
    for (group, offsets) in coordinators.ask(&ALL, groups, LONG).await.unwrap() {
        assert_eq!(told_by(&group, &offsets.unwrap()), by_last_digit(&group));
    }
    assert_eq!(sent(&coordinators, "FindCoordinator"), 2);
}

#[tokio::test]
async fn a_silent_coordinator_holds_up_nobody_elses_groups() {
    let scene = Scene::start(2, by_last_digit).await;
    let (coordinators, groups) = (scene.coordinators(), names(10));
    coordinators.ask(&ALL, groups.clone(), LONG).await.unwrap();
    scene.silence(1);
    let found = coordinators.ask(&ALL, groups.clone(), Duration::from_secs(4)).await.unwrap();
    for (group, offsets) in found {
        let is_silent = matches!(offsets, Err(AdminError::TimedOut { .. }));
        assert_eq!(is_silent, by_last_digit(&group) == 1, "{group}: {offsets:?}");
    }
    // The others take its groups over.
    scene.move_to(|_| 0);
    let found = coordinators.ask(&ALL, groups, LONG).await.unwrap();
    assert!(found.iter().all(|(group, offsets)| told_by(group, offsets.as_ref().unwrap()) == 0));
}

#[tokio::test]
async fn a_silent_broker_is_not_waited_for_when_another_can_say_the_same() {
    let scene = Scene::start(3, |_| 2).await;
    scene.silence(0);
    let coordinators = scene.coordinators();
    assert!(coordinators.ask(&ALL, names(1), LONG).await.unwrap()["g0"].is_ok());
}

/// What a call left behind unanswered must never be taken for the answer to another one.
#[tokio::test]
async fn who_stops_waiting_leaves_no_answer_behind() {
    let scene = Scene::start(1, |_| 0).await;
    let coordinators = scene.coordinators();
    coordinators.ask(&ALL, names(1), LONG).await.unwrap();
    scene.silence(0);
    tokio::select! {
        _ = coordinators.ask(&ALL, names(1), LONG) => panic!("the broker is silent"),
        () = scene.brokers[0].silent.notified() => {}
    }
    scene.brokers[0].is_silent.store(false, Ordering::SeqCst);
    let found = coordinators.ask(&ALL, names(3), LONG).await.unwrap();
    assert!(found.iter().all(|(group, offsets)| told_by(group, offsets.as_ref().unwrap()) == 0));
    assert_eq!(scene.brokers[0].connections.load(Ordering::SeqCst), 2, "with a connection of its own");
}

#[tokio::test]
async fn nobody_there_is_an_error_of_the_whole_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &address);
    let coordinators = Coordinators::new(&config, Sent::default()).unwrap();
    let error = coordinators.ask(&ALL, names(3), LONG).await.expect_err("nobody listens");
    assert!(error.retryable() && error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn what_is_not_kafka_is_told_and_costs_no_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_u8().await;
    });
    let coordinators = Coordinators::new(&config, Sent::default()).unwrap();
    let error = coordinators.ask(&ALL, names(1), LONG).await.expect_err("no broker");
    assert!(error.to_string().contains("not Kafka's protocol"), "{error}");
}
