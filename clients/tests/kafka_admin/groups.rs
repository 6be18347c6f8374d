//! Groups and their offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use sluice_clients::kafka::admin::{AdminError, CommittedOffset, GroupDeletion, GroupState, TopicPartition};

use super::{admin, created, stack, topic};

#[tokio::test]
async fn committed_offsets_carry_their_metadata() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let (name, group) = (stack::unique("offsets"), stack::unique("group"));
    created(&admin, topic(&name, 3)).await;
    // A coordinator may still be loading: as for any client, that passes.
    let unknown = stack::until("the group's coordinator answers", || async {
        let mut groups = admin.describe_groups(std::slice::from_ref(&group)).await.unwrap();
        match groups.remove(&group).unwrap() {
            Err(error) if error.retryable() => None,
            answer => Some(answer.unwrap().state),
        }
    })
    .await;
    assert_eq!(unknown, GroupState::Dead);
    assert_eq!(admin.list_group_offsets(&group, None, true).await.unwrap().committed, BTreeMap::new());

    let commit = |offset, metadata: &str| CommittedOffset { offset, metadata: metadata.to_owned() };
    let offsets = BTreeMap::from([
        (TopicPartition::new(&name, 0), commit(7, "v1;records=3;busy=…")),
        (TopicPartition::new(&name, 2), commit(0, "")),
    ]);
    // The coordinator may be the last broker to learn of the topic.
    let outcomes = stack::until("the coordinator knows the topic", || async {
        let outcomes = admin.alter_group_offsets(&group, &offsets).await.unwrap();
        let unknown = outcomes.values().any(|outcome| matches!(outcome, Err(AdminError::NotFound(_))));
        (!unknown).then_some(outcomes)
    })
    .await;
    assert!(outcomes.len() == 2 && outcomes.values().all(Result::is_ok), "{outcomes:?}");
    let read = admin.list_group_offsets(&group, None, true).await.unwrap();
    assert_eq!(read.committed, offsets);
    assert!(read.failed.is_empty());
    let asked = BTreeSet::from([TopicPartition::new(&name, 0), TopicPartition::new(&name, 1)]);
    let read = admin.list_group_offsets(&group, Some(&asked), false).await.unwrap();
    assert_eq!(read.committed.into_keys().collect::<Vec<_>>(), [TopicPartition::new(&name, 0)], "1 has no commit");
    let empty = admin.describe_groups(std::slice::from_ref(&group)).await.unwrap()[&group].clone().unwrap();
    assert_eq!((empty.state, empty.members.len()), (GroupState::Empty, 0));

    // With a member the group is described with its assignment, and neither its offsets nor itself can be touched.
    let mut config = stack::kafka_as_admin();
    config.set("group.id", &group).set("session.timeout.ms", "45000").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&name]).unwrap();
    let assigned = stack::until("the consumer has all partitions", || async {
        let _ = consumer.poll(Duration::from_millis(50));
        let found = admin.describe_groups(std::slice::from_ref(&group)).await.unwrap()[&group].clone().unwrap();
        (found.state == GroupState::Stable && found.members[0].assignment.len() == 3).then_some(found)
    })
    .await;
    assert_eq!(assigned.members.len(), 1);
    assert!(assigned.members[0].assignment.contains(&TopicPartition::new(&name, 1)));
    assert_eq!(admin.delete_groups(std::slice::from_ref(&group)).await.unwrap()[&group], Ok(GroupDeletion::NotEmpty));
    let refused = admin.alter_group_offsets(&group, &offsets).await;
    let refused = match &refused {
        Ok(outcomes) => outcomes.values().find_map(|outcome| outcome.as_ref().err()).expect("should be refused"),
        Err(error) => error,
    };
    assert_eq!(refused.category(), "Rejected", "{refused}");

    drop(consumer);
    stack::until("the group is deleted", || async {
        let outcome = admin.delete_groups(std::slice::from_ref(&group)).await.unwrap().remove(&group).unwrap();
        (outcome == Ok(GroupDeletion::Deleted)).then_some(())
    })
    .await;
    assert_eq!(admin.delete_groups(std::slice::from_ref(&group)).await.unwrap()[&group], Ok(GroupDeletion::NotFound));
    admin.delete_topics(&[name]).await.unwrap();
}

#[tokio::test]
async fn requests_are_counted() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let (admin, group) = (admin(), stack::unique("counted"));
    assert!(!admin.requests().contains_key("OffsetFetch"), "nothing was asked yet");
    stack::until("the group's coordinator answers", || async {
        admin.list_group_offsets(&group, None, false).await.ok()
    })
    .await;
    let counted = || async { admin.requests().get("OffsetFetch").copied().filter(|sent| *sent > 0) };
    stack::until("the client says what it has sent", counted).await;
}
