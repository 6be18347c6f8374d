//! What the operator made outside Kubernetes, as the servers tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use sluice_clients::kafka::admin::{
    AclBinding, Admin, AdminError, ConfigSource, PatternType, TopicConfig, TopicDescription,
};

use super::INSTANCE;
use super::traffic::MADE;
use crate::datapath::HarnessError;
use crate::datapath::redis::RedisReader;
use crate::datapath::resp::Reply;
use crate::stack::Stack;

const PATIENCE: Duration = Duration::from_secs(20);

/// Topics, Kafka users with what they may do, and Redis users, as a page of text.
pub(super) fn made(stack: &Stack) -> Result<String, HarnessError> {
    let mut page = String::new();
    kafka(stack, &mut page)?;
    redis(stack, &mut page)?;
    Ok(page)
}

fn kafka(stack: &Stack, page: &mut String) -> Result<(), HarnessError> {
    let names: Vec<String> = MADE.map(str::to_owned).to_vec();
    let failed = |error: AdminError| HarnessError::Process { name: "kafka".into(), message: error.to_string() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| HarnessError::Process { name: "a runtime".into(), message: error.to_string() })?;
    let admin = Admin::new(&stack.kafka()?.client_config(), PATIENCE).map_err(failed)?;
    let (topics, configs, users, acls) = runtime
        .block_on(async {
            let topics = admin.describe_topics(&names).await?;
            let configs = admin.describe_topic_configs(&names).await?;
            let users = admin.describe_scram_users(None).await?;
            let acls = admin.acls_of_principals_with_prefix(&prefix()).await?;
            Ok((topics, configs, users, acls))
        })
        .map_err(failed)?;
    let _ = writeln!(page, "topics");
    for (name, found) in topics {
        let found = found.map_err(failed)?;
        let config = configs.get(&name).and_then(|config| config.as_ref().ok());
        let _ = writeln!(page, "  {}", topic(&name, found.as_ref(), config));
    }
    let _ = writeln!(page, "Kafka users (SCRAM-SHA-512) and what each may do, and nothing else");
    for user in users.keys().filter(|user| user.starts_with(&prefix())) {
        let _ = writeln!(page, "  {user}");
        for right in rights(acls.iter().filter(|binding| binding.principal.name() == user)) {
            let _ = writeln!(page, "    {right}");
        }
    }
    Ok(())
}

/// In front of every name of this installation.
fn prefix() -> String {
    format!("sluice/{INSTANCE}/")
}

fn topic(name: &str, found: Option<&TopicDescription>, config: Option<&TopicConfig>) -> String {
    let Some(found) = found else { return format!("{name}: not there") };
    let replicas = found.partitions.first().map_or(0, |partition| partition.replicas.len());
    let own = config.into_iter().flatten().filter(|(_, entry)| entry.source == ConfigSource::Topic);
    let settings: Vec<String> =
        own.map(|(name, entry)| format!("{name}={}", entry.value.as_deref().unwrap_or_default())).collect();
    let (partitions, settings) = (found.partitions.len(), settings.join(" "));
    format!("{name:<18} {partitions} partitions, {replicas} replicas  {settings}").trim_end().to_owned()
}

/// One line a resource: its operations together.
fn rights<'a>(bindings: impl Iterator<Item = &'a AclBinding>) -> Vec<String> {
    let mut operations: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in bindings {
        let any = if binding.pattern == PatternType::Prefixed { "…" } else { "" };
        let resource = format!("{:?} {}{any}", binding.resource, binding.name);
        operations.entry(resource).or_default().push(format!("{:?}", binding.operation));
    }
    let line = |(resource, mut operations): (String, Vec<String>)| {
        operations.sort();
        format!("{resource}: {}", operations.join(", "))
    };
    operations.into_iter().map(line).collect()
}

/// Users are of a node, not of the cluster: each is listed with the number of nodes that know it by the same rules.
fn redis(stack: &Stack, page: &mut String) -> Result<(), HarnessError> {
    let reader = RedisReader::new(stack.redis()?)?;
    let addresses = stack.redis()?.addresses();
    let mut nodes: BTreeMap<RedisUser, usize> = BTreeMap::new();
    for address in addresses {
        let users = reader.connect(address)?.command(&[b"ACL", b"LIST"])?.array().unwrap_or_default();
        for user in users.iter().filter_map(Reply::text).filter_map(|line| RedisUser::parse(&line)) {
            *nodes.entry(user).or_default() += 1;
        }
    }
    let _ = writeln!(page, "Redis users and the keys each may use (`~` all of it, `%R~` read)");
    for (user, count) in nodes {
        let keys: Vec<&str> = user.rules.iter().map(String::as_str).filter(|rule| rule.contains('~')).collect();
        let rights = user.rules.iter().filter(|rule| rule.starts_with('+') || rule.starts_with('-')).count();
        let (name, all) = (&user.name, addresses.len());
        let _ =
            writeln!(page, "  {name}\n    {}; {rights} rules for commands; on {count} of {all} nodes", keys.join(" "));
    }
    Ok(())
}

/// A user of this installation. Redis lists the same rules in another order on each node.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RedisUser {
    name: String,
    rules: BTreeSet<String>,
}

impl RedisUser {
    /// Password hashes are no passwords, and still nobody's business: they are left out.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("user ")?.split(' ');
        let name = words.next().filter(|name| name.starts_with(&prefix()))?.to_owned();
        Some(Self { name, rules: words.filter(|word| !word.starts_with('#')).map(str::to_owned).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_with_the_same_rules_are_equal_and_show_no_hash() {
        let user = RedisUser::parse("user sluice/demo/a on #0a1b ~order:{* +get -keys").expect("ours");
        assert!(!user.rules.iter().any(|rule| rule.contains("0a1b")));
        assert_eq!(Some(user), RedisUser::parse("user sluice/demo/a on #ffff -keys ~order:{* +get"));
        assert_eq!(RedisUser::parse("user admin on ~* +@all"), None);
    }
}
