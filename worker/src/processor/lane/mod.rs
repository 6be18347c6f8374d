//! A lane: a thread with a transactional producer. It gathers records into a batch, looks up, runs the steps, and
//! commits outputs and offsets together; one lane processes while another commits.
//!
//! ```text
//! gather.rs    commands → a batch, and when it closes (pure but for the records)
//! outgoing.rs  what a record becomes → records to produce
//! transact.rs  one transaction and the ladder of errors
//! settle.rs    a batch → transactions: retry, isolate, stand still, rewind
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_clients::kafka::admin::TopicPartition;
use sluice_clients::kafka::consumer::GroupMetadata;
use sluice_clients::kafka::error::{ErrorCode, KafkaError};

mod gather;
pub mod outgoing;
mod settle;
pub mod transact;

pub use self::gather::BatchLimits;
use self::gather::{Batch, Gather};
use self::transact::Transactor;
use super::TopicIds;
use super::assignment::StallReason;
use super::lease::{Incarnation, LaneId, SharedLease};
use super::metrics::ProcessorMetrics;
use super::progress::Progress;
use super::steps::Steps;
use super::work::{Item, LaneLoad, Still};
use crate::health::HealthHandle;

/// What the consumer tells a lane.
#[derive(Debug)]
pub enum Command {
    /// Records of one lease, in order, with the membership under which they were read.
    Records(Vec<Item>, Arc<GroupMetadata>),
    /// The end of a lease's partition, after all records handed out so far.
    End(SharedLease, i64, Arc<GroupMetadata>),
    /// A fresh membership, for commits of idle partitions.
    Membership(Arc<GroupMetadata>),
    /// Let go of a lease; answered by [`Notice::Released`].
    Release(SharedLease),
    /// Nothing follows.
    Stop,
}

/// What a lane tells the consumer.
#[derive(Debug)]
pub enum Notice {
    /// Nothing of this lease is in the lane's hands any more, and no transaction with it is open.
    Released(TopicPartition, Incarnation),
    /// The lane dropped the lease's work without committing it.
    Rewind(TopicPartition, Incarnation),
    /// The partition stands still at its committed offset.
    Stall(TopicPartition, Incarnation, StallReason),
}

/// What a lane is made of.
pub struct Lane {
    /// Which one.
    pub id: LaneId,
    /// Commands from the consumer.
    pub commands: Receiver<Command>,
    /// Notices to the consumer.
    pub notices: Sender<Notice>,
    /// What it has in its hands, and whether a lease is asked for.
    pub load: Arc<LaneLoad>,
    /// When batches close.
    pub limits: BatchLimits,
    /// Lookups and steps.
    pub steps: Steps,
    /// Transactions.
    pub transactor: Transactor,
    /// Topic ids by name, for reports.
    pub topic_ids: TopicIds,
    /// Metrics.
    pub metrics: ProcessorMetrics,
    /// Probes.
    pub health: HealthHandle,
}

/// A running lane's memory.
struct State {
    gather: Gather,
    progress: BTreeMap<Incarnation, Progress>,
    /// Leases whose partition stands still: what follows of them is dropped.
    still: Still,
    /// Leases given back: the consumer ends them when it hears of it; what follows of them until then is dropped.
    given_back: BTreeSet<Incarnation>,
    /// The newest membership.
    group: Option<Arc<GroupMetadata>>,
    retry_init_at: Instant,
    started: Instant,
}

/// Longest wait for a command: probes tick, idle commits and retries happen at least so often.
const TICK: Duration = Duration::from_millis(250);
const INIT_PAUSE: Duration = Duration::from_secs(1);
/// Rights may arrive this long after the start without being an error worth an alarm.
const AUTHORIZATION_PATIENCE: Duration = Duration::from_secs(60);

impl Lane {
    /// Runs until [`Command::Stop`] or until the consumer is gone.
    pub fn run(mut self) {
        let mut state = State {
            gather: Gather::new(self.limits),
            progress: BTreeMap::new(),
            still: Still::new(),
            given_back: BTreeSet::new(),
            group: None,
            retry_init_at: Instant::now(),
            started: Instant::now(),
        };
        loop {
            self.health.tick();
            self.make_ready(&mut state);
            let wait = state.gather.closes_in(Instant::now()).map_or(TICK, |left| left.min(TICK));
            match self.commands.recv_timeout(wait) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(command) => self.take(&mut state, command),
                Err(RecvTimeoutError::Timeout) => {}
            }
            while !state.gather.is_full() {
                match self.commands.try_recv() {
                    Ok(Command::Stop) => return,
                    Ok(command) => self.take(&mut state, command),
                    Err(_) => break,
                }
            }
            if let Some(batch) = state.gather.close(Instant::now()) {
                self.process(&mut state, batch);
            }
            // Also after a batch: a lane that always has a full one would never say anything of its other partitions.
            self.commit_idle(&mut state);
        }
    }

    fn take(&mut self, state: &mut State, command: Command) {
        match command {
            Command::Records(items, group) => {
                let Some(lease) = items.first().map(|item| item.lease.clone()) else { return };
                if self.know(state, &lease) {
                    state.group = Some(group);
                    state.gather.records(items, Instant::now());
                }
            }
            Command::End(lease, offset, group) => {
                if !self.know(state, &lease) {
                    return;
                }
                state.group = Some(group);
                let committed = state.progress.get(&lease.incarnation).map(|progress| progress.committed);
                state.gather.end(lease, offset, committed, Instant::now());
            }
            Command::Membership(group) => state.group = Some(group),
            Command::Release(lease) => {
                state.gather.drop_lease(lease.incarnation);
                state.progress.remove(&lease.incarnation);
                state.still.remove(&lease.incarnation);
                state.given_back.remove(&lease.incarnation);
                self.load.released();
                self.tell(Notice::Released(lease.partition.clone(), lease.incarnation));
            }
            // The caller returns on it.
            Command::Stop => {}
        }
    }

    /// Makes a lease known; false when nothing of it is wanted any more.
    fn know(&self, state: &mut State, lease: &SharedLease) -> bool {
        let incarnation = lease.incarnation;
        if lease.has_ended() || state.still.contains_key(&incarnation) || state.given_back.contains(&incarnation) {
            return false;
        }
        if !state.progress.contains_key(&incarnation) {
            // Ended leases that were never released by command (rewinds) leave here.
            state.progress.retain(|_, progress| !progress.lease.has_ended());
            state.given_back.retain(|given| *given > incarnation || incarnation.0 - given.0 < 10_000);
            let id = self.topic_ids.get(&lease.partition.topic).copied();
            state.progress.insert(incarnation, Progress::new(lease.clone(), id, Instant::now(), unix_millis()));
        }
        true
    }

    fn process(&mut self, state: &mut State, batch: Batch) {
        let Batch { items, ends } = batch;
        let began = Instant::now();
        let (mut work, waited) = match self.steps.run(items, &self.load, &self.health) {
            Ok(done) => done,
            Err(items) => return self.give_back(state, items.iter().map(|item| item.lease.clone())),
        };
        let busy = began.elapsed().saturating_sub(waited);
        self.metrics.busy_micros.inc_by(u64::try_from(busy.as_micros()).unwrap_or(0));
        self.settle(state, &mut work, &ends, busy);
        // Also a batch that was given back, to other lanes or workers, holds nothing up here any more: a lane that gets no
        // more work would else keep the worker from being ready for ever.
        self.health.held_up(None);
    }

    /// Gets the producer its id. Looks every time: work that comes before it makes the transaction get the id, and that is
    /// a lane that is ready too.
    fn make_ready(&mut self, state: &mut State) {
        if !self.transactor.is_ready() {
            if state.retry_init_at > Instant::now() {
                return;
            }
            if let Err(error) = self.transactor.make_ready() {
                self.health.held_up(Some("TransactionalProducer"));
                state.retry_init_at = Instant::now() + INIT_PAUSE;
                self.say(state, "cannot initialise the transactional producer, trying again", &error);
                return;
            }
        }
        self.health.held_up(None);
        self.health.ready();
    }

    /// Logs trouble that is retried: missing rights are expected for a while after the start.
    fn say(&self, state: &State, what: &str, error: &KafkaError) {
        let denied = error.code().is_some_and(ErrorCode::is_authorization);
        if denied && state.started.elapsed() < AUTHORIZATION_PATIENCE {
            tracing::info!(lane = self.id.0, %error, "{what}");
        } else if denied {
            tracing::error!(lane = self.id.0, %error, "{what}");
        } else {
            tracing::warn!(lane = self.id.0, %error, "{what}");
        }
    }

    fn tell(&self, notice: Notice) {
        // The consumer outlives its lanes; if not, the process is ending.
        let _ = self.notices.send(notice);
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
