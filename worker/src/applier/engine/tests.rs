//! Single decisions of the engine, one server and one partition at a time. Faults in all orders are the simulation's.

use std::sync::Arc;

use sluice_clients::redis::{Generation, NodeAddress, NodeId, RedisFault, Shard, Slot, SlotSet, Topology};
use sluice_crds::report::{PartitionReport, TopicId};

use super::{
    Apply, Effect, Engine, EngineSettings, Event, LineId, Now, Outcome, PartitionId, Reading, ShardHandle, StopReason,
    Times,
};
use crate::applier::mutation::{Change, Mutation, Op, Poison};
use crate::applier::record::{Coverage, Record, RecordError};

const P: PartitionId = PartitionId { topic: 0, partition: 0 };

fn id(text: &str) -> TopicId {
    TopicId::parse(text).expect("an id")
}

fn ours() -> TopicId {
    id("7Wc2m-Qd_kOZr4hV0nH3xA")
}

fn record(epoch: u64, topic_id: TopicId, offset: i64) -> String {
    let coverage = Coverage::new([(offset, SlotSet::all())]);
    Record { topic_id, epoch, version: 4, wall_ms: 1, coverage }.text()
}

/// An engine with a standalone Redis and one partition.
struct Bench {
    engine: Engine,
    now: u64,
    effects: Vec<Effect>,
    node: NodeId,
}

impl Bench {
    fn new() -> Self {
        Self::keeping(None)
    }

    /// With a topic that keeps tombstones for so long.
    fn keeping(tombstones_kept_ms: Option<u64>) -> Self {
        let settings = EngineSettings {
            epoch: 7,
            topics: vec![ours()],
            tombstones_kept_ms: vec![tombstones_kept_ms],
            max_batch_items: 4,
            max_batch_bytes: 1_000,
            times: Times::default(),
        };
        let mut bench =
            Self { engine: Engine::new(settings), now: 10_000, effects: Vec::new(), node: NodeId::standalone() };
        bench.feed(Event::Assigned(vec![P]));
        bench.tell_topic(Some(ours()));
        bench.feed(Event::Topology(Arc::new(Topology::standalone(NodeAddress::new("h", 1)))));
        bench
    }

    fn tell_topic(&mut self, found: Option<TopicId>) {
        let ask = |effect: &Effect| match effect {
            Effect::AskTopics { request } => Some(*request),
            _ => None,
        };
        let request = self.take(ask).expect("the topic is asked for");
        self.feed(Event::Topics { request, found: vec![found] });
    }

    /// As [`Self::new`], with this record on the server, reading.
    fn opened(text: &str) -> Self {
        let mut bench = Self::new();
        bench.open(text);
        bench
    }

    fn feed(&mut self, event: Event) {
        let effects = self.engine.handle(Now { millis: self.now, wall_ms: 1_700_000_000_000 + self.now }, event);
        self.effects.extend(effects);
    }

    /// Time passes in ticks, as it does for a process that is awake.
    fn wait(&mut self, millis: u64) {
        let until = self.now + millis;
        while self.now < until {
            self.now = until.min(self.now + 500);
            self.feed(Event::Tick);
        }
    }

    /// Takes out the first effect that `pick` likes.
    fn take<T>(&mut self, pick: impl Fn(&Effect) -> Option<T>) -> Option<T> {
        let at = self.effects.iter().position(|effect| pick(effect).is_some())?;
        pick(&self.effects.remove(at))
    }

    fn open(&mut self, text: &str) {
        let open = |effect: &Effect| match effect {
            Effect::OpenShard { request, .. } => Some(*request),
            _ => None,
        };
        let request = self.take(open).expect("the shard is to be opened");
        let handle = Arc::new(ShardHandle {
            node: self.node.clone(),
            address: NodeAddress::new("h", 1),
            generation: Generation::new(1),
            key: "hash".to_owned(),
            header: "1 1 ab".to_owned(),
        });
        let fields = if text.is_empty() { vec![] } else { vec![(P, text.to_owned())] };
        self.feed(Event::ShardOpened { request, handle, fields });
    }

    fn reading(&mut self) -> Option<(Reading, i64)> {
        self.take(|effect| match effect {
            Effect::Read { reading, offset } => Some((*reading, *offset)),
            _ => None,
        })
    }

    fn apply(&mut self) -> Option<Apply> {
        self.take(|effect| match effect {
            Effect::Apply(apply) => Some(apply.clone()),
            _ => None,
        })
    }

    fn stopped(&mut self) -> Option<StopReason> {
        self.take(|effect| match effect {
            Effect::Stop(reason) => Some(reason.clone()),
            _ => None,
        })
    }

    fn fetch(&mut self, reading: Reading, changes: Vec<Change>) {
        self.feed(Event::Fetched { reading, changes });
    }

    fn ended(&mut self, apply: &Apply, outcome: Outcome) {
        self.feed(Event::Script { ticket: apply.ticket, outcome });
    }
}

fn applied() -> Outcome {
    Outcome::Applied { behind: Vec::new(), text: None }
}

fn set(offset: i64, key: &str) -> Change {
    let op = Op::Set { value: offset.to_string().into_bytes(), expire_at_ms: None };
    Change { offset, timestamp_ms: 1_000 + offset, weight: 10, effect: Ok(vec![Mutation::new(key.into(), op)]) }
}

fn coverage(text: &str) -> Vec<(i64, String)> {
    let record = Record::parse(text).expect("readable");
    record.coverage.sets().iter().map(|(offset, slots)| (*offset, slots.to_string())).collect()
}

#[test]
fn without_a_record_reading_begins_at_the_beginning() {
    let mut bench = Bench::opened("");
    let (reading, offset) = bench.reading().expect("reads");
    assert_eq!((reading.partition, reading.line, offset), (P, LineId::Main, 0));
    bench.fetch(reading, vec![set(3, "a"), set(5, "b"), set(6, "a")]);
    let apply = bench.apply().expect("a script");
    assert_eq!(apply.expected, "");
    assert_eq!(coverage(&apply.next), [(7, "0-16383".to_owned())]);
    assert_eq!(apply.batch.iter().map(|mutation| mutation.key.clone()).collect::<Vec<_>>(), [b"b", b"a"]);
}

#[test]
fn reading_begins_where_the_record_ends_and_batches_go_one_after_another() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, offset) = bench.reading().expect("reads");
    assert_eq!(offset, 40);
    bench.fetch(reading, (40..50).map(|offset| set(offset, &format!("k{offset}"))).collect());
    let first = bench.apply().expect("a script");
    assert_eq!((first.expected.clone(), first.batch.len()), (record(7, ours(), 40), 4));
    assert!(bench.apply().is_none(), "the next batch waits for this one");
    bench.ended(&first, applied());
    let second = bench.apply().expect("a script");
    assert_eq!(second.expected, first.next);
    assert_eq!(coverage(&second.next)[0].0, 48);
}

#[test]
fn a_higher_epoch_another_topic_or_an_unknown_layout_stops_everything() {
    let stop = |text: &str| {
        let mut bench = Bench::opened(text);
        assert!(bench.reading().is_none());
        bench.wait(60_000);
        assert!(bench.apply().is_none());
        bench.stopped().map(|reason| reason.category())
    };
    assert_eq!(stop(&record(8, ours(), 40)), Some("EpochSuperseded"));
    assert_eq!(stop(&record(7, id("AAAAAAAAAAAAAAAAAAAAAA"), 40)), Some("TopicReplaced"));
    assert_eq!(stop("2 something"), Some("UnreadableRecord"));
    let mut bench = Bench::opened("nonsense");
    assert_eq!(bench.stopped(), Some(StopReason::UnreadableRecord(RecordError::Malformed)));
}

#[test]
fn a_topic_that_was_made_again_stops_everything_and_one_not_seen_yet_is_waited_for() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    assert!(bench.reading().is_some());
    bench.wait(Times::default().topics);
    bench.tell_topic(Some(id("AAAAAAAAAAAAAAAAAAAAAA")));
    assert_eq!(bench.stopped().map(|reason| reason.category()), Some("TopicReplaced"));
    let mut bench = Bench::opened(&record(7, ours(), 40));
    bench.effects.clear();
    bench.feed(Event::Revoked(vec![P]));
    bench.feed(Event::Assigned(vec![P]));
    bench.open(&record(7, ours(), 40));
    assert!(bench.reading().is_none(), "the topic may be another one by now");
    bench.tell_topic(None);
    assert!(bench.reading().is_none());
    bench.wait(Times::default().topics);
    bench.tell_topic(Some(ours()));
    assert!(bench.reading().is_some());
}

#[test]
fn what_was_fetched_while_nobody_looked_is_not_applied_before_the_topic_was_seen() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    bench.effects.clear();
    bench.now += Times::default().sleep;
    bench.fetch(reading, vec![set(40, "a")]);
    assert!(bench.apply().is_none(), "the topic may be another one by now");
    bench.tell_topic(Some(ours()));
    assert!(bench.apply().is_some());
    bench.now += Times::default().sleep;
    bench.fetch(reading, vec![set(41, "b")]);
    bench.tell_topic(Some(id("AAAAAAAAAAAAAAAAAAAAAA")));
    assert_eq!(bench.stopped().map(|reason| reason.category()), Some("TopicReplaced"));
}

#[test]
fn a_lower_epoch_begins_anew_whatever_its_topic() {
    let old = record(6, id("AAAAAAAAAAAAAAAAAAAAAA"), 40);
    let mut bench = Bench::opened(&old);
    let (reading, offset) = bench.reading().expect("reads");
    assert_eq!(offset, 0);
    bench.fetch(reading, vec![set(0, "a")]);
    let apply = bench.apply().expect("a script");
    assert_eq!(apply.expected, old, "the old record is replaced, not ignored");
    let next = Record::parse(&apply.next).expect("readable");
    assert_eq!((next.epoch, next.version), (7, 5));
}

#[test]
fn a_log_that_ends_before_what_was_applied_stops_and_one_that_begins_later_does_not() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    bench.feed(Event::OutOfRange { reading, first: 50, end: 90 });
    assert_eq!(bench.reading(), Some((reading, 50)));
    assert_eq!(bench.engine.stats().expired_positions, 1);
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    bench.feed(Event::OutOfRange { reading, first: 0, end: 39 });
    assert_eq!(bench.stopped(), Some(StopReason::LogTruncated { partition: P, end: 39, applied: 40 }));
}

#[test]
fn the_end_of_a_partition_moves_records_and_commits() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    bench.feed(Event::End { reading, offset: 43 });
    assert!(bench.apply().is_none(), "not for every end at once");
    bench.wait(1_000);
    let apply = bench.apply().expect("a script");
    assert!(apply.batch.is_empty());
    assert_eq!(coverage(&apply.next), [(43, "0-16383".to_owned())]);
    bench.ended(&apply, applied());
    bench.effects.clear();
    bench.wait(1_000);
    let commit = |effect: &Effect| match effect {
        Effect::Commit(commits) => Some(commits.clone()),
        _ => None,
    };
    let [(partition, offset, report)] = bench.take(commit).expect("a commit")[..] else { panic!("not one") };
    assert_eq!((partition, offset), (P, 43));
    let expected = PartitionReport {
        epoch: Some(7),
        watermark: Some(43),
        slots_behind: Some(0),
        topic_id: Some(ours()),
        since: report.since,
        at: report.at,
        ..PartitionReport::default()
    };
    assert_eq!(report, expected);
    bench.wait(1_000);
    assert!(bench.take(commit).is_none(), "nothing moved");
    bench.wait(15_000);
    assert!(bench.take(commit).is_some(), "the report is renewed");
}

#[test]
fn the_views_of_an_empty_topic_are_reported() {
    let mut bench = Bench::opened(&record(7, ours(), 0));
    let (reading, _) = bench.reading().expect("reads");
    let commit = |effect: &Effect| match effect {
        Effect::Commit(commits) => Some(commits.clone()),
        _ => None,
    };
    bench.wait(1_000);
    assert!(bench.take(commit).is_none(), "what the topic holds is not known yet");
    bench.feed(Event::End { reading, offset: 0 });
    bench.wait(1_000);
    let [(partition, offset, report)] = bench.take(commit).expect("a commit")[..] else { panic!("not one") };
    assert_eq!((partition, offset, report.epoch, report.slots_behind), (P, 0, Some(7), Some(0)));
}

#[test]
fn a_record_that_cannot_be_read_stops_its_partition_in_front_of_it() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    let poison = Poison { category: "InvalidJson", message: "no".to_owned() };
    let broken = Change { offset: 42, timestamp_ms: 0, weight: 1, effect: Err(poison.clone()) };
    bench.fetch(reading, vec![set(40, "a"), broken, set(43, "a")]);
    let apply = bench.apply().expect("what is before it");
    assert_eq!(coverage(&apply.next)[0].0, 41);
    bench.ended(&apply, applied());
    bench.wait(60_000);
    assert!(bench.apply().is_none());
    assert_eq!(bench.engine.stalled().collect::<Vec<_>>(), [(P, 42, &poison)]);
}

#[test]
fn a_refused_mutation_lets_everything_before_it_through_and_is_tried_again() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    bench.fetch(reading, vec![set(40, "a"), set(41, "bad"), set(42, "a"), set(43, "c")]);
    let whole = bench.apply().expect("a script");
    let bad = whole.batch.iter().position(|mutation| mutation.key == b"bad").expect("there");
    bench.ended(&whole, Outcome::Failed { item: bad, error: "no".to_owned() });
    let before = bench.apply().expect("what is before it");
    assert_eq!(before.expected, whole.expected, "the first script moved no record");
    assert_eq!(coverage(&before.next)[0].0, 41);
    let values: Vec<_> = before.batch.iter().map(|mutation| mutation.op.clone()).collect();
    assert_eq!(values, [Op::Set { value: b"40".to_vec(), expire_at_ms: None }]);
    bench.ended(&before, applied());
    assert_eq!(bench.engine.refused().count(), 1);
    bench.wait(1_000);
    assert!(bench.apply().is_none());
    // Another pass begins in front of it.
    bench.effects.clear();
    bench.wait(5_000);
    let (again, offset) = bench.reading().expect("reads");
    assert_eq!(offset, 41);
    bench.fetch(again, vec![set(41, "bad"), set(42, "a"), set(43, "c")]);
    let retry = bench.apply().expect("a script");
    bench.ended(&retry, applied());
    assert_eq!(bench.engine.refused().count(), 0);
    assert_eq!(coverage(&retry.next), [(44, "0-16383".to_owned())]);
}

#[test]
fn an_unknown_outcome_is_settled_by_the_record() {
    for happened in [true, false] {
        let mut bench = Bench::opened(&record(7, ours(), 40));
        let (reading, _) = bench.reading().expect("reads");
        bench.fetch(reading, vec![set(40, "a")]);
        let apply = bench.apply().expect("a script");
        bench.effects.clear();
        bench.ended(&apply, Outcome::Fault(RedisFault::UnknownOutcome(sluice_clients::redis::Lost::TimedOut)));
        assert!(bench.apply().is_none(), "nothing is sent before the record is known");
        bench.open(if happened { &apply.next } else { &apply.expected });
        assert!(bench.reading().is_none(), "the records are still here");
        let again = bench.apply();
        assert_eq!(again.is_none(), happened);
        assert_eq!(again.map(|again| again.expected), (!happened).then_some(apply.expected));
    }
}

#[test]
fn a_slot_in_motion_stays_behind_while_the_others_go_on() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    bench.fetch(reading, vec![set(40, "a"), set(41, "b")]);
    let apply = bench.apply().expect("a script");
    let slot = Slot::of_key(b"b");
    let text = format!("{} !40:{slot}", apply.next);
    bench.effects.clear();
    bench.ended(&apply, Outcome::Applied { behind: vec![slot], text: Some(text.clone()) });
    bench.wait(300);
    assert!(bench.take(|effect| matches!(effect, Effect::RefreshTopology).then_some(())).is_some());
    bench.fetch(reading, vec![set(42, "b"), set(43, "a")]);
    let next = bench.apply().expect("a script");
    assert_eq!(next.expected, text);
    assert_eq!(next.batch.iter().map(|mutation| mutation.key.clone()).collect::<Vec<_>>(), [b"a"]);
    bench.ended(&next, applied());
    // Later the slot is brought up from where it stayed.
    bench.wait(1_000);
    let (repair, offset) = bench.reading().expect("reads");
    assert_eq!((repair.line, offset), (LineId::Repair, 40));
    bench.fetch(repair, vec![set(40, "a"), set(41, "b"), set(42, "b"), set(43, "a")]);
    let repair = bench.apply().expect("a script");
    assert_eq!(repair.batch.iter().map(|mutation| mutation.key.clone()).collect::<Vec<_>>(), [b"b"]);
    assert_eq!(coverage(&repair.next), [(44, "0-16383".to_owned())]);
    bench.ended(&repair, applied());
    assert_eq!(bench.engine.slots_behind(), 0);
}

#[test]
fn a_node_that_disappears_with_a_script_on_its_way_holds_up_nothing() {
    let mut bench = Bench::opened(&record(7, ours(), 40));
    let (reading, _) = bench.reading().expect("reads");
    bench.fetch(reading, vec![set(40, "a")]);
    let lost = bench.apply().expect("a script");
    let successor = NodeId::parse("successor").expect("an id");
    let shard = |node: &NodeId| Shard { node: node.clone(), address: NodeAddress::new("h", 1), slots: SlotSet::all() };
    bench.feed(Event::Topology(Arc::new(Topology::new(vec![shard(&successor)], Vec::new()))));
    bench.ended(&lost, applied());
    bench.node = successor;
    bench.open(&record(7, ours(), 30));
    let (reading, offset) = bench.reading().expect("reads again from where the successor is");
    assert_eq!(offset, 30);
    bench.fetch(reading, vec![set(30, "a"), set(40, "a")]);
    assert!(bench.apply().is_some());
}

const HOUR: u64 = 3_600_000;

impl Bench {
    /// With a record at offset 40 that was written so many hours ago, or that says what was missed, reading.
    fn away_for(hours: Option<u64>) -> (Self, Reading) {
        let mut bench = Self::keeping(Some(24 * HOUR));
        let written = Record::parse(&record(7, ours(), 40)).expect("readable");
        let now = 1_700_000_000_000 + bench.now;
        let wall_ms = hours.map_or(0, |hours| now - hours * HOUR);
        bench.open(&Record { wall_ms, ..written }.text());
        let (reading, _) = bench.reading().expect("reads");
        (bench, reading)
    }

    /// What the next group commit says of missed deletions.
    fn missed(&mut self) -> bool {
        let commits = self.take(|effect| match effect {
            Effect::Commit(commits) => Some(commits.clone()),
            _ => None,
        });
        commits.expect("a commit")[0].2.deletions_missed
    }
}

#[test]
fn after_a_long_absence_the_report_and_the_record_say_that_deletions_may_have_been_missed() {
    for (hours, next, missed) in [(Some(13), 45, true), (Some(13), 40, true), (Some(11), 45, false), (None, 45, true)] {
        let (mut bench, reading) = Bench::away_for(hours);
        bench.fetch(reading, vec![set(next, "a")]);
        let apply = bench.apply().expect("a script: what is new is shown all the same");
        let wall_ms = Record::parse(&apply.next).expect("readable").wall_ms;
        assert_eq!(wall_ms, if missed { 0 } else { 1_700_000_000_000 + bench.now }, "{hours:?}");
        bench.ended(&apply, applied());
        bench.feed(Event::End { reading, offset: next + 1 });
        bench.effects.clear();
        bench.wait(15_000);
        assert_eq!(bench.missed(), missed, "{hours:?} {next}");
        assert_eq!(bench.engine.stats().missed_deletions, u64::from(missed && hours.is_some()));
        assert_eq!(bench.engine.missed_deletions().count(), usize::from(missed));
    }
}

#[test]
fn at_the_end_of_the_log_nothing_was_missed_and_behind_an_end_that_compaction_left_something_may_be() {
    for (end, missed) in [(40, false), (43, true)] {
        let (mut bench, reading) = Bench::away_for(Some(100));
        bench.feed(Event::End { reading, offset: end });
        bench.wait(1_000);
        assert_eq!(bench.missed(), missed, "{end}");
    }
    // Said by the record: whether it is at the end now does not matter.
    let (mut bench, reading) = Bench::away_for(None);
    bench.feed(Event::End { reading, offset: 40 });
    bench.wait(1_000);
    assert!(bench.missed());
}

#[test]
fn a_record_of_another_epoch_and_a_topic_that_loses_no_tombstones_are_of_no_age() {
    for (kept, epoch) in [(None, 7), (Some(24 * HOUR), 6)] {
        let mut bench = Bench::keeping(kept);
        bench.open(&record(epoch, ours(), 40));
        let (reading, _) = bench.reading().expect("reads");
        bench.fetch(reading, vec![set(45, "a")]);
        let apply = bench.apply().expect("a script");
        bench.ended(&apply, applied());
        bench.wait(2_000);
        assert!(!bench.missed(), "{kept:?} {epoch}");
    }
}
