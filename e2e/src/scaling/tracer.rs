//! Who is in a group, what it has committed and where its partitions end, a few times a second, by the brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sluice_clients::kafka::admin::{Admin, AdminError, GroupState, Isolation, OffsetSpec, TopicPartition};

use crate::stack::Kafka;

/// Pace of asking: what is shorter is not seen.
const PACE: Duration = Duration::from_millis(200);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A group at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moment {
    /// Seconds since the run began.
    pub at: f64,
    /// Workers that the Deployment asks for.
    pub desired: u32,
    /// Members.
    pub members: usize,
    /// Whether nobody joins or leaves.
    pub settled: bool,
    /// Who owns which partition.
    pub owners: BTreeMap<i32, String>,
    /// Committed offsets.
    pub committed: BTreeMap<i32, i64>,
    /// Ends for readers of committed records.
    pub ends: BTreeMap<i32, i64>,
}

impl Moment {
    /// Offsets between what is committed and the end, in all.
    pub fn lag(&self) -> i64 {
        let lag = |(partition, end): (&i32, &i64)| end - self.committed.get(partition).unwrap_or(end);
        self.ends.iter().map(lag).sum()
    }
}

/// A running tracer.
#[derive(Debug)]
pub struct Tracer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Moment>, AdminError>>,
}

/// Whom to watch.
struct Watched {
    admin: Admin,
    group: String,
    partitions: BTreeSet<TopicPartition>,
}

impl Tracer {
    /// Starts watching a group on one topic. `desired`: workers that are asked for now; moments in which nobody knows are left out.
    pub fn start(
        kafka: &Kafka,
        (group, topic, partitions): (&str, &str, i32),
        begun: Instant,
        desired: impl Fn() -> Option<u32> + Send + 'static,
    ) -> Result<Self, AdminError> {
        let watched = Watched {
            admin: Admin::new(&kafka.client_config(), PATIENCE)?,
            group: group.to_owned(),
            partitions: (0..partitions).map(|partition| TopicPartition::new(topic, partition)).collect(),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || watch(&watched, begun, &desired, &stopped));
        Ok(Self { stop, thread })
    }

    /// Stops and hands back what was seen.
    pub fn finish(self) -> Result<Vec<Moment>, AdminError> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn watch(
    watched: &Watched,
    begun: Instant,
    desired: &dyn Fn() -> Option<u32>,
    stop: &AtomicBool,
) -> Result<Vec<Moment>, AdminError> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Err(AdminError::Closed);
    };
    let mut moments = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Some(desired) = desired() {
            match runtime.block_on(watched.look()) {
                Ok(moment) => moments.push(Moment { at: begun.elapsed().as_secs_f64(), desired, ..moment }),
                // A coordinator that is still loading: one moment is missing.
                Err(error) if error.retryable() => {}
                Err(error) => return Err(error),
            }
        }
        std::thread::sleep(PACE);
    }
    Ok(moments)
}

impl Watched {
    async fn look(&self) -> Result<Moment, AdminError> {
        let mut described = self.admin.describe_groups(std::slice::from_ref(&self.group)).await?;
        let group = described.remove(&self.group).unwrap_or(Err(AdminError::Incomplete("DescribeConsumerGroups")))?;
        let offsets = self.admin.list_group_offsets(&self.group, None, false).await?;
        let wanted = self.partitions.iter().map(|partition| (partition.clone(), OffsetSpec::Latest)).collect();
        let ends = self.admin.list_offsets(&wanted, Isolation::Committed).await?;
        let owned = group.members.iter().flat_map(|member| {
            member.assignment.iter().map(|partition| (partition.partition, member.member_id.clone()))
        });
        Ok(Moment {
            members: group.members.len(),
            settled: group.state != GroupState::Rebalancing,
            owners: owned.collect(),
            committed: offsets.committed.into_iter().map(|(at, committed)| (at.partition, committed.offset)).collect(),
            ends: ends.into_iter().filter_map(|(at, end)| Some((at.partition, end.ok()?))).collect(),
            ..Moment::default()
        })
    }
}
