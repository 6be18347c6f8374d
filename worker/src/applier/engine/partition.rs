//! One partition: its lines, and what each shard holds of it.
//!
//! [`Partition::pump`] does all that can be done now: groups without a line get one, windows are cut, scripts sent,
//! finished windows closed. Everything else changes state and then pumps.

use std::collections::BTreeMap;

use sluice_clients::redis::{NodeId, SlotSet, Topology};

use super::held::{Flight, Held, Place};
use super::line::{Line, Part};
use super::shard::Shard;
use super::types::{Apply, Effect, EngineSettings, LineId, Millis, PartitionId, Reading, Stats, StopReason};
use crate::applier::mutation::{Batch, Poison};
use crate::applier::record::Record;

/// Shards whose records are this close (in offsets) are brought together by the main line; others by the repair line.
const NEAR: i64 = 20_000;

/// What a partition may see and use of the engine.
pub(super) struct Context<'a> {
    pub(super) now: Millis,
    /// Unix milliseconds.
    pub(super) wall_ms: u64,
    pub(super) settings: &'a EngineSettings,
    pub(super) shards: &'a BTreeMap<NodeId, Shard>,
    pub(super) topology: &'a Topology,
    pub(super) tickets: &'a mut BTreeMap<u64, (PartitionId, NodeId)>,
    pub(super) sequence: &'a mut u64,
    pub(super) stats: &'a mut Stats,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Context<'_> {
    pub(super) fn next(&mut self) -> u64 {
        *self.sequence += 1;
        *self.sequence
    }

    /// Open, and not because nothing was tried since it failed.
    fn is_well(&self, node: &NodeId) -> bool {
        self.open(node).is_some_and(|shard| shard.failing_for(self.now) == 0)
    }

    fn open(&self, node: &NodeId) -> Option<&Shard> {
        self.shards.get(node).filter(|shard| shard.handle().is_some())
    }
}

pub(super) struct Partition {
    pub(super) id: PartitionId,
    pub(super) main: Line,
    pub(super) repair: Line,
    pub(super) held: BTreeMap<NodeId, Held>,
    /// Records handled on the main line, and the newest timestamp among them.
    pub(super) records: u64,
    pub(super) last_timestamp_ms: Option<i64>,
    pub(super) assigned_wall_ms: u64,
    /// Point of the engine's sequence at which it was assigned, or the process last woke up.
    pub(super) assigned: u64,
    /// Since then the topic was seen to be the one of our configuration. Nothing is written before.
    pub(super) verified: bool,
    /// Time with a window at work on the main line.
    pub(super) busy_ms: u64,
    pub(super) committed: Option<i64>,
    pub(super) committed_at: Millis,
    /// What the last group commit said of missed deletions.
    pub(super) committed_missed: bool,
}

impl Partition {
    pub(super) fn new(id: PartitionId, assigned: u64, wall_ms: u64) -> Self {
        Self {
            id,
            assigned,
            verified: false,
            busy_ms: 0,
            main: Line::default(),
            repair: Line::default(),
            held: BTreeMap::new(),
            records: 0,
            last_timestamp_ms: None,
            assigned_wall_ms: wall_ms,
            committed: None,
            committed_at: 0,
            committed_missed: false,
        }
    }

    pub(super) fn line(&self, id: LineId) -> &Line {
        match id {
            LineId::Main => &self.main,
            LineId::Repair => &self.repair,
        }
    }

    pub(super) fn line_mut(&mut self, id: LineId) -> &mut Line {
        match id {
            LineId::Main => &mut self.main,
            LineId::Repair => &mut self.repair,
        }
    }

    pub(super) fn has_groups(&self, line: LineId) -> bool {
        self.held.values().any(|held| held.is_on_line(line))
    }

    /// The record the main line cannot pass.
    pub(super) fn poison(&self) -> Option<(i64, &Poison)> {
        self.main.poison()
    }

    /// Takes a shard's record as it was just read.
    pub(super) fn load(
        &mut self,
        node: &NodeId,
        text: Option<&str>,
        context: &mut Context<'_>,
    ) -> Result<(), StopReason> {
        let Some(shard) = context.shards.get(node) else { return Ok(()) };
        let text = text.unwrap_or_default();
        let held = self.held.entry(node.clone()).or_default();
        if !held.known || held.text != text {
            let record = if text.is_empty() { None } else { Some(check(self.id, text, context.settings)?) };
            let ours = record.as_ref().filter(|record| record.epoch == context.settings.epoch);
            let coverage = ours.map(|record| record.coverage.clone()).unwrap_or_default();
            if held.known && coverage.sets().is_empty() && !held.recorded.sets().is_empty() {
                context.stats.rebuilds += 1;
            } else if held.known
                && coverage != held.recorded
                && record.as_ref().is_some_and(|r| r.version < held.version)
            {
                context.stats.replays += 1;
            }
            held.version = held.version.max(record.as_ref().map_or(0, |record| record.version));
            held.groups.clear();
            for (offset, slots) in coverage.sets() {
                held.move_slots(slots, *offset, Place::Parked { until: 0 });
            }
            text.clone_into(&mut held.text);
            held.absence.read(ours.map(|record| record.wall_ms), context.wall_ms);
            held.recorded = coverage;
            held.known = true;
            held.refusal = None;
        }
        held.restrict(&shard.slots);
        Ok(())
    }

    /// All that can be done now.
    pub(super) fn pump(&mut self, context: &mut Context<'_>) {
        self.watch_absence(context);
        self.attach(context);
        for line in [LineId::Main, LineId::Repair] {
            loop {
                let cut =
                    self.line(line).active && self.line_mut(line).cut(context.settings, context.topology, context.now);
                self.dispatch(line, context);
                let closed = self.close_window(line, context);
                let ended = self.reach_end(line);
                if !(cut || closed || ended) {
                    break;
                }
            }
        }
        self.merge(context);
    }

    /// Gives every group that nobody brings forward to a line.
    fn attach(&mut self, context: &mut Context<'_>) {
        self.join(LineId::Main, context);
        if !self.has_groups(LineId::Main) {
            self.start(context);
        }
        self.join(LineId::Repair, context);
        if !self.repair.active && self.has_groups(LineId::Main) {
            let Some(lowest) = self.ready(context).map(|(offset, _)| offset).min() else { return };
            context.stats.repairs += 1;
            self.begin(LineId::Repair, lowest, context);
            self.join(LineId::Repair, context);
        }
    }

    /// Chooses where the main line begins: everything that is near the most advanced shard is on it.
    fn start(&mut self, context: &mut Context<'_>) {
        let unread = |node: &NodeId| !self.held.get(node).is_some_and(|held| held.known);
        let undecided =
            context.shards.iter().any(|(node, shard)| !shard.was_tried() || shard.handle().is_some() && unread(node));
        let offsets: Vec<i64> = self.ready(context).map(|(offset, _)| offset).collect();
        let Some(highest) = offsets.iter().max() else { return };
        if undecided || !self.verified {
            return;
        }
        let lowest = offsets.iter().filter(|offset| **offset >= highest - NEAR).min().unwrap_or(highest);
        self.begin(LineId::Main, *lowest, context);
        self.join(LineId::Main, context);
    }

    /// Groups that wait for a line: offset and shard.
    fn ready<'a>(&'a self, context: &'a Context<'_>) -> impl Iterator<Item = (i64, &'a NodeId)> {
        let open = self.held.iter().filter(|(node, _)| context.open(node).is_some());
        open.flat_map(move |(node, held)| {
            held.groups.iter().filter_map(move |group| match group.place {
                Place::Parked { until } if until <= context.now => Some((group.offset, node)),
                _ => None,
            })
        })
    }

    fn begin(&mut self, line: LineId, position: i64, context: &mut Context<'_>) {
        let id = self.id;
        let weight = self.line_mut(line).restart(position);
        context.out.push(Effect::Released { partition: id, line, weight });
        let reading = Reading { partition: id, line, incarnation: self.line(line).incarnation };
        context.out.push(Effect::Read { reading, offset: position });
    }

    /// Waiting groups join a line that has not passed them.
    fn join(&mut self, id: LineId, context: &mut Context<'_>) {
        if !self.line(id).active {
            return;
        }
        let threshold = self.line(id).threshold();
        for (node, held) in &mut self.held {
            if context.open(node).is_none() {
                continue;
            }
            let line = match id {
                LineId::Main => &mut self.main,
                LineId::Repair => &mut self.repair,
            };
            for group in &mut held.groups {
                if !matches!(group.place, Place::Parked { until } if until <= context.now && group.offset >= threshold)
                {
                    continue;
                }
                group.place = Place::Line(id);
                if let Some(window) = line.window.as_mut().filter(|window| group.offset < window.to) {
                    window.join(node);
                }
            }
            held.tidy();
        }
    }

    /// Sends the scripts of the line's window that can go.
    fn dispatch(&mut self, id: LineId, context: &mut Context<'_>) {
        let Some(window) = self.line(id).window.as_ref().filter(|_| self.verified) else { return };
        let (from, to, records) = (window.from, window.to, window.records.clone());
        let waiting: Vec<(NodeId, Option<i64>)> = window
            .parts
            .iter()
            .filter_map(|(node, part)| match part {
                Part::Waiting { upto } => Some((node.clone(), *upto)),
                Part::Sent { .. } => None,
            })
            .collect();
        for (node, upto) in waiting {
            let (cut_short, upto) = (upto.is_some(), upto.unwrap_or(to));
            let Some(held) = self.held.get(&node).filter(|held| held.is_on_line(id)) else {
                self.drop_part(id, &node);
                continue;
            };
            if held.flight.is_some() || context.open(&node).is_none() {
                continue;
            }
            let batch =
                Batch::collapse(&records, |change, mutation| change.offset < upto && held.wants(id, change, mutation));
            if batch.is_empty() && !cut_short {
                self.drop_part(id, &node);
                continue;
            }
            let advances = held.below(id, upto);
            self.send(&node, Some(id), (from, upto, cut_short), advances, batch, context);
            if let Some(window) = &mut self.line_mut(id).window {
                window.parts.insert(node, Part::Sent { again: false });
            }
        }
    }

    fn drop_part(&mut self, line: LineId, node: &NodeId) {
        if let Some(window) = &mut self.line_mut(line).window {
            window.parts.remove(node);
        }
    }

    /// Sends one script. `span` is from, up to, and whether it stops short of a refused mutation.
    fn send(
        &mut self,
        node: &NodeId,
        line: Option<LineId>,
        span: (i64, i64, bool),
        advances: SlotSet,
        batch: Batch,
        context: &mut Context<'_>,
    ) {
        let Some(handle) = context.open(node).and_then(Shard::handle).cloned() else { return };
        let Some(topic_id) = context.settings.topics.get(usize::from(self.id.topic)).copied() else { return };
        let ticket = context.next();
        let kept = self.tombstones_kept(context);
        let Some(held) = self.held.get_mut(node) else { return };
        let (from, upto, cut_short) = span;
        let next = Record {
            topic_id,
            epoch: context.settings.epoch,
            version: held.version + 1,
            wall_ms: held.wall_ms(context.wall_ms, kept),
            coverage: held.coverage_after(&advances, upto),
        };
        context.out.push(Effect::Apply(Apply {
            ticket,
            handle,
            partition: self.id,
            expected: held.text.clone(),
            next: next.text(),
            from,
            batch: batch.clone(),
        }));
        context.tickets.insert(ticket, (self.id, node.clone()));
        held.touched = ticket;
        held.flight = Some(Flight { ticket, line, from, upto, cut_short, advances, next, batch });
    }

    /// When no shard has anything left to do for the window, everybody on the line is past it.
    fn close_window(&mut self, id: LineId, context: &mut Context<'_>) -> bool {
        let line = self.line_mut(id);
        let Some(window) = line.window.take_if(|window| window.parts.is_empty()) else { return false };
        line.position = window.to;
        self.raise(id, window.to);
        context.out.push(Effect::Released { partition: self.id, line: id, weight: window.weight() });
        if id == LineId::Main {
            self.busy_ms += context.now.saturating_sub(window.begun);
            self.records += window.records.len() as u64;
            context.stats.records += window.records.len() as u64;
            self.last_timestamp_ms =
                window.records.iter().map(|change| change.timestamp_ms).max().max(self.last_timestamp_ms);
        }
        true
    }

    /// Commit markers and aborted records end a partition without a record: the end counts as a position too.
    fn reach_end(&mut self, id: LineId) -> bool {
        let line = self.line_mut(id);
        let end = line.end.filter(|end| line.window.is_none() && line.queue.is_empty() && *end > line.position);
        let Some(end) = end else { return false };
        line.position = end;
        self.raise(id, end);
        true
    }

    fn raise(&mut self, line: LineId, position: i64) {
        for held in self.held.values_mut() {
            for group in &mut held.groups {
                if group.place == Place::Line(line) && group.offset < position {
                    group.offset = position;
                }
            }
            held.tidy();
        }
    }

    /// A repair line that has reached the main line, or that nobody needs, ends.
    fn merge(&mut self, context: &mut Context<'_>) {
        if !self.repair.active || self.repair.window.is_some() {
            return;
        }
        let caught_up = self.main.active && self.repair.position >= self.main.threshold();
        if !caught_up && self.has_groups(LineId::Repair) {
            return;
        }
        for held in self.held.values_mut() {
            held.park(LineId::Repair, 0);
        }
        let weight = self.repair.stop();
        context.out.push(Effect::Released { partition: self.id, line: LineId::Repair, weight });
        context.out.push(Effect::StopReading { partition: self.id, line: LineId::Repair });
        self.pump(context);
    }

    /// Shards that nobody reaches no longer hold up the others.
    pub(super) fn detach_unreachable(&mut self, context: &mut Context<'_>) {
        for id in [LineId::Main, LineId::Repair] {
            let others = self.held.iter().any(|(node, held)| held.is_on_line(id) && context.is_well(node));
            let Some(window) = &self.line(id).window else { continue };
            let times = context.settings.times;
            let late = |node: &&NodeId| {
                context.shards.get(*node).is_none_or(|shard| shard.failing_for(context.now) >= times.grace)
            };
            let gone: Vec<NodeId> = window.parts.keys().filter(late).cloned().collect();
            if !others {
                // Nobody would gain: the window stays in memory until the shard is back.
                continue;
            }
            for node in gone {
                if let Some(held) = self.held.get_mut(&node) {
                    held.park(id, context.now + times.retry);
                }
                self.drop_part(id, &node);
            }
        }
    }

    /// Writes records that only move on.
    pub(super) fn write_lazily(&mut self, context: &mut Context<'_>) {
        if !self.verified {
            return;
        }
        let kept = self.tombstones_kept(context);
        let nodes: Vec<NodeId> = self
            .held
            .iter()
            .filter(|(node, held)| {
                let due = context.now.saturating_sub(held.written_at) >= context.settings.times.lazy_advance;
                due && held.known
                    && held.flight.is_none()
                    && context.open(node).is_some()
                    && (held.coverage() != held.recorded || held.absence.is_to_be_renewed(kept))
            })
            .map(|(node, _)| node.clone())
            .collect();
        for node in nodes {
            self.send(&node, None, (0, 0, false), SlotSet::default(), Batch::empty(), context);
        }
    }

    /// The topology changed: shards that are gone are forgotten, the others hold what they own.
    pub(super) fn reshape(&mut self, context: &mut Context<'_>) {
        self.held.retain(|node, _| context.shards.contains_key(node));
        // A script on its way to a node that is gone says nothing any more: nobody waits for it.
        for line in [&mut self.main, &mut self.repair] {
            if let Some(window) = &mut line.window {
                window.parts.retain(|node, _| context.shards.contains_key(node));
            }
        }
        for (node, held) in &mut self.held {
            if let Some(shard) = context.shards.get(node).filter(|_| held.known) {
                held.restrict(&shard.slots);
            }
        }
    }

    /// Slots that are not at the head: in repair, in motion, refused, or on a shard that is not reached.
    pub(super) fn slots_behind(&self, shards: &BTreeMap<NodeId, Shard>) -> u64 {
        let at_head = self.held.values().flat_map(|held| held.on_line(LineId::Main)).map(|group| group.slots.len());
        let all = shards.values().map(|shard| shard.slots.len());
        u64::from(all.sum::<u32>().saturating_sub(at_head.sum()))
    }

    /// Smallest offset that the records prove for the groups that `pick` takes.
    pub(super) fn watermark(&self, pick: impl Fn(Place) -> bool) -> Option<i64> {
        let held = self.held.values();
        held.flat_map(|held| {
            held.groups.iter().filter(|group| pick(group.place)).map(|group| held.recorded_offset(&group.slots))
        })
        .min()
    }
}

/// Reads a record and decides whether we may go on from it.
fn check(partition: PartitionId, text: &str, settings: &EngineSettings) -> Result<Record, StopReason> {
    let record = Record::parse(text).map_err(StopReason::UnreadableRecord)?;
    if record.epoch > settings.epoch {
        return Err(StopReason::EpochSuperseded { partition, found: record.epoch, ours: settings.epoch });
    }
    match settings.topics.get(usize::from(partition.topic)) {
        Some(ours) if record.epoch == settings.epoch && record.topic_id != *ours => {
            Err(StopReason::TopicReplaced { topic: partition.topic, found: record.topic_id, ours: *ours })
        }
        _ => Ok(record),
    }
}
