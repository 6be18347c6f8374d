//! A shard as the engine sees it: can scripts be sent, and since when not.

use std::sync::Arc;

use sluice_clients::redis::{NodeAddress, SlotSet};

use super::types::{Millis, OpenError, ShardHandle};

#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) address: NodeAddress,
    pub(super) slots: SlotSet,
    phase: Phase,
    /// Since when it fails; outlives opening when it was the scripts that failed, until one succeeds.
    failing_since: Option<Millis>,
    /// The request on its way, if one is.
    pub(super) request: Option<u64>,
    /// Last time that it answered as it should.
    answered_at: Millis,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Not asked yet.
    New,
    Open(Arc<ShardHandle>),
    Closed {
        retry_at: Millis,
        cause: &'static str,
        by_script: bool,
    },
}

impl Shard {
    pub(super) fn new(address: NodeAddress, slots: SlotSet) -> Self {
        Self { address, slots, phase: Phase::New, failing_since: None, request: None, answered_at: 0 }
    }

    /// What to send scripts with, when they can be sent.
    pub(super) fn handle(&self) -> Option<&Arc<ShardHandle>> {
        match &self.phase {
            Phase::Open(handle) => Some(handle),
            _ => None,
        }
    }

    /// Whether a first attempt to open it has ended.
    pub(super) fn was_tried(&self) -> bool {
        !matches!(self.phase, Phase::New)
    }

    /// How long it has been of no use; 0 when it is well.
    pub(super) fn failing_for(&self, now: Millis) -> Millis {
        self.failing_since.map_or(0, |since| now.saturating_sub(since).max(1))
    }

    /// Why scripts cannot be sent.
    pub(super) fn cause(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Closed { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// Its records were read.
    pub(super) fn open(&mut self, handle: Arc<ShardHandle>, now: Millis) {
        // Reading says nothing about a server that refuses to write (over maxmemory, without enough replicas).
        if !matches!(self.phase, Phase::Closed { by_script: true, .. }) {
            self.failing_since = None;
        }
        self.phase = Phase::Open(handle);
        self.answered_at = now;
    }

    /// A script was run.
    pub(super) fn ran_script(&mut self, now: Millis) {
        self.answered_at = now;
        if self.handle().is_some() {
            self.failing_since = None;
        }
    }

    /// No scripts from now on; it is opened again at `retry_at`.
    pub(super) fn close(&mut self, now: Millis, retry_at: Millis, cause: &'static str, by_script: bool) {
        let by_script = by_script || matches!(self.phase, Phase::Closed { by_script: true, .. });
        self.failing_since.get_or_insert(now);
        self.phase = Phase::Closed { retry_at, cause, by_script };
    }

    /// Whether it is to be opened or read back now.
    pub(super) fn is_due(&self, now: Millis, read_back: Millis) -> bool {
        self.request.is_none()
            && match self.phase {
                Phase::New => true,
                Phase::Closed { retry_at, .. } => retry_at <= now,
                Phase::Open(_) => now.saturating_sub(self.answered_at) >= read_back,
            }
    }
}

/// When a shard that could not be opened is tried again: at once after a race, which the next attempt sees decided.
pub(super) fn retry_at(error: &OpenError, now: Millis, pause: Millis) -> Millis {
    match error {
        OpenError::Raced => now,
        OpenError::CrossSlotScriptsRefused(_) | OpenError::ServerTooOld(_) => now + 10 * pause,
        OpenError::Fault(_) | OpenError::Unreadable(_) => now + pause,
    }
}
