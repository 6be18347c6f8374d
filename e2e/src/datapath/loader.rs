//! An ordinary producer that loads generated orders into a topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use super::error::During;
use super::{HarnessError, now_ms};
use crate::generator::{Expected, GeneratedOrder, RecordId};
use crate::stack::Kafka;

/// What was loaded.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// What must become of each order, with its key.
    pub expected: BTreeMap<RecordId, (Vec<u8>, Expected)>,
}

/// Counts what the brokers acknowledge; the opaque is the partition that the order's id names.
#[derive(Debug, Default)]
struct Deliveries {
    done: AtomicU64,
    failed: AtomicU64,
    elsewhere: AtomicU64,
}

struct Context(Arc<Deliveries>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<i32>;

    fn delivery(&self, result: &DeliveryResult<'_>, wanted: Box<i32>) {
        let count = match result {
            Ok(message) if message.partition() == *wanted => &self.0.done,
            Ok(_) => &self.0.elsewhere,
            Err(_) => &self.0.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A producer at work.
#[derive(Debug)]
pub struct Loader {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<Result<Loaded, HarnessError>>,
}

impl Loader {
    /// Starts producing `orders` at `per_second` (0: as fast as it goes), in order, each record once, even if brokers die
    /// meanwhile.
    pub fn start(
        kafka: &Kafka,
        topic: &str,
        orders: impl Iterator<Item = GeneratedOrder> + Send + 'static,
        per_second: u32,
    ) -> Result<Self, HarnessError> {
        let deliveries = Arc::new(Deliveries::default());
        let mut config = kafka.client_config();
        config
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "180000")
            .set("log_level", "0");
        let producer: ThreadedProducer<Context> =
            config.create_with_context(Context(Arc::clone(&deliveries))).during("making a producer")?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let topic = topic.to_owned();
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let loaded = produce(&producer, &topic, orders, per_second, &stopped, &counter)?;
            producer.flush(Duration::from_secs(180)).during("flushing")?;
            verdict(&deliveries, loaded)
        });
        Ok(Self { stop, sent, thread })
    }

    /// Orders handed to the producer so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether all orders are produced.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until all orders are acknowledged.
    pub fn finish(self) -> Result<Loaded, HarnessError> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Stops producing; what was sent is acknowledged.
    pub fn stop(self) -> Result<Loaded, HarnessError> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }
}

fn verdict(deliveries: &Deliveries, loaded: Loaded) -> Result<Loaded, HarnessError> {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (done, failed, elsewhere) = (count(&deliveries.done), count(&deliveries.failed), count(&deliveries.elsewhere));
    if failed == 0 && elsewhere == 0 && done == loaded.expected.len() as u64 {
        return Ok(loaded);
    }
    let wanted = loaded.expected.len();
    let message = format!("{done} of {wanted} orders loaded, {failed} failed, {elsewhere} went to another partition");
    Err(HarnessError::Process { name: "loader".into(), message })
}

fn produce(
    producer: &ThreadedProducer<Context>,
    topic: &str,
    orders: impl Iterator<Item = GeneratedOrder>,
    per_second: u32,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<Loaded, HarnessError> {
    let mut loaded = Loaded::default();
    let started = Instant::now();
    for (number, order) in orders.enumerate() {
        if per_second > 0 {
            let due = Duration::from_secs_f64(number as f64 / f64::from(per_second));
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        send(producer, topic, &order)?;
        loaded.expected.insert(order.id, (order.key, order.expected));
        sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(loaded)
}

fn send(producer: &ThreadedProducer<Context>, topic: &str, order: &GeneratedOrder) -> Result<(), HarnessError> {
    let headers = order
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (name, value)| headers.insert(Header { key: name, value: Some(value) }));
    let mut record = BaseRecord::with_opaque_to(topic, Box::new(order.id.partition)).key(&order.key).headers(headers);
    record = record.timestamp(now_ms());
    if let Some(value) = &order.value {
        record = record.payload(value);
    }
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err((source, _)) => return Err(HarnessError::Kafka { what: "producing", source }),
        }
    }
}
