//! Owned, consumed and produced topics, and groups.

use sluice_crds::names::{GroupId, ResourceId, TopicName};
use sluice_crds::v1alpha1 as api;

use super::{Invalid, bounded, contradiction, no_duplicates};
use crate::controller::validated::WantedTopic;
use crate::settings::{KafkaConnection, KafkaPolicy};

/// A connection's policy with the words to say so when it does not allow something.
#[derive(Clone, Copy, Debug)]
pub struct TopicRules<'a> {
    /// The connection.
    pub connection: &'a KafkaConnection,
    /// What the namespace may do with it.
    pub policy: &'a KafkaPolicy,
}

/// What is done with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Made and kept by the resource.
    Own,
    /// Consumed.
    Consume,
    /// Produced to.
    Produce,
}

impl TopicRules<'_> {
    /// A topic of the spec, if the namespace may use it so.
    pub fn topic(&self, field: &str, name: &str, role: Role) -> Result<TopicName, Invalid> {
        let topic = TopicName::parse(name).map_err(|problem| Invalid::Name { field: field.to_owned(), problem })?;
        if topic.is_kafka_internal() {
            return Err(contradiction(field, format!("{name:?} is one of Kafka's own topics")));
        }
        if topic.is_sluice_internal() && role != Role::Consume {
            let problem = format!("{name:?} begins like the topics made for routes without one: choose another name");
            return Err(contradiction(field, problem));
        }
        let (allowed, action) = match role {
            Role::Own => (self.policy.may_own(name), "own the topic"),
            Role::Consume => (self.policy.may_consume(name), "consume the topic"),
            Role::Produce => (self.policy.may_produce(name), "produce to the topic"),
        };
        if allowed { Ok(topic) } else { Err(self.refused(field, action, name)) }
    }

    /// `source.topics`.
    pub fn sources(&self, topics: &[api::SourceTopic]) -> Result<Vec<TopicName>, Invalid> {
        if topics.is_empty() {
            return Err(Invalid::Empty { field: "source.topics".to_owned() });
        }
        no_duplicates("source.topics", topics.iter().map(|topic| topic.name.as_str()))?;
        let topic = |topic: &api::SourceTopic| {
            self.topic(&format!("source.topics[{}]", topic.name), &topic.name, Role::Consume)
        };
        topics.iter().map(topic).collect()
    }

    /// `topics`; whether a view shows one is found out later.
    pub fn owned(&self, topics: &[api::OwnedTopic]) -> Result<Vec<WantedTopic>, Invalid> {
        no_duplicates("topics", topics.iter().map(|topic| topic.name.as_str()))?;
        topics.iter().map(|topic| self.owned_topic(topic)).collect()
    }

    fn owned_topic(&self, topic: &api::OwnedTopic) -> Result<WantedTopic, Invalid> {
        let field = format!("topics[{}]", topic.name);
        let name = self.topic(&field, &topic.name, Role::Own)?;
        let partitions = bounded(&format!("{field}.partitions"), Some(topic.partitions), 1, 1, 10_000)?;
        if partitions > self.policy.max_partitions {
            let max = self.policy.max_partitions;
            return Err(Invalid::TooManyPartitions { field: format!("{field}.partitions"), partitions, max });
        }
        if let Some(factor) = topic.replication_factor {
            bounded(&format!("{field}.replicationFactor"), Some(factor), 1, 1, 10)?;
        }
        let clean = |text: &str| !text.chars().any(char::is_control);
        if let Some((key, _)) = topic.config.iter().find(|(key, value)| key.is_empty() || !clean(key) || !clean(value))
        {
            return Err(contradiction(format!("{field}.config[{key:?}]"), "control characters are not allowed"));
        }
        Ok(WantedTopic {
            name,
            partitions: Some(partitions),
            replication_factor: topic.replication_factor,
            config: topic.config.clone(),
            feeds_view: false,
        })
    }

    /// `source.groupId`, or the name that is ours.
    pub fn group(&self, given: Option<&str>, ours: GroupId) -> Result<GroupId, Invalid> {
        let Some(given) = given else { return Ok(ours) };
        let field = "source.groupId";
        let group = GroupId::parse(given).map_err(|problem| Invalid::Name { field: field.to_owned(), problem })?;
        if group == ours {
            return Ok(group);
        }
        if ResourceId::of_group(given).is_some() {
            return Err(contradiction(field, format!("{given:?} is the group of another resource")));
        }
        if self.policy.may_use_group(given) { Ok(group) } else { Err(self.refused(field, "use the group", given)) }
    }

    fn refused(&self, field: &str, action: &'static str, name: &str) -> Invalid {
        Invalid::NotAllowed {
            field: field.to_owned(),
            sort: "kafka",
            connection: self.connection.name.to_string(),
            action,
            name: name.to_owned(),
        }
    }
}
