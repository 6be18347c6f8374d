//! What a namespace may do with a connection. Closed: what no prefix names is not allowed.

use std::collections::BTreeSet;

/// What a namespace may do with a Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaPolicy {
    /// Prefixes of topics it may own.
    pub own: Vec<String>,
    /// Prefixes of further topics it may produce to.
    pub produce: Vec<String>,
    /// Prefixes of further topics it may consume.
    pub consume: Vec<String>,
    /// Prefixes of groups it may name.
    pub groups: Vec<String>,
    /// Most partitions of one topic.
    pub max_partitions: i32,
}

/// What a namespace may do with a Redis database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisPolicy {
    /// Prefixes of keys it may write.
    pub write: Vec<String>,
    /// Prefixes of further keys it may read.
    pub read: Vec<String>,
    /// Settings it may ask for: those that the connection allows as well.
    pub settings: BTreeSet<String>,
}

fn within(text: &str, prefixes: &[String]) -> bool {
    prefixes.iter().any(|prefix| text.starts_with(prefix.as_str()))
}

impl KafkaPolicy {
    /// True when the namespace may own this topic.
    pub fn may_own(&self, topic: &str) -> bool {
        within(topic, &self.own)
    }

    /// True when the namespace may produce to this topic.
    pub fn may_produce(&self, topic: &str) -> bool {
        within(topic, &self.own) || within(topic, &self.produce)
    }

    /// True when the namespace may consume this topic.
    pub fn may_consume(&self, topic: &str) -> bool {
        within(topic, &self.own) || within(topic, &self.consume)
    }

    /// True when the namespace may name this group.
    pub fn may_use_group(&self, group: &str) -> bool {
        within(group, &self.groups)
    }
}

impl RedisPolicy {
    /// True when the namespace may write every key with this prefix.
    pub fn may_write(&self, prefix: &str) -> bool {
        within(prefix, &self.write)
    }

    /// True when the namespace may read every key with this prefix.
    pub fn may_read(&self, prefix: &str) -> bool {
        within(prefix, &self.write) || within(prefix, &self.read)
    }

    /// True when the namespace may ask for this setting.
    pub fn may_set(&self, setting: &str) -> bool {
        self.settings.contains(setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_no_prefix_names_is_not_allowed() {
        let policy = KafkaPolicy {
            own: texts(&["order."]),
            produce: texts(&["audit."]),
            consume: texts(&["customer."]),
            groups: vec![],
            max_partitions: 10,
        };
        for (topic, own, produce, consume) in [
            ("order.created", true, true, true),
            ("audit.log", false, true, false),
            ("customer.changed", false, false, true),
            ("orders", false, false, false),
            ("", false, false, false),
        ] {
            assert_eq!(
                (policy.may_own(topic), policy.may_produce(topic), policy.may_consume(topic)),
                (own, produce, consume),
                "{topic}"
            );
        }
        assert!(!policy.may_use_group("any"));
    }

    #[test]
    fn a_prefix_wider_than_the_policy_is_not_allowed() {
        let policy = RedisPolicy { write: texts(&["order:"]), read: texts(&["price:"]), settings: BTreeSet::new() };
        assert!(policy.may_write("order:{"));
        assert!(!policy.may_write("order"));
        assert!(policy.may_read("order:x") && policy.may_read("price:"));
        assert!(!policy.may_write("price:"));
        assert!(!policy.may_set("maxmemory"));
    }
}
