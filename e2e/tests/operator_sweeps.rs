//! What the sweeps see between reconciles comes to the status: a record that a worker cannot process, offsets that are lost under
//! running workers. The workers are pods that do nothing; what they would commit, the test commits. And what nobody uses any more
//! goes from the servers.

mod operator;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use operator::servers::redis_nodes_with_user;
use operator::{CACHE, EVERYTHING, Operator, PATIENCE};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use sluice_clients::kafka::admin::{Admin, CommittedOffset, TopicPartition};
use sluice_crds::report::{PartitionReport, Stall};
use sluice_e2e::datapath::kafka::{TopicSpec, create_topics, delete_topics};
use sluice_e2e::datapath::now_ms;
use sluice_e2e::stack::{require, wait_for};

const PIPELINE: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  topics: [{name: NAME.in, partitions: 2}, {name: NAME.out, partitions: 1}]
  source: {topics: [{name: NAME.in}]}
  steps: [{name: some, filter: {keepWhen: "CONDITION"}}]
  routing: {routes: [{name: all, topic: NAME.out}]}
"#;

/// Kafka as the workers and as somebody who cleans up use it.
struct Hands<'a> {
    operator: &'a Operator<'a>,
    runtime: tokio::runtime::Runtime,
    admin: Admin,
}

impl<'a> Hands<'a> {
    fn new(operator: &'a Operator<'a>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let admin = Admin::new(&operator.kafka.client_config(), Duration::from_secs(20)).expect("an admin client");
        Self { operator, runtime, admin }
    }

    fn topic(&self) -> String {
        format!("{}.in", self.operator.name)
    }

    /// The group that the workers' configuration names for this part.
    fn group(&self, part: &str) -> String {
        let maps = self.operator.in_namespace(&["get", "configmap", "-o", "json"]);
        let maps: Value = serde_json::from_str(&maps).expect("a list");
        let texts = maps["items"].as_array().into_iter().flatten().filter_map(|map| map["data"].as_object());
        let configs = texts.flat_map(|data| data.values()).filter_map(|text| serde_json::from_str(text.as_str()?).ok());
        let mut groups = configs.filter_map(|config: Value| Some(config[part]["group"].as_str()?.to_owned()));
        groups.next().expect("a worker's configuration")
    }

    fn committed(&self, partition: i32) -> Option<i64> {
        let done = self.runtime.block_on(self.admin.list_group_offsets(&self.group("processor"), None, false)).ok()?;
        Some(done.committed.get(&TopicPartition::new(self.topic(), partition))?.offset)
    }

    /// Commits as a worker that stands still before a record.
    fn stand_still(&self, partition: i32, offset: i64) {
        let report = PartitionReport { stall: Some(Stall::PoisonedRecord), ..PartitionReport::default() };
        self.commit("processor", &TopicPartition::new(self.topic(), partition), (offset, report));
    }

    /// Commits an offset with what a worker says now.
    fn commit(&self, part: &str, partition: &TopicPartition, (offset, report): (i64, PartitionReport)) {
        let report = PartitionReport { at: u64::try_from(now_ms()).expect("after 1970"), ..report };
        let offset = CommittedOffset { offset, metadata: report.encode() };
        let offsets = BTreeMap::from([(partition.clone(), offset)]);
        let done =
            self.runtime.block_on(self.admin.alter_group_offsets(&self.group(part), &offsets)).expect("committed");
        assert!(done.values().all(Result::is_ok), "{done:?}");
    }

    /// Whether Kafka has a credential and ACLs of the resource's user, and how many Redis nodes know its user there.
    fn users(&self) -> (bool, bool, usize) {
        let user = format!("sluice/{0}/{0}/eventpipeline/orders", self.operator.name);
        let (credentials, acls) = self.runtime.block_on(async {
            let credentials = self.admin.describe_scram_users(None).await.expect("credentials");
            (credentials, self.admin.acls_of_principals_with_prefix(&user).await.expect("ACLs"))
        });
        let has_credential = credentials.keys().any(|name| name.starts_with(&user));
        (has_credential, !acls.is_empty(), redis_nodes_with_user(self.operator, "eventpipeline", "orders"))
    }

    /// Secrets that the workers mount, by what they begin with where their name ends in a hash.
    fn secrets(&self) -> Vec<String> {
        let deployment = self.operator.get("deployment", "evp-orders").expect("a deployment");
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes").iter();
        let names = volumes.filter_map(|volume| volume["secret"]["secretName"].as_str());
        let names: BTreeSet<&str> = names.map(|name| name.rsplit_once('-').map_or(name, |(name, _)| name)).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    fn clean_up(&self, topics: &[&str]) {
        let names: Vec<String> = topics.iter().map(|topic| format!("{}.{topic}", self.operator.name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        delete_topics(self.operator.kafka, &names).expect("deleted");
    }

    /// Writes records to a partition and removes the first of them, as retention does.
    fn expire(&self, partition: i32, written: usize, removed: i64) {
        let topic = self.topic();
        let producer: BaseProducer = self.operator.kafka.client_config().create().expect("a producer");
        for _ in 0..written {
            let record: BaseRecord<'_, str, str> = BaseRecord::to(&topic).partition(partition).key("k").payload("{}");
            producer.send(record).map_err(|(error, _)| error).expect("queued");
        }
        producer.flush(PATIENCE).expect("written");
        let client: AdminClient<DefaultClientContext> = self.operator.kafka.client_config().create().expect("a client");
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(&topic, partition, Offset::Offset(removed)).expect("added");
        let done = self.runtime.block_on(client.delete_records(&before, &AdminOptions::new())).expect("removed");
        assert!(done.elements().iter().all(|one| one.error().is_ok()), "{done:?}");
    }
}

fn condition<'v>(object: &'v Value, condition: &str, field: &str) -> &'v str {
    let mut conditions = object["status"]["conditions"].as_array().expect("conditions").iter();
    let found = conditions.find(|found| found["type"] == condition).expect("the condition");
    found[field].as_str().unwrap_or_default()
}

fn message<'v>(object: &'v Value, name: &str) -> &'v str {
    condition(object, name, "message")
}

fn reason<'v>(object: &'v Value, name: &str) -> &'v str {
    condition(object, name, "reason")
}

#[test]
fn a_record_that_stops_a_partition_and_offsets_that_are_lost_are_told_without_being_asked() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let operator = Operator::start(&stack, "sweeps");
    let hands = Hands::new(&operator);
    operator.apply(&PIPELINE.replace("CONDITION", "true"));
    operator.wait_condition("evp", "orders", "Reconciling", ("True", "WorkersStarting"));

    // What workers say while they are rolled out may be about an earlier spec; they say it again and again.
    let stalled = wait_for(PATIENCE, || {
        hands.stand_still(1, 0);
        operator.get("evp", "orders").filter(|orders| reason(orders, "Stalled") == "RecordStalled")
    });
    let stalled =
        stalled.unwrap_or_else(|| panic!("it should be told: {:?}\n{}", operator.get("evp", "orders"), operator.log()));
    let said = message(&stalled, "Stalled");
    assert!(said.contains(&format!("offset 0 of {} partition 1", hands.topic())), "{said}");
    assert_eq!(message(&stalled, "Ready"), said);
    // Workers with other steps may get past it: they say so if not.
    operator.apply(&PIPELINE.replace("CONDITION", "value.a == 1"));
    let goes_on = wait_for(PATIENCE, || {
        let orders = operator.get("evp", "orders")?;
        (condition(&orders, "Stalled", "status") == "False").then_some(())
    });
    goes_on.unwrap_or_else(|| panic!("it should go on: {:?}", operator.get("evp", "orders")));

    hands.expire(0, 5, 3);
    let lost = operator.wait_condition("evp", "orders", "Stalled", ("True", "OffsetsLost"));
    let said = message(&lost, "Stalled");
    assert!(said.contains(&format!("{} partition 0", hands.topic())), "{said}");
    operator.in_namespace(&["annotate", "evp", "orders", "sluice.dev/reset-offsets=Earliest"]);
    wait_for(PATIENCE, || (hands.committed(0)? == 3).then_some(()))
        .expect("the offset should be the first one there is");
    operator.wait_condition("evp", "orders", "TopicsReady", ("True", "Reconciled"));

    hands.clean_up(&["in", "out"]);
}

/// The same pipeline with a lookup, so that it has users on both servers, and no worker that would have to be replaced first.
const STOPPED: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: EventPipeline
metadata: {name: orders}
spec:
  state: Stopped
  topics: [{name: NAME.in, partitions: 1}, {name: NAME.out, partitions: 1}]
  source: {topics: [{name: NAME.in}]}
  steps: [{name: price, lookup: {key: "'NAME:price:' + key", type: Json}}]
  routing: {routes: [{name: all, topic: NAME.out}]}
"#;

#[test]
fn users_that_nobody_logs_in_with_any_more_go_when_a_spec_names_its_own() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let operator = Operator::start(&stack, "provided");
    let hands = Hands::new(&operator);
    operator.apply(STOPPED);
    operator.wait_condition("evp", "orders", "Ready", ("True", "Stopped"));
    let nodes = operator.redis.addresses().len();
    // A server that was just told may be asked before it knows.
    let made = wait_for(PATIENCE, || (hands.users() == (true, true, nodes)).then_some(()));
    assert!(made.is_some(), "credential, ACLs and Redis nodes: {:?}\n{}", hands.users(), operator.log());
    assert_eq!(hands.secrets(), ["evp-orders"], "both servers' credentials are in one Secret of ours");

    operator.in_namespace(&["create", "secret", "generic", "mine", "--from-literal=username=u"]);
    let access = r#"{"access": {"mode": "Provided", "secretRef": {"name": "mine"}}}"#;
    let patch = format!(r#"{{"spec": {{"kafka": {access}, "redis": {access}}}}}"#);
    operator.in_namespace(&["patch", "evp", "orders", "--type=merge", "-p", &patch]);
    let gone = wait_for(PATIENCE, || (hands.users() == (false, false, 0)).then_some(()));
    assert!(gone.is_some(), "credential, ACLs and Redis nodes: {:?}\n{}", hands.users(), operator.log());
    assert_eq!(hands.secrets(), ["mine"]);
    operator.wait_condition("evp", "orders", "Ready", ("True", "Stopped"));
    hands.clean_up(&["in", "out"]);
}

#[test]
fn views_whose_deletions_may_have_been_missed_are_cleared_and_begun_anew_once() {
    let Some(stack) = require(&EVERYTHING) else { return };
    let operator = Operator::start(&stack, "missed");
    let hands = Hands::new(&operator);
    let topic = format!("{}.state", operator.name);
    let spec = TopicSpec { name: &topic, partitions: 1, config: &[("cleanup.policy", "compact")] };
    create_topics(operator.kafka, &[spec]).expect("a topic");
    operator.apply(CACHE);
    let cache = operator.wait_condition("csync", "cache", "Ready", ("True", "Stopped"));
    let epoch = |object: &Value| object["status"]["epoch"].as_u64().unwrap_or(0);
    let before = epoch(&cache);

    // As a worker leaves it: a key, a record under the epoch, and its last word on the partition.
    let key = format!("{}:v:1", operator.name);
    let redis = |words: &[&str]| operator.redis.cli(1, words).expect("redis");
    redis(&["-c", "SET", &key, "{}"]);
    let record = operator.leave_record(&cache, 0, before);
    let missed = PartitionReport { epoch: Some(before), deletions_missed: true, ..PartitionReport::default() };
    hands.commit("applier", &TopicPartition::new(&topic, 0), (7, missed));

    let rebuilt = wait_for(PATIENCE, || operator.get("csync", "cache").filter(|cache| epoch(cache) > before));
    let rebuilt = rebuilt.unwrap_or_else(|| panic!("the epoch is still {before}\n{}", operator.log()));
    for key in [&key, &record] {
        assert_eq!(redis(&["-c", "EXISTS", key]).trim(), "0", "{key}");
    }
    let said = operator.in_namespace(&["get", "events.events.k8s.io", "-o", "jsonpath={.items[*].note}"]);
    assert!(
        said.contains(&format!("{topic} partition 0")) && said.contains("deletions may have been missed"),
        "{said}"
    );
    let rested = operator.wait_condition("csync", "cache", "Ready", ("True", "Stopped"));
    assert_eq!(epoch(&rested), epoch(&rebuilt), "what was said of the old epoch is over");
    hands.clean_up(&["state"]);
}
