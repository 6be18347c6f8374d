//! Topics, their settings, and where their partitions begin and end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sluice_clients::kafka::admin::{
    AdminError, ConfigChange, ConfigSource, Deletion, Isolation, OffsetSpec, TopicCreation, TopicPartition,
};

use super::{DEADLINE, admin, created, described, names, stack, topic};

#[tokio::test]
async fn topics_are_created_grown_configured_and_deleted() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let name = stack::unique("topics");
    let mut wanted = topic(&name, 2);
    wanted.config.insert("cleanup.policy".into(), "compact".into());

    let checked = admin.create_topics(std::slice::from_ref(&wanted), true).await.unwrap();
    assert_eq!(checked[&name], Ok(TopicCreation::Created));
    assert_eq!(admin.describe_topics(&names([&name])).await.unwrap()[&name], Ok(None), "validated only");

    let first = created(&admin, wanted.clone()).await;
    assert_eq!(first.partitions.len(), 2);
    assert!(!first.internal);
    assert!(first.partitions.iter().all(|partition| !partition.replicas.is_empty() && !partition.in_sync.is_empty()));
    assert_eq!(first.id.as_str().len(), 22, "16 bytes in base64url without padding: {}", first.id);

    let again = admin.create_topics(&[wanted.clone()], false).await.unwrap();
    assert_eq!(again[&name], Ok(TopicCreation::AlreadyExists));

    let grown = admin.create_partitions(&BTreeMap::from([(name.clone(), 5)])).await.unwrap();
    assert_eq!(grown[&name], Ok(()));
    let partitions = stack::until("five partitions", || async {
        let found = described(&admin, &name).await;
        (found.partitions.len() == 5).then_some(found.partitions)
    })
    .await;
    assert_eq!(partitions.iter().map(|partition| partition.partition).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let shrunk = admin.create_partitions(&BTreeMap::from([(name.clone(), 3)])).await.unwrap();
    assert_eq!(shrunk[&name].as_ref().unwrap_err().category(), "Rejected");

    let changes = BTreeMap::from([
        ("retention.ms".to_owned(), ConfigChange::Set("12345".to_owned())),
        ("cleanup.policy".to_owned(), ConfigChange::Unset),
    ]);
    let altered = admin.alter_topic_configs(&BTreeMap::from([(name.clone(), changes)])).await.unwrap();
    assert_eq!(altered[&name], Ok(()));
    stack::until("the changed settings", || async {
        let described = admin.describe_topic_configs(&names([&name])).await.unwrap().remove(&name).unwrap();
        // The broker that is asked now may know less than the one before.
        let config = match described {
            Err(AdminError::NotFound(_)) => return None,
            config => config.unwrap(),
        };
        let (retention, cleanup) = (&config["retention.ms"], &config["cleanup.policy"]);
        (retention.value.as_deref() == Some("12345")
            && retention.source == ConfigSource::Topic
            && cleanup.value.as_deref() == Some("delete")
            && cleanup.source != ConfigSource::Topic)
            .then_some(())
    })
    .await;

    let gone = admin.delete_topics(&names([&name, "never-was-there"])).await.unwrap();
    assert_eq!(gone[&name], Ok(Deletion::Deleted));
    assert_eq!(gone["never-was-there"], Ok(Deletion::NotFound));
    stack::until("the topic is gone", || async {
        let found = admin.describe_topics(&names([&name])).await.unwrap().remove(&name).unwrap();
        matches!(found, Ok(None)).then_some(())
    })
    .await;

    assert_eq!(admin.create_topics(&[wanted], false).await.unwrap()[&name], Ok(TopicCreation::Created));
    stack::until("another incarnation has another id", || async {
        (described(&admin, &name).await.id != first.id).then_some(())
    })
    .await;
    admin.delete_topics(&names([&name])).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_partition_depends_on_the_isolation() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let name = stack::unique("isolation");
    created(&admin, topic(&name, 1)).await;
    let mut config = stack::kafka_as_admin();
    config.set("transactional.id", stack::unique("tx"));
    let producer: BaseProducer = config.create().unwrap();
    let timeout = DEADLINE;
    producer.init_transactions(timeout).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..3 {
        producer.send(BaseRecord::<(), str>::to(&name).payload("x")).unwrap();
    }
    producer.flush(timeout).unwrap();

    let partition = TopicPartition::new(&name, 0);
    let at = async |spec, isolation| {
        let asked = BTreeMap::from([(partition.clone(), spec)]);
        admin.list_offsets(&asked, isolation).await.unwrap().remove(&partition).unwrap().unwrap()
    };
    assert_eq!(at(OffsetSpec::Latest, Isolation::Uncommitted).await, 3);
    assert_eq!(at(OffsetSpec::Latest, Isolation::Committed).await, 0, "the transaction is open");
    assert_eq!(at(OffsetSpec::Earliest, Isolation::Committed).await, 0);
    producer.commit_transaction(timeout).unwrap();
    // The coordinator answers before it has written the marker.
    stack::until("three records and the commit marker are stable", || async {
        (at(OffsetSpec::Latest, Isolation::Committed).await == 4).then_some(())
    })
    .await;
    assert_eq!(at(OffsetSpec::Timestamp(0), Isolation::Committed).await, 0);

    // Partitions that are not there fail alone; only when none is there the call fails as a whole.
    let nowhere = [TopicPartition::new(&name, 9), TopicPartition::new("never-was-there", 0)];
    let mut asked: BTreeMap<_, _> = nowhere.iter().map(|nowhere| (nowhere.clone(), OffsetSpec::Latest)).collect();
    let error = admin.list_offsets(&asked, Isolation::Committed).await.unwrap_err();
    assert_eq!(error.category(), "Transient", "{error}");
    asked.insert(partition.clone(), OffsetSpec::Latest);
    let outcomes = admin.list_offsets(&asked, Isolation::Committed).await.unwrap();
    assert_eq!(outcomes[&partition], Ok(4));
    for nowhere in &nowhere {
        assert_eq!(outcomes[nowhere].as_ref().unwrap_err().category(), "NotFound");
    }
    admin.delete_topics(&[name]).await.unwrap();
}

/// The client remembers that a topic was not there; it must not do so for minutes.
#[tokio::test]
async fn a_topic_that_was_asked_for_too_early_can_be_read_soon_after() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let name = stack::unique("early");
    let asked = BTreeMap::from([(TopicPartition::new(&name, 0), OffsetSpec::Latest)]);
    assert!(admin.list_offsets(&asked, Isolation::Committed).await.is_err());
    assert_eq!(admin.describe_topics(&names([&name])).await.unwrap()[&name], Ok(None));
    let start = Instant::now();
    created(&admin, topic(&name, 1)).await;
    stack::until("the topic's offsets are read", || async {
        let outcomes = admin.list_offsets(&asked, Isolation::Committed).await.ok()?;
        outcomes.values().all(Result::is_ok).then_some(())
    })
    .await;
    assert!(start.elapsed() < Duration::from_secs(60), "took {:?}", start.elapsed());
    admin.delete_topics(&[name]).await.unwrap();
}
