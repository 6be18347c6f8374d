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
//! Of several the one of the highest era counts: a hash can leave with its slot, be copied back to the server while its old
//! self stays where the slot is, and that one return with the slot, long out of date. Otherwise the shard holds nothing that
//! is proven, and begins anew. Looking beyond the place costs one pass over the tags of all slots; it happens when the place
//! is empty, and when slots have come since the last pass (see [`Looked`]).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use redis::{Cmd, Pipeline, Value, cmd};
use sluice_clients::redis::{
    Answer, Generation, Links, NodeAddress, NodeId, NodeLink, RedisFault, Shard, Slot, SlotSet, Topology, only,
};
use sluice_crds::names::{NodeId as NodeName, WatermarkKeys};

use super::hashes::{Fields, fields, get_all, get_header, headers_at, info, read_clock, take_header, text};
use super::script::{By, Scripts};
use crate::applier::engine::{OpenError, ShardHandle};
use crate::applier::record::{Header, Record};

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

/// Shards that were opened by a pass over all their slots, with the slots they had: as long as no other one has come, no
/// hash can have come with it.
#[derive(Debug, Default)]
pub struct Looked(Mutex<HashMap<NodeId, SlotSet>>);

impl Looked {
    fn at(&self, shard: &Shard) -> bool {
        let looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looked.get(&shard.node).is_some_and(|slots| shard.slots.difference(slots).is_empty())
    }

    /// A slot that goes is forgotten: with what it comes back is not known.
    fn note(&self, shard: &Shard, passed: bool) {
        let mut looked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if passed || looked.contains_key(&shard.node) {
            looked.insert(shard.node.clone(), shard.slots.clone());
        }
    }
}

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
    /// Where no more than the place has to be looked at.
    pub looked: &'a Looked,
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
        let there = take_header(fields)?;
        // A standalone server has one place.
        let looked = self.standalone || self.opener.looked.at(self.shard);
        let passed = there.is_none() || !looked;
        let opened = match there {
            Some((header, fields)) if looked => self.keep(&key, header, fields, &[], &server).await?,
            Some((header, fields)) => {
                let (copies, _) = self.copies_here(&server, &key, true).await?;
                match copies.first().filter(|copy| copy.header.era > header.era) {
                    None => self.keep(&key, header, fields, &copies, &server).await?,
                    Some(_) => self.take(&key, Some(&header), &copies, &server).await?,
                }
            }
            None => self.find(&key, &server).await?,
        };
        self.opener.looked.note(self.shard, passed);
        Ok(opened)
    }

    /// Goes on with the hash that is at its place; copies of it on this server are out of date.
    async fn keep(
        &self,
        key: &str,
        header: Header,
        fields: Fields,
        copies: &[Found],
        server: &Server,
    ) -> Result<(ShardHandle, Fields), OpenError> {
        if copies.is_empty() && header.replication_id == server.replication_ids[0] {
            return Ok((self.handle(key.to_owned(), &header), fields));
        }
        self.adopt(key, Some(&header), false, copies, &[], server).await
    }

    /// Takes the best of the copies on this server instead of what is at the place.
    async fn take(
        &self,
        key: &str,
        there: Option<&Header>,
        copies: &[Found],
        server: &Server,
    ) -> Result<(ShardHandle, Fields), OpenError> {
        let corrected = match copies.first().filter(|copy| copy.inherited) {
            Some(copy) => self.without_moved_away(copy).await?,
            None => Vec::new(),
        };
        self.adopt(key, there, true, copies, &corrected, server).await
    }

    /// The place is empty: the hash is elsewhere, or there is none.
    async fn find(&self, key: &str, server: &Server) -> Result<(ShardHandle, Fields), OpenError> {
        self.probe(key).await?;
        let (copies, asked_away) = self.copies_here(server, key, false).await?;
        if !copies.is_empty() || self.standalone {
            return self.take(key, None, &copies, server).await;
        }
        match self.copy_elsewhere(server, &asked_away).await {
            None => self.adopt(key, None, true, &[], &[], server).await,
            Some((address, found, fields)) => {
                let opened = self.adopt_fields(key, &found.header, &fields, server).await?;
                self.remove(&address, &found.key).await;
                Ok(opened)
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
    /// are on their way. `known`: there is one at the place.
    async fn copies_here(
        &self,
        server: &Server,
        place: &str,
        known: bool,
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
                    if known {
                        continue;
                    }
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
        let imported = self.imported_elsewhere().await?;
        if !imported.is_empty() {
            tracing::info!(node = %self.shard.node, slots = %imported, "a resharding was cut off by a failover: its slots are read again");
        }
        // The target of a move leaves its slot to the dead master: where the map came from it, that slot was not asked about.
        // What the map does not give to this server is not proven by it.
        let slots = imported.union(&SlotSet::all().difference(&self.shard.slots));
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
        self.adopt(key, None, true, &[like], fields, server).await
    }

    /// Makes or renews the hash at `key`, and reads it. `replace`: its fields are those of the first copy and `fields`.
    async fn adopt(
        &self,
        key: &str,
        there: Option<&Header>,
        replace: bool,
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
            u8::from(replace).to_string(),
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
