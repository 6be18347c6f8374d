//! Did the last scale-up help? A shared bottleneck (a slow Redis, a hot partition) makes every further replica a
//! rebalance for nothing: then more replicas are frozen, longer each time, and afterwards tried one level at a time.

use std::time::Duration;

use jiff::Timestamp;

use crate::demand::Demand;
use crate::estimate::Load;
use crate::history::{History, Settled};
use crate::units::{Replicas, after};

/// Less than this share of the expected gain is no help.
const HELPFUL_GAIN: f64 = 0.2;
/// With so many times the arrivals, more replicas are asked for whatever the last ones did.
const NEW_LOAD: f64 = 1.2;
const FIRST_FREEZE: Duration = Duration::from_secs(300);
const LONGEST_FREEZE: Duration = Duration::from_secs(3_600);

/// The scale-up that is watched, and what was learnt from those before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effect {
    watched: Option<Watched>,
    strikes: u32,
    frozen_until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    from: Replicas,
    to: Replicas,
    /// Records processed a second before it.
    before: f64,
    /// Records that arrived a second then.
    arrival: f64,
    judged_at: Option<Timestamp>,
}

impl Effect {
    /// A scale-up begins. It says something only if all replicas had more to do than they could.
    pub(crate) fn watch(&mut self, from: Replicas, to: Replicas, load: &Load, saturated: bool) {
        let watched = Watched { from, to, before: load.processed, arrival: load.arrival, judged_at: None };
        self.watched = (saturated && from > Replicas::ZERO && load.processed > 0.0).then_some(watched);
    }

    /// Whether the effect of the last scale-up is still to be seen and the load is not another one. If a replica seems
    /// to do less than before, that is the question, not a reason for more.
    pub(crate) fn awaited(&self, load: &Load) -> bool {
        self.watched.is_some_and(|watched| load.arrival <= NEW_LOAD * watched.arrival)
    }

    /// Judges the watched scale-up once it had its time. `demand`: what the load asks for now.
    pub(crate) fn judge(
        &mut self,
        now: Timestamp,
        replicas: Replicas,
        settled: Settled,
        processed: f64,
        demand: &Demand,
        history: &History,
    ) {
        if demand.fits && !demand.backlog {
            // Whatever it was, it is over.
            *self = Self::default();
            return;
        }
        let Some(watched) = &mut self.watched else { return };
        if replicas != watched.to {
            // Somebody changed it meanwhile: nothing can be learnt.
            self.watched = None;
            return;
        }
        if settled != Settled::Yes {
            return;
        }
        let judged_at = *watched.judged_at.get_or_insert_with(|| history.judged_at(now));
        if now < judged_at {
            return;
        }
        let expected = watched.before * (watched.to.count() - watched.from.count()) / watched.from.count();
        let helped = processed - watched.before >= HELPFUL_GAIN * expected;
        self.watched = None;
        if helped {
            self.strikes = 0;
        } else {
            let freeze = FIRST_FREEZE.saturating_mul(1 << self.strikes.min(8)).min(LONGEST_FREEZE);
            self.frozen_until = Some(after(now, freeze));
            self.strikes += 1;
        }
    }

    /// No more replicas before then.
    pub(crate) fn frozen_until(&self, now: Timestamp) -> Option<Timestamp> {
        // A clock that went back must not freeze for longer than a freeze can be.
        self.frozen_until.filter(|&until| now < until && until <= after(now, LONGEST_FREEZE))
    }

    /// After a freeze one level at a time, until a scale-up helps.
    pub(crate) fn probing(&self) -> bool {
        self.strikes > 0
    }
}
