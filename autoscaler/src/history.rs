//! What was wanted lately, when things changed, how long changes take.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::inputs::{Inputs, Phase};
use crate::units::{Replicas, after, since};

/// The window is kept in so many pieces: memory does not grow with it.
const PIECES: u32 = 64;
/// Estimates before anything was seen, and their bounds.
const REBALANCE: (Duration, Duration, Duration) = seconds(1, 5, 60);
const START_UP: (Duration, Duration, Duration) = seconds(1, 15, 300);
/// A group that has not become what it should be after so long is taken as it is.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Two changes are never closer than this.
const MIN_COOL_DOWN: Duration = Duration::from_secs(10);

const fn seconds(low: u64, start: u64, high: u64) -> (Duration, Duration, Duration) {
    (Duration::from_secs(low), Duration::from_secs(start), Duration::from_secs(high))
}

/// How the group stands to the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Over.
    Yes,
    /// Members come or go.
    Rebalancing,
    /// The members are not the replicas.
    Members,
    /// The group is not known.
    Unknown,
}

/// What is remembered of the past.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    wanted: VecDeque<(Timestamp, Replicas)>,
    observing_since: Option<Timestamp>,
    replicas: Option<Replicas>,
    changed: Option<Timestamp>,
    /// The group is not what it should be, since then.
    unsettled: Option<Timestamp>,
    /// A scale-up that is not over, since then.
    starting: Option<Timestamp>,
    rebalancing: Option<Timestamp>,
    rebalance: Option<Duration>,
    start_up: Option<Duration>,
    idle: Option<Timestamp>,
    missing: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl History {
    /// Looks at the group. Called first, once a decision.
    pub(crate) fn observe(&mut self, inputs: &Inputs) -> Settled {
        self.mend_clock(inputs.now);
        if self.replicas.is_some_and(|before| before != inputs.replicas) {
            // Somebody else changed it: the group moves all the same.
            self.record_change(inputs.now, inputs.replicas);
        }
        self.replicas = Some(inputs.replicas);
        let state = match inputs.group.phase {
            Phase::Unknown => return Settled::Unknown,
            Phase::Rebalancing => Settled::Rebalancing,
            Phase::Stable if inputs.group.members != inputs.replicas.0 => Settled::Members,
            Phase::Stable => Settled::Yes,
        };
        self.measure_times(inputs, state);
        if state == Settled::Yes {
            self.unsettled = None;
            return state;
        }
        let unsettled = *self.unsettled.get_or_insert(inputs.now);
        if since(inputs.now, unsettled) >= SETTLE_TIMEOUT { Settled::Yes } else { state }
    }

    fn measure_times(&mut self, inputs: &Inputs, state: Settled) {
        if state == Settled::Rebalancing {
            self.rebalancing.get_or_insert(inputs.now);
        } else if let Some(began) = self.rebalancing.take() {
            learn(&mut self.rebalance, since(inputs.now, began), REBALANCE);
        }
        if let Some(rebalance) = inputs.rebalance {
            learn(&mut self.rebalance, rebalance, REBALANCE);
        }
        if state == Settled::Yes
            && let Some(began) = self.starting.take()
        {
            learn(&mut self.start_up, since(inputs.now, began), START_UP);
        }
    }

    /// The replicas are changed now, by us or by somebody else.
    pub(crate) fn record_change(&mut self, now: Timestamp, to: Replicas) {
        let up = self.replicas.is_some_and(|from| to > from);
        if self.replicas == Some(Replicas::ZERO) {
            // Who has just been woken up is not asleep again before anybody could look for work.
            self.idle = None;
        }
        self.starting = up.then_some(now);
        self.changed = Some(now);
        self.replicas = Some(to);
        // The time a group may take to settle begins anew with each change, when it is first seen unsettled.
        self.unsettled = None;
    }

    /// When the replicas were last changed, by what is known from before.
    pub(crate) fn remember_change(&mut self, changed: Option<Timestamp>) {
        self.changed = changed;
    }

    /// A clock that went back must not freeze anything until it has caught up.
    fn mend_clock(&mut self, now: Timestamp) {
        if self.last.is_some_and(|last| now < last) {
            let marks = [
                &mut self.observing_since,
                &mut self.changed,
                &mut self.unsettled,
                &mut self.starting,
                &mut self.rebalancing,
                &mut self.idle,
                &mut self.missing,
            ];
            for mark in marks {
                *mark = mark.map(|time| time.min(now));
            }
            for (time, _) in &mut self.wanted {
                *time = (*time).min(now);
            }
        }
        self.last = Some(now);
    }

    /// How long a rebalance stops a partition.
    pub(crate) fn rebalance(&self) -> Duration {
        self.rebalance.unwrap_or(REBALANCE.1)
    }

    /// From asking for a replica to its first assignment.
    pub(crate) fn start_up(&self) -> Duration {
        self.start_up.unwrap_or(START_UP.1)
    }

    /// The shortest time between two changes: twice what a change costs, so that at least half of the time is work.
    pub(crate) fn cool_down(&self) -> Duration {
        (self.rebalance() * 2).max(MIN_COOL_DOWN)
    }

    /// Whether the last change was long enough ago.
    pub(crate) fn cooled_down(&self, now: Timestamp) -> bool {
        self.changed.is_none_or(|changed| since(now, changed) >= self.cool_down())
    }

    /// When a group that has had no replica since the last change has slept for `longest`. That nobody knows when it fell
    /// asleep is as good as too long ago.
    pub(crate) fn wakes_at(&self, longest: Duration) -> Option<Timestamp> {
        self.changed.map(|changed| after(changed, longest))
    }

    /// Takes in what is wanted now and gives the most that was wanted in the window, if all of it was seen.
    pub(crate) fn most_wanted(&mut self, now: Timestamp, wanted: Replicas, window: Duration) -> Option<Replicas> {
        let began = *self.observing_since.get_or_insert(now);
        while self.wanted.front().is_some_and(|&(time, _)| since(now, time) > window) {
            self.wanted.pop_front();
        }
        match self.wanted.back_mut() {
            // A piece keeps its first time, so that nothing stays longer than the window and one piece.
            Some((time, most)) if since(now, *time) < window / PIECES => *most = wanted.max(*most),
            _ => self.wanted.push_back((now, wanted)),
        }
        let most = self.wanted.iter().map(|&(_, most)| most).max();
        most.filter(|_| since(now, began) >= window)
    }

    /// Whether the group has been idle for `duration`, this moment included.
    pub(crate) fn idle_for(&mut self, now: Timestamp, idle: bool, duration: Duration) -> bool {
        self.idle = if idle { self.idle.or(Some(now)) } else { None };
        self.idle.is_some_and(|began| since(now, began) >= duration)
    }

    /// Whether measurements have failed for `grace`, this moment included.
    pub(crate) fn missing_for(&mut self, now: Timestamp, missing: bool, grace: Duration) -> bool {
        self.missing = if missing { self.missing.or(Some(now)) } else { None };
        let long = self.missing.is_some_and(|began| since(now, began) >= grace);
        if long {
            // What was not seen cannot prove that less would have done.
            self.observing_since = None;
            self.wanted.clear();
            self.idle = None;
        }
        long
    }

    /// When a change is worth judging: settled, and the throughput has had time to show.
    pub(crate) fn judged_at(&self, now: Timestamp) -> Timestamp {
        after(now, (self.rebalance() * 2).max(Duration::from_secs(30)))
    }
}

/// Moves an estimate a third of the way to what was seen, within its bounds.
fn learn(estimate: &mut Option<Duration>, seen: Duration, (low, _, high): (Duration, Duration, Duration)) {
    let seen = seen.clamp(low, high);
    *estimate = Some(estimate.map_or(seen, |old| old.mul_f64(2.0 / 3.0) + seen / 3));
}
