//! Watches offsets and shards while a trial runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::BaseConsumer;

use super::redis::RedisReader;
use super::{HarnessError, kafka, marks};
use crate::checker::{OffsetProbe, ShardSnapshot};

/// More of each is not kept.
const MOST: usize = 60;

/// What was observed, in the order of time.
#[derive(Debug, Default)]
pub struct Observations {
    /// Offsets.
    pub probes: Vec<OffsetProbe>,
    /// Shards.
    pub snapshots: Vec<ShardSnapshot>,
}

/// What is watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The processor's group.
    pub group: String,
    /// Its source.
    pub source: String,
    /// Everything it writes.
    pub outputs: Vec<String>,
    /// Pattern of the views' keys.
    pub keys: String,
    /// Pattern of the applier's record keys.
    pub records: String,
}

/// A running observer.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Observations>,
}

/// Clients that stay connected: a new one a second would be a load of its own.
pub(super) struct Clients {
    committed: BaseConsumer,
    uncommitted: BaseConsumer,
    group: BaseConsumer,
    reader: RedisReader,
}

impl Clients {
    pub(super) fn new(kafka: &crate::stack::Kafka, reader: &RedisReader, group: &str) -> Result<Self, HarnessError> {
        Ok(Self {
            committed: kafka::reader(kafka, "committed")?,
            uncommitted: kafka::reader(kafka, "uncommitted")?,
            group: kafka::grouped(kafka, group, "committed")?,
            reader: reader.clone(),
        })
    }

    fn probe(&self, watched: &Watched) -> Result<OffsetProbe, HarnessError> {
        let ends = |consumer: &BaseConsumer| -> Result<_, HarnessError> {
            let mut all = std::collections::BTreeMap::new();
            for topic in &watched.outputs {
                for (partition, end) in kafka::ends_by(consumer, topic)? {
                    all.insert((topic.clone(), partition), end);
                }
            }
            Ok(all)
        };
        Ok(OffsetProbe {
            visible_before: ends(&self.committed)?,
            committed: kafka::committed_by(&self.group, &watched.source)?,
            ends_after: ends(&self.uncommitted)?,
        })
    }
}

impl Observer {
    /// Starts watching, about once a second.
    pub fn start(kafka: &crate::stack::Kafka, reader: &RedisReader, watched: Watched) -> Result<Self, HarnessError> {
        let clients = Clients::new(kafka, reader, &watched.group)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Observations::default();
            while !stopped.load(Ordering::Relaxed) {
                // While servers are down there is nothing to see; the next round tries again.
                if seen.probes.len() < MOST {
                    seen.probes.extend(clients.probe(&watched).ok());
                }
                if seen.snapshots.len() < MOST {
                    let snapshots = clients.reader.snapshots(&watched.keys, &watched.records, marks::read);
                    seen.snapshots.extend(snapshots.unwrap_or_default());
                }
                std::thread::sleep(Duration::from_millis(700));
            }
            seen
        });
        Ok(Self { stop, thread })
    }

    /// Stops and hands back what was seen.
    pub fn finish(self) -> Observations {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}
