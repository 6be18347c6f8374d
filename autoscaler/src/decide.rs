//! The order of it all: measure, bound, ask the formula, then every reason not to move.

use std::num::NonZeroU32;

use jiff::Timestamp;

use crate::decision::{Action, Decision, Limit, Reason, Stuck};
use crate::demand::{Circumstances, Demand, by_threshold, demand, level, level_below};
use crate::effect::Effect;
use crate::estimate::{Estimates, Load};
use crate::history::{History, Settled};
use crate::inputs::{Inputs, Measured, Partition};
use crate::settings::{Fallback, Settings};
use crate::sleep::{self, Asleep};
use crate::units::{Rate, Replicas};

/// What one group's decisions remember. Begins empty; a restart of the caller costs one scale-down window.
#[derive(Clone, Debug, Default)]
pub struct State {
    estimates: Estimates,
    history: History,
    effect: Effect,
    partitions: u32,
}

/// What a caller that starts again knows from before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seed {
    /// Records that one replica processes in a second of work.
    pub capacity: Option<Rate>,
    /// When the replicas were last changed.
    pub changed: Option<Timestamp>,
}

impl State {
    /// A state that begins with what is known from before, so that a restart is no reason to change anything. `lanes`:
    /// threads of a replica.
    pub fn seeded(seed: Seed, lanes: NonZeroU32) -> Self {
        let mut state = Self::default();
        state.history.remember_change(seed.changed);
        state.estimates.remember_capacity(seed.capacity.map(|rate| rate.per_second() / f64::from(lanes.get())));
        state
    }

    /// A decision was carried out: the cool-down begins.
    pub fn carried_out(&mut self, now: Timestamp, target: Replicas) {
        self.history.record_change(now, target);
    }
}

/// Decides once. Call it every few seconds, always, also when nothing could be measured.
///
/// A decision with a target other than `inputs.replicas` counts as carried out: the cool-down begins. Who may fail to carry
/// it out, or only shows it, calls [`consider`].
pub fn decide(settings: &Settings, state: State, inputs: &Inputs) -> (State, Decision) {
    let (mut state, decision) = consider(settings, state, inputs);
    if decision.target != inputs.replicas {
        state.carried_out(inputs.now, decision.target);
    }
    (state, decision)
}

/// [`decide`] for a caller that tells by [`State::carried_out`] what it has done.
pub fn consider(settings: &Settings, mut state: State, inputs: &Inputs) -> (State, Decision) {
    let settled = state.history.observe(inputs);
    let decision = match &inputs.measured {
        Measured::Partitions(samples) if !samples.is_empty() => {
            Round::new(settings, inputs, settled).with_measurement(&mut state, samples)
        }
        Measured::Partitions(_) | Measured::Missing(_) => {
            Round::new(settings, inputs, settled).without_measurement(&mut state)
        }
    };
    (state, decision)
}

/// The bounds of this moment.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    min: Replicas,
    min_limit: Limit,
    max: Replicas,
    max_limit: Limit,
}

impl Bounds {
    /// The ceiling wins over the floor, the partitions over both.
    fn new(settings: &Settings, inputs: &Inputs, partitions: u32) -> Self {
        let now = inputs.now;
        let open: Vec<_> = settings.schedules.iter().filter(|schedule| schedule.is_open(now)).collect();
        let floor = open.iter().filter_map(|schedule| schedule.floor()).max();
        let ceiling = open.iter().filter_map(|schedule| schedule.ceiling()).min();
        let (mut min, mut min_limit) = (settings.min, Limit::MinReplicas);
        let (mut max, mut max_limit) = (settings.max, Limit::MaxReplicas);
        if min == Replicas::ZERO && sleep::longest(inputs.offsets_kept).is_none() {
            (min, min_limit) = (Replicas(1), Limit::OffsetRetention);
        }
        if let Some(floor) = floor.filter(|&floor| floor > min) {
            (min, min_limit) = (floor, Limit::ScheduleFloor);
        }
        if let Some(ceiling) = ceiling.filter(|&ceiling| ceiling < max) {
            (max, max_limit) = (ceiling, Limit::ScheduleCeiling);
        }
        if partitions < max.0 {
            (max, max_limit) = (Replicas(partitions), Limit::Partitions);
        }
        if min > max {
            (min, min_limit) = (max, max_limit);
        }
        Self { min, min_limit, max, max_limit }
    }

    /// Within the bounds, on a level that partitions can use if the bounds let it.
    fn apply(&self, wanted: Replicas, partitions: u32) -> (Replicas, Limit) {
        if wanted > self.max {
            (level_below(partitions, self.max).clamp(self.min, self.max), self.max_limit)
        } else if wanted < self.min {
            (self.min, self.min_limit)
        } else {
            (wanted, Limit::Unlimited)
        }
    }
}

/// Where to go, before the guards.
#[derive(Clone, Copy, Debug)]
struct Proposal {
    target: Replicas,
    reason: Reason,
    limit: Limit,
}

/// One call of [`decide`].
struct Round<'a> {
    settings: &'a Settings,
    inputs: &'a Inputs,
    settled: Settled,
    current: Replicas,
}

impl<'a> Round<'a> {
    fn new(settings: &'a Settings, inputs: &'a Inputs, settled: Settled) -> Self {
        Self { settings, inputs, settled, current: inputs.replicas }
    }

    fn without_measurement(&self, state: &mut State) -> Decision {
        let now = self.inputs.now;
        let long = state.history.missing_for(now, true, self.settings.metrics_grace);
        state.estimates.interrupt();
        // The partitions of the last measurement; before the first one they are no bound.
        let partitions = if state.partitions == 0 { u32::MAX } else { state.partitions };
        let bounds = Bounds::new(self.settings, self.inputs, partitions);
        // Nobody has seen that it was idle.
        state.history.idle_for(now, false, self.settings.sleep_after);
        let wish = match self.settings.fallback {
            Fallback::Hold => self.current,
            Fallback::CurrentIfHigher(replicas) => self.current.max(replicas),
            Fallback::Replicas(replicas) => replicas,
        };
        // Records may wait, and nobody sees them: a worker does.
        let wish = if self.current == Replicas::ZERO { wish.max(Replicas(1)) } else { wish };
        let mut proposal = self.hold(Reason::MetricsMissing);
        if long && wish != self.current {
            let target = wish.clamp(bounds.min, bounds.max);
            proposal = Proposal { target, reason: Reason::FallbackApplied, limit: Limit::Unlimited };
            // The group cannot be seen either: only time keeps two changes apart.
            if target != self.current && !state.history.cooled_down(now) {
                proposal = self.hold(Reason::CoolingDown);
            }
        }
        self.decision(state, proposal, None, None, &Load::default())
    }

    fn with_measurement(&self, state: &mut State, samples: &[Partition]) -> Decision {
        let now = self.inputs.now;
        // Whether records wait for a group that sleeps, only their lag can tell.
        let blind = self.current == Replicas::ZERO && samples.iter().any(|sample| sample.lag.is_none());
        let blind_for_long = state.history.missing_for(now, blind, self.settings.metrics_grace);
        let load = state.estimates.update(self.inputs, samples, self.settled == Settled::Yes);
        state.partitions = load.partitions;
        let demand = self.demand(state, &load);
        if let Some(demand) = &demand {
            state.effect.judge(now, self.current, self.settled, load.processed, demand, &state.history);
        }
        let bounds = Bounds::new(self.settings, self.inputs, load.partitions);
        let idle = state.history.idle_for(now, load.idle, self.settings.sleep_after);
        let call = self.call(state, &load, &bounds, blind_for_long);
        let rests = if self.current == Replicas::ZERO { call.is_none() } else { idle && self.settings.may_sleep() };
        let wanted = if rests { Replicas::ZERO } else { self.wanted(&load, demand.as_ref()) };
        let (recommended, limit) = bounds.apply(wanted, load.partitions);
        let limit = match &demand {
            Some(demand) if limit == Limit::Unlimited && demand.terms.needed() > f64::from(load.partitions) => {
                Limit::Partitions
            }
            _ => limit,
        };
        let most = state.history.most_wanted(now, recommended, self.settings.scale_down_window);
        let proposal = match call {
            // With nobody at work there is no change to be over and no rebalance to wait for.
            Some(reason) if self.current == Replicas::ZERO => {
                let limit = if reason == Reason::OutOfBounds { bounds.min_limit } else { limit };
                Proposal { target: recommended, reason, limit }
            }
            None if self.current == Replicas::ZERO => {
                self.hold(if blind { Reason::PartlyMeasured } else { Reason::Asleep })
            }
            _ => {
                let wish = Proposal { target: recommended, reason: Reason::Steady, limit };
                self.guard(state, self.propose(state, &load, demand.as_ref(), &bounds, wish, most))
            }
        };
        if let Some(demand) = demand.as_ref().filter(|_| proposal.target > self.current) {
            // More than two seconds of work wait: the members do what they can.
            let saturated = demand.backlog || load.lag > 2.0 * load.processed;
            state.effect.watch(self.current, proposal.target, &load, saturated);
        }
        self.decision(state, proposal, Some(recommended), demand, &load)
    }

    fn demand(&self, state: &State, load: &Load) -> Option<Demand> {
        let now = Circumstances {
            replicas: self.current,
            members: self.inputs.group.members,
            lanes: self.inputs.lanes.get(),
            rebalance: state.history.rebalance(),
            start_up: state.history.start_up(),
        };
        demand(self.settings, load, &now)
    }

    /// Why a group that sleeps has to wake up, if it has to.
    fn call(&self, state: &State, load: &Load, bounds: &Bounds, blind_for_long: bool) -> Option<Reason> {
        let longest = sleep::longest(self.inputs.offsets_kept).unwrap_or_default();
        let overdue = state.history.wakes_at(longest).is_none_or(|at| at <= self.inputs.now);
        let reasons = [
            (bounds.min > Replicas::ZERO, Reason::OutOfBounds),
            (load.calls, Reason::WorkArrived),
            (blind_for_long, Reason::FallbackApplied),
            (overdue, Reason::KeepingOffsets),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }

    /// What the load asks for, without bounds and without sleep.
    fn wanted(&self, load: &Load, demand: Option<&Demand>) -> Replicas {
        let wanted = match demand {
            Some(demand) => demand.wanted,
            None => by_threshold(self.settings, load).map_or(self.current, |n| level(load.partitions, n)),
        };
        wanted.max(Replicas(1))
    }

    /// Where to go if nothing is in the way.
    fn propose(
        &self,
        state: &State,
        load: &Load,
        demand: Option<&Demand>,
        bounds: &Bounds,
        wish: Proposal,
        most: Option<Replicas>,
    ) -> Proposal {
        let current = self.current;
        let outside = current < bounds.min || current > bounds.max;
        if outside && (wish.target > current || current > bounds.max) {
            let target = if current > bounds.max { bounds.max } else { wish.target };
            let limit = if current > bounds.max { bounds.max_limit } else { bounds.min_limit };
            return Proposal { target, reason: Reason::OutOfBounds, limit };
        }
        match wish.target.cmp(&current) {
            std::cmp::Ordering::Greater => self.propose_up(state, load, demand, bounds, wish),
            std::cmp::Ordering::Less => self.propose_down(load, wish, most),
            std::cmp::Ordering::Equal if demand.is_none() && load.lag > 0.0 => self.hold(Reason::CapacityUnknown),
            std::cmp::Ordering::Equal => Proposal { reason: Reason::Steady, ..wish },
        }
    }

    fn propose_up(
        &self,
        state: &State,
        load: &Load,
        demand: Option<&Demand>,
        bounds: &Bounds,
        wish: Proposal,
    ) -> Proposal {
        let Some(demand) = demand else { return Proposal { reason: Reason::Backlog, ..wish } };
        if demand.fits {
            return self.hold(Reason::Steady);
        }
        if load.no_progress {
            return self.hold(Reason::NoProgress);
        }
        if load.jumping {
            return self.hold(Reason::Confirming);
        }
        if self.inputs.group.members == 0 {
            return self.hold(Reason::Settling);
        }
        if state.effect.frozen_until(self.inputs.now).is_some() {
            return self.hold(Reason::Ineffective);
        }
        if state.effect.awaited(load) {
            return self.hold(Reason::AwaitingEffect);
        }
        let reason = if demand.backlog { Reason::Backlog } else { Reason::LoadAboveUtilization };
        let fullest = load.partitions.div_ceil(self.current.0);
        if state.effect.probing() && fullest > 1 {
            let next = Replicas(load.partitions.div_ceil(fullest - 1)).min(bounds.max);
            if next < wish.target {
                return Proposal { target: next, reason, limit: Limit::Probe };
            }
        }
        Proposal { reason, ..wish }
    }

    fn propose_down(&self, load: &Load, wish: Proposal, most: Option<Replicas>) -> Proposal {
        if !load.complete {
            return self.hold(Reason::PartlyMeasured);
        }
        if load.no_progress {
            return self.hold(Reason::NoProgress);
        }
        if wish.target == Replicas::ZERO {
            return Proposal { reason: Reason::Idle, ..wish };
        }
        if load.oldest > self.settings.target_lag {
            return self.hold(Reason::LagAboveTarget);
        }
        let half = Replicas(self.current.0.div_ceil(2));
        match most {
            Some(most) if most < self.current => {
                let most = most.max(wish.target);
                let limit = if half > most { Limit::StepDown } else { wish.limit };
                Proposal { target: most.max(half), reason: Reason::LoadBelowUtilization, limit }
            }
            _ => self.hold(Reason::InsideWindow),
        }
    }

    /// What may be in the way of any move.
    fn guard(&self, state: &State, proposal: Proposal) -> Proposal {
        if proposal.target == self.current {
            return proposal;
        }
        match self.settled {
            Settled::Unknown => self.hold(Reason::MetricsMissing),
            Settled::Rebalancing => self.hold(Reason::Rebalancing),
            Settled::Members => self.hold(Reason::Settling),
            // After a while a group is taken as it is; but its offsets are kept only from a member's leaving on.
            Settled::Yes if proposal.target == Replicas::ZERO && !self.inputs.group.has_all(self.current) => {
                self.hold(Reason::Settling)
            }
            Settled::Yes if !state.history.cooled_down(self.inputs.now) => self.hold(Reason::CoolingDown),
            Settled::Yes => proposal,
        }
    }

    fn asleep(&self, state: &State, proposal: Proposal) -> Option<Asleep> {
        let sleeps = self.current == Replicas::ZERO && proposal.target == Replicas::ZERO;
        let until = sleep::longest(self.inputs.offsets_kept).and_then(|longest| state.history.wakes_at(longest));
        until.filter(|_| sleeps).map(|until| Asleep { until })
    }

    fn hold(&self, reason: Reason) -> Proposal {
        Proposal { target: self.current, reason, limit: Limit::Unlimited }
    }

    fn decision(
        &self,
        state: &State,
        proposal: Proposal,
        recommended: Option<Replicas>,
        demand: Option<Demand>,
        load: &Load,
    ) -> Decision {
        Decision {
            target: proposal.target,
            recommended,
            action: action(self.current, proposal.target),
            reason: proposal.reason,
            limit: proposal.limit,
            terms: demand.map(|demand| demand.terms),
            partition_bound: demand.and_then(|demand| demand.bound),
            stuck: Stuck { count: load.stuck.len(), first: load.stuck.iter().copied().take(8).collect() },
            frozen_until: state.effect.frozen_until(self.inputs.now),
            cool_down: state.history.cool_down(),
            asleep: self.asleep(state, proposal),
        }
    }
}

fn action(from: Replicas, to: Replicas) -> Action {
    match (from, to) {
        _ if from == to => Action::Hold,
        (Replicas::ZERO, _) => Action::Wake,
        (_, Replicas::ZERO) => Action::Sleep,
        _ if to > from => Action::Up,
        _ => Action::Down,
    }
}
