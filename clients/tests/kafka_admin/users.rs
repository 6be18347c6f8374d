//! Users and what they may do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use sluice_clients::kafka::admin::{
    AclBinding, AclFilter, AclOperation, AclResource, Admin, AdminError, PatternType, Principal, ScramChange,
    ScramOutcome, ScramUser,
};

use super::{DEADLINE, admin, created, names, stack, topic};

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
