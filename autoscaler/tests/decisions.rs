//! The decision, situation by situation.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;
use sluice_autoscaler::{
    Action, Decision, Fallback, Group, Inputs, Limit, Measured, Missing, Partition, Phase, Reason, Replicas, Schedule,
    Seed, Settings, SettingsSpec, State, decide,
};

const PARTITIONS: usize = 12;
/// Records a second of work of one of two threads: a replica does 1,000.
const LANE: f64 = 500.0;

/// One group, fed every five seconds with what the test says; the replicas follow the decisions at once.
struct Pipeline {
    settings: Settings,
    state: State,
    now: Timestamp,
    replicas: u32,
}

/// What is measured, per second over all partitions.
#[derive(Clone, Copy)]
struct Load {
    arrival: f64,
    processed: f64,
    /// Records an own thread processes in a second of work.
    lane: f64,
    lag: i64,
    oldest: f64,
}

const fn load(rate: f64) -> Load {
    Load { arrival: rate, processed: rate, lane: LANE, lag: 0, oldest: 0.0 }
}

impl Pipeline {
    fn new(replicas: u32, spec: SettingsSpec) -> Self {
        let settings = Settings::new(spec).expect("valid settings");
        Self { settings, state: State::default(), now: "2026-11-20T03:00:00Z".parse().expect("a time"), replicas }
    }

    fn inputs(&self, load: Load) -> Inputs {
        let share = |total: f64| total / PARTITIONS as f64;
        let lag = load.lag / PARTITIONS as i64;
        let busy = share(load.processed / load.lane);
        let partition = Partition::from_raw(lag, load.oldest, share(load.arrival), share(load.processed), busy);
        Inputs {
            now: self.now,
            replicas: Replicas(self.replicas),
            group: Group { members: self.replicas, phase: Phase::Stable },
            lanes: NonZeroU32::MIN.saturating_add(1),
            measured: Measured::Partitions(vec![partition; PARTITIONS]),
            rebalance: Some(Duration::from_secs(3)),
            offsets_kept: None,
        }
    }

    fn feed(&mut self, inputs: &Inputs) -> Decision {
        let (state, decision) = decide(&self.settings, std::mem::take(&mut self.state), inputs);
        self.state = state;
        self.replicas = decision.target.0;
        self.now += Duration::from_secs(5);
        decision
    }

    /// The same for so many seconds; the last decision.
    fn run(&mut self, seconds: u32, load: Load) -> Decision {
        (0..seconds / 5).map(|_| self.feed(&self.inputs(load))).last().expect("at least five seconds")
    }

    /// Until something moves.
    fn until_moved(&mut self, seconds: u32, load: Load) -> (u32, Decision) {
        for elapsed in 0..seconds / 5 {
            let decision = self.feed(&self.inputs(load));
            if decision.action != Action::Hold {
                return (elapsed * 5, decision);
            }
        }
        panic!("nothing moved in {seconds} s");
    }
}

fn spec() -> SettingsSpec {
    SettingsSpec { max_replicas: 12, ..SettingsSpec::default() }
}

#[test]
fn a_jump_is_answered_in_one_step_once_it_is_seen_twice() {
    let mut pipeline = Pipeline::new(1, spec());
    assert_eq!(pipeline.run(120, load(600.0)).reason, Reason::Steady);
    let jump = Load { processed: 1_000.0, lag: 15_000, oldest: 4.0, ..load(4_000.0) };
    assert_eq!(pipeline.run(5, jump).reason, Reason::Confirming);
    let decision = pipeline.run(5, jump);
    assert_eq!((decision.action, decision.target), (Action::Up, Replicas(6)), "{}", decision.explain());
    assert_eq!(decision.reason, Reason::LoadAboveUtilization);
}

#[test]
fn a_spike_of_one_measurement_moves_nothing() {
    let mut pipeline = Pipeline::new(1, spec());
    pipeline.run(120, load(600.0));
    pipeline.run(5, load(3_000.0));
    for _ in 0..10 {
        let decision = pipeline.run(5, load(600.0));
        assert!(decision.action == Action::Hold || decision.target <= Replicas(2), "{}", decision.explain());
    }
}

#[test]
fn down_only_after_the_window_and_by_half() {
    let mut pipeline = Pipeline::new(12, spec());
    pipeline.run(300, load(5_000.0));
    assert_eq!(pipeline.replicas, 12);
    let (after, decision) = pipeline.until_moved(600, load(500.0));
    assert!(after >= 120, "after {after} s");
    assert_eq!((decision.target, decision.reason), (Replicas(6), Reason::LoadBelowUtilization));
    pipeline.run(600, load(500.0));
    assert_eq!(pipeline.replicas, 1);
}

#[test]
fn never_down_while_the_lag_is_above_its_target() {
    let mut pipeline = Pipeline::new(6, spec());
    let late = Load { lag: 1_200, oldest: 31.0, ..load(500.0) };
    assert_eq!(pipeline.run(600, late).reason, Reason::LagAboveTarget);
    assert_eq!(pipeline.replicas, 6);
}

#[test]
fn nothing_moves_while_the_group_does() {
    let mut pipeline = Pipeline::new(2, spec());
    pipeline.run(60, load(1_300.0));
    let overload = Load { processed: 2_000.0, lag: 500_000, oldest: 60.0, ..load(6_000.0) };
    for (group, reason) in [
        (Group { members: 2, phase: Phase::Rebalancing }, Reason::Rebalancing),
        (Group { members: 1, phase: Phase::Stable }, Reason::Settling),
        (Group { members: 2, phase: Phase::Unknown }, Reason::MetricsMissing),
    ] {
        pipeline.run(5, load(1_300.0));
        for _ in 0..4 {
            let inputs = Inputs { group, ..pipeline.inputs(overload) };
            let decision = pipeline.feed(&inputs);
            assert_eq!(decision.action, Action::Hold, "{}", decision.explain());
            assert!([reason, Reason::Confirming].contains(&decision.reason), "{}", decision.explain());
        }
    }
    let (_, decision) = pipeline.until_moved(60, overload);
    assert_eq!(decision.action, Action::Up);
}

#[test]
fn a_pod_that_never_comes_does_not_stop_everything() {
    let mut pipeline = Pipeline::new(4, spec());
    let overload = Load { processed: 3_000.0, lag: 500_000, oldest: 60.0, ..load(4_000.0) };
    let mut first = None;
    for second in (0..600).step_by(5) {
        let group = Group { members: 3, phase: Phase::Stable };
        let decision = pipeline.feed(&Inputs { group, ..pipeline.inputs(overload) });
        if decision.action != Action::Hold {
            first = Some(second);
            break;
        }
    }
    assert!(first.is_some_and(|second| second >= 300), "{first:?}");
}

#[test]
fn scale_ups_that_do_not_help_freeze_and_are_then_tried_one_level_at_a_time() {
    let mut pipeline = Pipeline::new(2, spec());
    pipeline.run(120, load(1_200.0));
    // All together do 800 a second, however many they are: Redis is slow.
    let slow = |replicas: u32| Load {
        processed: 800.0,
        lane: 800.0 / f64::from(replicas) / 2.0,
        lag: 200_000,
        oldest: 100.0,
        ..load(1_200.0)
    };
    let mut moves = Vec::new();
    let mut frozen = false;
    let mut seconds = 0;
    while seconds < 3_000 && pipeline.replicas < 12 {
        let before = pipeline.replicas;
        let decision = pipeline.feed(&pipeline.inputs(slow(before)));
        frozen |= decision.reason == Reason::Ineffective && decision.frozen_until.is_some();
        if decision.action != Action::Hold {
            moves.push((seconds, decision.target.0, decision.limit));
        }
        seconds += 5;
    }
    assert!(frozen, "{moves:?}");
    let far = moves.windows(2).filter(|pair| pair[1].0 - pair[0].0 >= 300).count();
    assert!(far >= moves.len() - 2, "moves come minutes apart: {moves:?}");
    assert!(moves.iter().skip(2).all(|(.., limit)| *limit == Limit::Probe || *limit == Limit::Partitions), "{moves:?}");
    // Redis is well again: everything is forgotten.
    pipeline.run(600, load(1_200.0));
    assert_eq!(pipeline.replicas, 2);
    assert_eq!(pipeline.run(5, load(1_200.0)).frozen_until, None);
}

#[test]
fn a_partition_that_stands_still_does_not_count() {
    let mut pipeline = Pipeline::new(2, spec());
    pipeline.run(60, load(1_300.0));
    for minute in 0..30 {
        let mut inputs = pipeline.inputs(load(1_300.0));
        if let Measured::Partitions(partitions) = &mut inputs.measured {
            partitions[5] = Partition::from_raw(500 + minute * 6_000, 60.0 * minute as f64, 108.0, 0.0, 0.0);
        }
        for _ in 0..12 {
            inputs.now = pipeline.now;
            let decision = pipeline.feed(&inputs);
            assert_eq!(decision.target, Replicas(2), "{}", decision.explain());
            if minute > 2 {
                assert_eq!((decision.stuck.count, decision.stuck.first.as_slice()), (1, [5].as_slice()));
            }
        }
    }
}

#[test]
fn when_nothing_at_all_is_processed_nothing_moves() {
    let mut pipeline = Pipeline::new(4, spec());
    pipeline.run(60, load(2_500.0));
    let dead = Load { processed: 0.0, lag: 900_000, oldest: 300.0, ..load(2_500.0) };
    pipeline.run(75, dead);
    let before = pipeline.replicas;
    assert_eq!(pipeline.run(900, dead).target, Replicas(before));
}

#[test]
fn to_sleep_and_awake() {
    let spec = SettingsSpec { min_replicas: 0, sleep_after_seconds: 300, ..spec() };
    let mut pipeline = Pipeline::new(2, spec);
    pipeline.run(60, load(1_000.0));
    let (after, decision) = pipeline.until_moved(600, load(0.0));
    assert_eq!((decision.action, decision.target), (Action::Down, Replicas(1)), "after {after} s");
    let (_, decision) = pipeline.until_moved(600, load(0.0));
    assert_eq!((decision.action, decision.reason), (Action::Sleep, Reason::Idle));
    assert_eq!(pipeline.run(600, load(0.0)).target, Replicas::ZERO);
    let one = Load { arrival: 0.2, processed: 0.0, lag: 12, ..load(0.0) };
    let decision = pipeline.run(5, one);
    assert_eq!((decision.action, decision.target, decision.reason), (Action::Wake, Replicas(1), Reason::WorkArrived));
}

/// Asleep since its last 300 idle seconds.
fn asleep(spec: SettingsSpec) -> Pipeline {
    let mut pipeline = Pipeline::new(1, SettingsSpec { min_replicas: 0, ..spec });
    pipeline.run(60, load(100.0));
    let (after, decision) = pipeline.until_moved(600, load(0.0));
    assert_eq!((decision.action, decision.reason), (Action::Sleep, Reason::Idle), "after {after} s");
    assert!(after >= 300, "after {after} s");
    pipeline
}

/// One partition is this, the others are at their end and nothing arrives.
fn but_one(pipeline: &Pipeline, one: Partition) -> Inputs {
    let mut inputs = pipeline.inputs(load(0.0));
    let Measured::Partitions(partitions) = &mut inputs.measured else { panic!("{inputs:?}") };
    partitions[7] = one;
    inputs
}

#[test]
fn who_sleeps_wakes_up_at_the_first_sight_of_a_record_whatever_the_group_is_doing() {
    let lag = Partition::from_raw(1, 0.0, f64::NAN, f64::NAN, f64::NAN);
    let arrival = Partition::from_raw(0, 0.0, 0.1, 0.0, 0.0);
    for one in [lag, arrival] {
        for group in [
            Group { members: 0, phase: Phase::Unknown },
            Group { members: 1, phase: Phase::Rebalancing },
            Group { members: 1, phase: Phase::Stable },
        ] {
            // Even in the moment after it fell asleep: no rebalance is to be waited for.
            let mut pipeline = asleep(spec());
            let inputs = Inputs { group, ..but_one(&pipeline, one) };
            let decision = pipeline.feed(&inputs);
            assert_eq!((decision.target, decision.reason), (Replicas(1), Reason::WorkArrived), "{one:?} {group:?}");
        }
    }
}

#[test]
fn a_restart_of_who_decides_wakes_nobody_up() {
    let mut pipeline = asleep(spec());
    let seed = Seed { capacity: None, changed: Some(pipeline.now) };
    pipeline.state = State::seeded(seed, NonZeroU32::MIN);
    // The first measurement has no rates yet.
    let inputs = Inputs {
        measured: Measured::Partitions(vec![Partition::from_raw(0, 0.0, f64::NAN, f64::NAN, f64::NAN); PARTITIONS]),
        ..pipeline.inputs(load(0.0))
    };
    assert_eq!(pipeline.feed(&inputs).reason, Reason::Asleep);
    assert_eq!(pipeline.run(600, load(0.0)).target, Replicas::ZERO);
}

#[test]
fn what_cannot_be_measured_lets_nobody_sleep_and_after_the_grace_wakes_up_whoever_does() {
    let mut pipeline = Pipeline::new(1, SettingsSpec { min_replicas: 0, ..spec() });
    pipeline.run(60, load(100.0));
    for _ in 0..400 {
        let inputs = but_one(&pipeline, Partition::default());
        assert_eq!(pipeline.feed(&inputs).target, Replicas(1), "one partition is not known");
    }
    // 290 idle seconds do not count when nobody looked in between.
    pipeline.run(290, load(0.0));
    let unseen = Inputs { measured: Measured::Missing(Missing::Unreachable), ..pipeline.inputs(load(0.0)) };
    pipeline.feed(&unseen);
    let (after, decision) = pipeline.until_moved(600, load(0.0));
    assert_eq!(decision.action, Action::Sleep);
    assert!(after >= 300, "after {after} s");

    for (fallback, woken) in
        [(Fallback::Hold, 1), (Fallback::CurrentIfHigher(Replicas(3)), 3), (Fallback::Replicas(Replicas(2)), 2)]
    {
        let mut pipeline = asleep(SettingsSpec { fallback, metrics_grace_seconds: 60, ..spec() });
        let missing = |pipeline: &Pipeline| Inputs {
            measured: Measured::Missing(Missing::Unreachable),
            ..pipeline.inputs(load(0.0))
        };
        for _ in 0..12 {
            let inputs = missing(&pipeline);
            assert_eq!(pipeline.feed(&inputs).target, Replicas::ZERO, "{fallback:?}");
        }
        let decision = pipeline.feed(&missing(&pipeline));
        assert_eq!((decision.target, decision.reason), (Replicas(woken), Reason::FallbackApplied), "{fallback:?}");
    }
    let mut pipeline = asleep(SettingsSpec { metrics_grace_seconds: 60, ..spec() });
    for _ in 0..12 {
        let decision = pipeline.feed(&but_one(&pipeline, Partition::default()));
        assert_eq!((decision.target, decision.reason), (Replicas::ZERO, Reason::PartlyMeasured));
    }
    assert_eq!(pipeline.feed(&but_one(&pipeline, Partition::default())).target, Replicas(1));
}

#[test]
fn nobody_goes_to_sleep_whose_last_member_never_came() {
    let mut pipeline = asleep(spec());
    let inputs = but_one(&pipeline, Partition::from_raw(1, 0.0, 0.0, 0.0, 0.0));
    assert_eq!(pipeline.feed(&inputs).action, Action::Wake);
    // Its image cannot be loaded. Somebody else has read the record.
    for _ in 0..400 {
        let group = Group { members: 0, phase: Phase::Stable };
        let inputs = Inputs { group, ..pipeline.inputs(load(0.0)) };
        assert_eq!(pipeline.feed(&inputs).target, Replicas(1), "the time of its offsets would not begin anew");
    }
    assert_eq!(pipeline.run(5, load(0.0)).action, Action::Sleep);
}

#[test]
fn half_of_the_time_that_offsets_are_kept_is_slept_and_then_a_member_shows_itself() {
    let hour = Duration::from_secs(3_600);
    for (kept, slept) in [(None, 12 * hour), (Some(2 * hour), hour)] {
        let mut pipeline = asleep(spec());
        let fell_asleep = pipeline.now - Duration::from_secs(5);
        let quiet = |pipeline: &Pipeline| Inputs { offsets_kept: kept, ..pipeline.inputs(load(0.0)) };
        let decision = pipeline.feed(&quiet(&pipeline));
        assert_eq!(decision.asleep.map(|asleep| asleep.until), Some(fell_asleep + slept));
        assert!(decision.explain().contains("at the latest a replica starts"), "{}", decision.explain());
        pipeline.now = fell_asleep + slept - Duration::from_secs(1);
        assert_eq!(pipeline.feed(&quiet(&pipeline)).target, Replicas::ZERO);
        let decision = pipeline.feed(&quiet(&pipeline));
        assert_eq!((decision.target, decision.reason), (Replicas(1), Reason::KeepingOffsets), "{kept:?}");
        // It has its time to join, and is not sent away at once.
        let (after, decision) = pipeline.until_moved(600, load(0.0));
        assert_eq!(decision.action, Action::Sleep);
        assert!(after >= 295, "after {after} s");
    }
    // Nobody knows when it fell asleep.
    let mut pipeline = asleep(spec());
    pipeline.state = State::default();
    assert_eq!(pipeline.run(5, load(0.0)).reason, Reason::KeepingOffsets);
}

#[test]
fn where_offsets_are_kept_for_minutes_nobody_sleeps() {
    let kept = Some(Duration::from_secs(600));
    let mut pipeline = Pipeline::new(1, SettingsSpec { min_replicas: 0, ..spec() });
    for _ in 0..400 {
        let inputs = Inputs { offsets_kept: kept, ..pipeline.inputs(load(0.0)) };
        assert_eq!(pipeline.feed(&inputs).target, Replicas(1));
    }
    let inputs = Inputs { offsets_kept: kept, ..pipeline.inputs(load(0.0)) };
    assert_eq!(pipeline.feed(&inputs).limit, Limit::OffsetRetention, "that is why");
    let mut pipeline = asleep(spec());
    let decision = pipeline.feed(&Inputs { offsets_kept: kept, ..pipeline.inputs(load(0.0)) });
    assert_eq!((decision.target, decision.limit), (Replicas(1), Limit::OffsetRetention));
}

#[test]
fn with_min_one_it_never_sleeps() {
    let mut pipeline = Pipeline::new(2, spec());
    pipeline.run(60, load(1_000.0));
    assert_eq!(pipeline.run(3_600, load(0.0)).target, Replicas(1));
}

#[test]
fn without_a_capacity_the_threshold_counts_if_there_is_one() {
    let waiting = Load { processed: 0.0, lag: 60_000, oldest: 5.0, ..load(1_000.0) };
    let mut unknown = Pipeline::new(1, spec());
    assert_eq!(unknown.run(20, waiting).reason, Reason::CapacityUnknown);
    let mut threshold = Pipeline::new(1, SettingsSpec { lag_threshold: Some(15_000), ..spec() });
    let (_, decision) = threshold.until_moved(20, waiting);
    assert_eq!(decision.target, Replicas(4));
}

#[test]
fn a_foreign_consumer_without_busy_time_is_known_by_its_throughput_once_it_is_saturated() {
    let mut pipeline = Pipeline::new(1, spec());
    let saturated = Load { processed: 800.0, lag: 120_000, oldest: 40.0, ..load(1_500.0) };
    let mut first = None;
    for _ in 0..4 {
        let mut inputs = pipeline.inputs(saturated);
        if let Measured::Partitions(partitions) = &mut inputs.measured {
            for partition in partitions {
                partition.busy = None;
            }
        }
        first = first.or(pipeline.feed(&inputs).terms);
    }
    let capacity = first.map(|terms| terms.capacity.per_second());
    assert!(capacity.is_some_and(|capacity| (capacity - 800.0).abs() < 1.0), "{capacity:?}");
}

#[test]
fn schedules_raise_the_floor_and_lower_the_ceiling() {
    let hour = Duration::from_secs(3_600);
    let schedules = vec![
        Schedule::new("0 8 * * *", hour, "Europe/Berlin", Some(Replicas(4)), None).expect("valid"),
        Schedule::new("0 12 * * *", hour, "Europe/Berlin", None, Some(Replicas(2))).expect("valid"),
    ];
    let mut pipeline = Pipeline::new(1, SettingsSpec { schedules, ..spec() });
    // It is 04:00 in Berlin.
    assert_eq!(pipeline.run(4 * 3_600 - 60, load(100.0)).target, Replicas(1));
    let decision = pipeline.run(120, load(100.0));
    assert_eq!((decision.target, pipeline.replicas), (Replicas(4), 4), "{}", decision.explain());
    assert_eq!(pipeline.run(2 * 3_600, load(100.0)).target, Replicas(1));
    pipeline.run(3_600 + 1_500, load(3_500.0));
    assert_eq!(pipeline.replicas, 6);
    let (_, decision) = pipeline.until_moved(2_400, load(3_500.0));
    assert_eq!((decision.target, decision.limit), (Replicas(2), Limit::ScheduleCeiling), "{}", decision.explain());
}

#[test]
fn a_maximum_that_partitions_cannot_use_is_not_used() {
    // 5 replicas of 12 partitions leave one of them 3, as 4 do.
    let mut pipeline = Pipeline::new(1, SettingsSpec { max_replicas: 5, ..spec() });
    let overload = Load { processed: 1_000.0, lag: 90_000, oldest: 20.0, ..load(5_000.0) };
    pipeline.run(60, load(600.0));
    let (_, decision) = pipeline.until_moved(60, overload);
    assert_eq!((decision.target, decision.limit), (Replicas(4), Limit::MaxReplicas), "{}", decision.explain());
}

#[test]
fn without_measurements_first_nothing_then_the_fallback() {
    let missing = |pipeline: &Pipeline| Inputs {
        measured: Measured::Missing(Missing::Unreachable),
        group: Group { members: 0, phase: Phase::Unknown },
        ..pipeline.inputs(load(0.0))
    };
    for (fallback, target) in [
        (Fallback::Hold, 2),
        (Fallback::CurrentIfHigher(Replicas(5)), 5),
        (Fallback::CurrentIfHigher(Replicas(1)), 2),
        (Fallback::Replicas(Replicas(1)), 1),
    ] {
        let mut pipeline = Pipeline::new(2, SettingsSpec { fallback, metrics_grace_seconds: 60, ..spec() });
        pipeline.run(300, load(1_300.0));
        for _ in 0..12 {
            assert_eq!(pipeline.feed(&missing(&pipeline)).target, Replicas(2), "{fallback:?}");
        }
        assert_eq!(pipeline.feed(&missing(&pipeline)).target, Replicas(target), "{fallback:?}");
    }
}

#[test]
fn a_partly_measured_topic_may_grow_but_not_shrink() {
    let mut pipeline = Pipeline::new(6, spec());
    pipeline.run(60, load(3_500.0));
    for _ in 0..120 {
        let mut inputs = pipeline.inputs(load(500.0));
        if let Measured::Partitions(partitions) = &mut inputs.measured {
            partitions[0] = Partition::default();
        }
        assert_eq!(pipeline.feed(&inputs).target, Replicas(6));
    }
}

#[test]
fn the_explanation_says_it_all() {
    let mut pipeline = Pipeline::new(2, spec());
    pipeline.run(60, load(1_300.0));
    let (_, decision) =
        pipeline.until_moved(60, Load { processed: 2_000.0, lag: 60_000, oldest: 25.0, ..load(2_500.0) });
    let text = decision.explain();
    for words in ["Up, 4", "2500 records/s arrive", "1000 a replica", "60000 wait up to 25 s", "reserve", "→ 4"] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
}
