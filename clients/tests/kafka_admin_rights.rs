//! The rights that the operator's own Kafka principal needs, and that it needs no more: it need not be a super user.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod stack;

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_clients::kafka::admin::{
    AclBinding, AclFilter, AclOperation, AclResource, Admin, AdminError, CommittedOffset, ConfigChange, Isolation,
    NewTopic, OffsetSpec, PatternType, Principal, ScramChange, TopicPartition,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// On the cluster: users and ACLs. On topics and groups, here of one prefix: everything the calls below need. Kafka lets
/// whoever may alter, read or delete describe as well, and whoever may alter settings read them.
const RIGHTS: [(AclResource, &[AclOperation]); 3] = [
    (AclResource::Cluster, &[AclOperation::Alter]),
    (
        AclResource::Topic,
        &[
            AclOperation::Create,
            AclOperation::Delete,
            AclOperation::Alter,
            AclOperation::AlterConfigs,
            AclOperation::Read,
        ],
    ),
    (AclResource::Group, &[AclOperation::Read, AclOperation::Delete]),
];

/// Everything the operator asks Kafka for, once.
async fn everything(admin: &Admin, prefix: &str) -> Result<(), AdminError> {
    let (topic, group, user) = (format!("{prefix}topic"), format!("{prefix}group"), format!("{prefix}user"));
    let names = [topic.clone()];
    let new = NewTopic { name: topic.clone(), partitions: 1, replication_factor: None, config: BTreeMap::new() };
    all(admin.create_topics(&[new], false).await?)?;
    stack::until("the topic has a leader", || async {
        let found = all(admin.describe_topics(&names).await.ok()?).ok()?;
        found.iter().all(|topic| topic.as_ref().is_some_and(|topic| topic.partitions[0].leader.is_some())).then_some(())
    })
    .await;
    all(admin.create_partitions(&[(topic.clone(), 2)].into()).await?)?;
    all(admin.describe_topic_configs(&names).await?)?;
    let change = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Set("1000000".to_owned()))]);
    all(admin.alter_topic_configs(&[(topic.clone(), change)].into()).await?)?;
    let partition = TopicPartition::new(&topic, 0);
    let commit = CommittedOffset { offset: 0, metadata: "start".to_owned() };
    all(admin.alter_group_offsets(&group, &[(partition.clone(), commit)].into()).await?)?;
    let offsets = admin.list_group_offsets(&group, None, true).await?;
    assert_eq!(offsets.committed.len(), 1, "{offsets:?}");
    let latest = [(partition, OffsetSpec::Latest)].into();
    stack::until("the leader answers, or refuses", || async {
        match admin.list_offsets(&latest, Isolation::Committed).await.and_then(all) {
            Err(error) if error.retryable() => None,
            answer => Some(answer),
        }
    })
    .await?;
    let groups = [group];
    all(admin.describe_groups(&groups).await?)?;

    let principal = Principal::user(&user);
    let binding = AclBinding::allow(&principal, AclOperation::Read, AclResource::Topic, PatternType::Literal, &topic);
    let binding = [binding];
    admin.create_acls(&binding).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    admin.describe_acls(&AclFilter::default()).await?;
    admin.delete_acls(&binding).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let upsert = ScramChange::Upsert { user: user.clone(), password: "pw".into(), iterations: 4096, salt: vec![1; 16] };
    all(admin.alter_scram_users(&[upsert]).await?)?;
    all(admin.describe_scram_users(None).await?)?;
    all(admin.alter_scram_users(&[ScramChange::Delete { user }]).await?)?;
    all(admin.delete_groups(&groups).await?)?;
    all(admin.delete_topics(&names).await?).map(drop)
}

/// Removes what an unfinished pass left behind.
async fn forget(root: &Admin, prefix: &str) {
    let _ = root.delete_topics(&[format!("{prefix}topic")]).await;
    let _ = root.delete_groups(&[format!("{prefix}group")]).await;
}

fn all<K, T>(outcomes: BTreeMap<K, Result<T, AdminError>>) -> Result<Vec<T>, AdminError> {
    outcomes.into_values().collect()
}

#[tokio::test]
async fn the_operator_needs_these_rights_and_no_others() {
    if stack::missing("KAFKA_BROKERS") {
        return;
    }
    let root = Admin::new(&stack::kafka_as_admin(), DEADLINE).unwrap();
    let (user, prefix) = (stack::unique("operator"), stack::unique("rights-"));
    let upsert = ScramChange::Upsert { user: user.clone(), password: "pw".into(), iterations: 4096, salt: vec![2; 16] };
    all(root.alter_scram_users(&[upsert]).await.unwrap()).unwrap();
    let principal = Principal::user(&user);
    let bindings: Vec<_> = RIGHTS
        .iter()
        .flat_map(|(resource, operations)| operations.iter().map(|operation| (*resource, *operation)))
        .map(|(resource, operation)| match resource {
            AclResource::Cluster => {
                AclBinding::allow(&principal, operation, resource, PatternType::Literal, "kafka-cluster")
            }
            _ => AclBinding::allow(&principal, operation, resource, PatternType::Prefixed, &prefix),
        })
        .collect();
    assert!(root.create_acls(&bindings).await.unwrap().iter().all(Result::is_ok));
    let operator = Admin::new(&stack::kafka_as(&user, "pw"), DEADLINE).unwrap();
    // A pass that was refused half way leaves its topic behind, and the next one would find it grown: each has its own names.
    let pass = std::sync::atomic::AtomicU32::new(0);
    let next = || format!("{prefix}{}-", pass.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    stack::until("brokers know the user and its rights", || async {
        let prefix = next();
        let done = everything(&operator, &prefix).await.map_err(|error| eprintln!("not yet: {error}"));
        forget(&root, &prefix).await;
        done.ok()
    })
    .await;
    // Outside its prefix it can do nothing.
    let outside = everything(&operator, "rights-of-nobody-").await.unwrap_err();
    assert_eq!(outside.category(), "Authorization", "{outside}");

    for missing in &bindings {
        let one = std::slice::from_ref(missing);
        assert_eq!(root.delete_acls(one).await.unwrap(), [Ok(1)]);
        let error = stack::until("the right is missed", || async {
            let prefix = next();
            let error = everything(&operator, &prefix).await.err();
            forget(&root, &prefix).await;
            error.filter(|error| ["Authorization", "NotFound"].contains(&error.category()))
        })
        .await;
        eprintln!("without {:?} on {:?}: {error}", missing.operation, missing.resource);
        assert!(root.create_acls(one).await.unwrap()[0].is_ok());
    }
    root.delete_acls(&bindings).await.unwrap();
    root.alter_scram_users(&[ScramChange::Delete { user }]).await.unwrap();
}
