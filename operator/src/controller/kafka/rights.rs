//! What a resource's workers may do, derived from its spec and nothing else. Pure.

use std::collections::BTreeSet;

use sluice_clients::kafka::admin::{AclBinding, AclOperation, AclResource, PatternType, Principal};
use sluice_clients::redis::admin::KeyPrefix as RedisPrefix;
use sluice_crds::names::{ResourceUid, Slot, WatermarkKeys};
use sluice_crds::worker_config::{Action, WorkerConfig};

use crate::controller::validated::ValidatedResource;

/// The principal of a resource's user in a slot.
pub fn principal(resource: &ValidatedResource, slot: Slot) -> Principal {
    Principal::user(resource.id.scram_user(slot).to_string())
}

/// The bindings its workers need.
pub fn acls(resource: &ValidatedResource, slot: Slot) -> BTreeSet<AclBinding> {
    let principal = principal(resource, slot);
    let mut acls = BTreeSet::new();
    let mut allow = |resource, pattern, name: &str, operations: [AclOperation; 2]| {
        for operation in operations {
            acls.insert(AclBinding::allow(&principal, operation, resource, pattern, name));
        }
    };
    let reading = [AclOperation::Read, AclOperation::Describe];
    let writing = [AclOperation::Write, AclOperation::Describe];
    for topic in resource.consumed_topics() {
        allow(AclResource::Topic, PatternType::Literal, topic.as_str(), reading);
    }
    for topic in resource.output_topics() {
        allow(AclResource::Topic, PatternType::Literal, topic.as_str(), writing);
    }
    for group in resource.groups() {
        allow(AclResource::Group, PatternType::Literal, group.as_str(), reading);
    }
    if resource.processor.is_some() {
        let prefix = resource.id.transactional_id_prefix();
        allow(AclResource::TransactionalId, PatternType::Prefixed, prefix.as_str(), writing);
    }
    acls
}

/// Key prefixes that workers may read, and read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisRights {
    /// Lookups.
    pub read: BTreeSet<RedisPrefix>,
    /// Views and watermark records.
    pub write: BTreeSet<RedisPrefix>,
}

impl RedisRights {
    /// What a resource's workers need.
    pub fn of(resource: &ValidatedResource) -> Self {
        let read = resource.read_prefixes();
        let write = resource.written_prefixes();
        let mut rights = Self {
            read: read.iter().filter_map(|prefix| RedisPrefix::new(prefix.as_str()).ok()).collect(),
            write: write.iter().filter_map(|prefix| RedisPrefix::new(prefix.as_str()).ok()).collect(),
        };
        if !rights.write.is_empty() {
            rights.write.extend(watermarks(resource));
        }
        rights
    }

    /// What workers with another, older configuration of this resource need, as far as its namespace may have it today.
    /// Whoever may create a `ConfigMap` there can make one that looks like an older configuration: what it names is a
    /// wish, and never more than the policy allows.
    pub fn add_config(&mut self, resource: &ValidatedResource, config: &WorkerConfig) {
        let policy = resource.redis.as_ref().and_then(|redis| redis.policy(&resource.id));
        let Some(policy) = policy.filter(|_| config.identity.uid == resource.uid.as_str()) else { return };
        let steps = config.processor.iter().flat_map(|processor| &processor.steps);
        self.read.extend(steps.filter_map(|step| match &step.action {
            Action::Lookup { key_prefix, .. } if policy.may_read(key_prefix) => {
                RedisPrefix::new(key_prefix.as_str()).ok()
            }
            _ => None,
        }));
        let views = config.applier.iter().flat_map(|applier| &applier.topics).flat_map(|topic| &topic.views);
        let allowed = views.filter(|view| policy.may_write(&view.key_prefix));
        self.write.extend(allowed.filter_map(|view| RedisPrefix::new(view.key_prefix.as_str()).ok()));
        if !self.write.is_empty() {
            self.write.extend(watermarks(resource));
        }
    }
}

/// What the keys of a resource's watermark records begin with.
pub fn watermark_prefix(resource: &ValidatedResource) -> String {
    watermark_prefix_of(&resource.id.instance, &resource.uid)
}

/// The same without a valid spec.
pub fn watermark_prefix_of(instance: &sluice_crds::names::InstanceId, uid: &ResourceUid) -> String {
    WatermarkKeys::new(instance, uid).prefix().to_owned()
}

fn watermarks(resource: &ValidatedResource) -> Option<RedisPrefix> {
    RedisPrefix::new(watermark_prefix(resource)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::test_support::{PIPELINE, built, pipeline};

    fn config(yaml: &str) -> WorkerConfig {
        built(&pipeline(yaml).unwrap()).config
    }

    fn texts(prefixes: &BTreeSet<RedisPrefix>) -> Vec<&str> {
        prefixes.iter().map(RedisPrefix::as_str).filter(|prefix| !prefix.starts_with("sluice/")).collect()
    }

    #[test]
    fn an_older_configuration_keeps_its_rights_and_a_forged_one_gets_none() {
        let resource = pipeline(PIPELINE).unwrap();
        let older = config(&PIPELINE.replace("order:{", "order:old:{").replace("'price:'", "'stock:'"));
        let mut rights = RedisRights::of(&resource);
        rights.add_config(&resource, &older);
        assert_eq!(
            (texts(&rights.read), texts(&rights.write)),
            (vec!["price:", "stock:"], vec!["order:old:{", "order:{"])
        );

        let text = serde_json::to_string(&older).unwrap();
        let forged = text.replace("\"order:old:{\"", "\"victim:\"").replace("\"stock:\"", "\"secret:\"");
        assert_ne!(text, forged);
        let mut rights = RedisRights::of(&resource);
        rights.add_config(&resource, &serde_json::from_str(&forged).unwrap());
        assert_eq!(rights, RedisRights::of(&resource));
    }
}
