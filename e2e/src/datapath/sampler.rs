//! A reader under load: reads keys of the views again and again, from the masters, and notes what changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::redis::{Master, RedisReader, parse_hash};
use super::resp::{Connection, Reply};
use super::{HarnessError, now_ms};
use crate::checker::{Held, Sample, ViewKind, slot_of};
use crate::generator::Random;

/// Keys read at once.
const BATCH: usize = 32;
/// A sampler that ran too long stops noting rather than growing without bound.
const MOST: usize = 500_000;

/// A key and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledKey {
    /// The key.
    pub key: String,
    /// The view it belongs to.
    pub kind: ViewKind,
}

/// A running reader.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Sampling>,
}

/// What a reader has seen.
#[derive(Debug, Default)]
pub struct Sampling {
    /// Each change it saw, in the order of reading.
    pub samples: Vec<Sample>,
    /// Reads that were answered.
    pub reads: u64,
    /// Batches that failed, as they do while servers are down.
    pub failures: u64,
}

impl Sampler {
    /// Starts reading these keys in random order.
    pub fn start(reader: RedisReader, keys: Vec<SampledKey>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || run(&reader, &keys, &mut Random::new(seed), &stopped));
        Self { stop, thread }
    }

    /// Stops and hands back what was seen.
    pub fn finish(self) -> Sampling {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Connections to the masters, as far as they are open.
#[derive(Default)]
struct Links {
    masters: Vec<Master>,
    open: BTreeMap<String, Connection>,
}

fn run(reader: &RedisReader, keys: &[SampledKey], random: &mut Random, stop: &AtomicBool) -> Sampling {
    let mut sampling = Sampling::default();
    let mut links = Links::default();
    let mut last: BTreeMap<String, Option<Held>> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) && !keys.is_empty() && sampling.samples.len() < MOST {
        if links.masters.is_empty() {
            links.masters = reader.masters().unwrap_or_default();
        }
        let bound = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let chosen: Vec<&SampledKey> = (0..BATCH).map(|_| &keys[random.below(bound) as usize]).collect();
        for master in links.masters.clone() {
            let mine: Vec<&SampledKey> = chosen.iter().copied().filter(|key| owns(&master, &key.key)).collect();
            let Ok(samples) = read(reader, &mut links, &master, &mine) else {
                sampling.failures += 1;
                links = Links::default();
                break;
            };
            sampling.reads += samples.len() as u64;
            // What has not changed says nothing new.
            for sample in samples {
                if last.get(&sample.key) != Some(&sample.held) {
                    last.insert(sample.key.clone(), sample.held.clone());
                    sampling.samples.push(sample);
                }
            }
        }
        // The pace of reading: a reader, not a load test.
        std::thread::sleep(Duration::from_millis(20));
    }
    sampling
}

fn owns(master: &Master, key: &str) -> bool {
    let slot = slot_of(key);
    master.slots.iter().any(|&(first, last)| (first..=last).contains(&slot))
}

fn read(
    reader: &RedisReader,
    links: &mut Links,
    master: &Master,
    keys: &[&SampledKey],
) -> Result<Vec<Sample>, HarnessError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    if !links.open.contains_key(&master.address) {
        links.open.insert(master.address.clone(), reader.connect(&master.address)?);
    }
    let Some(connection) = links.open.get_mut(&master.address) else { return Ok(Vec::new()) };
    let command = |key: &&SampledKey| {
        let name: &[u8] = if key.kind == ViewKind::Hash { b"HGETALL" } else { b"GET" };
        vec![name.to_vec(), key.key.clone().into_bytes()]
    };
    let commands: Vec<Vec<Vec<u8>>> = keys.iter().map(command).collect();
    let from_ms = now_ms();
    let replies = connection.pipeline(&commands)?;
    let until_ms = now_ms();
    keys.iter()
        .zip(replies)
        .map(|(key, reply)| {
            let held = held(key.kind, reply)
                .map_err(|message| HarnessError::Redis { address: master.address.clone(), message })?;
            Ok(Sample { key: key.key.clone(), from_ms, until_ms, held })
        })
        .collect()
}

/// What a reply says the key holds; redirects and the like are errors.
fn held(kind: ViewKind, reply: Reply) -> Result<Option<Held>, String> {
    if let Reply::Error(message) = reply {
        return Err(message);
    }
    if kind != ViewKind::Hash {
        return Ok(reply.bytes().map(Held::Text));
    }
    let fields = parse_hash(reply).ok_or("not the reply of HGETALL")?;
    Ok((!fields.is_empty()).then_some(Held::Hash(fields)))
}
