//! The applier's decisions: `(State, Event) → (State, Effects)`, without IO, clocks or randomness.
//!
//! ```text
//! types.rs      events, effects, settings
//! shard.rs      a shard: open (scripts can be sent) or closed
//! partition.rs  a partition: which slots are where, which line brings them forward, what to send
//! held.rs       what one shard holds of one partition: groups of slots at an offset
//! absence.rs    how long nobody brought it forward, and whether deletions may have been missed
//! line.rs       a pass over a partition: queue, window
//! outcome.rs    what the end of a script says about record, window and shard
//! report.rs     what others may know: group commits, lag, what stands and why
//! ```
//!
//! A partition is applied window by window: a window's mutations become one batch a shard, each batch one script that
//! moves the shard's record only if it is the expected one. Groups of slots that are not at the head (a promoted
//! replica's older record, a moved slot that nobody names, a slot in motion) are brought up by a second line that reads
//! the partition again from where they are, skips for every group what it holds, and ends when it meets the main line.
//! Whatever goes wrong with a shard ends in reading its records again and planning from them.

mod absence;
mod held;
mod line;
mod outcome;
mod partition;
mod report;
mod shard;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_clients::redis::{NodeId, Topology};
use sluice_crds::report::TopicId;

use partition::{Context, Partition};
use shard::Shard;
pub use types::{
    Apply, Effect, EngineSettings, Event, LineId, Millis, OpenError, Outcome, PartitionId, Reading, ShardHandle, Stats,
    StopReason, Times,
};

/// The time of an event.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Of the clock that never goes back.
    pub millis: Millis,
    /// Unix milliseconds.
    pub wall_ms: u64,
}

/// All state of the applier.
pub struct Engine {
    settings: EngineSettings,
    topology: Option<Arc<Topology>>,
    shards: BTreeMap<NodeId, Shard>,
    partitions: BTreeMap<PartitionId, Partition>,
    /// Whose scripts are on their way.
    tickets: BTreeMap<u64, (PartitionId, NodeId)>,
    sequence: u64,
    /// The question for the topics' ids on its way, and when the last one was asked.
    topics_asked: Option<u64>,
    topics_asked_at: Millis,
    /// Of the last event.
    seen_at: Millis,
    refreshing: bool,
    refreshed_at: Option<Millis>,
    hurry: bool,
    stats: Stats,
    stopped: Option<StopReason>,
}

impl Engine {
    /// An engine that knows nothing yet; its first effect is to ask for the topology.
    pub fn new(settings: EngineSettings) -> Self {
        Self {
            settings,
            topology: None,
            shards: BTreeMap::new(),
            partitions: BTreeMap::new(),
            tickets: BTreeMap::new(),
            sequence: 0,
            topics_asked: None,
            topics_asked_at: 0,
            seen_at: 0,
            refreshing: false,
            refreshed_at: None,
            hurry: true,
            stats: Stats::default(),
            stopped: None,
        }
    }

    /// Takes one event; gives what is to be done, in order.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.stopped.is_none()
            && let Err(reason) = self.take(now, event, &mut out)
        {
            out.push(Effect::Stop(reason.clone()));
            self.stopped = Some(reason);
        }
        out
    }

    fn take(&mut self, now: Now, event: Event, out: &mut Vec<Effect>) -> Result<(), StopReason> {
        self.notice_sleep(now, out);
        match event {
            Event::Assigned(partitions) => self.assigned(&partitions, now, out),
            Event::Revoked(partitions) => {
                for id in partitions {
                    if let Some(mut partition) = self.partitions.remove(&id) {
                        for line in [LineId::Main, LineId::Repair] {
                            let weight = partition.line_mut(line).stop();
                            out.push(Effect::Released { partition: id, line, weight });
                        }
                        out.push(Effect::StopReading { partition: id, line: LineId::Repair });
                    }
                }
            }
            Event::Topics { request, found } => self.topics_told(now, request, &found, out)?,
            Event::Topology(topology) => self.reshape(now, topology, out),
            Event::TopologyFailed => {
                self.refreshing = false;
                self.refreshed_at = Some(now.millis);
            }
            Event::ShardOpened { request, handle, fields } => self.shard_opened(now, request, handle, &fields, out)?,
            Event::ShardFailed { request, node, error } => self.shard_failed(now, request, &node, error)?,
            Event::Fetched { reading, changes } => self.fetched(now, reading, changes, out),
            Event::End { reading, offset } => {
                self.on_reading(now, reading, out, |partition, _| {
                    partition.line_mut(reading.line).end = Some(offset);
                    Ok(())
                })?;
            }
            Event::OutOfRange { reading, first, end } => self.out_of_range(now, reading, first, end, out)?,
            Event::Script { ticket, outcome } => self.script_ended(now, ticket, &outcome, out)?,
            Event::Tick => self.tick(now, out),
        }
        self.ask(now, out);
        Ok(())
    }

    fn assigned(&mut self, partitions: &[PartitionId], now: Now, out: &mut Vec<Effect>) {
        let known: Vec<_> = partitions.iter().filter(|id| usize::from(id.topic) < self.settings.topics.len()).collect();
        for id in &known {
            self.sequence += 1;
            self.partitions.insert(**id, Partition::new(**id, self.sequence, now.wall_ms));
        }
        if !known.is_empty() {
            self.ask_topics(now, out);
        }
        // Their records were not kept when the shards were opened: read them all again.
        if !known.is_empty() {
            for (node, shard) in &mut self.shards {
                if shard.handle().is_some() {
                    self.sequence += 1;
                    shard.request = Some(self.sequence);
                    out.push(Effect::OpenShard { request: self.sequence, node: node.clone() });
                }
            }
        }
    }

    /// Events come all the time: after a long silence this process was frozen, and a topic may have been made again
    /// meanwhile without any error to show for it. What was fetched since is not applied before its id was seen.
    fn notice_sleep(&mut self, now: Now, out: &mut Vec<Effect>) {
        let slept = now.millis.saturating_sub(self.seen_at) >= self.settings.times.sleep;
        self.seen_at = now.millis;
        if slept && !self.partitions.is_empty() {
            for partition in self.partitions.values_mut() {
                partition.verified = false;
                partition.assigned = self.sequence;
            }
            self.ask_topics(now, out);
        }
    }

    fn ask_topics(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.sequence += 1;
        self.topics_asked = Some(self.sequence);
        self.topics_asked_at = now.millis;
        out.push(Effect::AskTopics { request: self.sequence });
    }

    /// Nothing is applied before the topic was seen to be ours: its offsets would mean something else.
    fn topics_told(
        &mut self,
        now: Now,
        request: u64,
        found: &[Option<TopicId>],
        out: &mut Vec<Effect>,
    ) -> Result<(), StopReason> {
        if self.topics_asked == Some(request) {
            self.topics_asked = None;
        }
        for (topic, (ours, found)) in self.settings.topics.iter().zip(found).enumerate() {
            if let Some(found) = found.filter(|found| found != ours) {
                let topic = u16::try_from(topic).unwrap_or(u16::MAX);
                return Err(StopReason::TopicReplaced { topic, found, ours: *ours });
            }
        }
        for partition in self.partitions.values_mut() {
            // A topic that is not there has no records; it is asked for again.
            let there = found.get(usize::from(partition.id.topic)).is_some_and(Option::is_some);
            partition.verified |= there && partition.assigned < request;
        }
        self.for_each(now, out, Partition::pump);
        Ok(())
    }

    fn reshape(&mut self, now: Now, topology: Arc<Topology>, out: &mut Vec<Effect>) {
        self.refreshing = false;
        self.hurry = false;
        self.refreshed_at = Some(now.millis);
        if self.topology.as_ref().is_some_and(|known| **known == *topology) {
            return;
        }
        self.shards.retain(|node, _| topology.shard(node).is_some());
        for owner in topology.shards() {
            match self.shards.get_mut(&owner.node) {
                Some(shard) if shard.slots == owner.slots && shard.address == owner.address => {}
                Some(shard) => {
                    shard.slots = owner.slots.clone();
                    shard.address = owner.address.clone();
                    // The hash may have to move to another slot: only reading it all again tells.
                    shard.request = None;
                    shard.close(now.millis, now.millis, "SlotsMoved", false);
                }
                None => {
                    let shard = Shard::new(owner.address.clone(), owner.slots.clone());
                    self.shards.insert(owner.node.clone(), shard);
                }
            }
        }
        self.topology = Some(topology);
        self.for_each(now, out, |partition, context| {
            partition.reshape(context);
            partition.pump(context);
        });
    }

    fn shard_opened(
        &mut self,
        now: Now,
        request: u64,
        handle: Arc<ShardHandle>,
        fields: &[(PartitionId, String)],
        out: &mut Vec<Effect>,
    ) -> Result<(), StopReason> {
        let node = handle.node.clone();
        let Some(shard) = self.shards.get_mut(&node).filter(|shard| shard.request == Some(request)) else {
            return Ok(());
        };
        shard.request = None;
        shard.open(handle, now.millis);
        let fields: BTreeMap<PartitionId, &str> = fields.iter().map(|(id, text)| (*id, text.as_str())).collect();
        let mut stop = None;
        self.for_each(now, out, |partition, context| {
            // A script sent after the reading began, or still on its way, knows better.
            let newer = partition.held.get(&node).is_some_and(|held| held.flight.is_some() || held.touched > request);
            if !newer && let Err(reason) = partition.load(&node, fields.get(&partition.id).copied(), context) {
                stop.get_or_insert(reason);
            }
            partition.pump(context);
        });
        stop.map_or(Ok(()), Err)
    }

    fn shard_failed(&mut self, now: Now, request: u64, node: &NodeId, error: OpenError) -> Result<(), StopReason> {
        let Some(shard) = self.shards.get_mut(node).filter(|shard| shard.request == Some(request)) else {
            return Ok(());
        };
        shard.request = None;
        shard.close(
            now.millis,
            shard::retry_at(&error, now.millis, self.settings.times.retry),
            error.category(),
            false,
        );
        self.hurry = true;
        match error {
            OpenError::Unreadable(error) => Err(StopReason::UnreadableRecord(error)),
            _ => Ok(()),
        }
    }

    fn fetched(&mut self, now: Now, reading: Reading, changes: Vec<super::mutation::Change>, out: &mut Vec<Effect>) {
        let weight: usize = changes.iter().map(|change| change.weight).sum();
        let Some(partition) = self.reading(reading) else {
            return out.push(Effect::Released { partition: reading.partition, line: reading.line, weight });
        };
        let line = partition.line_mut(reading.line);
        line.end = None;
        line.queue.extend(changes);
        self.for_one(now, reading.partition, out, Partition::pump);
    }

    fn reading(&mut self, reading: Reading) -> Option<&mut Partition> {
        let partition = self.partitions.get_mut(&reading.partition)?;
        let line = partition.line(reading.line);
        (line.active && line.incarnation == reading.incarnation).then_some(partition)
    }

    fn on_reading(
        &mut self,
        now: Now,
        reading: Reading,
        out: &mut Vec<Effect>,
        change: impl FnOnce(&mut Partition, &mut Stats) -> Result<(), StopReason>,
    ) -> Result<(), StopReason> {
        let mut stats = std::mem::take(&mut self.stats);
        let changed = self.reading(reading).map_or(Ok(()), |partition| change(partition, &mut stats));
        self.stats = stats;
        changed?;
        self.for_one(now, reading.partition, out, Partition::pump);
        Ok(())
    }

    fn out_of_range(
        &mut self,
        now: Now,
        reading: Reading,
        first: i64,
        end: i64,
        out: &mut Vec<Effect>,
    ) -> Result<(), StopReason> {
        let mut again = None;
        self.on_reading(now, reading, out, |partition, stats| {
            let line = partition.line_mut(reading.line);
            let applied = line.queue.back().map_or(line.threshold(), |last| last.offset + 1);
            if applied > end {
                return Err(StopReason::LogTruncated { partition: reading.partition, end, applied });
            }
            stats.expired_positions += u64::from(applied < first);
            again = Some(applied.max(first));
            Ok(())
        })?;
        if let Some(offset) = again {
            out.push(Effect::Read { reading, offset });
        }
        Ok(())
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut commits = Vec::new();
        let epoch = self.settings.epoch;
        self.for_each(now, out, |partition, context| {
            partition.detach_unreachable(context);
            partition.pump(context);
            partition.write_lazily(context);
            commits.extend(report::commit(partition, context, epoch));
        });
        if !commits.is_empty() {
            out.push(Effect::Commit(commits));
        }
    }

    /// Asks for the topology and for shards when it is time.
    fn ask(&mut self, now: Now, out: &mut Vec<Effect>) {
        let times = self.settings.times;
        let pause = if self.hurry { times.topology_hurry } else { times.topology };
        let due = self.refreshed_at.is_none_or(|at| now.millis.saturating_sub(at) >= pause);
        if due && !self.refreshing {
            self.refreshing = true;
            out.push(Effect::RefreshTopology);
        }
        if self.topics_asked.is_none()
            && !self.partitions.is_empty()
            && now.millis.saturating_sub(self.topics_asked_at) >= times.topics
        {
            self.ask_topics(now, out);
        }
        for (node, shard) in &mut self.shards {
            if shard.is_due(now.millis, times.read_back) {
                self.sequence += 1;
                shard.request = Some(self.sequence);
                out.push(Effect::OpenShard { request: self.sequence, node: node.clone() });
            }
        }
    }

    fn for_each(&mut self, now: Now, out: &mut Vec<Effect>, work: impl FnMut(&mut Partition, &mut Context<'_>)) {
        self.work_on(None, now, out, work);
    }

    fn for_one(
        &mut self,
        now: Now,
        id: PartitionId,
        out: &mut Vec<Effect>,
        work: impl FnMut(&mut Partition, &mut Context<'_>),
    ) {
        self.work_on(Some(id), now, out, work);
    }

    fn work_on(
        &mut self,
        only: Option<PartitionId>,
        now: Now,
        out: &mut Vec<Effect>,
        mut work: impl FnMut(&mut Partition, &mut Context<'_>),
    ) {
        let Some(topology) = self.topology.clone() else { return };
        let mut context = Context {
            now: now.millis,
            wall_ms: now.wall_ms,
            settings: &self.settings,
            shards: &self.shards,
            topology: &topology,
            tickets: &mut self.tickets,
            sequence: &mut self.sequence,
            stats: &mut self.stats,
            out,
        };
        let partitions = match only {
            Some(id) => self.partitions.range_mut(id..=id),
            None => self.partitions.range_mut(..),
        };
        for (_, partition) in partitions {
            work(partition, &mut context);
        }
    }
}
