//! Turns at rolling out: of the resources on one Kafka connection only so many replace their workers at a time. Each
//! replacement is a rebalance, and a new worker image or connection setting concerns all of them at once: one that does not
//! start stops a few, and the others go on as they were.
//!
//! In memory and without IO. First come, first served. What never waits: first starts, scaling, stopping. A turn is given
//! back when the workers are as wanted, when Kubernetes has given up on them (one bad resource must not hold up the
//! others for ever), and when the resource goes, is paused or becomes invalid. After a restart of the operator roll-outs
//! under way take their turns when they are met, even beyond the bound: until then a few too many may have begun.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use crate::claims::Claimant;
use crate::settings::ConnectionName;

/// Turns of all connections.
#[derive(Debug, Default)]
pub struct Turns {
    lanes: Mutex<HashMap<ConnectionName, Lane>>,
}

#[derive(Debug, Default)]
struct Lane {
    rolling: BTreeSet<Claimant>,
    waiting: VecDeque<Claimant>,
    most: usize,
}

impl Lane {
    /// Those that may go on now, in their order.
    fn next(&self) -> impl Iterator<Item = &Claimant> {
        self.waiting.iter().take(self.most.saturating_sub(self.rolling.len()))
    }
}

impl Turns {
    /// Takes a turn, if fewer than `most` have one and nobody else waits before; otherwise queues, and `Err` says how many
    /// go first.
    pub fn take(&self, connection: &ConnectionName, who: &Claimant, most: usize) -> Result<(), usize> {
        let mut lanes = self.lock();
        let lane = lanes.entry(connection.clone()).or_default();
        lane.most = most;
        if lane.rolling.contains(who) {
            return Ok(());
        }
        if !lane.waiting.contains(who) {
            lane.waiting.push_back(who.clone());
        }
        if lane.next().any(|next| next == who) {
            lane.waiting.retain(|waiting| waiting != who);
            lane.rolling.insert(who.clone());
            return Ok(());
        }
        let before = lane.waiting.iter().take_while(|waiting| *waiting != who).count();
        Err(lane.rolling.len() + before)
    }

    /// Notes a roll-out that is under way, whoever began it.
    pub fn hold(&self, connection: &ConnectionName, who: &Claimant) {
        let mut lanes = self.lock();
        let lane = lanes.entry(connection.clone()).or_default();
        lane.waiting.retain(|waiting| waiting != who);
        lane.rolling.insert(who.clone());
    }

    /// Gives back a turn, or leaves the queue; those whose turn it is now.
    pub fn give_back(&self, who: &Claimant) -> Vec<Claimant> {
        let mut next = Vec::new();
        for lane in self.lock().values_mut() {
            let waited = lane.waiting.len();
            lane.waiting.retain(|waiting| waiting != who);
            if lane.rolling.remove(who) || lane.waiting.len() < waited {
                next.extend(lane.next().cloned());
            }
        }
        next
    }

    /// Resources that roll out, and that wait for their turn.
    pub fn counts(&self) -> (usize, usize) {
        let lanes = self.lock();
        (lanes.values().map(|lane| lane.rolling.len()).sum(), lanes.values().map(|lane| lane.waiting.len()).sum())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionName, Lane>> {
        self.lanes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use sluice_crds::names::Kind;

    use super::*;

    fn who(name: &str) -> Claimant {
        let (uid, namespace) = (name.to_owned(), "shop".to_owned());
        Claimant { created: 0, uid, kind: Kind::EventPipeline, namespace, name: name.to_owned() }
    }

    #[test]
    fn only_so_many_have_a_turn_and_it_is_passed_on_in_order() {
        let (turns, main) = (Turns::default(), ConnectionName::new("main"));
        let take = |name| turns.take(&main, &who(name), 2);
        assert_eq!((take("a"), take("b"), take("c"), take("d")), (Ok(()), Ok(()), Err(2), Err(3)));
        assert_eq!((take("a"), take("d")), (Ok(()), Err(3)), "asking again changes nothing");
        assert_eq!(turns.take(&ConnectionName::new("other"), &who("x"), 2), Ok(()), "another Kafka is another queue");
        assert_eq!(turns.counts(), (3, 2));
        assert_eq!(turns.give_back(&who("a")), [who("c")]);
        assert_eq!((take("d"), take("c"), take("d")), (Err(2), Ok(()), Err(2)), "nobody overtakes");
        assert_eq!(turns.give_back(&who("b")), [who("d")]);
        assert_eq!(take("d"), Ok(()));
        assert_eq!(turns.give_back(&who("nobody")), []);
    }

    #[test]
    fn who_leaves_the_queue_holds_nobody_up_and_what_is_under_way_counts() {
        let (turns, main) = (Turns::default(), ConnectionName::new("main"));
        let take = |name| turns.take(&main, &who(name), 1);
        assert_eq!((take("a"), take("b"), take("c")), (Ok(()), Err(1), Err(2)));
        assert_eq!(turns.give_back(&who("b")), [], "the one turn is still taken");
        assert_eq!(take("c"), Err(1));
        turns.hold(&main, &who("z"));
        assert_eq!(turns.give_back(&who("a")), [], "z was met rolling out");
        assert_eq!(turns.give_back(&who("z")), [who("c")]);
    }
}
