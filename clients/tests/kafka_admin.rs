//! Admin calls against real, secured brokers.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod stack;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use sluice_clients::kafka::admin::{
    AclBinding, AclFilter, AclOperation, AclResource, Admin, AdminError, CommittedOffset, ConfigChange, ConfigSource,
    Deletion, GroupDeletion, GroupState, Isolation, NewTopic, OffsetSpec, PatternType, Principal, ScramChange,
    ScramOutcome, ScramUser, TopicCreation, TopicDescription, TopicPartition,
};

const DEADLINE: Duration = Duration::from_secs(60);

fn admin() -> Admin {
    Admin::new(&stack::kafka_as_admin(), DEADLINE).unwrap()
}

fn topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions, replication_factor: None, config: BTreeMap::new() }
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// Creates a topic and waits until the broker that is asked knows it.
async fn created(admin: &Admin, topic: NewTopic) -> TopicDescription {
    let name = topic.name.clone();
    let outcomes = admin.create_topics(&[topic], false).await.unwrap();
    assert_eq!(outcomes[&name], Ok(TopicCreation::Created));
    described(admin, &name).await
}

async fn described(admin: &Admin, name: &str) -> TopicDescription {
    stack::until("the topic is known with leaders", || async {
        let mut outcomes = admin.describe_topics(&names([name])).await.unwrap();
        let found = outcomes.remove(name).unwrap().unwrap()?;
        found.partitions.iter().all(|partition| partition.leader.is_some()).then_some(found)
    })
    .await
}

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
async fn a_generated_user_sees_its_own_topic_and_no_other() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let (own, foreign) = (stack::unique("own"), stack::unique("foreign"));
    created(&admin, topic(&own, 1)).await;
    created(&admin, topic(&foreign, 1)).await;
    // The longest kind of name we make: slashes and all.
    let user = format!("sluice/{}/shop/eventpipeline/orders/a", stack::unique("i"));
    let principal = Principal::user(&user);
    let upsert = |password: &str| ScramChange::Upsert {
        user: user.clone(),
        password: password.into(),
        iterations: 4096,
        salt: b"0123456789abcdef".to_vec(),
    };
    assert_eq!(admin.alter_scram_users(&[upsert("first")]).await.unwrap()[&user], Ok(ScramOutcome::Changed));
    let bindings = [
        AclBinding::allow(&principal, AclOperation::Read, AclResource::Topic, PatternType::Literal, &own),
        AclBinding::allow(&principal, AclOperation::Describe, AclResource::Topic, PatternType::Literal, &own),
        AclBinding::allow(
            &principal,
            AclOperation::Write,
            AclResource::TransactionalId,
            PatternType::Prefixed,
            format!("{user}/"),
        ),
        AclBinding::allow(&principal, AclOperation::Read, AclResource::Group, PatternType::Literal, &user),
    ];
    let outcomes = admin.create_acls(&bindings).await.unwrap();
    assert_eq!(outcomes, vec![Ok(()); 4]);
    let asked = names([&user, "nobody-of-this-name"]);
    let known = stack::until("the user is described", || async {
        let known = admin.describe_scram_users(Some(&asked)).await.unwrap();
        (known[&user] != Ok(None)).then_some(known)
    })
    .await;
    assert_eq!(known[&user], Ok(Some(ScramUser { iterations: 4096 })));
    assert_eq!(known["nobody-of-this-name"], Ok(None));
    stack::until("the user is listed", || async {
        admin.describe_scram_users(None).await.unwrap().contains_key(&user).then_some(())
    })
    .await;

    let as_user = Admin::new(&stack::kafka_as(&user, "first"), DEADLINE).unwrap();
    let both = names([&own, &foreign]);
    let seen = stack::until("the user logs in and sees its topic", || async {
        let seen = as_user.describe_topics(&both).await.ok()?;
        matches!(seen[&own], Ok(Some(_))).then_some(seen)
    })
    .await;
    let denied = seen[&foreign].as_ref().unwrap_err();
    assert_eq!(denied.category(), "Authorization", "{denied}");
    assert!(matches!(denied, AdminError::Authorization { code: RDKafkaErrorCode::TopicAuthorizationFailed, .. }));
    // Changes go to a broker where the user may not be known yet: then the call as a whole fails.
    let new = [topic(&stack::unique("refused"), 1)];
    let refused =
        stack::until("an answer to a creation", || async { as_user.create_topics(&new, false).await.ok() }).await;
    assert_eq!(refused.values().next().unwrap().as_ref().unwrap_err().category(), "Authorization");
    let refused = stack::until("an answer about rights", || async { as_user.create_acls(&bindings).await.ok() }).await;
    assert_eq!(refused[0].as_ref().unwrap_err().category(), "Authorization");

    // Sweep: find by prefix, delete exactly what was found, and once more for nothing.
    let found = stack::until("all bindings are listed", || async {
        let found = admin.acls_of_principals_with_prefix(&user).await.unwrap();
        (found.len() == 4).then_some(found)
    })
    .await;
    assert_eq!(found.iter().collect::<BTreeSet<_>>(), bindings.iter().collect::<BTreeSet<_>>());
    let of_one = AclFilter { principal: Some(principal), ..AclFilter::default() };
    let on_own =
        AclFilter { resource: Some((AclResource::Topic, PatternType::Literal, own.clone())), ..of_one.clone() };
    for (filter, count) in [(of_one, 4), (on_own, 2)] {
        stack::until("the filtered bindings are listed", || async {
            (admin.describe_acls(&filter).await.unwrap().len() == count).then_some(())
        })
        .await;
    }
    let twice: Vec<_> = found.iter().chain(&found).cloned().collect();
    assert_eq!(admin.delete_acls(&twice).await.unwrap(), vec![Ok(1); 8]);
    assert_eq!(admin.delete_acls(&found).await.unwrap(), vec![Ok(0); 4]);

    let delete = ScramChange::Delete { user: user.clone() };
    assert_eq!(admin.alter_scram_users(std::slice::from_ref(&delete)).await.unwrap()[&user], Ok(ScramOutcome::Changed));
    assert_eq!(admin.alter_scram_users(&[delete]).await.unwrap()[&user], Ok(ScramOutcome::NotFound));
    stack::until("the user cannot log in any more", || async {
        let fresh = Admin::new(&stack::kafka_as(&user, "first"), Duration::from_secs(3)).unwrap();
        // A broker that is slow to answer says nothing about the user.
        fresh.describe_topics(&both).await.err().filter(|error| error.category() == "Authentication")
    })
    .await;
    admin.delete_topics(&both).await.unwrap();
}

/// What a worker's ACLs give, and that they end exactly at its names: a prefixed transactional id ends in a slash, so that
/// `orders/` is not `orders-2/`.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_groups_and_transactional_ids_are_refused() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let (input, output, foreign) = (stack::unique("in"), stack::unique("out"), stack::unique("foreign"));
    for name in [&input, &output, &foreign] {
        created(&admin, topic(name, 1)).await;
    }
    let user = format!("sluice/{}/shop/eventpipeline/orders", stack::unique("i"));
    let (principal, group) = (Principal::user(&user), format!("{user}.group"));
    let upsert = ScramChange::Upsert {
        user: user.clone(),
        password: "pw".into(),
        iterations: 4096,
        salt: b"fedcba9876543210".to_vec(),
    };
    assert_eq!(admin.alter_scram_users(&[upsert]).await.unwrap()[&user], Ok(ScramOutcome::Changed));
    let allow =
        |operation, resource, pattern, name: &str| AclBinding::allow(&principal, operation, resource, pattern, name);
    let bindings = [
        allow(AclOperation::Read, AclResource::Topic, PatternType::Literal, &input),
        allow(AclOperation::Write, AclResource::Topic, PatternType::Literal, &output),
        allow(AclOperation::Read, AclResource::Group, PatternType::Literal, &group),
        allow(AclOperation::Write, AclResource::TransactionalId, PatternType::Prefixed, &format!("{user}/")),
    ];
    assert!(admin.create_acls(&bindings).await.unwrap().iter().all(Result::is_ok));

    let own = format!("{user}/pod-0/0");
    // The coordinator and the leader of the topic learn of the rights one after the other.
    stack::until("the worker's own transactional id is taken and its topic written", || async {
        let producer = transactional(&user, &own).ok()?;
        commit_one(&producer, &output).map_err(|error| eprintln!("not yet: {error}")).ok()
    })
    .await;
    for id in [format!("{user}-2/pod-0/0"), user.clone(), "somebody-else".to_owned()] {
        let code = transactional(&user, &id).err().and_then(|error| error.rdkafka_error_code());
        assert_eq!(code, Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed), "{id}");
    }
    for name in [&input, &foreign] {
        assert_eq!(delivery(&user, name), Some(RDKafkaErrorCode::TopicAuthorizationFailed), "writing to {name}");
    }
    assert_eq!(first_error(&user, &format!("{group}-2"), &input), RDKafkaErrorCode::GroupAuthorizationFailed);
    assert_eq!(first_error(&user, &group, &foreign), RDKafkaErrorCode::TopicAuthorizationFailed);
    assert_eq!(first_error(&user, &group, &output), RDKafkaErrorCode::TopicAuthorizationFailed);

    admin.delete_acls(&bindings).await.unwrap();
    admin.alter_scram_users(&[ScramChange::Delete { user }]).await.unwrap();
    admin.delete_topics(&[input, output, foreign]).await.unwrap();
}

fn transactional(user: &str, id: &str) -> rdkafka::error::KafkaResult<BaseProducer> {
    let mut config = stack::kafka_as(user, "pw");
    config.set("transactional.id", id);
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(DEADLINE).map(|()| producer)
}

/// Commits a transaction of one record.
fn commit_one(producer: &BaseProducer, topic: &str) -> rdkafka::error::KafkaResult<()> {
    producer.begin_transaction()?;
    producer.send(BaseRecord::<(), str>::to(topic).payload("x")).map_err(|(error, _)| error)?;
    producer.flush(DEADLINE)?;
    producer.commit_transaction(DEADLINE)
}

/// Why a record was not taken.
fn delivery(user: &str, topic: &str) -> Option<RDKafkaErrorCode> {
    #[derive(Default)]
    struct Outcome(std::sync::Mutex<Option<RDKafkaErrorCode>>);
    impl rdkafka::ClientContext for Outcome {}
    impl rdkafka::producer::ProducerContext for Outcome {
        type DeliveryOpaque = ();
        fn delivery(&self, result: &rdkafka::message::DeliveryResult<'_>, (): ()) {
            let code = result.as_ref().err().and_then(|(error, _)| error.rdkafka_error_code());
            *self.0.lock().unwrap() = code;
        }
    }
    let producer: BaseProducer<Outcome> = stack::kafka_as(user, "pw").create_with_context(Outcome::default()).unwrap();
    producer.send(BaseRecord::<(), str>::to(topic).payload("x")).unwrap();
    producer.flush(DEADLINE).unwrap();
    *producer.context().0.lock().unwrap()
}

/// The first thing a consumer is refused.
fn first_error(user: &str, group: &str, topic: &str) -> RDKafkaErrorCode {
    let mut config = stack::kafka_as(user, "pw");
    config.set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[topic]).unwrap();
    // Trouble with connections is none of it.
    let trouble =
        [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown, RDKafkaErrorCode::Authentication];
    let deadline = Instant::now() + Duration::from_secs(90);
    while Instant::now() < deadline {
        if let Some(Err(error)) = consumer.poll(Duration::from_millis(100)) {
            let code = error.rdkafka_error_code().unwrap();
            if !trouble.contains(&code) {
                return code;
            }
        }
    }
    panic!("{group} reads {topic} without an error");
}

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

#[tokio::test]
async fn refusals_are_told_apart() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let admin = admin();
    let name = stack::unique("refusals");
    let too_many = NewTopic { replication_factor: Some(99), ..topic(&name, 1) };
    let mut bad_setting = topic(&stack::unique("setting"), 1);
    bad_setting.config.insert("retention.ms".into(), "soon".into());
    let outcomes = admin.create_topics(&[too_many, bad_setting.clone()], false).await.unwrap();
    for outcome in outcomes.values() {
        let error = outcome.as_ref().unwrap_err();
        assert_eq!((error.category(), error.retryable()), ("Rejected", false), "{error}");
    }
    assert!(outcomes[&bad_setting.name].as_ref().unwrap_err().to_string().contains("retention.ms"), "{outcomes:?}");
    let missing = admin.describe_topic_configs(&names([&name])).await.unwrap();
    assert_eq!(missing[&name].as_ref().unwrap_err().category(), "NotFound");
    let zero = admin.create_topics(&[topic("a\0b", 1)], false).await.unwrap_err();
    assert_eq!(zero.category(), "InvalidArgument");
    let empty = admin.create_topics(&[topic("", 1)], false).await;
    assert!(empty.is_err() || empty.unwrap().values().all(Result::is_err));
    assert!(admin.create_topics(&[], false).await.unwrap().is_empty());

    // The time is waited out: a login may be refused because its user is not known yet.
    let liar = Admin::new(&stack::kafka_as("admin", "wrong"), Duration::from_secs(10)).unwrap();
    let error = liar.describe_topics(&names([&name])).await.unwrap_err();
    assert_eq!((error.category(), error.retryable()), ("Authentication", false), "{error}");
    assert!(!error.to_string().contains("wrong"), "no secret in {error}");
}

/// Needs no broker: nothing listens on the port.
#[tokio::test]
async fn nobody_there_ends_by_the_deadline() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", format!("127.0.0.1:{port}"));
    let admin = Admin::new(&config, Duration::from_millis(700)).unwrap();
    let start = Instant::now();
    let calls = futures::future::join_all((0..20).map(|_| async {
        let name = names(["anything"]);
        admin.describe_topics(&name).await
    }));
    for outcome in calls.await {
        let error = outcome.unwrap_err();
        assert_eq!((error.category(), error.retryable()), ("TimedOut", true), "{error}");
    }
    // The client's own time-outs are a minute: ten seconds more are the machine's.
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert!(admin.last_trouble().unwrap().contains(&port.to_string()));

    // A caller that gives up early leaves nothing behind, and closing does not wait for a call under way, which has a minute.
    let admin = Admin::new(&config, DEADLINE).unwrap();
    let short = tokio::time::timeout(Duration::from_millis(20), admin.describe_topics(&names(["x"]))).await;
    assert!(short.is_err());
    let start = Instant::now();
    drop(admin);
    assert!(start.elapsed() < Duration::from_secs(10), "closing took {:?}", start.elapsed());
}

/// Tasks of a multi-threaded runtime must be able to hold these futures.
#[test]
fn calls_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", "127.0.0.1:1");
    let admin = Admin::new(&config, DEADLINE).unwrap();
    sendable(admin.create_topics(&[], false));
    sendable(admin.alter_topic_configs(&BTreeMap::new()));
    sendable(admin.describe_acls(&AclFilter::default()));
    sendable(admin.alter_scram_users(&[]));
    sendable(admin.list_group_offsets("g", None, true));
    sendable(admin.list_offsets(&BTreeMap::new(), Isolation::Committed));
}
