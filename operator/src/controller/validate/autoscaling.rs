//! How workers are scaled.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use sluice_autoscaler::{Fallback, Replicas, Schedule, Settings, SettingsSpec};
use sluice_crds::names::GroupId;
use sluice_crds::v1alpha1::{Autoscaling, AutoscalingFallback, AutoscalingMode, AutoscalingSchedule, FallbackMode};

use super::{Invalid, bounded, contradiction, no_duplicates};
use crate::autoscale::{Hpa, Plan};

/// Most replicas that may be asked for.
const MAX_REPLICAS: i32 = 1_000;
/// Longest value of a label. Groups hold no characters that one may not, but for their length.
const MAX_LABEL_VALUE: usize = 63;

/// The plan; none when nobody scales by the load. `lanes`: threads of a worker. `may_sleep`: nothing needs a worker while
/// nothing arrives. `group`: whose lag counts.
pub fn plan(
    spec: Option<&Autoscaling>,
    lanes: NonZeroU32,
    may_sleep: bool,
    group: &GroupId,
) -> Result<Option<Arc<Plan>>, Invalid> {
    let Some(spec) = spec.filter(|spec| spec.mode != AutoscalingMode::Manual) else { return Ok(None) };
    let defaults = SettingsSpec::default();
    let Some(max) = spec.max_replicas else {
        return Err(contradiction("autoscaling.maxReplicas", "it is needed unless mode is Manual"));
    };
    let within = |field: &str, value: Option<i32>, default: u32, (min, max): (i32, i32)| {
        let default = i32::try_from(default).unwrap_or(i32::MAX);
        bounded(&format!("autoscaling.{field}"), value, default, min, max).map(i32::unsigned_abs)
    };
    if spec.sleep_after_seconds.is_some() && spec.min_replicas != Some(0) {
        return Err(contradiction("autoscaling.sleepAfterSeconds", "it needs minReplicas 0"));
    }
    no_duplicates("autoscaling.schedules", spec.schedules.iter().map(|schedule| schedule.name.as_str()))?;
    let (fallback, grace) = fallback(spec.fallback.as_ref())?;
    // Views are repaired by workers, also when nothing arrives.
    let fewest = i32::from(!may_sleep);
    let day = (1, 86_400);
    let settings = SettingsSpec {
        min_replicas: within("minReplicas", spec.min_replicas, defaults.min_replicas, (fewest, MAX_REPLICAS))?,
        sleep_after_seconds: within(
            "sleepAfterSeconds",
            spec.sleep_after_seconds,
            defaults.sleep_after_seconds,
            (10, 86_400),
        )?,
        max_replicas: within("maxReplicas", Some(max), 1, (1, MAX_REPLICAS))?,
        target_lag_seconds: within("targetLagSeconds", spec.target_lag_seconds, defaults.target_lag_seconds, day)?,
        catch_up_seconds: within("catchUpSeconds", spec.catch_up_seconds, defaults.catch_up_seconds, day)?,
        utilization_percent: within(
            "utilizationPercent",
            spec.utilization_percent,
            defaults.utilization_percent,
            (10, 95),
        )?,
        lag_threshold: threshold(spec.lag_threshold)?,
        scale_down_window_seconds: within(
            "scaleDownWindowSeconds",
            spec.scale_down_window_seconds,
            defaults.scale_down_window_seconds,
            (10, 3_600),
        )?,
        fallback,
        metrics_grace_seconds: within("fallback.afterSeconds", grace, defaults.metrics_grace_seconds, (10, 3_600))?,
        schedules: spec.schedules.iter().map(schedule).collect::<Result<_, _>>()?,
    };
    let hpa = if spec.mode == AutoscalingMode::Hpa { Some(hpa(spec, &settings, group)?) } else { None };
    let settings = Settings::new(settings).map_err(|error| contradiction("autoscaling", error.to_string()))?;
    Ok(Some(Arc::new(Plan { mode: spec.mode, settings, lanes, hpa })))
}

/// What a `HorizontalPodAutoscaler` can be told; what it cannot is refused.
fn hpa(spec: &Autoscaling, settings: &SettingsSpec, group: &GroupId) -> Result<Hpa, Invalid> {
    let refuse = |field: &str, problem: &str| Err(contradiction(format!("autoscaling.{field}"), problem));
    let Some(lag) = spec.lag_threshold else { return refuse("lagThreshold", "mode Hpa needs it") };
    if settings.min_replicas == 0 {
        return refuse("minReplicas", "mode Hpa needs at least 1");
    }
    if !spec.schedules.is_empty() {
        return refuse("schedules", "mode Hpa takes none");
    }
    if spec.fallback.is_some() {
        return refuse("fallback", "mode Hpa takes none");
    }
    let group = group.to_string();
    if group.len() > MAX_LABEL_VALUE {
        let problem = format!(
            "mode Hpa selects by the consumer group, and {group:?} has {} characters: at most {MAX_LABEL_VALUE} are a label's \
             value; name a shorter one in source.groupId, or use mode Operator",
            group.len()
        );
        return refuse("mode", &problem);
    }
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    Ok(Hpa {
        min_replicas: number(settings.min_replicas),
        max_replicas: number(settings.max_replicas),
        lag,
        scale_down_window_seconds: number(settings.scale_down_window_seconds),
        group,
    })
}

fn threshold(records: Option<i64>) -> Result<Option<u64>, Invalid> {
    let Some(records) = records else { return Ok(None) };
    match u64::try_from(records) {
        Ok(positive) if positive > 0 => Ok(Some(positive)),
        _ => {
            Err(Invalid::Bounds { field: "autoscaling.lagThreshold".to_owned(), value: records, min: 1, max: i64::MAX })
        }
    }
}

fn fallback(spec: Option<&AutoscalingFallback>) -> Result<(Fallback, Option<i32>), Invalid> {
    let Some(spec) = spec else { return Ok((Fallback::Hold, None)) };
    let replicas = || match spec.replicas {
        Some(replicas) => bounded("autoscaling.fallback.replicas", Some(replicas), 1, 1, MAX_REPLICAS)
            .map(|replicas| Replicas(replicas.unsigned_abs())),
        None => Err(contradiction("autoscaling.fallback.replicas", "modes CurrentIfHigher and Exactly need it")),
    };
    let fallback = match spec.mode {
        FallbackMode::Hold => Fallback::Hold,
        FallbackMode::CurrentIfHigher => Fallback::CurrentIfHigher(replicas()?),
        FallbackMode::Exactly => Fallback::Replicas(replicas()?),
    };
    Ok((fallback, spec.after_seconds))
}

fn schedule(spec: &AutoscalingSchedule) -> Result<Schedule, Invalid> {
    let field = format!("autoscaling.schedules[{}]", spec.name);
    let replicas = |name: &str, value: Option<i32>| {
        let bound = |value| bounded(&format!("{field}.{name}"), Some(value), 1, 1, MAX_REPLICAS);
        Ok::<_, Invalid>(value.map(bound).transpose()?.map(|value| Replicas(value.unsigned_abs())))
    };
    let length = Duration::from_secs(u64::try_from(spec.duration_seconds).unwrap_or(0));
    let zone = spec.time_zone.as_deref().unwrap_or("UTC");
    let (floor, ceiling) = (replicas("minReplicas", spec.min_replicas)?, replicas("maxReplicas", spec.max_replicas)?);
    Schedule::new(&spec.start, length, zone, floor, ceiling).map_err(|error| contradiction(field, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::test_support::{CACHE, PIPELINE, cache, pipeline};

    fn planned(autoscaling: &str) -> Result<Option<Arc<Plan>>, Invalid> {
        let yaml = PIPELINE.replacen("spec:\n", &format!("spec:\n  autoscaling: {autoscaling}\n"), 1);
        pipeline(&yaml).map(|resource| resource.autoscaling)
    }

    #[test]
    fn without_it_or_by_hand_nobody_scales() {
        assert!(pipeline(PIPELINE).unwrap().autoscaling.is_none());
        assert!(planned("{mode: Manual}").unwrap().is_none());
    }

    #[test]
    fn the_operator_scales_unless_told_otherwise() {
        let plan = planned("{maxReplicas: 8}").unwrap().unwrap();
        assert_eq!((plan.mode, plan.lanes.get()), (AutoscalingMode::Operator, 2));
        let plan = planned("{mode: Recommend, maxReplicas: 8}").unwrap().unwrap();
        assert_eq!(plan.mode, AutoscalingMode::Recommend);
        let cached = CACHE.replacen("spec:\n", "spec:\n  autoscaling: {maxReplicas: 8}\n", 1);
        assert_eq!(cache(&cached).unwrap().autoscaling.unwrap().lanes.get(), 1);
    }

    #[test]
    fn without_workers_only_where_nothing_is_to_be_repaired() {
        let sleeper = |sleep: &str| {
            let autoscaling = format!("spec:\n  autoscaling: {{minReplicas: 0, {sleep}maxReplicas: 8}}\n");
            let mut yaml = PIPELINE.replacen("spec:\n", &autoscaling, 1);
            let (begin, end) = (yaml.find("    - name: model").unwrap(), yaml.find("  deadLetter").unwrap());
            yaml.replace_range(begin..end, "");
            pipeline(&yaml).map(|resource| resource.autoscaling.unwrap())
        };
        let plan = sleeper("sleepAfterSeconds: 60, ").unwrap();
        assert!(plan.settings.may_sleep() && format!("{:?}", plan.settings).contains("sleep_after: 60s"), "{plan:?}");
        let none = "spec:\n  autoscaling: {minReplicas: 0, maxReplicas: 8}\n";
        let cached = cache(&CACHE.replacen("spec:\n", none, 1)).unwrap_err();
        assert!(cached.to_string().contains("autoscaling.minReplicas is 0"), "{cached}");
        let early = sleeper("sleepAfterSeconds: 5, ").unwrap_err();
        assert!(early.to_string().contains("autoscaling.sleepAfterSeconds is 5"), "{early}");
    }

    #[test]
    fn an_autoscaler_of_kubernetes_is_told_what_it_understands() {
        let plan = planned("{mode: Hpa, minReplicas: 2, maxReplicas: 8, lagThreshold: 500}").unwrap().unwrap();
        let hpa = plan.hpa.clone().unwrap();
        assert_eq!((hpa.min_replicas, hpa.max_replicas, hpa.lag), (2, 8, 500));
        assert_eq!(hpa.scale_down_window_seconds, 120);
        assert!(hpa.group.ends_with(".eventpipeline.enrich.processor"), "{hpa:?}");
        assert_eq!(planned("{maxReplicas: 8}").unwrap().unwrap().hpa, None);
        let schedule = "schedules: [{name: a, start: '0 0 * * *', durationSeconds: 60, maxReplicas: 1}]";
        for (more, said) in [
            ("", "autoscaling.lagThreshold: mode Hpa needs it"),
            ("lagThreshold: 5, fallback: {mode: Hold}", "autoscaling.fallback: mode Hpa takes none"),
            (&format!("lagThreshold: 5, {schedule}"), "autoscaling.schedules: mode Hpa takes none"),
        ] {
            let error = planned(&format!("{{mode: Hpa, maxReplicas: 8, {more}}}")).unwrap_err().to_string();
            assert!(error.contains(said), "{more}: {error}");
        }
        let yaml =
            PIPELINE.replacen("spec:\n", "spec:\n  autoscaling: {mode: Hpa, maxReplicas: 8, lagThreshold: 5}\n", 1);
        let long = yaml.replacen("name: enrich,", &format!("name: {},", "e".repeat(40)), 1);
        let error = pipeline(&long).unwrap_err().to_string();
        assert!(error.contains("autoscaling.mode: mode Hpa selects by the consumer group"), "{error}");
    }

    #[test]
    fn everything_is_taken_over() {
        let all = "{minReplicas: 2, maxReplicas: 8, targetLagSeconds: 10, catchUpSeconds: 20, utilizationPercent: 50, \
                   lagThreshold: 1000, scaleDownWindowSeconds: 60, fallback: {mode: Exactly, replicas: 4, afterSeconds: 30}, \
                   schedules: [{name: day, start: '50 7 * * 1-5', durationSeconds: 3600, timeZone: Europe/Berlin, minReplicas: 3}]}";
        let plan = planned(all).unwrap().unwrap();
        let text = format!("{:?}", plan.settings);
        for part in ["min: Replicas(2)", "max: Replicas(8)", "target_lag: 10s", "catch_up: 20s", "utilization: 0.5"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        for part in ["lag_threshold: Some(Messages(1000))", "scale_down_window: 60s", "metrics_grace: 30s"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(
            text.contains("fallback: Replicas(Replicas(4))") && text.contains("floor: Some(Replicas(3))"),
            "{text}"
        );
    }

    #[test]
    fn what_the_api_server_may_not_have_seen_is_refused_here() {
        for (autoscaling, said) in [
            ("{minReplicas: -1, maxReplicas: 8}", "autoscaling.minReplicas is -1"),
            ("{minReplicas: 0, maxReplicas: 8}", "autoscaling.minReplicas is 0"),
            ("{sleepAfterSeconds: 60, maxReplicas: 8}", "autoscaling.sleepAfterSeconds: it needs minReplicas 0"),
            ("{mode: Operator}", "autoscaling.maxReplicas: it is needed"),
            ("{minReplicas: 9, maxReplicas: 8}", "minReplicas 9 is above maxReplicas 8"),
            ("{maxReplicas: 1001}", "autoscaling.maxReplicas is 1001"),
            ("{maxReplicas: 8, targetLagSeconds: 0}", "autoscaling.targetLagSeconds is 0"),
            ("{maxReplicas: 8, lagThreshold: -1}", "autoscaling.lagThreshold is -1"),
            ("{maxReplicas: 8, fallback: {mode: Exactly}}", "autoscaling.fallback.replicas: modes"),
            (
                "{maxReplicas: 8, schedules: [{name: a, start: '0 0 30 2 *', durationSeconds: 60, maxReplicas: 1}]}",
                "autoscaling.schedules[a]: start \"0 0 30 2 *\" never comes",
            ),
            (
                "{maxReplicas: 8, schedules: [{name: a, start: '0 0 * * *', durationSeconds: 60, timeZone: Mars, maxReplicas: 1}]}",
                "time zone \"Mars\" is not known",
            ),
        ] {
            let error = planned(autoscaling).unwrap_err().to_string();
            assert!(error.contains(said), "{autoscaling}: {error}");
        }
    }
}
