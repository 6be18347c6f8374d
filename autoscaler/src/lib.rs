//! How many workers a consumer group needs: the decision, and nothing but the decision.
//!
//! Pure library: no clock, no randomness, no network (CI asserts it). Whoever measures (the operator's lag sweep, a
//! simulator) calls [`decide`] every few seconds with what it saw, and carries out what it says.
//!
//! ```text
//! decide(&Settings, State, &Inputs) → (State, Decision)
//!
//! settings.rs   Settings: what the user wants, checked once
//! schedule.rs   floors and ceilings by cron and time zone
//! inputs.rs     one measurement: partitions, group, replicas; hostile numbers end here
//! sleep.rs      how long none may run, since Kafka forgets the offsets of a group without members
//! units.rs      Rate, Messages, Replicas
//! estimate.rs   arrival rates, capacity of a replica and stuck partitions, out of noisy measurements
//! demand.rs     the formula: terms → replicas that partitions can use
//! history.rs    what was wanted lately (scale-down window), when things changed, how long changes take
//! effect.rs     did the last scale-up help? if not, freeze
//! decide.rs     the order of it all: bounds, failures, guards, moves
//! decision.rs   Decision: target, reason, limit and every term, explained in one bounded line
//! ```
//!
//! # The law
//!
//! With λ records arriving a second, μ what one replica processes in a second of work, `u` = `utilizationPercent`:
//!
//! ```text
//! replicas = max( λ/u,  λ/u₂ + backlog/catchUpSeconds + cost of the change/catchUpSeconds ) / μ
//! ```
//!
//! - u₂ lies halfway between `u` and all of the capacity. The rest of the reserve that `u` keeps is there to work off a
//!   backlog, so a backlog buys replicas only beyond it. (Adding both, as DS2's followers do, buys the reserve twice.)
//! - *backlog*: the lag beyond what is caught up with anyway (half of `targetLagSeconds` worth of arrivals, at most).
//! - *cost of the change*: what arrives while the group rebalances and, if replicas are missing, while they start.
//! - μ is the true rate, records per busy second (DS2, OSDI'18), not the throughput, which only says what arrived. Where
//!   records wait in every partition, all of the time counts as busy (docs/adr/0014).
//!
//! Then the result is rounded up to a number of replicas that changes the load of the fullest one: with 12 partitions
//! that is 1, 2, 3, 4, 6 or 12, since 7 replicas leave one of them as many partitions as 6 do. Partitions that carry
//! more than others count as what they are.
//!
//! # When nothing happens
//!
//! - The load is between `u` and u₂: no flapping around a step.
//! - The group rebalances, or its members are not the replicas: the last change is not over.
//! - Less than twice the time a rebalance takes has passed since the last change.
//! - Down: less was wanted all through `scaleDownWindowSeconds`, the lag is within its target, at most half at a time.
//! - The last scale-up did not help (a shared bottleneck, say a slow Redis): frozen, longer each time.
//! - A partition does not move although its consumer lives (a poison record): it does not count.
//! - There is no measurement: as it is, then the `Fallback`.
//!
//! # Asleep
//!
//! With `minReplicas: 0` the last replicas go when for `sleepAfterSeconds` every partition was measured, nothing arrived and
//! nothing waited, and the group has the members it should have. Once none runs, one starts as soon as one partition is seen
//! with a record that waits or arrives, whatever the cool-down; when it has not been seen for the time of the fallback whether
//! one waits (also if the fallback is to hold); and after half of the time that Kafka keeps the offsets of a group without
//! members. A partition that cannot be measured is no arrival.
#![forbid(unsafe_code)]

mod decide;
mod decision;
mod demand;
mod effect;
mod estimate;
mod history;
mod inputs;
mod schedule;
mod settings;
mod sleep;
mod units;

pub use decide::{Seed, State, consider, decide};
pub use decision::{Action, Decision, Limit, MAX_EXPLANATION_BYTES, PartitionBound, Reason, Stuck, Terms};
pub use inputs::{Group, Inputs, MAX_PARTITIONS, Measured, Missing, Partition, Phase};
pub use schedule::{Schedule, ScheduleError};
pub use settings::{Fallback, Settings, SettingsError, SettingsSpec};
pub use sleep::Asleep;
pub use units::{Messages, Rate, Replicas};
