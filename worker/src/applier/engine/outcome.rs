//! How a script ended, and what follows for the record, the window it was for, and the shard.

use super::held::Flight;
use super::line::Part;
use super::partition::Partition;
use super::types::{Effect, Millis, Outcome, StopReason};
use super::{Engine, Now};
use crate::applier::record::Record;
use sluice_clients::redis::{NodeId, RedisFault};

impl Engine {
    pub(super) fn script_ended(
        &mut self,
        now: Now,
        ticket: u64,
        outcome: &Outcome,
        out: &mut Vec<Effect>,
    ) -> Result<(), StopReason> {
        let Some((id, node)) = self.tickets.remove(&ticket) else { return Ok(()) };
        self.sequence += 1;
        let (sequence, times) = (self.sequence, self.settings.times);
        if let Some(partition) = self.partitions.get_mut(&id)
            && let Some(held) = partition.held.get_mut(&node)
            && let Some(flight) = held.flight.take_if(|flight| flight.ticket == ticket)
        {
            held.touched = sequence;
            match outcome {
                Outcome::Applied { behind, text } => {
                    let text = text.clone().unwrap_or_else(|| flight.next.text());
                    let record = Record::parse(&text).map_err(StopReason::UnreadableRecord)?;
                    held.text = text;
                    held.recorded = record.coverage;
                    held.version = record.version;
                    held.absence.wrote(record.wall_ms);
                    held.written_at = now.millis;
                    held.advance(&flight, behind, now.millis + times.motion_retry);
                    if let Some(line) = flight.line.filter(|_| flight.cut_short) {
                        held.park(line, now.millis + times.refusal_retry);
                    } else if flight.line.is_some() {
                        held.refusal = None;
                    }
                    self.stats.batches += 1;
                    self.stats.mutations += flight.batch.len() as u64;
                    self.stats.slots_left_behind += behind.len() as u64;
                }
                Outcome::Failed { error, .. } => {
                    self.stats.failed_mutations += 1;
                    held.refusal = Some(error.clone());
                }
                Outcome::Refused => self.stats.refused += 1,
                Outcome::Fault(_) => {}
            }
            settle_part(partition, &node, &flight, outcome, now.millis + times.refusal_retry);
        }
        self.judge_shard(now, &node, outcome);
        self.for_one(now, id, out, Partition::pump);
        Ok(())
    }

    /// What the outcome of a script says about its shard.
    fn judge_shard(&mut self, now: Now, node: &NodeId, outcome: &Outcome) {
        let Some(shard) = self.shards.get_mut(node) else { return };
        match outcome {
            Outcome::Applied { behind, .. } => {
                shard.ran_script(now.millis);
                self.hurry |= !behind.is_empty();
            }
            Outcome::Failed { .. } => shard.ran_script(now.millis),
            Outcome::Refused => shard.close(now.millis, now.millis, "Refused", false),
            Outcome::Fault(fault) => {
                let pressure = is_pressure(fault);
                // A broken connection or a moved record says little about how the shard is now: look at once, the first time.
                let pause = if shard.handle().is_some() && !pressure { 0 } else { self.settings.times.retry };
                shard.close(now.millis, now.millis + pause, fault.category(), pressure);
                self.hurry |= fault.is_topology() || fault.is_outage();
            }
        }
    }
}

/// What becomes of a window's part when its script ended.
fn settle_part(partition: &mut Partition, node: &NodeId, flight: &Flight, outcome: &Outcome, refusal_retry_at: Millis) {
    let Some(id) = flight.line else { return };
    let Some(window) = &mut partition.line_mut(id).window else { return };
    if window.from != flight.from {
        return;
    }
    // A line that began anew meanwhile has a window that this script says nothing about.
    let Some(Part::Sent { again }) = window.parts.get(node).cloned() else { return };
    match outcome {
        Outcome::Applied { .. } if again => window.redo(node),
        Outcome::Applied { .. } => {
            window.parts.remove(node);
        }
        Outcome::Failed { item, .. } => match flight.batch.offset(*item) {
            // Everything below the refused record first, then nothing more until it is tried again.
            Some(offset) if offset > flight.from && !flight.cut_short => {
                window.parts.insert(node.clone(), Part::Waiting { upto: Some(offset) });
            }
            _ => {
                window.parts.remove(node);
                if let Some(held) = partition.held.get_mut(node) {
                    held.park(id, refusal_retry_at);
                }
            }
        },
        Outcome::Refused | Outcome::Fault(_) => window.redo(node),
    }
}

/// Faults that time heals and nothing else.
fn is_pressure(fault: &RedisFault) -> bool {
    use RedisFault as Fault;
    matches!(
        fault,
        Fault::OutOfMemory
            | Fault::Misconfigured
            | Fault::TooFewReplicas
            | Fault::Busy
            | Fault::Loading
            | Fault::NoPermission(_)
            | Fault::Unauthenticated
            | Fault::Other(_)
            | Fault::Malformed(_)
            | Fault::CrossSlot
    )
}
