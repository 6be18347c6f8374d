//! One consumer group on one topic, second by second: a fluid model of records, the real counts of members.
//!
//! Workers join when they have started, leave at once; the group then rebalances cooperatively: partitions that keep
//! their owner go on, those that move stand still. A worker shares its capacity among its partitions by need; none gets
//! more than one thread of it. Transactions leave a commit marker behind the last record of each partition.

use std::collections::VecDeque;

use crate::costs;
use crate::random::Random;
use crate::traces::{PARTITIONS, Trace};

/// One partition.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    /// Records by the second in which they were made.
    waiting: VecDeque<(u32, f64)>,
    /// Records waiting.
    pub lag: f64,
    /// Records that ever arrived.
    pub arrived: f64,
    /// Records that were ever processed.
    pub processed: f64,
    /// Seconds of work they cost.
    pub busy: f64,
    held_back: VecDeque<(u32, f64)>,
    owner: Option<u64>,
    paused_until: f64,
}

impl Partition {
    /// Age of the oldest record that waits, at the broker or at a producer that cannot send.
    pub fn oldest(&self, second: u32) -> u32 {
        let first = self.waiting.front().or(self.held_back.front());
        first.map_or(0, |&(made, _)| second - made)
    }

    /// What a tool sees that subtracts offsets: the marker behind the last record counts.
    pub fn naive_lag(&self) -> f64 {
        self.lag + if self.arrived > 0.0 { 1.0 } else { 0.0 }
    }

    fn take(&mut self, mut records: f64) {
        self.lag = (self.lag - records).max(0.0);
        self.processed += records;
        while let Some((_, count)) = self.waiting.front_mut() {
            if *count > records + 1e-6 {
                *count -= records;
                return;
            }
            records -= *count;
            self.waiting.pop_front();
        }
        self.lag = 0.0;
    }
}

#[derive(Clone, Copy, Debug)]
struct Pod {
    id: u64,
    ready_at: f64,
    joined: bool,
}

/// The group.
pub struct World<'a> {
    trace: &'a Trace,
    /// Of the arrivals: the same records for every scaler, however many pods it starts.
    arrivals: Random,
    /// Of the starts.
    starts: Random,
    /// The partitions.
    pub partitions: Vec<Partition>,
    pods: Vec<Pod>,
    next_pod: u64,
    rebalancing_until: f64,
    /// Rebalances so far.
    pub rebalances: u32,
}

impl<'a> World<'a> {
    /// The group at the start of a trace, at rest.
    pub fn new(trace: &'a Trace, initial: u32, seed: u64) -> Self {
        let mut world = Self {
            trace,
            arrivals: Random::new(seed),
            starts: Random::new(!seed),
            partitions: vec![Partition::default(); PARTITIONS],
            pods: Vec::new(),
            next_pod: 0,
            rebalancing_until: 0.0,
            rebalances: 0,
        };
        for _ in 0..initial {
            world.add_pod(0.0);
        }
        world.pods.iter_mut().for_each(|pod| pod.joined = true);
        world.assign(0.0, 0.0);
        world
    }

    /// Pods that exist, which is what is paid for.
    pub fn replicas(&self) -> u32 {
        u32::try_from(self.pods.len()).unwrap_or(u32::MAX)
    }

    /// Members of the group.
    pub fn members(&self) -> u32 {
        u32::try_from(self.pods.iter().filter(|pod| pod.joined).count()).unwrap_or(u32::MAX)
    }

    /// Whether the group rebalances.
    pub fn rebalancing(&self, second: u32) -> bool {
        f64::from(second) < self.rebalancing_until
    }

    /// Whether a broker answers.
    pub fn reachable(&self, second: u32) -> bool {
        !self.trace.fault.outage(second)
    }

    /// Asks for so many replicas. The newest pods go first, as a `ReplicaSet` does it.
    pub fn scale(&mut self, second: u32, replicas: u32) {
        let now = f64::from(second);
        while self.replicas() < replicas {
            let spread = 1.0 + costs::START_UP_SPREAD * self.starts.unit();
            self.add_pod(now + self.trace.start_up * spread);
        }
        let mut left = false;
        while self.replicas() > replicas {
            left |= self.pods.pop().is_some_and(|pod| pod.joined);
        }
        if left {
            self.assign(now, self.trace.rebalance);
        }
    }

    fn add_pod(&mut self, ready_at: f64) {
        self.pods.push(Pod { id: self.next_pod, ready_at, joined: false });
        self.next_pod += 1;
    }

    /// One second.
    pub fn step(&mut self, second: u32) {
        self.arrive(second);
        if !self.reachable(second) {
            return;
        }
        self.joins(f64::from(second));
        self.work(second);
    }

    fn arrive(&mut self, second: u32) {
        let rate = (self.trace.rate)(second);
        let reachable = self.reachable(second);
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let records = self.arrivals.events(rate * self.trace.fault.share(second, index));
            if records > 0.0 {
                partition.held_back.push_back((second, records));
            }
            if reachable {
                for (made, records) in partition.held_back.drain(..) {
                    partition.waiting.push_back((made, records));
                    partition.lag += records;
                    partition.arrived += records;
                }
            }
        }
    }

    fn joins(&mut self, now: f64) {
        let mut joined = false;
        for pod in self.pods.iter_mut().filter(|pod| !pod.joined && pod.ready_at <= now) {
            pod.joined = true;
            joined = true;
        }
        if joined {
            self.assign(now, self.trace.rebalance);
        }
    }

    /// Cooperative and sticky: everybody keeps what he has up to his share, the rest goes to those with fewest.
    fn assign(&mut self, now: f64, pause: f64) {
        self.rebalances += u32::from(pause > 0.0);
        self.rebalancing_until = now + pause;
        let members: Vec<u64> = self.pods.iter().filter(|pod| pod.joined).map(|pod| pod.id).collect();
        let mut counts = vec![0_usize; members.len()];
        let mut large = if members.is_empty() { 0 } else { PARTITIONS % members.len() };
        let share = PARTITIONS.checked_div(members.len()).unwrap_or(0);
        for partition in &mut self.partitions {
            let at = partition.owner.and_then(|owner| members.iter().position(|&id| id == owner));
            partition.owner = at.filter(|&at| counts[at] < share || (counts[at] == share && large > 0)).map(|at| {
                large -= usize::from(counts[at] == share);
                counts[at] += 1;
                members[at]
            });
        }
        for partition in self.partitions.iter_mut().filter(|partition| partition.owner.is_none()) {
            let Some(least) = (0..members.len()).min_by_key(|&at| counts[at]) else { continue };
            counts[least] += 1;
            partition.owner = Some(members[least]);
            partition.paused_until = now + pause;
        }
    }

    fn work(&mut self, second: u32) {
        let capacity = costs::CAPACITY.value;
        let lane = capacity / f64::from(costs::LANES);
        let fault = self.trace.fault;
        let mut planned = vec![0.0; PARTITIONS];
        for pod in self.pods.iter().filter(|pod| pod.joined) {
            let mut open: Vec<usize> = (0..PARTITIONS)
                .filter(|&index| {
                    let partition = &self.partitions[index];
                    partition.owner == Some(pod.id)
                        && partition.paused_until <= f64::from(second)
                        && !fault.poisoned(second, index)
                })
                .collect();
            // By need: who needs least is served first, what it leaves goes to the others.
            open.sort_by(|&a, &b| self.partitions[a].lag.total_cmp(&self.partitions[b].lag));
            let mut left = capacity;
            for (served, &index) in open.iter().enumerate() {
                let fair = left / (open.len() - served) as f64;
                planned[index] = self.partitions[index].lag.min(fair).min(lane);
                left -= planned[index];
            }
        }
        let total: f64 = planned.iter().sum();
        let slowed = fault.shared_limit(second).map_or(1.0, |limit| (limit / total.max(1.0)).min(1.0));
        for (partition, records) in self.partitions.iter_mut().zip(planned) {
            partition.busy += records / lane;
            partition.take(records * slowed);
        }
    }
}
