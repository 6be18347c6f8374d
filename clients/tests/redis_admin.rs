//! Admin calls against a real Redis Cluster with TLS and ACLs.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod stack;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, ServerErrorKind, TlsCertificates,
};
use sluice_clients::redis::admin::{
    KeyDeletion, KeyDeletionBudget, KeyDeletionProgress, KeyPrefix, PasswordHash, Persistence, RedisAdmin,
    SettingOutcome, worker_user_rules,
};
use sluice_clients::redis::{NodeAddress, RedisSettings, RedisTimeouts, RedisTls, RedisUser};
use sluice_crds::v1alpha1::RedisMode;

fn crypto() {
    // The second test of this process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn settings(addresses: &[String]) -> RedisSettings {
    crypto();
    let (name, password) = stack::redis_admin();
    RedisSettings {
        mode: RedisMode::Cluster,
        seeds: addresses.iter().map(|address| NodeAddress::parse(address).unwrap()).collect(),
        tls: Some(RedisTls { ca_pem: Some(stack::redis_ca()) }),
        user: Some(RedisUser { name, password: password.into() }),
        timeouts: RedisTimeouts { connect: Duration::from_secs(30), response: Duration::from_secs(30) },
    }
}

fn admin() -> RedisAdmin {
    RedisAdmin::new(settings(&stack::redis_addresses())).unwrap()
}

fn prefixes(texts: &[&str]) -> Vec<KeyPrefix> {
    texts.iter().map(|text| KeyPrefix::new(*text).unwrap()).collect()
}

async fn login(address: &str, user: &str, password: &str) -> redis::RedisResult<MultiplexedConnection> {
    let (host, port) = address.rsplit_once(':').unwrap();
    let addr = ConnectionAddr::TcpTls {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        insecure: false,
        tls_params: None,
    };
    let login = RedisConnectionInfo::default().set_username(user).set_password(password);
    let info = addr.into_connection_info()?.set_redis_settings(login);
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(stack::redis_ca()) };
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(30)))
        .set_response_timeout(Some(Duration::from_secs(30)));
    Client::build_with_tls(info, certificates)?.get_multiplexed_async_connection_with_config(&config).await
}

#[derive(Debug, PartialEq)]
enum Answer {
    /// The server would do it (here, or on the node it names).
    Permitted,
    /// The user may not.
    Denied,
    Other(String),
}

async fn try_command(connection: &mut MultiplexedConnection, words: &str) -> Answer {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    match command.query_async::<redis::Value>(connection).await {
        Ok(_) => Answer::Permitted,
        Err(error) => match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoPerm) => Answer::Denied,
            // Rights are checked before the slot is.
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::ReadOnly | ServerErrorKind::CrossSlot) => {
                Answer::Permitted
            }
            _ => Answer::Other(error.to_string()),
        },
    }
}

async fn assert_rights(connection: &mut MultiplexedConnection, permitted: &[&str], denied: &[&str]) {
    for words in permitted {
        assert_eq!(try_command(connection, words).await, Answer::Permitted, "{words}");
    }
    for words in denied {
        assert_eq!(try_command(connection, words).await, Answer::Denied, "{words}");
    }
}

#[tokio::test]
async fn every_node_is_found_from_any_address() {
    if stack::missing("REDIS_ADDRESSES") {
        return;
    }
    let all: BTreeSet<String> = stack::redis_addresses().into_iter().collect();
    for address in &all {
        // A dead address first: it must not keep us from the others.
        let admin = RedisAdmin::new(settings(&["127.0.0.1:1".to_owned(), address.clone()])).unwrap();
        let nodes = admin.nodes().await.unwrap();
        assert_eq!(nodes.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), all);
    }
    let nowhere = RedisAdmin::new(settings(&["127.0.0.1:1".to_owned()])).unwrap();
    let error = nowhere.nodes().await.unwrap_err();
    assert_eq!((error.category(), error.retryable()), ("NotSent", true), "{error}");
    let mut liar = settings(&stack::redis_addresses());
    liar.user = Some(RedisUser { name: "admin".to_owned(), password: "wrong-password".into() });
    let error = RedisAdmin::new(liar).unwrap().nodes().await.unwrap_err();
    assert_eq!((error.category(), error.retryable()), ("Unauthenticated", false), "{error}");
    assert!(!error.to_string().contains("wrong-password"), "{error}");
}

#[tokio::test]
async fn a_change_of_rights_shows_in_the_fingerprint_of_a_user() {
    if stack::missing("REDIS_ADDRESSES") {
        return;
    }
    let admin = admin();
    let id = stack::unique("print");
    let user = format!("sluice/{id}/shop/eventpipeline/orders");
    let (wide, narrow) = (format!("{id}:"), format!("{id}:a:"));
    let hashes = [PasswordHash::of(&"first".into())];
    let mut prints = Vec::new();
    for prefix in [&wide, &wide, &narrow, &wide] {
        admin.set_user(&user, &worker_user_rules(&prefixes(&[prefix]), &[], &hashes)).await.unwrap();
        let listed = admin.users_with_prefix(&user).await.unwrap();
        assert!(listed.all_ok(), "{listed:?}");
        prints.push(listed.outcomes.into_values().flat_map(Result::unwrap).collect::<Vec<_>>());
    }
    admin.delete_users(std::slice::from_ref(&user)).await.unwrap();
    assert!(prints[0].len() == stack::redis_addresses().len() && prints[0] == prints[1] && prints[0] == prints[3]);
    assert!(prints[0].iter().zip(&prints[2]).all(|(one, other)| one.fingerprint != other.fingerprint));
}

#[tokio::test]
async fn a_worker_can_do_what_its_spec_needs_and_nothing_else() {
    if stack::missing("REDIS_ADDRESSES") {
        return;
    }
    let admin = admin();
    let id = stack::unique("worker");
    let user = format!("sluice/{id}/shop/eventpipeline/orders/a");
    let [read, view, foreign] = ["price", "order", "other"].map(|kind| format!("{id}:{kind}:"));
    let hashes = [PasswordHash::of(&"first".into()), PasswordHash::of(&"second".into())];
    let rules = worker_user_rules(&prefixes(&[&read]), &prefixes(&[&view]), &hashes);

    let made = admin.set_user(&user, &rules).await.unwrap();
    assert!(made.all_ok() && made.successes().count() == stack::redis_addresses().len(), "{made:?}");
    assert!(made.successes().all(|(_, outcome)| outcome.changed && outcome.persistence == Some(Persistence::Saved)));
    let again = admin.set_user(&user, &rules).await.unwrap();
    assert!(again.successes().all(|(_, outcome)| !outcome.changed && outcome.persistence.is_none()), "{again:?}");
    let listed = admin.users_with_prefix(&format!("sluice/{id}/")).await.unwrap();
    assert!(listed.all_ok() && listed.successes().all(|(_, users)| users.len() == 1 && users[0].name == user));

    let permitted = [
        format!("GET {read}1"),
        format!("HGETALL {read}1"),
        format!("SET {view}1 x"),
        format!("HSET {view}2 f x"),
        format!("GET {view}1"),
        format!("DEL {view}1"),
        format!("EVAL return(1) 1 {view}1"),
        "SCRIPT LOAD return(1)".to_owned(),
        "CLUSTER SHARDS".to_owned(),
        "INFO server".to_owned(),
        "ROLE".to_owned(),
        "TIME".to_owned(),
        "PING".to_owned(),
    ];
    let mut denied: Vec<String> = vec![
        format!("SET {read}1 x"),
        format!("DEL {read}1"),
        format!("GET {foreign}1"),
        format!("SET {foreign}1 x"),
        format!("EVAL return(1) 1 {foreign}1"),
        format!("COPY {view}1 {foreign}1"),
        format!("MIGRATE 127.0.0.1 1 {view}1 0 10"),
        format!("RESTORE {view}1 0 x"),
        format!("SORT {view}1"),
    ];
    denied.extend(
        [
            "FLUSHALL",
            "FLUSHDB",
            "KEYS *",
            "SCAN 0",
            "RANDOMKEY",
            "CONFIG GET maxmemory",
            "CONFIG SET maxmemory 1",
            "ACL LIST",
            "ACL WHOAMI",
            "SHUTDOWN NOSAVE",
            "CLUSTER NODES",
            "CLUSTER RESET",
            "CLUSTER FAILOVER",
            "SCRIPT FLUSH",
            "FUNCTION LIST",
            "FUNCTION FLUSH",
            "FCALL f 0",
            "CLIENT LIST",
            "CLIENT KILL x",
            "MONITOR",
            "REPLICAOF NO ONE",
            "PUBLISH c x",
            "SUBSCRIBE c",
            "SAVE",
            "BGSAVE",
            "SWAPDB 0 1",
            "SLOWLOG GET",
            "MODULE LIST",
            "LATENCY RESET",
        ]
        .map(str::to_owned),
    );
    let as_text = |words: &[String]| words.to_vec();
    for password in ["first", "second"] {
        for address in stack::redis_addresses() {
            let mut connection = login(&address, &user, password).await.unwrap();
            let (permitted, denied) = (as_text(&permitted), as_text(&denied));
            let permitted: Vec<_> = permitted.iter().map(String::as_str).collect();
            let denied: Vec<_> = denied.iter().map(String::as_str).collect();
            assert_rights(&mut connection, &permitted, &denied).await;
        }
    }
    script_stays_inside(&user, &view, &foreign, &read).await;
    narrowing_acts_on_open_connections(&admin, &user, &read, &view, &hashes[1]).await;

    let gone = admin.delete_users(&[user.clone(), "never-was-there".to_owned()]).await.unwrap();
    assert!(gone.all_ok() && gone.successes().all(|(_, outcome)| outcome.deleted == 1), "{gone:?}");
    assert!(login(&stack::redis_addresses()[0], &user, "second").await.is_err());
    let gone = admin.delete_users(&[user]).await.unwrap();
    assert!(gone.successes().all(|(_, outcome)| outcome.deleted == 0 && outcome.persistence.is_none()), "{gone:?}");
    delete_all(&admin, &format!("{id}:")).await;
}

/// A script runs with its caller's rights, on the node that owns the key.
async fn script_stays_inside(user: &str, view: &str, foreign: &str, read: &str) {
    let script = "#!lua flags=allow-cross-slot-keys\n\
                  redis.call('SET', KEYS[1], 'own')\n\
                  local reply = redis.pcall(ARGV[1], ARGV[2], 'x')\n\
                  return reply.err or reply.ok or 'no reply'";
    let tag = "{t}";
    let mut answered = false;
    for address in stack::redis_addresses() {
        let mut connection = login(&address, user, "first").await.unwrap();
        for key in [format!("{foreign}{tag}"), format!("{read}{tag}")] {
            let mut eval = redis::cmd("EVAL");
            eval.arg(script).arg(1).arg(format!("{view}{tag}")).arg("SET").arg(&key);
            match eval.query_async::<String>(&mut connection).await {
                Ok(reply) => {
                    assert!(
                        ["NOPERM", "access", "permission"].iter().any(|word| reply.contains(word)),
                        "{key}: {reply}"
                    );
                    answered = true;
                }
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Moved)),
                    "only the owner of the slot runs it: {error}"
                ),
            }
        }
    }
    assert!(answered, "one node owns the slot");
}

/// What the new rules do not name is lost at once, on connections that are open.
async fn narrowing_acts_on_open_connections(
    admin: &RedisAdmin,
    user: &str,
    read: &str,
    view: &str,
    kept: &PasswordHash,
) {
    let mut open = login(&stack::redis_addresses()[0], user, "second").await.unwrap();
    let narrow = worker_user_rules(&prefixes(&[read]), &[], std::slice::from_ref(kept));
    let outcome = admin.set_user(user, &narrow).await.unwrap();
    assert!(outcome.all_ok() && outcome.successes().all(|(_, outcome)| outcome.changed));
    let (may, may_not) = (format!("GET {read}1"), [format!("SET {view}1 x"), format!("GET {view}1")]);
    let may_not = [may_not[0].as_str(), may_not[1].as_str(), "EVAL return(1) 0", "SCRIPT LOAD return(1)"];
    assert_rights(&mut open, &[&may], &may_not).await;
    assert!(login(&stack::redis_addresses()[0], user, "first").await.is_err(), "the other password is gone");
}

#[tokio::test]
async fn what_would_harm_others_is_not_sent() {
    if stack::missing("REDIS_ADDRESSES") {
        return;
    }
    let admin = admin();
    let rules = worker_user_rules(&[], &[], &[]);
    for name in ["default", "", "a b"] {
        assert_eq!(admin.set_user(name, &rules).await.unwrap_err().category(), "InvalidArgument");
        assert_eq!(admin.delete_users(&[name.to_owned()]).await.unwrap_err().category(), "InvalidArgument");
    }
    let error = admin.set_user("x", &["+@all".to_owned()]).await.unwrap_err();
    assert_eq!(error.category(), "InvalidArgument");
    assert_eq!(admin.setting("max*").await.unwrap_err().category(), "InvalidArgument");
}

#[tokio::test]
async fn settings_are_the_same_on_every_node() {
    if stack::missing("REDIS_ADDRESSES") {
        return;
    }
    let admin = admin();
    let policy = admin.setting("maxmemory-policy").await.unwrap();
    assert!(policy.all_ok() && policy.successes().all(|(_, value)| value.is_some()), "{policy:?}");
    let unknown = admin.setting("never-heard-of").await.unwrap();
    assert!(unknown.successes().count() > 0 && unknown.successes().all(|(_, value)| value.is_none()));

    let name = "slowlog-max-len";
    let before = admin.setting(name).await.unwrap();
    let before = before.successes().next().unwrap().1.clone().unwrap();
    let wanted = (before.parse::<u64>().unwrap() + 1).to_string();
    let changed = admin.set_setting(name, &wanted).await.unwrap();
    assert!(changed.all_ok() && changed.successes().all(|(_, outcome)| *outcome == SettingOutcome::Changed));
    let unchanged = admin.set_setting(name, &wanted).await.unwrap();
    assert!(unchanged.successes().all(|(_, outcome)| *outcome == SettingOutcome::Unchanged));
    let read = admin.setting(name).await.unwrap();
    assert!(read.successes().all(|(_, value)| value.as_deref() == Some(wanted.as_str())), "{read:?}");
    assert!(admin.set_setting(name, &before).await.unwrap().all_ok());

    let refused = admin.set_setting("slowlog-max-len", "many").await.unwrap();
    let (_, error) = refused.first_failure().unwrap();
    assert_eq!((error.category(), error.retryable()), ("Other", false), "{error}");
    assert_eq!(refused.successes().count(), 0);
}

#[tokio::test]
async fn keys_of_a_view_are_deleted_in_portions() {
    if stack::missing("REDIS_ADDRESSES") {
        return;
    }
    let admin = admin();
    let id = stack::unique("keys");
    // Glob characters must stand for themselves, or `other` would go with it.
    let (prefix, other) = (format!("{id}:v[*]:"), format!("{id}:vx:"));
    let count = 4_000;
    write_keys(&prefix, count).await;
    write_keys(&other, 300).await;

    let mut state = KeyDeletion::default();
    let small = KeyDeletionBudget { steps_per_master: 1 };
    let first = admin.delete_keys(&KeyPrefix::new(&prefix).unwrap(), &mut state, small).await.unwrap();
    assert_eq!(first, KeyDeletionProgress::More, "thousands of keys are more than a step");
    let mut calls = 1;
    while admin.delete_keys(&KeyPrefix::new(&prefix).unwrap(), &mut state, small).await.unwrap()
        == KeyDeletionProgress::More
    {
        calls += 1;
        assert!(calls < 10_000, "it should end");
    }
    assert_eq!(state.deleted(), count);
    assert_eq!(delete_all(&admin, &prefix).await, 0);
    assert_eq!(delete_all(&admin, &other).await, 300, "other keys are left alone");
}

async fn delete_all(admin: &RedisAdmin, prefix: &str) -> u64 {
    let (prefix, mut state) = (KeyPrefix::new(prefix).unwrap(), KeyDeletion::default());
    while admin.delete_keys(&prefix, &mut state, KeyDeletionBudget::default()).await.unwrap()
        == KeyDeletionProgress::More
    {}
    state.deleted()
}

/// Sends every key to every node: its owner takes it, the others refuse it.
async fn write_keys(prefix: &str, count: u64) {
    let (user, password) = stack::redis_admin();
    let mut written = 0;
    for address in stack::redis_addresses() {
        let mut connection = login(&address, &user, &password).await.unwrap();
        let mut pipeline = redis::pipe();
        for key in 0..count {
            pipeline.cmd("SET").arg(format!("{prefix}{key}")).arg("x");
        }
        pipeline.ignore_errors();
        let replies: Vec<redis::RedisResult<String>> = pipeline.query_async(&mut connection).await.unwrap();
        written += replies.iter().filter(|reply| reply.is_ok()).count() as u64;
    }
    assert_eq!(written, count);
}

/// A Redis of the test's own, without TLS and users.
fn local(mode: RedisMode, seeds: Vec<NodeAddress>) -> RedisSettings {
    let timeouts = RedisTimeouts { connect: Duration::from_secs(30), response: Duration::from_secs(30) };
    RedisSettings { mode, seeds, tls: None, user: None, timeouts }
}

#[tokio::test]
async fn a_node_that_is_down_keeps_nobody_from_the_others() {
    if support::redis_missing() {
        return;
    }
    let mut cluster = support::Cluster::start(3, 1);
    let seeds = cluster.masters.iter().map(|server| NodeAddress::new("127.0.0.1", server.port)).collect();
    let admin = RedisAdmin::new(local(RedisMode::Cluster, seeds)).unwrap();
    assert_eq!(admin.nodes().await.unwrap().len(), 6);
    let dead = NodeAddress::new("127.0.0.1", cluster.replicas[0].port);
    cluster.replicas[0].kill();
    let rules = worker_user_rules(&[], &prefixes(&["v:"]), &[PasswordHash::of(&"x".into())]);
    let made = admin.set_user("worker", &rules).await.unwrap();
    assert_eq!(made.failures().map(|(node, _)| node).collect::<Vec<_>>(), [&dead]);
    assert!(made.first_failure().unwrap().1.retryable());
    assert!(made.successes().all(|(_, outcome)| outcome.persistence == Some(Persistence::NoAclFile)));
    assert_eq!(made.successes().count(), 5);

    // It comes back without the user (there is no ACL file): the next round makes it there, and only there.
    cluster.replicas[0].restart();
    let again = stack::until("the node is reached again", || async {
        let again = admin.set_user("worker", &rules).await.ok()?;
        again.all_ok().then_some(again)
    })
    .await;
    let changed: Vec<_> = again.successes().filter(|(_, outcome)| outcome.changed).map(|(node, _)| node).collect();
    assert_eq!(changed, [&dead]);
}

#[tokio::test]
async fn a_standalone_server_is_one_node() {
    if support::redis_missing() {
        return;
    }
    let server = support::Server::start(&[]);
    let seeds = vec![NodeAddress::new("127.0.0.1", 1), NodeAddress::new("127.0.0.1", server.port)];
    let admin = RedisAdmin::new(local(RedisMode::Standalone, seeds)).unwrap();
    let rules = worker_user_rules(&prefixes(&["p:"]), &[], &[PasswordHash::of(&"x".into())]);
    let made = admin.set_user("worker", &rules).await.unwrap();
    assert_eq!(made.outcomes.len(), 1);
    assert!(made.all_ok());
    for key in 0..3_000 {
        server.call(&["SET", &format!("v:{key}"), "x"]);
    }
    assert_eq!(delete_all(&admin, "v:").await, 3_000);
    assert_eq!(server.text(&["ACL", "WHOAMI"]), "default");
}

/// A replica refuses writes and shows old values: the master is looked for among the addresses, again after a failover.
#[tokio::test]
async fn a_standalone_server_that_is_a_replica_is_passed_over() {
    if support::redis_missing() {
        return;
    }
    let (master, replica) = (support::Server::start(&[]), support::Server::start(&[]));
    replica.call(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    let seeds = |servers: &[&support::Server]| -> Vec<NodeAddress> {
        servers.iter().map(|server| NodeAddress::new("127.0.0.1", server.port)).collect()
    };
    let admin = RedisAdmin::new(local(RedisMode::Standalone, seeds(&[&replica, &master]))).unwrap();
    assert_eq!(admin.nodes().await.unwrap(), seeds(&[&master]));
    let alone = RedisAdmin::new(local(RedisMode::Standalone, seeds(&[&replica]))).unwrap();
    let error = alone.nodes().await.unwrap_err();
    assert!(error.retryable(), "it may be promoted");
    let wanted = format!("127.0.0.1:{} is a replica: name the address of its master", replica.port);
    assert!(error.to_string().contains(&wanted), "{error}");
    replica.call(&["REPLICAOF", "NO", "ONE"]);
    master.call(&["REPLICAOF", "127.0.0.1", &replica.port.to_string()]);
    assert_eq!(admin.nodes().await.unwrap(), seeds(&[&replica]));
}

/// Tasks of a multi-threaded runtime must be able to hold these futures.
#[test]
fn calls_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    let admin = RedisAdmin::new(local(RedisMode::Standalone, vec![NodeAddress::new("127.0.0.1", 1)])).unwrap();
    sendable(admin.set_user("u", &[]));
    sendable(admin.delete_users(&[]));
    sendable(admin.users_with_prefix("p"));
    sendable(admin.setting("s"));
    sendable(admin.set_setting("s", "v"));
    let (prefix, mut state) = (KeyPrefix::new("p").unwrap(), KeyDeletion::default());
    sendable(admin.delete_keys(&prefix, &mut state, KeyDeletionBudget::default()));
}
