use super::*;

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("in", partition)
}

/// What a test reads of effects: short words.
fn words(effects: &[Effect]) -> Vec<String> {
    let list = |partitions: &[TopicPartition]| {
        partitions.iter().map(|p| p.partition.to_string()).collect::<Vec<_>>().join(",")
    };
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Locate(partitions) => format!("locate {}", list(partitions)),
            Effect::Assign(starts) => {
                let starts: Vec<String> =
                    starts.iter().map(|(p, offset)| format!("{}@{offset}", p.partition)).collect();
                format!("assign {}", starts.join(","))
            }
            Effect::Seek(partition, offset) => format!("seek {}@{offset}", partition.partition),
            Effect::Release(lease) => format!("release {}", lease.partition.partition),
            Effect::Unassign(partitions) => format!("unassign {}", list(partitions)),
            Effect::Stalled(partition, reason) => format!("stalled {} {}", partition.partition, reason.category()),
            Effect::Reexec(why) => format!("reexec {why}"),
        })
        .collect()
}

struct Scene {
    assignment: Assignment,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        Self { assignment: Assignment::new(2), now: Instant::now() }
    }

    fn on(&mut self, event: Event) -> Vec<String> {
        words(&self.assignment.on(event, self.now))
    }

    fn after(&mut self, duration: Duration) -> Vec<String> {
        self.now += duration;
        self.on(Event::Tick)
    }

    /// Two partitions at 10 and 20.
    fn running() -> Self {
        let mut scene = Self::new();
        assert_eq!(scene.on(Event::Assign(vec![tp(0), tp(1)])), ["locate 0,1"]);
        assert_eq!(
            scene.on(Event::Located(vec![(tp(0), Found::At(10)), (tp(1), Found::At(20))])),
            ["assign 0@10,1@20"]
        );
        scene
    }

    fn lease(&self, partition: i32) -> SharedLease {
        self.assignment.running(&tp(partition)).expect("running").clone()
    }
}

#[test]
fn an_empty_assignment_is_answered() {
    assert_eq!(Scene::new().on(Event::Assign(vec![])), ["assign "]);
}

#[test]
fn nothing_is_handed_out_before_the_offset_is_known() {
    let mut scene = Scene::new();
    scene.on(Event::Assign(vec![tp(0)]));
    assert!(scene.assignment.running(&tp(0)).is_none());
    assert!(scene.on(Event::LocateFailed).is_empty());
    assert!(scene.on(Event::Tick).is_empty(), "not at once");
    assert_eq!(scene.after(LOCATE_PAUSE), ["locate 0"]);
    assert_eq!(scene.on(Event::Located(vec![(tp(0), Found::At(3))])), ["assign 0@3"]);
    assert_eq!(scene.lease(0).start, 3);
}

#[test]
fn no_committed_offset_is_a_visible_stall_that_heals() {
    let mut scene = Scene::new();
    scene.on(Event::Assign(vec![tp(0), tp(1)]));
    let effects = scene.on(Event::Located(vec![(tp(0), Found::At(1)), (tp(1), Found::Nothing)]));
    assert_eq!(effects, ["stalled 1 OffsetsLost", "assign 0@1"]);
    assert!(scene.assignment.running(&tp(1)).is_none());
    assert_eq!(scene.after(STALL_RECHECK), ["locate 1"]);
    assert!(scene.on(Event::Located(vec![(tp(1), Found::Nothing)])).is_empty(), "said once");
    assert_eq!(scene.after(STALL_RECHECK), ["locate 1"]);
    assert_eq!(scene.on(Event::Located(vec![(tp(1), Found::At(5))])), ["assign 1@5"], "it was not given before");
    assert_eq!(scene.lease(1).start, 5);
}

#[test]
fn an_offset_of_another_topic_of_that_name_is_not_used() {
    let mut scene = Scene::new();
    scene.on(Event::Assign(vec![tp(0)]));
    let effects = scene.on(Event::Located(vec![(tp(0), Found::OtherTopic)]));
    assert_eq!(effects, ["stalled 0 TopicReplaced", "assign "]);
    assert_eq!(scene.after(STALL_RECHECK), ["locate 0"], "the operator commits a new start");
    assert_eq!(scene.on(Event::Located(vec![(tp(0), Found::At(0))])), ["assign 0@0"]);
}

#[test]
fn a_revoked_partition_is_given_back_only_after_its_lane_let_go() {
    let mut scene = Scene::running();
    let (one, two) = (scene.lease(0), scene.lease(1));
    assert_eq!(scene.on(Event::Revoke(vec![tp(0), tp(1)])), ["release 0", "release 1"]);
    assert!(one.has_ended() && two.has_ended());
    assert!(scene.on(Event::Released(tp(0), one.incarnation)).is_empty());
    assert!(scene.on(Event::Released(tp(1), Incarnation(999))).is_empty(), "another lease's answer does not count");
    assert_eq!(scene.on(Event::Released(tp(1), two.incarnation)), ["unassign 0,1"]);
    assert!(scene.assignment.is_empty());
}

#[test]
fn a_lane_that_does_not_let_go_ends_the_process_and_never_the_assignment() {
    let mut scene = Scene::running();
    scene.on(Event::Revoke(vec![tp(0)]));
    assert!(scene.after(Duration::from_millis(29_999)).is_empty());
    assert_eq!(scene.after(Duration::from_millis(1)), ["reexec LaneDoesNotLetGo"]);
}

#[test]
fn others_go_on_while_one_is_revoked() {
    let mut scene = Scene::running();
    scene.on(Event::Revoke(vec![tp(0)]));
    assert!(!scene.lease(1).has_ended());
    assert!(scene.assignment.running(&tp(0)).is_none());
}

#[test]
fn a_rewind_begins_a_new_lease_at_the_committed_offset() {
    let mut scene = Scene::running();
    let old = scene.lease(0);
    assert!(scene.on(Event::Rewind(tp(0), old.incarnation)).is_empty());
    assert!(old.has_ended() && scene.assignment.running(&tp(0)).is_none());
    assert_eq!(scene.on(Event::Tick), ["locate 0"]);
    assert_eq!(scene.on(Event::Located(vec![(tp(0), Found::At(12))])), ["seek 0@12"]);
    let new = scene.lease(0);
    assert!(new.incarnation > old.incarnation && new.start == 12);
    assert!(scene.on(Event::Rewind(tp(0), old.incarnation)).is_empty(), "a late request of the old lease is void");
}

#[test]
fn a_rewind_during_a_revoke_gives_nothing_back_early() {
    let mut scene = Scene::running();
    let lease = scene.lease(0);
    scene.on(Event::Revoke(vec![tp(0)]));
    assert!(scene.on(Event::Rewind(tp(0), lease.incarnation)).is_empty());
    assert_eq!(scene.on(Event::Released(tp(0), lease.incarnation)), ["unassign 0"]);
}

#[test]
fn revoked_while_rewinding_needs_no_lane() {
    let mut scene = Scene::running();
    let lease = scene.lease(0);
    scene.on(Event::Rewind(tp(0), lease.incarnation));
    assert_eq!(scene.on(Event::Revoke(vec![tp(0)])), ["unassign 0"]);
    assert!(scene.on(Event::Located(vec![(tp(0), Found::At(1))])).is_empty(), "the late answer starts nothing");
    assert!(scene.assignment.running(&tp(0)).is_none());
}

#[test]
fn revoked_before_it_was_located_is_answered_by_the_unassign() {
    let mut scene = Scene::new();
    scene.on(Event::Assign(vec![tp(0)]));
    assert_eq!(scene.on(Event::Revoke(vec![tp(0)])), ["unassign "], "it was never given, and the answer is owed");
    assert!(scene.on(Event::Located(vec![(tp(0), Found::At(1))])).is_empty());
}

#[test]
fn what_a_partial_answer_leaves_out_is_asked_for_again_and_assigned() {
    let mut scene = Scene::new();
    scene.on(Event::Assign(vec![tp(0), tp(1)]));
    assert_eq!(scene.on(Event::Located(vec![(tp(0), Found::At(10))])), ["assign 0@10"], "the others go on");
    assert_eq!(scene.assignment.waiting(), 1);
    assert_eq!(scene.after(LOCATE_PAUSE), ["locate 1"]);
    assert!(scene.on(Event::LocateFailed).is_empty());
    assert!(scene.after(LOCATE_PAUSE).is_empty(), "later each time");
    assert_eq!(scene.after(LOCATE_PAUSE), ["locate 1"]);
    assert_eq!(scene.on(Event::Located(vec![(tp(1), Found::At(20))])), ["assign 1@20"], "nothing to move yet");
    assert_eq!((scene.lease(1).start, scene.assignment.waiting()), (20, 0));
    assert_eq!(scene.on(Event::Revoke(vec![tp(0), tp(1)])), ["release 0", "release 1"]);
}

#[test]
fn the_pause_between_questions_is_bounded() {
    assert_eq!((0..40).map(pause).max(), Some(LONGEST_LOCATE_PAUSE));
}

#[test]
fn a_revocation_gives_back_only_what_was_given() {
    let mut scene = Scene::running();
    scene.on(Event::Assign(vec![tp(2)]));
    let lease = scene.lease(0);
    assert_eq!(scene.on(Event::Revoke(vec![tp(0), tp(2)])), ["release 0"]);
    assert_eq!(scene.on(Event::Released(tp(0), lease.incarnation)), ["unassign 0"]);
}

#[test]
fn a_stalled_partition_is_asked_for_again_also_after_a_question_without_an_answer() {
    let mut scene = Scene::new();
    scene.on(Event::Assign(vec![tp(0)]));
    scene.on(Event::Located(vec![(tp(0), Found::Nothing)]));
    assert_eq!(scene.after(STALL_RECHECK), ["locate 0"]);
    assert!(scene.on(Event::LocateFailed).is_empty());
    assert_eq!(scene.after(STALL_RECHECK), ["locate 0"]);
}

#[test]
fn a_partition_that_cannot_be_moved_is_tried_slower_and_slower_and_not_for_ever() {
    let mut scene = Scene::running();
    scene.on(Event::Rewind(tp(0), scene.lease(0).incarnation));
    scene.on(Event::Tick);
    for refused in 1..MOST_REFUSED_SEEKS {
        assert_eq!(scene.on(Event::Located(vec![(tp(0), Found::At(12))])), ["seek 0@12"]);
        assert!(scene.on(Event::SeekFailed(tp(0), scene.lease(0).incarnation)).is_empty());
        assert!(scene.after(pause(refused) / 2).is_empty(), "not at once");
        assert_eq!(scene.after(pause(refused)), ["locate 0"]);
    }
    scene.on(Event::Located(vec![(tp(0), Found::At(12))]));
    assert_eq!(scene.on(Event::SeekFailed(tp(0), scene.lease(0).incarnation)), ["reexec SeekRefused"]);
}

#[test]
fn a_partition_that_ran_may_be_refused_anew() {
    let mut scene = Scene::running();
    for _ in 0..3 * MOST_REFUSED_SEEKS {
        scene.on(Event::Rewind(tp(0), scene.lease(0).incarnation));
        assert_eq!(scene.after(LONGEST_LOCATE_PAUSE), ["locate 0"]);
        scene.on(Event::Located(vec![(tp(0), Found::At(12))]));
        assert!(scene.on(Event::SeekFailed(tp(0), scene.lease(0).incarnation)).is_empty());
        scene.after(LONGEST_LOCATE_PAUSE);
        scene.on(Event::Located(vec![(tp(0), Found::At(12))]));
    }
}

#[test]
fn a_poisoned_partition_stands_still_and_can_be_revoked() {
    let mut scene = Scene::running();
    let lease = scene.lease(0);
    let effects = scene.on(Event::Stall(tp(0), lease.incarnation, StallReason::PoisonedRecord));
    assert_eq!(effects, ["stalled 0 PoisonedRecord"]);
    assert!(scene.assignment.running(&tp(0)).is_none());
    assert_eq!(scene.assignment.stalled().count(), 1);
    assert!(scene.after(STALL_RECHECK).is_empty(), "no offset heals it");
    assert_eq!(scene.on(Event::Revoke(vec![tp(0)])), ["release 0"]);
}

#[test]
fn a_rewind_of_a_poisoned_partition_does_the_good_records_again() {
    let mut scene = Scene::running();
    let lease = scene.lease(0);
    scene.on(Event::Stall(tp(0), lease.incarnation, StallReason::PoisonedRecord));
    assert!(scene.on(Event::Rewind(tp(0), lease.incarnation)).is_empty());
    assert_eq!(scene.on(Event::Tick), ["locate 0"]);
    assert_eq!(scene.on(Event::Located(vec![(tp(0), Found::At(11))])), ["seek 0@11"]);
}

#[test]
fn an_offset_out_of_range_is_not_guessed_away() {
    let mut scene = Scene::running();
    assert_eq!(scene.on(Event::OffsetLost(tp(0))), ["stalled 0 OffsetsLost"]);
    assert!(scene.after(STALL_RECHECK).is_empty(), "its committed offset is the lost one");
}
