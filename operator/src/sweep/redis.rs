//! IO: one round over the nodes of one Redis connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_clients::redis::admin::RedisAdminError;

use crate::connections::RedisClient;

/// What the nodes said.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// Nodes that did not answer.
    pub(super) failing: BTreeSet<String>,
    /// Our users and the fingerprints of their rights, by node that answered.
    pub(super) users: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Users as they were seen right after they were set, by uid of their resource.
#[derive(Debug, Default)]
pub(super) struct Seen {
    users: HashMap<String, SeenUser>,
}

#[derive(Debug)]
struct SeenUser {
    /// Which setting of the user it was.
    setting: u64,
    /// Fingerprints by node.
    nodes: BTreeMap<String, u64>,
}

impl Seen {
    /// True when a node does not have the user as it was set: it is new, it lost its users in a restart, it came back
    /// with older ones, or somebody changed them. `setting`: the number of the last time it was set.
    pub(super) fn is_lost(&mut self, uid: &str, user: &str, setting: u64, now: &Nodes) -> bool {
        let seen = self.users.entry(uid.to_owned()).or_insert_with(|| SeenUser { setting, nodes: BTreeMap::new() });
        if seen.setting != setting {
            *seen = SeenUser { setting, nodes: BTreeMap::new() };
        }
        now.users.iter().any(|(node, users)| {
            let fingerprint = users.get(user);
            let known = seen.nodes.get(node);
            if let (Some(fingerprint), None) = (fingerprint, known) {
                seen.nodes.insert(node.clone(), *fingerprint);
                return false;
            }
            fingerprint.is_none() || fingerprint != known
        })
    }

    /// Forgets all but these resources.
    pub(super) fn keep_only(&mut self, uids: &BTreeSet<&str>) {
        self.users.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

/// Reads our users on every node.
pub(super) async fn round(redis: &RedisClient, prefix: &str) -> Result<Nodes, RedisAdminError> {
    let asked = prefix.to_owned();
    let found = redis.call(|admin| async move { admin.users_with_prefix(&asked).await }).await?;
    let mut nodes = Nodes::default();
    for (node, outcome) in found.outcomes {
        match outcome {
            Ok(users) => {
                let users = users.into_iter().map(|user| (user.name, user.fingerprint)).collect();
                nodes.users.insert(node.to_string(), users);
            }
            Err(_) => drop(nodes.failing.insert(node.to_string())),
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(users: &[(&str, Option<u64>)]) -> Nodes {
        let users = users
            .iter()
            .map(|(node, print)| ((*node).to_owned(), print.iter().map(|print| ("user".to_owned(), *print)).collect()));
        Nodes { failing: BTreeSet::new(), users: users.collect() }
    }

    #[test]
    fn a_user_is_lost_when_it_is_absent_or_other_than_after_it_was_set() {
        let mut seen = Seen::default();
        let mut lost = |setting, users: &[(&str, Option<u64>)]| seen.is_lost("uid", "user", setting, &nodes(users));
        assert!(!lost(1, &[("a", Some(7)), ("b", Some(8))]), "nodes have words of their own");
        assert!(!lost(1, &[("a", Some(7))]), "a node that does not answer says nothing");
        assert!(lost(1, &[("a", Some(7)), ("b", None)]));
        assert!(lost(1, &[("a", Some(9))]), "older rights came back");
        assert!(!lost(2, &[("a", Some(9)), ("b", Some(8))]), "it was set again");
        assert!(lost(2, &[("a", Some(7))]));
    }
}
