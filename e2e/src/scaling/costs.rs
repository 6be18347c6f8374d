//! Times and lateness out of moments. Pure.

use std::collections::BTreeMap;

use super::tracer::Moment;

/// Some times of one kind, in seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Times(Vec<f64>);

impl Times {
    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The one in the middle.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    /// The longest.
    pub fn longest(&self) -> Option<f64> {
        self.0.iter().copied().max_by(f64::total_cmp)
    }
}

impl FromIterator<f64> for Times {
    fn from_iter<I: IntoIterator<Item = f64>>(times: I) -> Self {
        Self(times.into_iter().collect())
    }
}

/// From each time more workers are asked for to the first new member of the group. One that was taken back before is none.
pub fn start_ups(moments: &[Moment]) -> Times {
    let more = moments.windows(2).enumerate().filter(|(_, pair)| pair[1].desired > pair[0].desired);
    let first = |(at, pair): (usize, &[Moment])| {
        let after = moments[at + 1..].iter().take_while(|moment| moment.desired >= pair[1].desired);
        let joined = after.into_iter().find(|moment| moment.members > pair[0].members)?;
        Some(joined.at - pair[1].at)
    };
    more.filter_map(first).collect()
}

/// How long partitions stood still although records waited: those that went from one member to another, and the others.
pub fn pauses(moments: &[Moment]) -> (Times, Times) {
    let (mut moved, mut kept) = (Vec::new(), Vec::new());
    // The last offset of each partition, and since when records wait behind it, with the owner of then.
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut waiting: BTreeMap<i32, (f64, &String)> = BTreeMap::new();
    for moment in moments {
        for (partition, end) in &moment.ends {
            let Some(committed) = moment.committed.get(partition) else { continue };
            let owner = moment.owners.get(partition);
            if last.insert(*partition, *committed) != Some(*committed)
                && let (Some((since, before)), Some(now)) = (waiting.remove(partition), owner)
            {
                if before == now { &mut kept } else { &mut moved }.push(moment.at - since);
            }
            if committed >= end {
                waiting.remove(partition);
            } else if let Some(owner) = owner {
                waiting.entry(*partition).or_insert((moment.at, owner));
            }
        }
    }
    (Times(moved), Times(kept))
}

/// How long the oldest record of each moment has waited.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lateness(Vec<(f64, f64)>);

impl Lateness {
    /// The longest wait between two times, in seconds.
    pub fn worst(&self, from: f64, to: f64) -> f64 {
        self.within(from, to).map(|(_, late)| *late).fold(0.0, f64::max)
    }

    /// Whole seconds between two times in which some record had waited longer than `target` seconds.
    pub fn violated(&self, from: f64, to: f64, target: f64) -> usize {
        let mut seconds: Vec<f64> =
            self.within(from, to).filter(|(_, late)| *late > target).map(|(at, _)| at.floor()).collect();
        seconds.dedup();
        seconds.len()
    }

    fn within(&self, from: f64, to: f64) -> impl Iterator<Item = &(f64, f64)> {
        self.0.iter().filter(move |(at, _)| (from..to).contains(at))
    }
}

/// Lateness over time: since when the end of a partition is beyond what is committed now.
pub fn lateness(moments: &[Moment]) -> Lateness {
    let partitions = moments.last().map(|last| last.ends.keys().copied().collect::<Vec<_>>()).unwrap_or_default();
    // For each partition the first moment whose end was beyond the committed offset; it only ever goes on.
    let mut first: BTreeMap<i32, usize> = BTreeMap::new();
    let late = moments.iter().enumerate().map(|(now, moment)| {
        let oldest = partitions.iter().filter_map(|partition| {
            let committed = moment.committed.get(partition)?;
            let at = first.entry(*partition).or_default();
            while *at <= now && moments[*at].ends.get(partition).is_none_or(|end| end <= committed) {
                *at += 1;
            }
            (*at <= now).then(|| moment.at - moments[*at].at)
        });
        (moment.at, oldest.fold(0.0, f64::max))
    });
    Lateness(late.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at: f64, desired: u32, members: usize, partition: Option<(&str, i64, i64)>) -> Moment {
        let mut moment = Moment { at, desired, members, settled: true, ..Moment::default() };
        if let Some((owner, committed, end)) = partition {
            moment.owners.insert(0, owner.to_owned());
            moment.committed.insert(0, committed);
            moment.ends.insert(0, end);
        }
        moment
    }

    #[test]
    fn a_start_lasts_until_somebody_has_joined() {
        let seen = [(0.0, 1, 1), (1.0, 3, 1), (4.0, 3, 1), (5.0, 3, 2), (6.0, 3, 3), (9.0, 4, 3), (10.0, 3, 3)];
        let moments: Vec<Moment> =
            seen.iter().map(|(at, desired, members)| moment(*at, *desired, *members, None)).collect();
        let times = start_ups(&moments);
        assert_eq!(times, [4.0].into_iter().collect(), "the last was taken back");
        assert_eq!((times.count(), times.median(), times.longest()), (1, Some(4.0), Some(4.0)));
    }

    #[test]
    fn a_pause_lasts_from_the_last_commit_of_the_one_to_the_first_of_the_other() {
        let seen = [
            (0.0, "a", 10, 20),
            (1.0, "a", 12, 30),
            (2.0, "a", 12, 40),
            (3.0, "b", 12, 50),
            (4.0, "b", 15, 60),
            (5.0, "b", 16, 60),
        ];
        let moments: Vec<Moment> =
            seen.iter().map(|(at, who, done, end)| moment(*at, 1, 1, Some((*who, *done, *end)))).collect();
        let (moved, kept) = pauses(&moments);
        assert_eq!((moved, kept), ([3.0].into_iter().collect(), [1.0, 1.0].into_iter().collect()));
    }

    #[test]
    fn a_partition_at_its_end_does_not_stand_still() {
        let seen = [(0.0, "a", 10, 20), (1.0, "a", 20, 20), (8.0, "b", 20, 20), (9.0, "b", 20, 25), (9.5, "b", 25, 25)];
        let moments: Vec<Moment> =
            seen.iter().map(|(at, who, done, end)| moment(*at, 1, 1, Some((*who, *done, *end)))).collect();
        let (moved, kept) = pauses(&moments);
        assert_eq!(
            (moved.count(), kept),
            (0, [1.0, 0.5].into_iter().collect()),
            "a record that comes later waits from then on"
        );
    }

    #[test]
    fn lateness_is_how_long_the_end_has_been_beyond_the_commit() {
        let seen = [(0.0, 0, 0), (1.0, 0, 10), (2.0, 0, 20), (3.0, 5, 30), (4.0, 15, 30), (5.0, 30, 30)];
        let moments: Vec<Moment> =
            seen.iter().map(|(at, done, end)| moment(*at, 1, 1, Some(("a", *done, *end)))).collect();
        let late = lateness(&moments);
        let expected = [(0.0, 0.0), (1.0, 0.0), (2.0, 1.0), (3.0, 2.0), (4.0, 2.0), (5.0, 0.0)];
        assert_eq!(late, Lateness(expected.to_vec()));
        assert_eq!((late.violated(0.0, 10.0, 1.5), late.violated(0.0, 4.0, 1.5)), (2, 1));
        assert!((late.worst(0.0, 10.0) - 2.0).abs() < 1e-9);
    }
}
