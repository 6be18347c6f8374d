//! Decision → status, only when something of it has changed for good: a load that flickers writes nothing. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sluice_autoscaler::{Decision, Limit, Reason, Seed, Terms};
use sluice_crds::v1alpha1::{AutoscalingInputs, AutoscalingMode, AutoscalingStatus, AutoscalingTerms};

use crate::sweep::lag_step;

/// How long a change must last before it is shown.
const LASTS_SECONDS: i64 = 30;
/// A number has changed when it is so much more or less, and by more than one.
const CHANGED: f64 = 1.5;

/// What is shown of one resource.
#[derive(Debug, Default)]
pub(super) struct Board {
    shown: Option<Shown>,
    /// It differs from what is shown, since then.
    differs: Option<Timestamp>,
}

/// What is compared; the rest of status goes with it.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    mode: AutoscalingMode,
    recommended: Option<u32>,
    trouble: Option<Reason>,
    limit: Limit,
    stuck: usize,
    bound: Option<usize>,
    arrival: f64,
    capacity: f64,
    lag_step: i64,
    wakes: Option<Timestamp>,
}

impl Shown {
    fn of(mode: AutoscalingMode, decision: &Decision) -> Self {
        let terms = decision.terms.unwrap_or_default();
        Self {
            mode,
            recommended: decision.recommended.map(|replicas| replicas.0),
            trouble: Some(decision.reason).filter(|reason| is_trouble(*reason)),
            limit: lasting(decision.limit),
            stuck: decision.stuck.count,
            bound: decision.partition_bound.map(|bound| bound.partition),
            arrival: terms.arrival.per_second(),
            capacity: terms.capacity.per_second(),
            lag_step: lag_step(whole(terms.oldest.as_secs_f64())),
            wakes: wakes(decision),
        }
    }

    fn differs(&self, other: &Self) -> bool {
        let rest = |shown: &Self| Self { arrival: 0.0, capacity: 0.0, ..shown.clone() };
        rest(self) != rest(other) || moved(self.arrival, other.arrival) || moved(self.capacity, other.capacity)
    }
}

/// Reasons that a person should see when they last. All others come and go with each change.
pub(super) fn is_trouble(reason: Reason) -> bool {
    use Reason::{CapacityUnknown, FallbackApplied, Ineffective, MetricsMissing, NoProgress, PartlyMeasured};
    matches!(reason, CapacityUnknown | FallbackApplied | Ineffective | MetricsMissing | NoProgress | PartlyMeasured)
}

/// Limits of one step only are no news.
fn lasting(limit: Limit) -> Limit {
    if matches!(limit, Limit::StepDown | Limit::Probe) { Limit::Unlimited } else { limit }
}

fn moved(was: f64, now: f64) -> bool {
    (was - now).abs() > 1.0 && (now > was * CHANGED || was > now * CHANGED)
}

impl Board {
    /// What to show now, if that is something else than before. `scaled`: the number of workers was changed just now.
    pub fn note(
        &mut self,
        now: Timestamp,
        mode: AutoscalingMode,
        decision: &Decision,
        last: &LastChange,
        scaled: bool,
    ) -> Option<AutoscalingStatus> {
        let candidate = Shown::of(mode, decision);
        match &self.shown {
            // Falling asleep and waking up is news at once.
            Some(shown) if !scaled && shown.mode == mode && shown.wakes == candidate.wakes => {
                if !candidate.differs(shown) {
                    self.differs = None;
                    return None;
                }
                let since = *self.differs.get_or_insert(now);
                if now.duration_since(since).as_secs() < LASTS_SECONDS {
                    return None;
                }
            }
            _ => {}
        }
        self.differs = None;
        self.shown = Some(candidate);
        Some(status(mode, decision, last))
    }
}

/// When the number of workers was last changed, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct LastChange {
    pub at: Option<Timestamp>,
    pub why: Option<String>,
}

fn status(mode: AutoscalingMode, decision: &Decision, last: &LastChange) -> AutoscalingStatus {
    AutoscalingStatus {
        mode,
        // Filled in by the reconcile, which sees the Deployment.
        desired_replicas: None,
        recommended_replicas: decision.recommended.map(|replicas| i32::try_from(replicas.0).unwrap_or(i32::MAX)),
        reason: Some(decision.reason.as_str().to_owned()),
        limit: Some(decision.limit).filter(|limit| *limit != Limit::Unlimited).map(|limit| limit.as_str().to_owned()),
        inputs: decision.terms.as_ref().map(inputs),
        terms: decision.terms.as_ref().map(terms),
        explanation: Some(decision.explain()),
        wake_time: wakes(decision).map(Time),
        last_scale_time: last.at.map(Time),
        last_scale: last.why.clone(),
    }
}

/// When whoever sleeps wakes up at the latest; in whole seconds, as the API server keeps it.
fn wakes(decision: &Decision) -> Option<Timestamp> {
    decision.asleep.and_then(|asleep| Timestamp::from_second(asleep.until.as_second()).ok())
}

fn inputs(terms: &Terms) -> AutoscalingInputs {
    AutoscalingInputs {
        arrival_records_per_second: whole(terms.arrival.per_second()),
        capacity_records_per_second: whole(terms.capacity.per_second()),
        lag_records: i64::try_from(terms.lag.0).unwrap_or(i64::MAX),
        lag_seconds: whole(terms.oldest.as_secs_f64()),
    }
}

fn terms(terms: &Terms) -> AutoscalingTerms {
    let text = |replicas: f64| format!("{replicas:.2}");
    AutoscalingTerms {
        arrivals: text(terms.arrival_replicas),
        reserve: text(terms.reserve_replicas),
        backlog: text(terms.catch_up_replicas),
        change: text(terms.change_replicas),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "`as` ends at the bounds of i64")]
fn whole(number: f64) -> i64 {
    number.round() as i64
}

/// What status says of the time before this process: without it a restart would forget what a worker can do.
pub fn seed(status: Option<&AutoscalingStatus>) -> Seed {
    let Some(status) = status else { return Seed::default() };
    let capacity = status.inputs.as_ref().map(|inputs| inputs.capacity_records_per_second as f64);
    Seed {
        capacity: capacity.filter(|capacity| *capacity > 0.0).and_then(sluice_autoscaler::Rate::new),
        changed: status.last_scale_time.as_ref().map(|time| time.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_autoscaler::{
        Group, Inputs, Measured, Partition, Phase, Replicas, Settings, SettingsSpec, State, consider,
    };

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// What the brain says of so many records a second, each worker doing 100.
    fn decision(arrival: f64) -> Decision {
        let partition = Partition::from_raw(0, 0.0, arrival / 4.0, arrival / 4.0, arrival / 800.0);
        let inputs = |second| Inputs {
            now: at(second),
            replicas: Replicas(2),
            group: Group { members: 2, phase: Phase::Stable },
            lanes: std::num::NonZeroU32::MIN,
            measured: Measured::Partitions(vec![partition; 4]),
            rebalance: Some(Duration::from_secs(1)),
            offsets_kept: None,
        };
        let settings = Settings::new(SettingsSpec { max_replicas: 4, ..SettingsSpec::default() }).unwrap();
        let (state, _) = consider(&settings, State::default(), &inputs(0));
        consider(&settings, state, &inputs(10)).1
    }

    fn note(board: &mut Board, second: i64, arrival: f64, scaled: bool) -> bool {
        let last = LastChange::default();
        board.note(at(second), AutoscalingMode::Operator, &decision(arrival), &last, scaled).is_some()
    }

    #[test]
    fn a_load_that_flickers_is_shown_once() {
        let mut board = Board::default();
        assert!(note(&mut board, 0, 100.0, false), "the first one at once");
        for second in 1..50 {
            let noise = f64::from(u8::from(second % 2 == 0)) * 20.0;
            assert!(!note(&mut board, second * 10, 90.0 + noise, false), "{second}");
        }
        assert!(!note(&mut board, 500, 30.0, false), "a dip");
        assert!(!note(&mut board, 510, 100.0, false), "that is over");
        assert!(!note(&mut board, 520, 30.0, false) && !note(&mut board, 540, 31.0, false));
        assert!(note(&mut board, 550, 30.0, false), "that lasted");
        assert!(!note(&mut board, 560, 30.0, false));
        assert!(note(&mut board, 570, 30.0, true), "a change of the workers at once");
    }

    #[test]
    fn who_falls_asleep_and_until_when_is_shown_at_once() {
        let asleep = |until| Decision { asleep: Some(sluice_autoscaler::Asleep { until: at(until) }), ..decision(1.0) };
        let mut board = Board::default();
        let mut note = |second, decision: &Decision| {
            board.note(at(second), AutoscalingMode::Operator, decision, &LastChange::default(), false)
        };
        assert_eq!(note(0, &decision(1.0)).unwrap().wake_time, None);
        assert_eq!(note(1, &asleep(900)).unwrap().wake_time, Some(Time(at(900))));
        assert_eq!(note(2, &asleep(900)), None, "idle means no writes");
        assert_eq!(
            note(3, &asleep(1_900)).unwrap().wake_time,
            Some(Time(at(1_900))),
            "the brokers' setting is known now"
        );
        assert_eq!(note(4, &decision(1.0)).unwrap().wake_time, None);
    }

    #[test]
    fn status_tells_every_term_and_a_restart_learns_from_it() {
        let last = LastChange { at: Some(at(1)), why: Some("Up".to_owned()) };
        let shown = Board::default().note(at(2), AutoscalingMode::Recommend, &decision(100.0), &last, false).unwrap();
        let inputs = shown.inputs.clone().unwrap();
        assert_eq!((inputs.arrival_records_per_second, inputs.capacity_records_per_second), (100, 200));
        assert!(shown.explanation.as_ref().unwrap().contains("100 records/s arrive"), "{shown:?}");
        assert!(shown.terms.as_ref().unwrap().arrivals.parse::<f64>().unwrap() > 0.5, "{shown:?}");
        let seed = seed(Some(&shown));
        assert_eq!((seed.capacity.unwrap().per_second(), seed.changed), (200.0, Some(at(1))));
        assert_eq!(super::seed(None), Seed::default());
    }
}
