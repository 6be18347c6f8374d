//! Every condition type and every reason: a bounded vocabulary that users may script against.

use std::fmt;

/// A condition type of both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// Summary: what the spec asks for is so.
    Ready,
    /// Summary: on the way, no help needed.
    Reconciling,
    /// Summary: only a change by a person helps.
    Stalled,
    /// Topics exist with the settings asked for, and their offsets line up.
    TopicsReady,
    /// Users, ACLs and groups are in place; Secrets named exist.
    AccessReady,
    /// Redis takes the views, and they hold what their topics say.
    CacheReady,
    /// Worker pods run the current configuration.
    WorkersReady,
    /// The number of workers follows the load. No part of `Ready`: what runs is as asked also when nobody scales it.
    AutoscalingActive,
    /// The operator was told to change nothing.
    Paused,
}

impl ConditionType {
    /// All of them, in the order of status.
    pub const ALL: [Self; 9] = [
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::TopicsReady,
        Self::AccessReady,
        Self::CacheReady,
        Self::WorkersReady,
        Self::AutoscalingActive,
        Self::Paused,
    ];
    /// Those that a reconcile finds out one by one; the others follow from them. The order is that in which one
    /// depends on the other, so the first that is not well is the cause to show.
    pub const DOMAINS: [Self; 4] = [Self::AccessReady, Self::TopicsReady, Self::CacheReady, Self::WorkersReady];

    /// `type` of the condition.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::TopicsReady => "TopicsReady",
            Self::AccessReady => "AccessReady",
            Self::CacheReady => "CacheReady",
            Self::WorkersReady => "WorkersReady",
            Self::AutoscalingActive => "AutoscalingActive",
            Self::Paused => "Paused",
        }
    }

    /// The type a text means; none when it is not one of ours.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|type_| type_.as_str() == text)
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a condition is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// `reason` of a condition or event; label of a metric.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// Not looked at yet.
    Pending,
    /// Everything is as asked.
    Reconciled,
    /// Something is being done.
    Progressing,
    /// Nothing is being done until a person changes something; the `Stalled` condition says what.
    WaitsForUser,
    /// `spec.state: Stopped`, and no worker runs.
    Stopped,
    /// No worker runs because nothing arrives and nothing waits; one starts by itself.
    Sleeping,
    /// The `sluice.dev/paused` annotation is set.
    Paused,
    /// It is not set.
    NotPaused,
    /// The resource is being deleted.
    Deleting,
    /// The resource does not use this.
    NotUsed,

    /// The spec contradicts itself or names something unknown; the message has field and position.
    InvalidSpec,
    /// An expression does not compile; the message has field and position.
    InvalidExpression,
    /// The operator's settings have no connection of this name.
    ConnectionUnknown,
    /// The connection is in the operator's settings, but credentials or authorities it needs are missing there.
    ConnectionUnusable,
    /// The connection's policy for this namespace does not allow what the spec asks for.
    NotAllowed,
    /// A Secret named in the spec does not exist or lacks a key.
    SecretMissing,
    /// Another resource owns this topic.
    TopicConflict,
    /// Another resource uses this consumer group.
    GroupConflict,
    /// Another resource writes this Redis key prefix.
    KeyPrefixConflict,
    /// An older resource wants another value of this Redis setting.
    SettingConflict,
    /// A Kubernetes object of a child's name belongs to somebody else.
    ChildConflict,

    /// Kafka cannot be reached; being retried.
    KafkaUnreachable,
    /// Kafka refused a call that only its administrator can allow.
    KafkaRefused,
    /// Redis cannot be reached; being retried.
    RedisUnreachable,
    /// Redis refused a call that only its administrator can allow.
    RedisRefused,

    /// A topic that is used and not owned does not exist.
    TopicMissing,
    /// A topic exists with other partitions or settings than asked for.
    TopicMismatch,
    /// A topic has another id than before: somebody made it anew.
    TopicRecreated,
    /// A topic that feeds a view has got more partitions.
    RepartitionedViewTopic,
    /// A view's topic forgets records that the view must still show.
    RetentionShorterThanView,
    /// Committed offsets are gone or outside of the topic; `sluice.dev/reset-offsets` says where to start.
    OffsetsLost,
    /// The consumer group has members that are not our workers.
    GroupInUse,

    /// Views are catching up with their topics.
    CatchingUp,
    /// Views are being rebuilt from the beginning of their topics.
    Rebuilding,
    /// The server's `maxmemory-policy` may evict keys of a view.
    EvictionUnsafe,
    /// A Redis setting is not in the connection's allow-list, or the server refused it.
    SettingRefused,
    /// The servers refuse scripts over several slots.
    CrossSlotScriptsRefused,

    /// Worker pods are starting.
    WorkersStarting,
    /// Worker pods are being replaced by ones with the current configuration.
    RollingOut,
    /// Worker pods shall be replaced, and other resources on the same Kafka go first; they run on meanwhile.
    RollOutQueued,
    /// Worker pods are ending.
    WorkersStopping,
    /// Worker pods do not become ready.
    WorkersUnavailable,
    /// `worker.replicas` says how many workers there are.
    Manual,
    /// What the load asks for is only shown.
    RecommendOnly,
    /// The operator scales the workers by the load.
    ScaledByLoad,
    /// A `HorizontalPodAutoscaler` that the operator made scales the workers.
    ScaledByHpa,
    /// Mode `Hpa` needs the operator's external metrics API, which is off or not the cluster's.
    MetricsApiUnavailable,
    /// Something else scales the workers too: the operator leaves them alone.
    ConflictingScaler,
    /// `worker.replicas` was written through `/scale` while the operator scales by the load: it counts at first only.
    ScaleIgnored,
    /// A partition receives more than one worker can process: more workers do not help.
    PartitionBound,
    /// More workers did not help, or none processes anything: the number stays as it is.
    Ineffective,
    /// The load cannot be measured.
    MetricsMissing,
    /// The number of workers was changed.
    WorkersScaled,

    /// A record cannot be processed and there is no dead-letter topic.
    RecordStalled,
    /// The operator could not finish its work, because Kubernetes failed or refused it, or it took too long; being retried.
    InternalError,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
