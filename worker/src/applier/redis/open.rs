//! Opening a shard: find its hash of records, prove that it tells the truth, bring it to its place, read it.
//!
//! The place is the lowest slot that the shard owns (and that is not on its way to another node). The hash is named with
//! the node. What is found is believed when
//! - it is on this server under this server's name: its own writes;
//! - it is on this server under another name, and its header names a replication id of this server's history: this
//!   server was a replica of that node and was promoted, so its data is an exact prefix that ends with this record
//!   (slots apart that were being moved away, see [`Opening::without_moved_away`]);
//! - it is on another server under this server's name, and its header names this server's current replication id: the
//!   slot it lay in was moved away, and nothing was written here since, as nothing can be without it.
//!
//! Otherwise the shard holds nothing that is proven, and begins anew. Looking beyond the place costs one pass over the
//! tags of all slots; it happens only when the place is empty.

use redis::{Cmd, Pipeline, Value, cmd};
use sluice_clients::redis::{
    Answer, Generation, Links, NodeAddress, NodeId, NodeLink, RedisFault, Shard, Slot, SlotSet, Topology, only,
};
use sluice_crds::names::{NodeId as NodeName, WatermarkKeys};

use super::script::{By, Scripts};
use crate::applier::engine::{OpenError, ShardHandle};
use crate::applier::record::{HEADER_FIELD, Header, Record, RecordError};

/// Keys asked for in one pipeline.
const CHUNK: usize = 512;
/// Slots on their way to another node that are passed over when looking for the place.
const MOST_IN_MOTION: usize = 64;
/// Longest time between finding and adopting, in milliseconds of the server's clock: a worker frozen in between must
/// not make a hash from what it saw long ago.
const ADOPT_WITHIN_MS: u64 = 10_000;

/// Touches keys of two slots.
const PROBE: &str =
    "#!lua flags=allow-cross-slot-keys\nredis.call('EXISTS', KEYS[1])\nredis.call('EXISTS', ARGV[1])\nreturn 1";

type Fields = Vec<(String, String)>;

/// Everything needed to open shards.
pub struct Opener<'a> {
    /// Connections.
    pub links: &'a Links,
    /// The map the shard is of.
    pub topology: &'a Topology,
    /// Names of the hashes.
    pub keys: &'a WatermarkKeys,
    /// The scripts.
    pub scripts: &'a Scripts,
}

/// What a server says about itself.
struct Server {
    replication_ids: [String; 2],
    clock_ms: u64,
}

/// A hash of records somewhere.
struct Found {
    key: String,
    header: Header,
    /// Under the name of another node, whose replica this server was.
    inherited: bool,
}

/// One shard being opened, on one connection.
struct Opening<'a> {
    opener: &'a Opener<'a>,
    shard: &'a Shard,
    link: NodeLink,
    generation: Generation,
    standalone: bool,
}

impl Opener<'_> {
    /// Opens a shard: what scripts are sent with, and its records by field.
    pub async fn open(&self, node: &NodeId) -> Result<(ShardHandle, Fields), OpenError> {
        let shard = self.topology.shard(node).ok_or(OpenError::Raced)?;
        let link = self.links.link(&shard.address).map_err(OpenError::Fault)?;
        let generation = link.connect().await.map_err(OpenError::Fault)?;
        let standalone = *node == NodeId::standalone();
        Opening { opener: self, shard, link, generation, standalone }.run().await
    }
}

impl Opening<'_> {
    async fn run(&self) -> Result<(ShardHandle, Fields), OpenError> {
        let server = self.server().await?;
        let (place, fields) = self.place().await?;
        let key = self.key(&self.shard.node, place);
        match take_header(fields)? {
            Some((header, fields)) if header.replication_id == server.replication_ids[0] => {
                Ok((self.handle(key, &header), fields))
            }
            Some((header, _)) => self.adopt(&key, Some(&header), &[], &[], &server).await,
            None => {
                self.probe(&key).await?;
                let (copies, asked_away) = self.copies_here(&server, &key).await?;
                if !copies.is_empty() || self.standalone {
                    let corrected = match copies.first().filter(|copy| copy.inherited) {
                        Some(copy) => self.without_moved_away(copy).await?,
                        None => Vec::new(),
                    };
                    return self.adopt(&key, None, &copies, &corrected, &server).await;
                }
                match self.copy_elsewhere(&server, &asked_away).await {
                    None => self.adopt(&key, None, &[], &[], &server).await,
                    Some((address, found, fields)) => {
                        let opened = self.adopt_fields(&key, &found.header, &fields, &server).await?;
                        self.remove(&address, &found.key).await;
                        Ok(opened)
                    }
                }
            }
        }
    }

    fn key(&self, node: &NodeId, slot: Slot) -> String {
        // Both sides take letters and digits only.
        NodeName::parse(node.as_str()).map(|name| self.opener.keys.key(&name, slot.tag())).unwrap_or_default()
    }

    fn handle(&self, key: String, header: &Header) -> ShardHandle {
        ShardHandle {
            node: self.shard.node.clone(),
            address: self.shard.address.clone(),
            generation: self.generation,
            key,
            header: header.text(),
        }
    }

    async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Answer>, OpenError> {
        self.link.pipeline_on(self.generation, pipeline).await.map_err(OpenError::Fault)
    }

    async fn ask_one(&self, command: Cmd) -> Result<Value, OpenError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        only(self.ask(&pipeline).await?).map_err(OpenError::Fault)
    }

    async fn server(&self) -> Result<Server, OpenError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("server").cmd("INFO").arg("replication").cmd("TIME");
        let answers = self.ask(&pipeline).await?;
        let mut values = answers.into_iter().map(|answer| answer.map_err(OpenError::Fault));
        let mut next = || values.next().unwrap_or(Err(OpenError::Fault(RedisFault::Malformed("INFO"))));
        let (about, replication, clock) = (text(&next()?)?, text(&next()?)?, next()?);
        let version = info(&about, "redis_version").unwrap_or_default();
        if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|major| major < 7) {
            return Err(OpenError::ServerTooOld(version.to_owned()));
        }
        if info(&replication, "role") != Some("master") {
            return Err(OpenError::Fault(RedisFault::ReadOnly));
        }
        let id = |name| info(&replication, name).unwrap_or_default().to_owned();
        let replication_ids = [id("master_replid"), id("master_replid2")];
        let clock_ms = read_clock(&clock).filter(|_| !replication_ids[0].is_empty());
        Ok(Server { replication_ids, clock_ms: clock_ms.ok_or(OpenError::Fault(RedisFault::Malformed("INFO")))? })
    }

    /// The lowest slot that is not on its way elsewhere, and what lies there.
    async fn place(&self) -> Result<(Slot, Fields), OpenError> {
        let mut last = RedisFault::Malformed("a shard without slots");
        for slot in self.shard.slots.iter().take(MOST_IN_MOTION) {
            match self.ask_one(get_all(&self.key(&self.shard.node, slot))).await {
                Ok(value) => return Ok((slot, fields(&value)?)),
                Err(OpenError::Fault(fault @ (RedisFault::Ask(_) | RedisFault::TryAgain))) => last = fault,
                Err(error) => return Err(error),
            }
        }
        Err(OpenError::Fault(last))
    }

    /// Finds out whether the server lets a script touch several slots.
    async fn probe(&self, key: &str) -> Result<(), OpenError> {
        let Some(other) = self.shard.slots.iter().nth(1) else { return Ok(()) };
        let mut command = cmd("EVAL");
        command.arg(PROBE).arg(1).arg(key).arg(self.key(&self.shard.node, other));
        match self.ask_one(command).await {
            Ok(_) => Ok(()),
            // A slot on its way says nothing about the server.
            Err(OpenError::Fault(RedisFault::Other(text))) if text.contains("non local key") => Ok(()),
            Err(OpenError::Fault(RedisFault::Other(text))) => Err(OpenError::CrossSlotScriptsRefused(text)),
            Err(OpenError::Fault(RedisFault::CrossSlot)) => {
                Err(OpenError::CrossSlotScriptsRefused("CROSSSLOT".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Hashes at other slots of this server that tell the truth about it, the best first; and the nodes to which slots
    /// are on their way.
    async fn copies_here(
        &self,
        server: &Server,
        place: &str,
    ) -> Result<(Vec<Found>, Vec<(Slot, NodeAddress)>), OpenError> {
        let (mut own, mut inherited, mut away) = (Vec::new(), Vec::new(), Vec::new());
        if self.standalone {
            return Ok((own, away));
        }
        let others = self.opener.topology.others().iter().map(|(node, _)| node);
        let names: Vec<&NodeId> = std::iter::once(&self.shard.node).chain(others).collect();
        let places: Vec<(Slot, &NodeId)> =
            self.shard.slots.iter().flat_map(|slot| names.iter().map(move |name| (slot, *name))).collect();
        for chunk in places.chunks(CHUNK) {
            let mut pipeline = Pipeline::with_capacity(chunk.len());
            for (slot, name) in chunk {
                pipeline.add_command(get_header(&self.key(name, *slot)));
            }
            for ((slot, name), answer) in chunk.iter().zip(self.ask(&pipeline).await?) {
                let header = match answer {
                    Ok(Value::Nil) | Err(RedisFault::TryAgain) => continue,
                    Ok(value) => Header::parse(&text(&value)?).map_err(OpenError::Unreadable)?,
                    Err(RedisFault::Ask(to)) => {
                        away.extend(to.address.filter(|_| *name == &self.shard.node).map(|address| (*slot, address)));
                        continue;
                    }
                    Err(fault) => return Err(OpenError::Fault(fault)),
                };
                let is_other = *name != &self.shard.node;
                let found = Found { key: self.key(name, *slot), header, inherited: is_other };
                if found.key == place {
                    // It appeared since we looked there.
                    return Err(OpenError::Raced);
                }
                if !is_other {
                    own.push(found);
                } else if server.replication_ids.contains(&found.header.replication_id) {
                    inherited.push(found);
                }
            }
        }
        own.append(&mut inherited);
        own.sort_by_key(|found| std::cmp::Reverse(found.header.era));
        Ok((own, away))
    }

    /// The hash of this server on another one, if its slot was moved there and nothing happened here since. A server
    /// that cannot be asked is passed over: without the hash everything is read again, which is slow and not wrong.
    async fn copy_elsewhere(
        &self,
        server: &Server,
        away: &[(Slot, NodeAddress)],
    ) -> Option<(NodeAddress, Found, Fields)> {
        let others = self.opener.topology.shards().iter().filter(|shard| shard.node != self.shard.node);
        let owned = others.map(|shard| (&shard.address, shard.slots.iter().collect::<Vec<Slot>>(), false));
        let importing = away.iter().map(|(slot, address)| (address, vec![*slot], true));
        let mut best: Option<(NodeAddress, Found, bool)> = None;
        for (address, slots, asking) in owned.chain(importing) {
            let Ok(link) = self.opener.links.link(address) else { continue };
            for chunk in slots.chunks(CHUNK) {
                let keys: Vec<String> = chunk.iter().map(|slot| self.key(&self.shard.node, *slot)).collect();
                let Ok(answers) = headers_at(&link, &keys, asking).await else { break };
                for (key, header) in keys.into_iter().zip(answers) {
                    let Some(header) = header.filter(|header| header.replication_id == server.replication_ids[0])
                    else {
                        continue;
                    };
                    if best.as_ref().is_none_or(|(_, found, _)| found.header.era < header.era) {
                        best = Some((address.clone(), Found { key, header, inherited: false }, asking));
                    }
                }
            }
        }
        let (address, found, asking) = best?;
        let mut pipeline = Pipeline::new();
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(get_all(&found.key));
        let answers = self.opener.links.link(&address).ok()?.pipeline(&pipeline).await.ok()?;
        let value = answers.into_iter().next_back()?.ok()?;
        let (header, fields) = take_header(fields(&value).ok()?).ok()??;
        (header == found.header).then_some((address, found, fields))
    }

    /// Records of a copy that name slots whose keys are partly elsewhere, without those slots.
    ///
    /// A promoted replica does not know that its master was moving a slot: it owns it, and the keys that were moved
    /// before are on the target, which still imports it. So the slot holds less than the record says.
    async fn without_moved_away(&self, copy: &Found) -> Result<Fields, OpenError> {
        let slots = self.imported_elsewhere().await?;
        if slots.is_empty() {
            return Ok(Vec::new());
        }
        tracing::info!(node = %self.shard.node, slots = %slots, "a resharding was cut off by a failover: its slots are read again");
        let value = self.ask_one(get_all(&copy.key)).await?;
        let records = take_header(fields(&value)?)?.map(|(_, records)| records).unwrap_or_default();
        // One that cannot be read stays as it is, and stops whoever needs it.
        let without =
            |(field, text): (String, String)| Some((field, Record::parse(&text).ok()?.without(&slots)?.text()));
        Ok(records.into_iter().filter_map(without).collect())
    }

    /// Slots of this shard that another master is importing. All must answer, a guess would lose keys; one that is no
    /// live master any more is not asked.
    async fn imported_elsewhere(&self) -> Result<SlotSet, OpenError> {
        let slots: Vec<Slot> = self.shard.slots.iter().collect();
        let mut imported = Vec::new();
        for other in self.opener.topology.shards().iter().filter(|shard| shard.node != self.shard.node) {
            let link = self.opener.links.link(&other.address).map_err(OpenError::Fault)?;
            for chunk in slots.chunks(CHUNK) {
                let mut pipeline = Pipeline::with_capacity(2 * chunk.len());
                for slot in chunk {
                    pipeline.cmd("ASKING");
                    pipeline.add_command(get_header(&self.key(&self.shard.node, *slot)));
                }
                let answers = link.pipeline(&pipeline).await.map_err(OpenError::Fault)?;
                for (slot, answer) in chunk.iter().zip(answers.into_iter().skip(1).step_by(2)) {
                    match answer {
                        Err(RedisFault::Moved(_)) => {}
                        Ok(_) | Err(RedisFault::TryAgain) => imported.push(*slot),
                        Err(fault) => return Err(OpenError::Fault(fault)),
                    }
                }
            }
        }
        Ok(imported.into_iter().collect())
    }

    async fn adopt_fields(
        &self,
        key: &str,
        from: &Header,
        fields: &[(String, String)],
        server: &Server,
    ) -> Result<(ShardHandle, Fields), OpenError> {
        let like = Found { key: String::new(), header: from.clone(), inherited: false };
        self.adopt(key, None, &[like], fields, server).await
    }

    /// Makes or renews the hash at `key`, and reads it.
    async fn adopt(
        &self,
        key: &str,
        there: Option<&Header>,
        copies: &[Found],
        fields: &[(String, String)],
        server: &Server,
    ) -> Result<(ShardHandle, Fields), OpenError> {
        let eras = copies.iter().map(|copy| copy.header.era).chain(there.map(|header| header.era));
        // The clock keeps a hash that was made anew above an old copy that turns up later.
        let era = eras.max().map_or(server.clock_ms, |era| server.clock_ms.max(era + 1));
        let header = Header { era, replication_id: server.replication_ids[0].clone() };
        let local: Vec<&Found> = copies.iter().filter(|copy| !copy.key.is_empty()).collect();
        let mut arguments: Vec<String> = vec![
            server.replication_ids[0].clone(),
            (server.clock_ms + ADOPT_WITHIN_MS).to_string(),
            there.map(Header::text).unwrap_or_default(),
            header.text(),
            local.len().to_string(),
        ];
        for copy in &local {
            arguments.extend([copy.key.clone(), copy.header.text()]);
        }
        arguments.extend(fields.iter().flat_map(|(field, text)| [field.clone(), text.clone()]));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match self.ask_one(self.opener.scripts.adopt_command(By::Text, key, &arguments)).await? {
            Value::Int(1) => {}
            _ => return Err(OpenError::Raced),
        }
        let value = self.ask_one(get_all(key)).await?;
        match take_header(self::fields(&value)?)? {
            Some((found, fields)) if found == header => Ok((self.handle(key.to_owned(), &header), fields)),
            _ => Err(OpenError::Raced),
        }
    }

    /// Deletes a hash that was adopted from another node. Left there it is stale and has a lower era: only untidy.
    async fn remove(&self, address: &NodeAddress, key: &str) {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ASKING").cmd("DEL").arg(key);
        if let Ok(link) = self.opener.links.link(address)
            && let Err(fault) = link.pipeline(&pipeline).await
        {
            tracing::debug!(%fault, "a moved hash of records was not deleted");
        }
    }
}

async fn headers_at(link: &NodeLink, keys: &[String], asking: bool) -> Result<Vec<Option<Header>>, RedisFault> {
    let mut pipeline = Pipeline::new();
    for key in keys {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(get_header(key));
    }
    let answers = link.pipeline(&pipeline).await?;
    let step = if asking { 2 } else { 1 };
    let headers = answers.chunks(step).map(|answers| {
        let value = answers.last()?.as_ref().ok()?;
        Header::parse(&text(value).ok()?).ok()
    });
    Ok(headers.collect())
}

fn get_all(key: &str) -> Cmd {
    let mut command = cmd("HGETALL");
    command.arg(key);
    command
}

fn get_header(key: &str) -> Cmd {
    let mut command = cmd("HGET");
    command.arg(key).arg(HEADER_FIELD);
    command
}

/// The header apart from the records. A hash without one is not ours.
fn take_header(mut fields: Fields) -> Result<Option<(Header, Fields)>, OpenError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let at = fields.iter().position(|(field, _)| field == HEADER_FIELD);
    let (_, text) = fields.swap_remove(at.ok_or(OpenError::Unreadable(RecordError::Malformed))?);
    Ok(Some((Header::parse(&text).map_err(OpenError::Unreadable)?, fields)))
}

fn fields(value: &Value) -> Result<Fields, OpenError> {
    let pairs = value.as_map_iter().ok_or(OpenError::Fault(RedisFault::Malformed("HGETALL")))?;
    pairs.map(|(field, value)| Ok((text(field)?, text(value)?))).collect()
}

fn text(value: &Value) -> Result<String, OpenError> {
    let bytes = match value {
        Value::BulkString(bytes) => bytes.clone(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => return Ok(text.clone()),
        _ => return Err(OpenError::Fault(RedisFault::Malformed("not a text"))),
    };
    String::from_utf8(bytes).map_err(|_| OpenError::Fault(RedisFault::Malformed("not UTF-8")))
}

/// The value of `name:value` in an answer of INFO.
fn info<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Seconds and microseconds → milliseconds.
fn read_clock(value: &Value) -> Option<u64> {
    let [seconds, micros] = value.as_sequence()? else { return None };
    let number = |value: &Value| text(value).ok()?.parse::<u64>().ok();
    Some(number(seconds)? * 1_000 + number(micros)? / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_whole_names() {
        let answer = "# Replication\r\nrole:master\r\nmaster_replid2:0\r\nmaster_replid:ab\r\n";
        assert_eq!(info(answer, "master_replid"), Some("ab"));
        assert_eq!(info(answer, "role"), Some("master"));
        assert_eq!(info(answer, "replid"), None);
    }

    #[test]
    fn a_hash_without_a_header_is_not_taken_for_empty() {
        assert_eq!(take_header(Vec::new()), Ok(None));
        let stray = vec![("t:0".to_owned(), "1".to_owned())];
        assert_eq!(take_header(stray), Err(OpenError::Unreadable(RecordError::Malformed)));
    }
}
