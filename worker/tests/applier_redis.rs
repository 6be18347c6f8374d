//! The applier's scripts and the finding of its records, against real servers of the test's own.

#[path = "../../clients/tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use redis::Pipeline;
use sluice_clients::redis::{Links, NodeId, RedisFault, RedisSettings, RedisTimeouts, Slot, SlotSet, Topology, only};
use sluice_crds::names::{InstanceId, ResourceUid, WatermarkKeys};
use sluice_crds::v1alpha1::RedisMode;
use sluice_crds::worker_config::RedisEndpoint;
use sluice_worker::applier::engine::{Apply, OpenError, Outcome, PartitionId, ShardHandle};
use sluice_worker::applier::mutation::{Batch, Change, Mutation, Op};
use sluice_worker::applier::redis::{By, Looked, Opener, Scripts, read_outcome};
use support::{Cluster, Server, move_slot, redis_missing, wait_for};

const FIELD: &str = "orders:0";

/// A client of one Redis, as the driver is one.
struct Client {
    runtime: tokio::runtime::Runtime,
    links: Links,
    keys: WatermarkKeys,
    scripts: Scripts,
    looked: Looked,
}

fn client(mode: RedisMode, addresses: Vec<String>) -> Client {
    let settings = RedisSettings::from_endpoint(&RedisEndpoint { mode, addresses, tls: None, user: None });
    // A busy machine is no outage.
    let patience = std::time::Duration::from_secs(30);
    let timeouts = RedisTimeouts { connect: patience, response: patience };
    let settings = RedisSettings { timeouts, ..settings.expect("good settings") };
    let instance = InstanceId::parse("test").expect("an instance");
    let uid = ResourceUid::parse("0b5a1e8e-0000-4000-8000-000000000001").expect("a uid");
    Client {
        runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        links: Links::new(settings).expect("good settings"),
        keys: WatermarkKeys::new(&instance, &uid),
        scripts: Scripts::default(),
        looked: Looked::default(),
    }
}

impl Client {
    fn topology(&self) -> Arc<Topology> {
        self.runtime.block_on(self.links.topology()).expect("a topology")
    }

    fn try_open(&self, node: &NodeId) -> Result<(ShardHandle, Vec<(String, String)>), OpenError> {
        self.try_open_by(&self.topology(), node)
    }

    fn try_open_by(
        &self,
        topology: &Topology,
        node: &NodeId,
    ) -> Result<(ShardHandle, Vec<(String, String)>), OpenError> {
        let Self { links, keys, scripts, looked, .. } = self;
        let opener = Opener { links, topology, keys, scripts, looked };
        self.runtime.block_on(opener.open(node))
    }

    /// Opens as the driver does, which begins again when something changed meanwhile: nodes learn of a failover or of a
    /// moved slot one after the other, and each answer may come from another one.
    fn open(&self, node: &NodeId) -> (ShardHandle, Vec<(String, String)>) {
        let mut opened = None;
        wait_for("the nodes agree", || {
            opened = Some(self.try_open(node)).filter(|result| !matches!(result, Err(OpenError::Raced)));
            opened.is_some()
        });
        opened.expect("waited for").unwrap_or_else(|error| panic!("{node}: {error}"))
    }

    /// One call of the script.
    fn apply(&self, handle: &ShardHandle, expected: &str, next: &str, mutations: Vec<Mutation>) -> Outcome {
        let records = Arc::new(vec![Change { offset: 7, timestamp_ms: 0, weight: 0, effect: Ok(mutations) }]);
        let apply = Apply {
            ticket: 1,
            handle: Arc::new(handle.clone()),
            partition: PartitionId { topic: 0, partition: 0 },
            expected: expected.to_owned(),
            next: next.to_owned(),
            from: 5,
            batch: Batch::collapse(&records, |_, _| true),
        };
        let link = self.links.link(&handle.address).expect("a link");
        let call = |by| {
            let mut pipeline = Pipeline::new();
            pipeline.add_command(self.scripts.apply_command(by, &apply, FIELD));
            self.runtime.block_on(link.pipeline_on(handle.generation, &pipeline)).and_then(only)
        };
        match call(By::Hash) {
            Err(RedisFault::NoScript) => read_outcome(call(By::Text)),
            answer => read_outcome(answer),
        }
    }
}

fn set(key: &str, value: &str) -> Mutation {
    Mutation::new(key.into(), Op::Set { value: value.into(), expire_at_ms: None })
}

fn applied() -> Outcome {
    Outcome::Applied { behind: Vec::new(), text: None }
}

fn node(server: &Server) -> NodeId {
    NodeId::parse(&server.node_id()).expect("an id")
}

/// Keys in slots that the server owns, as many as asked for.
fn keys_of(client: &Client, server: &Server, count: usize) -> Vec<String> {
    let slots = client.topology().shard(&node(server)).expect("a shard").slots.clone();
    let keys = (0..).map(|number| format!("k{number}"));
    keys.filter(|key| slots.contains(Slot::of_key(key.as_bytes()))).take(count).collect()
}

#[test]
fn data_and_record_move_together_or_not_at_all() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&[]);
    let client = client(RedisMode::Standalone, vec![server.address()]);
    let (handle, fields) = client.open(&NodeId::standalone());
    assert!(fields.is_empty());
    assert_eq!(client.apply(&handle, "", "r1", vec![set("a", "1"), set("b", "1")]), applied());
    assert_eq!(client.apply(&handle, "", "r2", vec![set("a", "stale")]), Outcome::Refused, "the record is another one");
    let other = ShardHandle { header: "1 1 other".to_owned(), ..handle.clone() };
    assert_eq!(
        client.apply(&other, "r1", "r2", vec![set("a", "stale")]),
        Outcome::Refused,
        "the header is another one"
    );
    assert_eq!((server.text(&["GET", "a"]), server.text(&["GET", "b"])), ("1".to_owned(), "1".to_owned()));
    server.call(&["SCRIPT", "FLUSH"]);
    assert_eq!(client.apply(&handle, "r1", "r2", vec![Mutation::new(b"a".to_vec(), Op::Delete)]), applied());
    let (again, fields) = client.open(&NodeId::standalone());
    assert_eq!(again, handle);
    assert_eq!(fields, [(FIELD.to_owned(), "r2".to_owned())]);
    assert_eq!(server.text(&["EXISTS", "a", "b"]), "1");
}

#[test]
fn replace_leaves_nothing_of_what_was_there_and_lives_end_at_a_fixed_time() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&[]);
    let client = client(RedisMode::Standalone, vec![server.address()]);
    let (handle, _) = client.open(&NodeId::standalone());
    server.call(&["RPUSH", "list", "x"]);
    server.call(&["HSET", "hash", "old", "1"]);
    server.call(&["SET", "string", "x", "EX", "5"]);
    let at = 4_102_444_800_000;
    let pairs = |count: usize| (0..count).map(|n| (format!("f{n}").into_bytes(), b"v".to_vec())).collect();
    let mutations = vec![
        set("list", "text"),
        Mutation::new(b"hash".to_vec(), Op::SetHash { fields: pairs(2_500), expire_at_ms: Some(at) }),
        set("string", "stays"),
        Mutation::new(b"timed".to_vec(), Op::Set { value: b"v".to_vec(), expire_at_ms: Some(at) }),
        Mutation::new(b"past".to_vec(), Op::Set { value: b"v".to_vec(), expire_at_ms: Some(5) }),
    ];
    assert_eq!(client.apply(&handle, "", "r1", mutations), applied());
    assert_eq!(server.text(&["GET", "list"]), "text");
    assert_eq!(
        (server.text(&["HLEN", "hash"]), server.text(&["HEXISTS", "hash", "old"])),
        ("2500".to_owned(), "0".to_owned())
    );
    assert_eq!(server.text(&["PTTL", "string"]), "-1", "a value without a life keeps none of the old one's");
    for key in ["hash", "timed"] {
        assert_eq!(server.text(&["PEXPIRETIME", key]), at.to_string(), "{key}");
    }
    assert_eq!(server.text(&["EXISTS", "past"]), "0");
}

#[test]
fn a_full_server_refuses_the_batch_as_a_whole() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let client = client(RedisMode::Standalone, vec![server.address()]);
    let (handle, _) = client.open(&NodeId::standalone());
    assert_eq!(client.apply(&handle, "", "r1", vec![set("a", "1")]), applied());
    server.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let outcome = client.apply(&handle, "r1", "r2", vec![Mutation::new(b"a".to_vec(), Op::Delete), set("b", "1")]);
    assert_eq!(outcome, Outcome::Fault(RedisFault::OutOfMemory));
    assert_eq!(server.text(&["EXISTS", "a", "b"]), "1");
    server.call(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(client.apply(&handle, "r1", "r2", vec![set("b", "1")]), applied());
}

#[test]
fn a_key_outside_the_users_patterns_is_a_failure_that_names_it() {
    if redis_missing() {
        return;
    }
    let server = Server::start(&[]);
    let client = client(RedisMode::Standalone, vec![server.address()]);
    let (handle, _) = client.open(&NodeId::standalone());
    server.call(&["ACL", "SETUSER", "default", "resetkeys", "~order:*", "~sluice/*"]);
    let outcome = client.apply(&handle, "", "r1", vec![set("order:1", "1"), set("other:1", "1"), set("order:2", "1")]);
    assert!(matches!(outcome, Outcome::Failed { item: 1, .. }), "{outcome:?}");
    let (_, fields) = client.open(&NodeId::standalone());
    assert!(fields.is_empty(), "the record is not written");
}

#[test]
fn slots_of_other_nodes_and_slots_in_motion_stay_behind() {
    if redis_missing() {
        return;
    }
    let cluster = Cluster::start(2, 0);
    let client = client(RedisMode::Cluster, cluster.addresses());
    let (first, second) = (&cluster.masters[0], &cluster.masters[1]);
    let (mine, theirs) = (keys_of(&client, first, 20), keys_of(&client, second, 1));
    let (handle, _) = client.open(&node(first));
    let all: Vec<Mutation> = mine.iter().chain(&theirs).map(|key| set(key, "1")).collect();
    let slot = Slot::of_key(theirs[0].as_bytes());
    let text = format!("r1 !5:{slot}");
    assert_eq!(client.apply(&handle, "", "r1", all), Outcome::Applied { behind: vec![slot], text: Some(text.clone()) });
    assert_eq!(second.text(&["EXISTS", &theirs[0]]), "0", "nothing follows a redirect");
    for key in &mine {
        assert_eq!(first.text(&["GET", key]), "1");
    }
    // A slot in motion: its absent keys cannot be written here any more.
    let moving = Slot::of_key(mine[0].as_bytes());
    move_slot(moving.number(), first, second, &[], || {
        first.call(&["MIGRATE", "127.0.0.1", &second.port.to_string(), &mine[0], "0", "20000"]);
        let outcome = client.apply(&handle, &text, "r2", vec![set(&mine[0], "2"), set(&mine[1], "2")]);
        let expected = Outcome::Applied { behind: vec![moving], text: Some(format!("r2 !5:{moving}")) };
        assert_eq!(outcome, expected);
    });
    assert_eq!(first.text(&["GET", &mine[1]]), "2");
}

#[test]
fn a_promoted_replica_keeps_its_records_and_a_migrated_hash_is_not_believed() {
    if redis_missing() {
        return;
    }
    let mut cluster = Cluster::start(3, 1);
    let client = client(RedisMode::Cluster, cluster.addresses());
    let (handle, _) = client.open(&node(&cluster.masters[0]));
    assert_eq!(client.apply(&handle, "", "r1", vec![]), applied());
    let (master, replica) = (node(&cluster.masters[0]), node(&cluster.replicas[0]));
    cluster.masters[0].wait_replicated(&cluster.replicas[0]);
    cluster.masters[0].kill();
    wait_for("the replica is promoted", || client.topology().shard(&replica).is_some());
    let (promoted, fields) = client.open(&replica);
    assert_eq!(fields, [(FIELD.to_owned(), "r1".to_owned())], "the data is a prefix that ends with this record");
    assert_ne!(promoted.key, handle.key);
    assert_eq!(client.apply(&promoted, "r1", "r2", vec![]), applied());
    let (_, again) = client.open(&replica);
    assert_eq!(again, [(FIELD.to_owned(), "r2".to_owned())]);
    assert!(client.topology().shard(&master).is_none());
    // A hash under the promoted node's name on another master proves nothing about that master.
    let other = node(&cluster.masters[1]);
    let (_, fields) = client.open(&other);
    assert!(fields.is_empty(), "{fields:?}");
}

#[test]
fn the_records_come_back_when_their_slot_is_moved_away() {
    if redis_missing() {
        return;
    }
    let cluster = Cluster::start(2, 0);
    let client = client(RedisMode::Cluster, cluster.addresses());
    let (first, second) = (&cluster.masters[0], &cluster.masters[1]);
    let (handle, _) = client.open(&node(first));
    assert_eq!(client.apply(&handle, "", "r1", vec![]), applied());
    let (_, theirs) = client.open(&node(second));
    assert!(theirs.is_empty());
    // While the slot is on its way, and after.
    move_slot(0, first, second, &[], || {
        first.call(&["MIGRATE", "127.0.0.1", &second.port.to_string(), &handle.key, "0", "20000"]);
        let (moving, fields) = client.open(&node(first));
        assert_eq!(fields, [(FIELD.to_owned(), "r1".to_owned())]);
        assert_eq!(client.apply(&moving, "r1", "r2", vec![]), applied());
        let stale = client.apply(&handle, "r1", "stale", vec![set("k", "stale")]);
        assert!(matches!(stale, Outcome::Fault(RedisFault::Ask(_))), "{stale:?}");
    });
    wait_for("the map knows", || {
        client.topology().shard(&node(first)).is_some_and(|shard| shard.slots.first() == Slot::new(1))
    });
    let (after, fields) = client.open(&node(first));
    assert_eq!(fields, [(FIELD.to_owned(), "r2".to_owned())]);
    assert!(after.key.contains(Slot::new(1).expect("a slot").tag()));
    assert_eq!(second.text(&["EXISTS", &handle.key]), "0", "the moved copy is gone");
    // The other server's own records were found again although its lowest slot is another one now.
    assert_eq!(client.open(&node(second)).1, []);
}

/// The slot with the records goes and comes back. Meanwhile the records were copied back and have moved on, and whoever did
/// it died before it deleted the original, which returns with its slot.
#[test]
fn of_several_hashes_under_the_name_of_a_server_the_latest_counts() {
    if redis_missing() {
        return;
    }
    let cluster = Cluster::start(2, 0);
    let connected = || client(RedisMode::Cluster, cluster.addresses());
    let (client, newcomer) = (connected(), connected());
    let (first, second) = (&cluster.masters[0], &cluster.masters[1]);
    let first_slot = |number| {
        wait_for("the map knows", || {
            let slots = |client: &Client| client.topology().shard(&node(first)).and_then(|shard| shard.slots.first());
            [&client, &newcomer].iter().all(|client| slots(client) == Slot::new(number))
        });
    };
    let (handle, _) = client.open(&node(first));
    assert_eq!(client.apply(&handle, "", "r1", vec![]), applied());
    move_slot(0, first, second, &[], || ());
    first_slot(1);
    let (meanwhile, fields) = client.open(&node(first));
    assert_eq!(fields, [(FIELD.to_owned(), "r1".to_owned())]);
    // `r1` names the slot, `r2` does not: what the other server has made of its keys since is not what `r1` says.
    assert_eq!(client.apply(&meanwhile, "r1", "r2", vec![]), applied());
    second.call(&["HSET", &handle.key, "@", &handle.header, FIELD, "r1"]);
    move_slot(0, second, first, &[], || ());
    first_slot(0);
    for client in [&client, &newcomer] {
        let (back, fields) = client.open(&node(first));
        assert_eq!(fields, [(FIELD.to_owned(), "r2".to_owned())]);
        assert_eq!(back.key, handle.key);
        assert_eq!(client.apply(&meanwhile, "r2", "r3", vec![]), Outcome::Refused, "one hash is left");
        assert_eq!(client.apply(&back, "r2", "r2", vec![]), applied());
    }
}

#[test]
fn a_moved_hash_is_worth_nothing_once_its_server_lost_data() {
    if redis_missing() {
        return;
    }
    let mut cluster = Cluster::start(2, 0);
    let client = client(RedisMode::Cluster, cluster.addresses());
    let handle = client.open(&node(&cluster.masters[0])).0;
    assert_eq!(client.apply(&handle, "", "r1", vec![set("{1bz}x", "1")]), applied());
    let (first, second) = (&cluster.masters[0], &cluster.masters[1]);
    move_slot(0, first, second, &[], || ());
    assert_eq!(second.text(&["HGET", &handle.key, FIELD]), "r1", "the hash went with its slot");
    // Without persistence a restart loses everything, and begins another line of replication.
    cluster.masters[0].restart();
    let first = &cluster.masters[0];
    wait_for("the map knows", || client.try_open(&node(first)).is_ok());
    assert_eq!(client.open(&node(first)).1, [], "the copy elsewhere proves nothing about the empty server");
}

#[test]
fn a_slot_whose_move_a_failover_cut_off_is_proven_by_nobody() {
    if redis_missing() {
        return;
    }
    let mut cluster = Cluster::start(3, 1);
    // Else the target of the move is down until people have closed it, and nothing is believed before.
    cluster.nodes().for_each(|node| drop(node.call(&["CONFIG", "SET", "cluster-require-full-coverage", "no"])));
    let client = client(RedisMode::Cluster, cluster.addresses());
    let (handle, _) = client.open(&node(&cluster.masters[0]));
    let keys = keys_of(&client, &cluster.masters[0], 2);
    let (moving, staying) = (Slot::of_key(keys[0].as_bytes()), Slot::of_key(keys[1].as_bytes()));
    let record =
        |version: u64, coverage: String| format!("1 7Wc2m-Qd_kOZr4hV0nH3xA 5 {version} 1763700000123 {coverage}");
    let slots = client.topology().shard(&node(&cluster.masters[0])).expect("a shard").slots.clone();
    let text = record(3, format!("8:{slots}"));
    assert_eq!(client.apply(&handle, "", &text, vec![set(&keys[0], "1"), set(&keys[1], "1")]), applied());
    let (first, second) = (&cluster.masters[0], &cluster.masters[1]);
    let number = moving.to_string();
    second.call(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &first.node_id()]);
    first.call(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &second.node_id()]);
    first.call(&["MIGRATE", "127.0.0.1", &second.port.to_string(), &keys[0], "0", "20000"]);
    // The replica has the record and the removal of the key, and knows nothing of the move.
    first.wait_replicated(&cluster.replicas[0]);
    let (replica, dead) = (node(&cluster.replicas[0]), node(&cluster.masters[0]));
    cluster.masters[0].kill();
    wait_for("the replica is promoted", || client.topology().shard(&replica).is_some());
    assert_eq!(cluster.replicas[0].text(&["EXISTS", &keys[0]]), "0", "the key is lost to readers");
    // The target of the move still gives the slot to the dead master: by its map the promoted server does not have it.
    // Once the target knows that it is dead: where it is taken for alive nothing is inherited from it, and all is read again.
    let mut map = client.topology();
    wait_for("the target's map is given", || {
        map = client.topology();
        map.shard(&dead).is_none() && map.shard(&replica).is_some_and(|shard| !shard.slots.contains(moving))
    });
    // The others must say what they import; until the cluster is whole again, they do not.
    wait_for("it can be opened", || client.try_open_by(&map, &replica).is_ok());
    let (promoted, fields) = client.open(&replica);
    let one: SlotSet = [moving].into_iter().collect();
    let without = record(4, format!("8:{}", slots.difference(&one)));
    assert_eq!(fields, [(FIELD.to_owned(), without.clone())], "slot {moving} is to be read again, {staying} is not");
    assert_eq!(client.apply(&promoted, &without, &text, vec![set(&keys[0], "1")]), applied());
}

/// A server that answers as an old or a restricted one does.
struct Imposter {
    address: String,
}

impl Imposter {
    /// `eval`: the answer to a script, as it goes over the wire.
    fn start(version: &'static str, eval: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(&stream, version, eval));
            }
        });
        Self { address }
    }
}

fn answer(mut stream: &std::net::TcpStream, version: &str, eval: &str) -> Option<()> {
    use std::io::{BufRead, BufReader, Read, Write};
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let count: usize = line.trim_end()[1..].parse().ok()?;
        if !line.starts_with('$') {
            return Some((count, String::new()));
        }
        let mut bytes = vec![0; count + 2];
        reader.read_exact(&mut bytes).ok()?;
        Some((count, String::from_utf8_lossy(&bytes[..count]).into_owned()))
    };
    loop {
        let (count, _) = line()?;
        let words: Vec<String> = (0..count).map(|_| line().map(|(_, word)| word)).collect::<Option<_>>()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let text = match words[..] {
            ["INFO", "server"] => bulk(&format!("redis_version:{version}\r\n")),
            ["INFO", _] => bulk("role:master\r\nmaster_replid:ab\r\nmaster_replid2:0\r\n"),
            ["TIME"] => format!("*2\r\n{}{}", bulk("1763700000"), bulk("0")),
            ["HGETALL", _] => "*0\r\n".to_owned(),
            ["EVAL", ..] => eval.to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        stream.write_all(text.as_bytes()).ok()?;
    }
}

#[test]
fn servers_that_are_too_old_or_refuse_scripts_over_slots_are_named() {
    let open = |imposter: &Imposter| {
        let client = client(RedisMode::Standalone, vec![imposter.address.clone()]);
        client.try_open(&NodeId::standalone()).expect_err("of no use")
    };
    let old = open(&Imposter::start("6.2.14", ""));
    assert_eq!((old.category(), &old), ("ServerTooOld", &OpenError::ServerTooOld("6.2.14".to_owned())));
    for eval in [
        "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
        "-ERR Script attempted to access keys that do not hash to the same slot\r\n",
        "-ERR Unexpected flag in script shebang: allow-cross-slot-keys\r\n",
    ] {
        let refused = open(&Imposter::start("7.2.4", eval));
        assert_eq!(refused.category(), "CrossSlotScriptsRefused", "{eval}: {refused}");
    }
    // Trouble of the moment is not taken for it.
    let loading = open(&Imposter::start("7.2.4", "-LOADING Redis is loading the dataset in memory\r\n"));
    assert_eq!(loading, OpenError::Fault(RedisFault::Loading));
}
