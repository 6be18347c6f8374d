//! Who says how many workers there are, and by what.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::LABEL;

/// How many workers run, by the load. Absent: `worker.replicas` says it, as with mode `Manual`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'Manual' || has(self.maxReplicas)")
        .message("maxReplicas is needed unless mode is Manual"),
    validation = Rule::new("!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be larger than maxReplicas"),
    validation = Rule::new("!has(self.sleepAfterSeconds) || (has(self.minReplicas) && self.minReplicas == 0)")
        .message("sleepAfterSeconds needs minReplicas 0"),
    validation = Rule::new("self.mode != 'Hpa' || has(self.lagThreshold)")
        .message("mode Hpa needs lagThreshold: waiting records for each worker"),
    validation = Rule::new("self.mode != 'Hpa' || !has(self.minReplicas) || self.minReplicas > 0")
        .message("mode Hpa needs a minReplicas of at least 1"),
    validation = Rule::new(
        "self.mode != 'Hpa' || ((!has(self.schedules) || self.schedules.size() == 0) && !has(self.fallback))"
    )
    .message("mode Hpa takes no schedules and no fallback: a HorizontalPodAutoscaler has neither")
)]
pub struct Autoscaling {
    /// Who acts: `Operator` (it writes the number of workers), `Hpa` (it makes a `HorizontalPodAutoscaler` on the workers, which
    /// scales by the metric `consumer_lag`; only `minReplicas`, `maxReplicas`, `lagThreshold` and `scaleDownWindowSeconds` count,
    /// and the operator's external metrics API must be on), `Recommend` (it writes only to status), or `Manual` (nobody:
    /// `worker.replicas` says how many, and `/scale` writes that).
    #[serde(default)]
    pub mode: AutoscalingMode,
    /// Fewest workers. 0: none runs while nothing arrives. One starts as soon as a record waits, when that cannot be seen for
    /// `fallback.afterSeconds`, and after half of the brokers' `offsets.retention.minutes` (of a day, if the operator may not
    /// read that), because Kafka forgets the offsets of a group that has no members. Not for views: without a worker nobody
    /// repairs Redis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    pub min_replicas: Option<i32>,
    /// Most workers. More than there are source partitions never run: they would have nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
    /// Records should not wait longer than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = 30))]
    pub target_lag_seconds: Option<i32>,
    /// A backlog should be gone after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = 60))]
    pub catch_up_seconds: Option<i32>,
    /// Share of what workers can do that steady arrivals may use; the rest works off backlogs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 95), extend("default" = 70))]
    pub utilization_percent: Option<i32>,
    /// Also a worker for each so many waiting records. Absent: only rates and time count. With mode `Hpa`: the target of its
    /// metric, an average over the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 999_999))]
    pub lag_threshold: Option<i64>,
    /// Fewer must be enough for so long before workers are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 3_600), extend("default" = 120))]
    pub scale_down_window_seconds: Option<i32>,
    /// With `minReplicas: 0`: the last workers go when for so long nothing has arrived and nothing has waited in any partition.
    /// Absent: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub sleep_after_seconds: Option<i32>,
    /// Other bounds at certain times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub schedules: Vec<AutoscalingSchedule>,
    /// What happens while nothing can be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<AutoscalingFallback>,
}

/// Who writes the number of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoscalingMode {
    /// The operator.
    #[default]
    Operator,
    /// A `HorizontalPodAutoscaler` that the operator makes.
    Hpa,
    /// Nobody; status says what the operator would do.
    Recommend,
    /// People and other software, through `worker.replicas`.
    Manual,
}

/// Bounds that hold for a while, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.minReplicas) || has(self.maxReplicas)")
        .message("a schedule needs minReplicas, maxReplicas or both"),
    validation = Rule::new("!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas")
        .message("minReplicas must not be larger than maxReplicas")
)]
pub struct AutoscalingSchedule {
    /// Name, for people.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,
    /// When it begins: a cron expression of five fields (minute, hour, day, month, weekday), e.g. `50 7 * * 1-5`.
    #[schemars(length(min = 9, max = 128))]
    pub start: String,
    /// How long it lasts; real time, also over a change to summer time.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: i32,
    /// IANA name of the time zone of `start`, e.g. `Europe/Berlin`. Absent: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// At least so many meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// At most so many meanwhile; wins over every minimum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
}

/// What happens while nothing can be measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.mode == 'Hold') != has(self.replicas)")
        .message("modes CurrentIfHigher and Exactly need replicas, and mode Hold takes none")
)]
pub struct AutoscalingFallback {
    /// `Hold` (as it is; but one worker if there is none, since nobody else sees whether records wait), `CurrentIfHigher`
    /// (`replicas`, or as many as there are if that is more), or `Exactly` (`replicas`).
    #[serde(default)]
    pub mode: FallbackMode,
    /// So many workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<i32>,
    /// After so long without a measurement; until then nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 3_600), extend("default" = 120))]
    pub after_seconds: Option<i32>,
}

/// How many workers run without measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FallbackMode {
    /// As many as there are.
    #[default]
    Hold,
    /// So many, or as many as there are if that is more.
    CurrentIfHigher,
    /// So many.
    Exactly,
}

/// What the autoscaler last made of the load. Written when something of it has changed by half and stayed so for 30 s, and at
/// each change of the number of workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// Who acts on it.
    pub mode: AutoscalingMode,
    /// Workers that the Deployment shall have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// Workers that the load asks for, within the bounds, before windows and cool-downs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommended_replicas: Option<i32>,
    /// Why the number changes, or why it does not: one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What limits it, if anything does: one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<AutoscalingInputs>,
    /// What the recommendation is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<AutoscalingTerms>,
    /// All of it in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// While no worker runs: when one starts at the latest, so that Kafka keeps the group's offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_time: Option<Time>,
    /// When the operator last changed the number of workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Time>,
    /// Why it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale: Option<String>,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingInputs {
    /// Records that arrive, a second.
    pub arrival_records_per_second: i64,
    /// Records that one worker processes in a second of work.
    pub capacity_records_per_second: i64,
    /// Records that wait.
    pub lag_records: i64,
    /// How long the oldest of them waits.
    pub lag_seconds: i64,
}

/// What the recommendation is made of, in workers, as decimal numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingTerms {
    /// For the arrivals, at the planned utilisation.
    pub arrivals: String,
    /// Of these, what a backlog may use.
    pub reserve: String,
    /// For the backlog, within `catchUpSeconds`.
    pub backlog: String,
    /// For what piles up during the change itself.
    pub change: String,
}
