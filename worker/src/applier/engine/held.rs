//! What a shard holds of a partition, as far as we know.

use sluice_clients::redis::{Slot, SlotSet};

use super::absence::Absence;
use super::types::{LineId, Millis};
use crate::applier::mutation::{Batch, Change, Mutation};
use crate::applier::record::{Coverage, Record};

/// Slots that are at the same offset and go the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) slots: SlotSet,
    /// All records below are in the data, or did not concern these slots.
    pub(super) offset: i64,
    pub(super) place: Place,
}

/// Who brings a group forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Line(LineId),
    /// Nobody before this time.
    Parked {
        until: Millis,
    },
}

/// A script on its way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) ticket: u64,
    /// None: it only writes the record.
    pub(super) line: Option<LineId>,
    pub(super) from: i64,
    pub(super) upto: i64,
    /// It stops before a mutation that Redis refused, which is why its groups are parked afterwards.
    pub(super) cut_short: bool,
    /// Slots that are at `upto` when it succeeds.
    pub(super) advances: SlotSet,
    pub(super) next: Record,
    pub(super) batch: Batch,
}

/// One shard and one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// The record's text on the shard; empty: none.
    pub(super) text: String,
    /// Its coverage, as far as it is of our epoch.
    pub(super) recorded: Coverage,
    pub(super) version: u64,
    /// How long nobody has brought it forward.
    pub(super) absence: Absence,
    /// Disjoint; together all slots that the shard owns, once it was opened.
    pub(super) groups: Vec<Group>,
    pub(super) flight: Option<Flight>,
    /// Whether the record was ever read.
    pub(super) known: bool,
    pub(super) written_at: Millis,
    /// Sequence number of the last script sent or ended: a reading of the record begun before it says nothing.
    pub(super) touched: u64,
    /// What Redis refuses, while it does.
    pub(super) refusal: Option<String>,
}

impl Held {
    pub(super) fn on_line(&self, line: LineId) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(move |group| group.place == Place::Line(line))
    }

    pub(super) fn is_on_line(&self, line: LineId) -> bool {
        self.on_line(line).next().is_some()
    }

    /// Whether the mutation belongs to a group of the line and is not in it yet.
    pub(super) fn wants(&self, line: LineId, change: &Change, mutation: &Mutation) -> bool {
        self.on_line(line).any(|group| group.offset <= change.offset && group.slots.contains(mutation.slot))
    }

    /// Slots of the line that are below `upto`.
    pub(super) fn below(&self, line: LineId, upto: i64) -> SlotSet {
        self.on_line(line)
            .filter(|group| group.offset < upto)
            .fold(SlotSet::default(), |all, group| all.union(&group.slots))
    }

    /// What a record written now may claim.
    pub(super) fn coverage(&self) -> Coverage {
        Coverage::new(self.groups.iter().map(|group| (group.offset, group.slots.clone())))
    }

    /// What it may claim once these slots are at `upto`.
    pub(super) fn coverage_after(&self, advances: &SlotSet, upto: i64) -> Coverage {
        let rest = self.groups.iter().map(|group| (group.offset, group.slots.difference(advances)));
        Coverage::new(rest.chain([(upto, advances.clone())]))
    }

    /// Takes slots out of their groups and puts them elsewhere.
    pub(super) fn move_slots(&mut self, slots: &SlotSet, offset: i64, place: Place) {
        for group in &mut self.groups {
            group.slots = group.slots.difference(slots);
        }
        self.groups.push(Group { slots: slots.clone(), offset, place });
        self.tidy();
    }

    /// Keeps only these slots; those of them that are in no group begin at 0.
    pub(super) fn restrict(&mut self, owned: &SlotSet) {
        if let Some(flight) = &mut self.flight {
            // A slot that comes back later is not what it was when the script was sent.
            flight.advances = flight.advances.intersection(owned);
        }
        let mut grouped = SlotSet::default();
        for group in &mut self.groups {
            group.slots = group.slots.intersection(owned);
            grouped = grouped.union(&group.slots);
        }
        let unnamed = owned.difference(&grouped);
        self.groups.push(Group { slots: unnamed, offset: 0, place: Place::Parked { until: 0 } });
        self.tidy();
    }

    /// Joins groups that are alike and drops empty ones.
    pub(super) fn tidy(&mut self) {
        let mut tidy: Vec<Group> = Vec::with_capacity(self.groups.len());
        for group in self.groups.drain(..).filter(|group| !group.slots.is_empty()) {
            match tidy.iter_mut().find(|other| other.offset == group.offset && other.place == group.place) {
                Some(other) => other.slots = other.slots.union(&group.slots),
                None => tidy.push(group),
            }
        }
        self.groups = tidy;
    }

    /// Lowest offset that the record on the shard proves for these slots; 0 where it names none.
    pub(super) fn recorded_offset(&self, slots: &SlotSet) -> i64 {
        let mut unnamed = slots.clone();
        let mut lowest = i64::MAX;
        for (offset, set) in self.recorded.sets() {
            if !set.intersection(slots).is_empty() {
                lowest = lowest.min(*offset);
                unnamed = unnamed.difference(set);
            }
        }
        if unnamed.is_empty() { lowest } else { 0 }
    }

    /// Parks the groups of a line.
    pub(super) fn park(&mut self, line: LineId, until: Millis) {
        for group in &mut self.groups {
            if group.place == Place::Line(line) {
                group.place = Place::Parked { until };
            }
        }
        self.tidy();
    }

    /// After a script that wrote: what advanced, and what stayed behind because it could not be written.
    pub(super) fn advance(&mut self, flight: &Flight, behind: &[Slot], retry_at: Millis) {
        let behind: SlotSet = behind.iter().copied().collect();
        let wrote = flight.advances.difference(&behind);
        let mut raised = Vec::new();
        for group in &mut self.groups {
            // Wherever the groups went meanwhile, their data is at the new offset.
            if group.offset < flight.upto {
                let slots = group.slots.intersection(&wrote);
                group.slots = group.slots.difference(&wrote);
                raised.push(Group { slots, offset: flight.upto, place: group.place });
            }
        }
        self.groups.append(&mut raised);
        self.tidy();
        let stuck = flight.advances.intersection(&behind);
        if !stuck.is_empty() {
            self.move_slots(&stuck, flight.from, Place::Parked { until: retry_at });
        }
    }
}
