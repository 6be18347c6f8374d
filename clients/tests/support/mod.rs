//! Redis servers of a test's own, on loopback: started here, killed by their handle, gone with the test.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::Value;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One `redis-server`.
pub struct Server {
    pub port: u16,
    child: Child,
    dir: tempfile::TempDir,
    args: Vec<String>,
}

/// Why tests that need `redis-server` cannot run here, or none. With `SLUICE_REQUIRE_STACK=1` that is a failure.
pub fn redis_missing() -> bool {
    let found = Command::new("redis-server")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        assert!(std::env::var("SLUICE_REQUIRE_STACK").as_deref() != Ok("1"), "redis-server is not installed");
        eprintln!("skipped: redis-server is not installed");
    }
    !found
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

impl Server {
    /// A server with these extra settings that answers PING.
    pub fn start(settings: &[&str]) -> Self {
        let port = free_port();
        let mut args: Vec<String> =
            ["--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"].map(str::to_owned).into();
        args.extend(["--port".to_owned(), port.to_string()]);
        args.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let dir = tempfile::tempdir().expect("a folder");
        let child = spawn(&args, &dir);
        let server = Self { port, child, dir, args };
        server.wait_ready();
        server
    }

    /// A member of a cluster, alone yet. Silent for its time-out on a busy machine, it would lose its place to a replica.
    pub fn cluster_member() -> Self {
        let bus = free_port().to_string();
        Self::start(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "5000"])
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.address())).expect("a good address");
        let connection = client.get_connection_with_timeout(PATIENCE).expect("connected");
        connection.set_read_timeout(Some(PATIENCE)).expect("set");
        connection
    }

    /// One command, its words given apart; panics on an error answer.
    pub fn call(&self, words: &[&str]) -> Value {
        self.try_call(words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    pub fn try_call(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(format!("redis://{}", self.address()))?;
        let mut connection = client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut connection)
    }

    pub fn text(&self, words: &[&str]) -> String {
        redis::from_redis_value(self.call(words)).expect("a text")
    }

    pub fn node_id(&self) -> String {
        self.text(&["CLUSTER", "MYID"])
    }

    /// Waits until a replica has everything that was written here. `WAIT` on a connection that has written nothing waits for
    /// nothing, and a replica whose link is up may be sent its first writes a second later.
    pub fn wait_replicated(&self, replica: &Self) {
        let offset = |server: &Self| {
            let info = server.text(&["INFO", "replication"]);
            let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
            line.and_then(|number| number.trim().parse::<u64>().ok()).expect("an offset")
        };
        let there = offset(self);
        wait_for("the replica has everything", || offset(replica) >= there);
    }

    /// Stops it without a chance to say goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same port and folder.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.args, &self.dir);
        self.wait_ready();
    }

    /// Freezes (SIGSTOP) or thaws (SIGCONT) the process.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "cannot signal the server");
    }

    fn wait_ready(&self) {
        // A server with a password answers too, if only with an error.
        wait_for("redis-server answers", || {
            self.try_call(&["PING"]).map_or_else(|error| error.code().is_some(), |_| true)
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(args: &[String], dir: &tempfile::TempDir) -> Child {
    let mut command = Command::new("redis-server");
    command.args(args).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server starts")
}

/// Masters with equal parts of the slots, each with as many replicas as asked for.
pub struct Cluster {
    pub masters: Vec<Server>,
    pub replicas: Vec<Server>,
}

impl Cluster {
    pub fn start(masters: usize, replicas_each: usize) -> Self {
        let masters: Vec<Server> = (0..masters).map(|_| Server::cluster_member()).collect();
        let replicas: Vec<Server> = (0..masters.len() * replicas_each).map(|_| Server::cluster_member()).collect();
        let cluster = Self { masters, replicas };
        let count = cluster.masters.len();
        for (index, master) in cluster.masters.iter().enumerate() {
            let (first, last) = (16_384 * index / count, 16_384 * (index + 1) / count - 1);
            master.call(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            master.call(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        let first = &cluster.masters[0];
        let size = cluster.masters.len() + cluster.replicas.len();
        wait_for("every node knows all", || {
            // Again and again: a handshake that takes longer than the node time-out is given up, and nobody repeats it.
            let known = first.text(&["CLUSTER", "NODES"]);
            cluster.nodes().skip(1).filter(|other| !is_met(&known, other)).for_each(|other| meet(first, other));
            cluster.nodes().all(|node| {
                let known = node.text(&["CLUSTER", "NODES"]);
                known.lines().count() == size && !known.contains("handshake")
            })
        });
        for (index, replica) in cluster.replicas.iter().enumerate() {
            let master = cluster.masters[index % count].node_id();
            wait_for("the replica knows its master", || replica.try_call(&["CLUSTER", "REPLICATE", &master]).is_ok());
        }
        wait_for("the cluster is whole", || {
            cluster.nodes().all(|node| node.text(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
                && cluster
                    .replicas
                    .iter()
                    .all(|replica| replica.text(&["INFO", "replication"]).contains("master_link_status:up"))
        });
        cluster
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.masters.iter().chain(&self.replicas)
    }

    pub fn addresses(&self) -> Vec<String> {
        self.nodes().map(Server::address).collect()
    }
}

/// Whether a node is in a list of nodes, by more than a handshake that has begun.
fn is_met(known: &str, other: &Server) -> bool {
    let address = format!(" {}@", other.address());
    known.lines().any(|line| line.contains(&address) && !line.contains("handshake"))
}

fn meet(first: &Server, other: &Server) {
    let bus = other
        .args
        .iter()
        .position(|arg| arg == "--cluster-port")
        .map(|at| other.args[at + 1].clone())
        .expect("a member");
    first.call(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), &bus]);
}

/// Moves one slot as `redis-cli --cluster reshard` does; `between` runs when half of its keys are moved.
pub fn move_slot(slot: u16, from: &Server, to: &Server, everybody: &[&Server], between: impl FnOnce()) {
    let (slot, from_id, to_id) = (slot.to_string(), from.node_id(), to.node_id());
    to.call(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.call(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let mut between = Some(between);
    let count: i64 = redis::from_redis_value(from.call(&["CLUSTER", "COUNTKEYSINSLOT", &slot])).expect("a number");
    let mut moved = 0;
    loop {
        if moved * 2 >= count
            && let Some(between) = between.take()
        {
            between();
        }
        let keys: Vec<String> =
            redis::from_redis_value(from.call(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"])).expect("keys");
        let Some(key) = keys.first() else { break };
        from.call(&["MIGRATE", "127.0.0.1", &to.port.to_string(), key, "0", "20000", "REPLACE"]);
        moved += 1;
    }
    to.call(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    from.call(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    for node in everybody {
        let _ = node.try_call(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
}

/// Polls until it holds; panics after 90 s.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 90 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
