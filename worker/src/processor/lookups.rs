//! Lookups of a lane: a byte-bounded cache with an age limit in front of Redis.
//!
//! A value is parsed once and shared by all records that need it. Missing keys are cached like others: a key that is
//! written meanwhile is seen when the entry is too old, as for any other change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashlink::LruCache;
use sluice_clients::redis::lookup::{BlockingLookup, LookupError, LookupKey, LookupKind, LookupValue};
use sluice_crds::v1alpha1::LookupType;
use sluice_transform::{LookupRequest, PreparedLookup, prepare_lookup};

use super::metrics::{ProcessorMetrics, reason};

/// Most entries, whatever their size: the index of a cache of tiny values is memory too.
const MAX_ENTRIES: usize = 262_144;

/// What identifies a prepared value: the same key can be read as several types.
pub type CacheKey = (LookupType, Vec<u8>);
/// Values for the records of a batch.
pub type Values = HashMap<CacheKey, Arc<PreparedLookup>>;

struct Entry {
    value: Arc<PreparedLookup>,
    size: usize,
    expires: Instant,
}

/// The cache.
pub struct Cache {
    entries: LruCache<CacheKey, Entry>,
    bytes: usize,
    max_bytes: usize,
    ttl: Duration,
}

impl Cache {
    /// An empty cache. A TTL of zero keeps nothing.
    pub fn new(max_bytes: usize, ttl: Duration) -> Self {
        Self { entries: LruCache::new(MAX_ENTRIES), bytes: 0, max_bytes, ttl }
    }

    fn get(&mut self, key: &CacheKey, now: Instant) -> Option<Arc<PreparedLookup>> {
        let entry = self.entries.get(key)?;
        if entry.expires > now {
            return Some(entry.value.clone());
        }
        self.remove(&key.clone());
        None
    }

    fn put(&mut self, key: CacheKey, value: Arc<PreparedLookup>, now: Instant) {
        let size = key.1.len() + value.size() + size_of::<Entry>() + size_of::<CacheKey>();
        if self.ttl.is_zero() || size > self.max_bytes {
            return;
        }
        self.remove(&key);
        while self.bytes + size > self.max_bytes || self.entries.len() >= MAX_ENTRIES {
            let Some((_, evicted)) = self.entries.remove_lru() else { break };
            self.bytes -= evicted.size;
        }
        self.bytes += size;
        self.entries.insert(key, Entry { value, size, expires: now + self.ttl });
    }

    fn remove(&mut self, key: &CacheKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.size;
        }
    }
}

/// Lookups of one lane.
pub struct Lookups {
    cache: Cache,
    client: Option<BlockingLookup>,
    metrics: ProcessorMetrics,
}

impl Lookups {
    /// Without a client every fetch of something fails; a program without lookups never asks.
    pub fn new(cache: Cache, client: Option<BlockingLookup>, metrics: ProcessorMetrics) -> Self {
        Self { cache, client, metrics }
    }

    /// Fetches what is wanted into `values`: from the cache, the rest from Redis, each key once. On an error nothing
    /// is lost: what came is in the cache, ask again.
    pub fn fetch(&mut self, wanted: &[LookupRequest], values: &mut Values) -> Result<(), LookupError> {
        let now = Instant::now();
        let mut missing: Vec<CacheKey> = Vec::new();
        let mut asked: HashSet<CacheKey> = HashSet::new();
        let mut hits = 0;
        for request in wanted {
            let key = (request.lookup_type, request.key.clone());
            let known = values.get(&key).is_some() || asked.contains(&key);
            if known {
                hits += 1;
            } else if let Some(value) = self.cache.get(&key, now) {
                values.insert(key, value);
                hits += 1;
            } else {
                asked.insert(key.clone());
                missing.push(key);
            }
        }
        self.metrics.lookups.get_or_create(&reason("Hit")).inc_by(hits);
        self.metrics.lookups.get_or_create(&reason("Miss")).inc_by(missing.len() as u64);
        if missing.is_empty() { Ok(()) } else { self.read(missing, values, now) }
    }

    fn read(&mut self, missing: Vec<CacheKey>, values: &mut Values, now: Instant) -> Result<(), LookupError> {
        let keys: Vec<LookupKey> =
            missing.iter().map(|(kind, key)| LookupKey { key: key.clone(), kind: redis_kind(*kind) }).collect();
        let answers = match &self.client {
            Some(client) => client.get_batch(&keys),
            None => return Ok(()), // configuration checks exclude lookups without Redis
        };
        self.metrics.lookup_seconds.observe(now.elapsed().as_secs_f64());
        let mut failed = None;
        for (key, answer) in missing.into_iter().zip(answers) {
            match answer {
                Ok(value) => {
                    let value = Arc::new(prepare_lookup(key.0, transform_value(value)));
                    self.cache.put(key.clone(), value.clone(), Instant::now());
                    values.insert(key, value);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                self.metrics.lookup_errors.get_or_create(&reason(error.category())).inc();
                Err(error)
            }
        }
    }
}

fn redis_kind(kind: LookupType) -> LookupKind {
    match kind {
        LookupType::String | LookupType::Json => LookupKind::String,
        LookupType::Hash => LookupKind::Hash,
    }
}

fn transform_value(value: LookupValue) -> sluice_transform::LookupValue {
    match value {
        LookupValue::Missing => sluice_transform::LookupValue::Missing,
        LookupValue::String(bytes) => sluice_transform::LookupValue::String(bytes),
        LookupValue::Hash(fields) => sluice_transform::LookupValue::Hash(fields),
        LookupValue::WrongType => sluice_transform::LookupValue::WrongType,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: usize) -> Arc<PreparedLookup> {
        let text = sluice_transform::LookupValue::String(vec![b'x'; bytes]);
        Arc::new(prepare_lookup(LookupType::String, text))
    }

    fn key(name: &str) -> CacheKey {
        (LookupType::String, name.as_bytes().to_vec())
    }

    #[test]
    fn entries_grow_old() {
        let mut cache = Cache::new(1 << 20, Duration::from_secs(1));
        let now = Instant::now();
        cache.put(key("a"), value(10), now);
        assert!(cache.get(&key("a"), now).is_some());
        assert!(cache.get(&(LookupType::Json, b"a".to_vec()), now).is_none(), "another type is another value");
        assert!(cache.get(&key("a"), now + Duration::from_secs(1)).is_none());
        assert_eq!((cache.bytes, cache.entries.len()), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_and_the_oldest_go_first() {
        let mut cache = Cache::new(4000, Duration::from_secs(1));
        let now = Instant::now();
        for name in ["a", "b", "c"] {
            cache.put(key(name), value(1000), now);
        }
        assert!(cache.get(&key("a"), now).is_some(), "used, so the next to go is b");
        cache.put(key("d"), value(1000), now);
        assert!(cache.bytes <= 4000);
        assert!(cache.get(&key("b"), now).is_none());
        assert!(cache.get(&key("a"), now).is_some() && cache.get(&key("d"), now).is_some());
        cache.put(key("a"), value(2000), now);
        let held: usize = cache.entries.iter().map(|(_, entry)| entry.size).sum();
        assert_eq!(cache.bytes, held, "replacing counts once");
        cache.put(key("huge"), value(5000), now);
        assert!(cache.get(&key("huge"), now).is_none());
    }

    #[test]
    fn no_ttl_no_cache() {
        let mut cache = Cache::new(1 << 20, Duration::ZERO);
        cache.put(key("a"), value(1), Instant::now());
        assert_eq!(cache.entries.len(), 0);
    }
}
