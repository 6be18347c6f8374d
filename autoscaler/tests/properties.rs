//! What holds for every history, also of nonsense.

use std::num::NonZeroU32;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use sluice_autoscaler::{
    Action, Decision, Fallback, Group, Inputs, MAX_EXPLANATION_BYTES, Measured, Missing, Partition, Phase, Replicas,
    Settings, SettingsSpec, State, decide,
};

/// Lag, oldest, arrival, processed, busy.
type Raw = (i64, f64, f64, f64, f64);

/// One call, with numbers as they might come from anywhere.
#[derive(Clone, Debug)]
struct Step {
    seconds: i64,
    measured: Option<Vec<Raw>>,
    phase: u8,
    /// Members follow the replicas, or are this many.
    members: Option<u32>,
    rebalance: Option<u64>,
    /// How long Kafka keeps offsets.
    offsets_kept: Option<u64>,
    /// Somebody else writes the replicas.
    foreign: Option<u32>,
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => 0.0..5_000.0,
        1 => Just(0.0),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(f64::MAX), Just(f64::MIN_POSITIVE), any::<f64>()],
    ]
}

fn lag() -> impl Strategy<Value = i64> {
    prop_oneof![3 => 0..100_000_i64, 1 => Just(0), 1 => any::<i64>()]
}

fn partitions() -> impl Strategy<Value = Vec<Raw>> {
    prop_oneof![
        2 => prop::collection::vec((lag(), number(), number(), number(), number()), 0..20),
        // Nothing to do: else no history would hold a whole window of it.
        3 => (1..20_usize).prop_map(|count| vec![(0, 0.0, 0.0, 0.0, 0.0); count]),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    (
        prop_oneof![8 => 1..30_i64, 1 => 30..2_000_i64, 1 => -500..1_i64],
        prop::option::weighted(0.9, partitions()),
        0..10_u8,
        prop::option::weighted(0.2, 0..30_u32),
        prop::option::weighted(0.2, 0..100_u64),
        prop::option::weighted(0.5, prop_oneof![0..5_000_u64, Just(7 * 86_400), any::<u64>()]),
        prop::option::weighted(0.05, 0..30_u32),
    )
        .prop_map(|(seconds, measured, phase, members, rebalance, offsets_kept, foreign)| Step {
            seconds,
            measured,
            phase,
            members,
            rebalance,
            offsets_kept,
            foreign,
        })
}

fn settings() -> impl Strategy<Value = SettingsSpec> {
    (0..5_u32, 1..30_u32, 1..300_u32, 1..300_u32, 10..=95_u32, prop::option::of(1..100_000_u64), 10..600_u32, 0..3_u8)
        .prop_map(|(min, more, target, catch_up, utilization, threshold, window, fallback)| SettingsSpec {
            min_replicas: min,
            max_replicas: min + more,
            target_lag_seconds: target,
            catch_up_seconds: catch_up,
            utilization_percent: utilization,
            lag_threshold: threshold,
            scale_down_window_seconds: window,
            sleep_after_seconds: window,
            metrics_grace_seconds: 60,
            fallback: match fallback {
                0 => Fallback::Hold,
                1 => Fallback::CurrentIfHigher(Replicas(7)),
                _ => Fallback::Replicas(Replicas(3)),
            },
            schedules: Vec::new(),
        })
}

fn inputs(step: &Step, now: Timestamp, replicas: u32) -> Inputs {
    Inputs {
        now,
        replicas: Replicas(replicas),
        group: Group {
            members: step.members.unwrap_or(replicas),
            phase: match step.phase {
                0 => Phase::Rebalancing,
                1 => Phase::Unknown,
                _ => Phase::Stable,
            },
        },
        lanes: NonZeroU32::MIN.saturating_add(1),
        measured: match &step.measured {
            None => Measured::Missing(Missing::Unreachable),
            Some(raw) => {
                Measured::Partitions(raw.iter().map(|&(l, o, a, p, b)| Partition::from_raw(l, o, a, p, b)).collect())
            }
        },
        rebalance: step.rebalance.map(Duration::from_secs),
        offsets_kept: step.offsets_kept.map(Duration::from_secs),
    }
}

/// Runs a history; `check` sees every call.
fn run(spec: &SettingsSpec, steps: &[Step], mut check: impl FnMut(&Inputs, &Decision)) {
    let settings = Settings::new(spec.clone()).expect("the strategy makes valid settings");
    let (mut state, mut now, mut replicas) = (State::default(), Timestamp::UNIX_EPOCH, spec.min_replicas);
    for step in steps {
        now += jiff::SignedDuration::from_secs(step.seconds);
        replicas = step.foreign.unwrap_or(replicas);
        let inputs = inputs(step, now, replicas);
        let (next, decision) = decide(&settings, state, &inputs);
        check(&inputs, &decision);
        (state, replicas) = (next, decision.target.0);
    }
}

fn history() -> impl Strategy<Value = (SettingsSpec, Vec<Step>)> {
    (settings(), prop::collection::vec(step(), 1..80))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is moved lands within the bounds and never above the partitions; the explanation is bounded and
    /// holds no nonsense.
    #[test]
    fn moves_end_within_the_bounds((spec, steps) in history()) {
        // Without a measurement those of the last one count.
        let mut partitions = u32::MAX;
        run(&spec, &steps, |inputs, decision| {
            if let Measured::Partitions(p) = &inputs.measured && !p.is_empty() {
                partitions = u32::try_from(p.len()).expect("small");
            }
            if decision.target != inputs.replicas {
                assert!(decision.target.0 <= spec.max_replicas.min(partitions), "{decision:?}");
                assert!(decision.target.0 >= spec.min_replicas.min(partitions), "{decision:?}");
            }
            if let Some(terms) = &decision.terms {
                for term in [terms.arrival_replicas, terms.catch_up_replicas, terms.change_replicas, terms.utilization] {
                    assert!(term >= 0.0 && !term.is_nan(), "{terms:?}");
                }
            }
            let text = decision.explain();
            assert!(text.len() <= MAX_EXPLANATION_BYTES && !text.contains("NaN") && !text.contains('\n'), "{text}");
            assert_eq!(decision.action == Action::Hold, decision.target == inputs.replicas);
        });
    }

    /// Our own changes are never closer than the cool-down, also when somebody else writes the replicas between them.
    #[test]
    fn one_change_a_cool_down((spec, mut steps) in history()) {
        // A clock that goes back makes the distance meaningless.
        for step in &mut steps {
            step.seconds = step.seconds.max(1);
        }
        let mut last: Option<Timestamp> = None;
        run(&spec, &steps, |inputs, decision| {
            if decision.target != inputs.replicas {
                // From none to some there is no rebalance to wait for.
                if let Some(last) = last.filter(|_| decision.action != Action::Wake) {
                    let gap = inputs.now.duration_since(last);
                    assert!(gap >= jiff::SignedDuration::try_from(decision.cool_down).expect("short"), "{gap:?} {decision:?}");
                }
                last = Some(inputs.now);
            }
        });
    }

    /// Without data nothing moves, unless the user set a fallback; but after a minute of it, who sleeps is woken up.
    #[test]
    fn nothing_moves_without_data((spec, steps) in history()) {
        let spec = SettingsSpec { fallback: Fallback::Hold, ..spec };
        run(&spec, &steps, |inputs, decision| {
            let missing = match &inputs.measured { Measured::Missing(_) => true, Measured::Partitions(p) => p.is_empty() };
            if missing && decision.target != inputs.replicas {
                assert_eq!((inputs.replicas, decision.target), (Replicas::ZERO, Replicas(spec.min_replicas.max(1))), "{decision:?}");
            }
        });
    }

    /// The last one goes only with `minReplicas: 0`, only when it is known of every partition that nothing waits and nothing
    /// arrives and has been so for the time set, and only when all that should be members are.
    #[test]
    fn to_sleep_only_with_nothing_left_to_do((spec, steps) in history()) {
        let mut idle: Option<Timestamp> = None;
        run(&spec, &steps, |inputs, decision| {
            let quiet = match &inputs.measured {
                Measured::Missing(_) => false,
                Measured::Partitions(partitions) => !partitions.is_empty() && partitions.iter().all(|partition| {
                    partition.lag.is_some_and(|lag| lag.0 == 0) && partition.arrival.is_some_and(|rate| rate.per_second() < 1e-9)
                }),
            };
            idle = if quiet { Some(idle.map_or(inputs.now, |began| began.min(inputs.now))) } else { None };
            if decision.target == Replicas::ZERO && inputs.replicas > Replicas::ZERO {
                let long = idle.is_some_and(|began| inputs.now.duration_since(began).as_secs() >= spec.sleep_after_seconds.into());
                assert!(long && spec.min_replicas == 0, "{inputs:?} {decision:?}");
                assert_eq!((inputs.group.members, inputs.group.phase), (inputs.replicas.0, Phase::Stable));
            }
        });
    }

    /// Who sleeps is woken up by the first measurement in which a record waits anywhere.
    #[test]
    fn awake_at_the_first_record((spec, steps) in history()) {
        run(&spec, &steps, |inputs, decision| {
            let waits = matches!(&inputs.measured, Measured::Partitions(partitions)
                if partitions.iter().any(|partition| partition.lag.is_some_and(|lag| lag.0 > 0)));
            if waits && inputs.replicas == Replicas::ZERO {
                assert_eq!(decision.action, Action::Wake, "{inputs:?} {decision:?}");
            }
        });
    }

    /// A group that moves is left alone until it has done so for five minutes.
    #[test]
    fn nothing_moves_while_the_group_does((spec, steps) in history()) {
        let mut unsettled: Option<Timestamp> = None;
        run(&spec, &steps, |inputs, decision| {
            let calm = inputs.group.phase == Phase::Stable && inputs.group.members == inputs.replicas.0;
            let began = if calm { None } else { Some(unsettled.map_or(inputs.now, |began| began.min(inputs.now))) };
            unsettled = began;
            let short = began.is_some_and(|began| inputs.now.duration_since(began).as_secs() < 300);
            let measured = matches!(&inputs.measured, Measured::Partitions(p) if !p.is_empty());
            // Where nobody works there is nothing to disturb.
            let asleep = inputs.replicas == Replicas::ZERO;
            if short && measured && !asleep && inputs.group.phase != Phase::Unknown {
                assert_eq!(decision.target, inputs.replicas, "{inputs:?} {decision:?}");
            }
        });
    }

    /// At most half of the replicas go at once, unless they go to sleep or the bounds say so.
    #[test]
    fn down_by_half_at_most((spec, steps) in history()) {
        run(&spec, &steps, |inputs, decision| {
            if decision.action == Action::Down && decision.reason == sluice_autoscaler::Reason::LoadBelowUtilization {
                assert!(decision.target.0 >= inputs.replicas.0.div_ceil(2), "{decision:?}");
            }
        });
    }

    /// After the same history, more lag never asks for fewer replicas.
    #[test]
    fn monotone_in_lag(
        (spec, steps) in history(),
        last in prop::collection::vec((0..1_000_000_i64, 0..100_000_i64, 0.0..5_000.0, 0.1..5_000.0, 0.0..1.0), 1..20),
        replicas in 0..20_u32,
    ) {
        let settings = Settings::new(spec.clone()).expect("valid");
        let (mut state, mut now, mut before) = (State::default(), Timestamp::UNIX_EPOCH, spec.min_replicas);
        for step in &steps {
            now += jiff::SignedDuration::from_secs(step.seconds);
            let (next, decision) = decide(&settings, state, &inputs(step, now, before));
            (state, before) = (next, decision.target.0);
        }
        now += jiff::SignedDuration::from_secs(5);
        let at = |more: bool| {
            // Every partition moves: what stands still is left out by design.
            let raw = last.iter().map(|&(lag, extra, arrival, processed, busy)| {
                let lag = if more { lag + extra } else { lag };
                (lag, lag as f64 / 5_000.0, arrival, processed, busy)
            });
            let step = Step { seconds: 0, measured: Some(raw.collect()), phase: 9, members: None, rebalance: None, offsets_kept: None, foreign: None };
            decide(&settings, state.clone(), &inputs(&step, now, replicas)).1
        };
        let (less, more) = (at(false), at(true));
        prop_assert!(more.recommended >= less.recommended, "{less:?}\n{more:?}");
        prop_assert!(more.target >= less.target, "{less:?}\n{more:?}");
    }

    /// The same history gives the same decisions.
    #[test]
    fn deterministic((spec, steps) in history()) {
        let mut first = Vec::new();
        run(&spec, &steps, |_, decision| first.push(decision.clone()));
        let mut second = Vec::new();
        run(&spec, &steps, |_, decision| second.push(decision.clone()));
        prop_assert_eq!(first, second);
    }

    /// A constant load, however noisy within ten percent, is answered by one way up at most, and after the backlog of
    /// the beginning by one way down; never by a way up again.
    #[test]
    fn a_constant_load_does_not_flap(
        count in 1..40_usize,
        rate in 1.0..20_000.0_f64,
        capacity in 100.0..5_000.0_f64,
        noise in prop::collection::vec(0.9..1.1_f64, 240),
    ) {
        let spec = SettingsSpec { max_replicas: 40, ..SettingsSpec::default() };
        let settings = Settings::new(spec).expect("valid");
        let (mut state, mut now, mut replicas) = (State::default(), Timestamp::UNIX_EPOCH, 1_u32);
        let mut ways = Vec::new();
        for noise in noise {
            now += Duration::from_secs(5);
            let arrives = rate * noise;
            let does = arrives.min(capacity * f64::from(replicas));
            // What the members cannot do waits; with enough of them nothing does.
            let lag = if arrives > does { 10_000 } else { 0 };
            let share = count as f64;
            let busy = (does / capacity * 2.0 / share).min(1.0);
            let partition = Partition::from_raw(lag, 0.0, arrives / share, does / share, busy);
            let inputs = Inputs {
                now,
                replicas: Replicas(replicas),
                group: Group { members: replicas, phase: Phase::Stable },
                lanes: NonZeroU32::MIN.saturating_add(1),
                measured: Measured::Partitions(vec![partition; count]),
                rebalance: None,
                offsets_kept: None,
            };
            let (next, decision) = decide(&settings, state, &inputs);
            if decision.action != Action::Hold {
                ways.push(decision.action);
            }
            (state, replicas) = (next, decision.target.0);
        }
        ways.dedup();
        prop_assert!(ways.len() <= 1 || ways == [Action::Up, Action::Down], "{ways:?}");
    }
}
