//! What Redis holds: each shard read in one script, so that all of a snapshot is of one instant.

use std::collections::BTreeMap;

use super::HarnessError;
use super::resp::{Access, Connection, Reply};
use crate::checker::{Entry, Held, Mark, RedisDump, ShardSnapshot, SlotRange, slot_of};
use crate::generator::Sku;
use crate::stack::Redis;

/// All keys of a pattern with type, value and expiry, and all hashes of a second pattern, at one instant.
const SCRIPT: &str = "#!lua flags=no-writes,allow-cross-slot-keys
local function read(pattern)
  local found = {}
  for _, key in ipairs(redis.call('KEYS', pattern)) do
    local kind = redis.call('TYPE', key)['ok']
    local value = ''
    if kind == 'string' then value = redis.call('GET', key)
    elseif kind == 'hash' then value = redis.call('HGETALL', key) end
    found[#found + 1] = {key, kind, value, redis.call('PEXPIRETIME', key)}
  end
  return found
end
return {redis.call('TIME'), read(ARGV[1]), read(ARGV[2])}";

const DELETE: &str = "#!lua flags=allow-cross-slot-keys
local keys = redis.call('KEYS', ARGV[1])
for _, key in ipairs(keys) do redis.call('DEL', key) end
return #keys";

/// A master and the slots it owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// `host:port`.
    pub address: String,
    /// Its slots.
    pub slots: Vec<SlotRange>,
}

/// Reads Redis as its administrator.
#[derive(Debug, Clone)]
pub struct RedisReader {
    addresses: Vec<String>,
    access: Access,
    cluster: bool,
}

/// Reads the applier's watermark records out of the hashes of a shard: (key, fields) in, mark by partition out.
pub type ReadMarks = fn(&str, &BTreeMap<Vec<u8>, Vec<u8>>) -> BTreeMap<i32, Mark>;

impl RedisReader {
    /// A reader of this Redis.
    pub fn new(redis: &Redis) -> Result<Self, HarnessError> {
        let cluster = redis.mode() == crate::stack::redis::Mode::Cluster;
        Ok(Self { addresses: redis.addresses().to_vec(), access: Access::administrator(redis)?, cluster })
    }

    /// What a connection needs.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Connects to one server.
    pub fn connect(&self, address: &str) -> Result<Connection, HarnessError> {
        Connection::open(address, &self.access)
    }

    /// The masters, as the first node that answers sees them.
    pub fn masters(&self) -> Result<Vec<Master>, HarnessError> {
        if !self.cluster {
            return Ok(vec![Master { address: self.addresses[0].clone(), slots: vec![(0, 16_383)] }]);
        }
        let mut last = None;
        for address in &self.addresses {
            let reply = self.connect(address).and_then(|mut node| node.command(&[b"CLUSTER", b"SLOTS"]));
            match reply.map(parse_slots) {
                Ok(Some(masters)) => return Ok(masters),
                Ok(None) => last = Some(unreadable("CLUSTER SLOTS")),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| unreadable("no address")))
    }

    /// Snapshots of all shards, each of one instant. `marks` are the keys of the applier's records.
    pub fn snapshots(
        &self,
        keys: &str,
        marks: &str,
        read_marks: ReadMarks,
    ) -> Result<Vec<ShardSnapshot>, HarnessError> {
        self.masters()?.iter().map(|master| self.snapshot(master, keys, marks, read_marks)).collect()
    }

    /// A snapshot of one shard.
    pub fn snapshot(
        &self,
        master: &Master,
        keys: &str,
        marks: &str,
        read_marks: ReadMarks,
    ) -> Result<ShardSnapshot, HarnessError> {
        let words: [&[u8]; 5] = [b"EVAL", SCRIPT.as_bytes(), b"0", keys.as_bytes(), marks.as_bytes()];
        let reply = self.connect(&master.address)?.command(&words)?;
        let read = parse_snapshot(reply).ok_or_else(|| unreadable("the snapshot script"))?;
        let mut snapshot = ShardSnapshot {
            shard: master.address.clone(),
            slots: master.slots.clone(),
            at_ms: read.at_ms,
            keys: read.keys,
            marks: BTreeMap::new(),
        };
        for (key, entry) in &read.marks {
            if let Held::Hash(fields) = &entry.held {
                snapshot.marks.extend(read_marks(key, fields));
            }
        }
        Ok(snapshot)
    }

    /// The first key of a pattern on one server.
    pub fn find_key(&self, connection: &mut Connection, pattern: &str) -> Result<Option<String>, HarnessError> {
        let keys = connection.command(&[b"KEYS", pattern.as_bytes()])?.array().unwrap_or_default();
        Ok(keys.first().and_then(Reply::text))
    }

    /// The fields of a hash.
    pub fn read_hash(
        &self,
        connection: &mut Connection,
        key: &str,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, HarnessError> {
        parse_hash(connection.command(&[b"HGETALL", key.as_bytes()])?).ok_or_else(|| unreadable("HGETALL"))
    }

    /// Deletes all keys of a pattern on one shard.
    pub fn delete(&self, master: &Master, keys: &str) -> Result<(), HarnessError> {
        let words: [&[u8]; 4] = [b"EVAL", DELETE.as_bytes(), b"0", keys.as_bytes()];
        self.connect(&master.address)?.command(&words).map(drop)
    }

    /// All keys of a pattern on all shards.
    pub fn dump(&self, keys: &str) -> Result<RedisDump, HarnessError> {
        // A pattern that matches nothing: Redis has no empty keys that match a class without members.
        let snapshots = self.snapshots(keys, "[]", |_, _| BTreeMap::new())?;
        let from_ms = snapshots.iter().map(|snapshot| snapshot.at_ms).min().unwrap_or(0);
        let until_ms = snapshots.iter().map(|snapshot| snapshot.at_ms).max().unwrap_or(0);
        let keys = snapshots.into_iter().flat_map(|snapshot| snapshot.keys).collect();
        Ok(RedisDump { keys, from_ms, until_ms })
    }
}

/// Loads prices and stock, their keys after `prefix`.
pub fn load_reference(reader: &RedisReader, prefix: &str, skus: impl Iterator<Item = Sku>) -> Result<(), HarnessError> {
    let masters = reader.masters()?;
    let mut commands: Vec<Vec<Vec<Vec<u8>>>> = vec![Vec::new(); masters.len()];
    let mut add = |key: &str, words: &[&str]| {
        let slot = slot_of(key);
        let owns = |master: &Master| master.slots.iter().any(|&(first, last)| (first..=last).contains(&slot));
        if let Some(owner) = masters.iter().position(owns) {
            commands[owner].push(words.iter().map(|word| word.as_bytes().to_vec()).collect());
        }
    };
    for sku in skus {
        let (key, text) = sku.price_entry(prefix);
        add(&key, &["SET", &key, &text]);
        if let Some((key, pieces)) = sku.stock_entry(prefix) {
            add(&key, &["HSET", &key, "onHand", &pieces]);
        }
    }
    for (master, commands) in masters.iter().zip(&commands) {
        let mut connection = reader.connect(&master.address)?;
        for chunk in commands.chunks(500) {
            connection.pipeline(chunk)?;
        }
    }
    Ok(())
}

struct Read {
    at_ms: i64,
    keys: BTreeMap<String, Entry>,
    marks: BTreeMap<String, Entry>,
}

fn unreadable(what: &str) -> HarnessError {
    HarnessError::Unreadable { witness: "redis", message: what.to_owned() }
}

fn parse_slots(reply: Reply) -> Option<Vec<Master>> {
    let mut masters: BTreeMap<String, Vec<SlotRange>> = BTreeMap::new();
    for range in reply.array()? {
        let mut range = range.array()?.into_iter();
        let first = u16::try_from(range.next()?.integer()?).ok()?;
        let last = u16::try_from(range.next()?.integer()?).ok()?;
        let node = range.next()?.array()?;
        let address = format!("{}:{}", node.first()?.text()?, node.get(1)?.integer()?);
        masters.entry(address).or_default().push((first, last));
    }
    Some(masters.into_iter().map(|(address, slots)| Master { address, slots }).collect())
}

fn parse_snapshot(reply: Reply) -> Option<Read> {
    let mut parts = reply.array()?.into_iter();
    let time = parts.next()?.array()?;
    let at_ms = time.first()?.integer()? * 1_000 + time.get(1)?.integer()? / 1_000;
    Some(Read { at_ms, keys: parse_entries(parts.next()?)?, marks: parse_entries(parts.next()?)? })
}

fn parse_entries(reply: Reply) -> Option<BTreeMap<String, Entry>> {
    reply.array()?.into_iter().map(parse_entry).collect()
}

fn parse_entry(reply: Reply) -> Option<(String, Entry)> {
    let mut parts = reply.array()?.into_iter();
    let key = parts.next()?.text()?;
    let kind = parts.next()?.text()?;
    let value = parts.next()?;
    let held = match kind.as_str() {
        "string" => Held::Text(value.bytes()?),
        "hash" => Held::Hash(parse_hash(value)?),
        _ => Held::Other(kind),
    };
    let expires = parts.next()?.integer()?;
    Some((key, Entry { held, expires_at_ms: (expires >= 0).then_some(expires) }))
}

/// The reply of HGETALL.
pub(super) fn parse_hash(reply: Reply) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut elements = reply.array()?.into_iter();
    let mut fields = BTreeMap::new();
    while let Some(name) = elements.next() {
        fields.insert(name.bytes()?, elements.next()?.bytes()?);
    }
    Some(fields)
}
