//! The running stack, as the environment describes it, for tests against the real servers.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

/// True when the stack's part behind `variable` is missing; says so, and fails where the stack is required.
pub fn missing(variable: &str) -> bool {
    if std::env::var_os(variable).is_some() {
        return false;
    }
    assert!(
        std::env::var("SLUICE_REQUIRE_STACK").as_deref() != Ok("1"),
        "{variable} is not set, but the stack is required"
    );
    eprintln!("skipped: {variable} is not set (run inside the local stack, or describe a cluster by it)");
    true
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} should be set with the others"))
}

fn file(name: &str) -> String {
    let path = variable(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name} {path}: {error}")).trim_end().to_owned()
}

/// Kafka's brokers with TLS, without a login.
fn kafka() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", variable("KAFKA_BROKERS"));
    if let Ok(protocol) = std::env::var("KAFKA_SECURITY_PROTOCOL") {
        config.set("security.protocol", protocol);
    }
    if let Ok(ca) = std::env::var("KAFKA_CA_FILE") {
        config.set("ssl.ca.location", ca);
    }
    config
}

/// Kafka as a user.
pub fn kafka_as(user: &str, password: &str) -> ClientConfig {
    let mut config = kafka();
    config.set("sasl.mechanism", "SCRAM-SHA-512").set("sasl.username", user).set("sasl.password", password);
    config
}

/// Kafka as its administrator.
pub fn kafka_as_admin() -> ClientConfig {
    kafka_as(&variable("KAFKA_SASL_USERNAME"), &file("KAFKA_SASL_PASSWORD_FILE"))
}

/// Redis' addresses.
pub fn redis_addresses() -> Vec<String> {
    variable("REDIS_ADDRESSES").split(',').map(str::to_owned).collect()
}

/// The authorities of Redis' certificates.
pub fn redis_ca() -> Vec<u8> {
    file("REDIS_CA_FILE").into_bytes()
}

/// Redis' administrator.
pub fn redis_admin() -> (String, String) {
    (variable("REDIS_USERNAME"), file("REDIS_PASSWORD_FILE"))
}

/// A name that no other test and no earlier run has.
pub fn unique(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("t{}-{}-{name}", std::process::id(), now.as_nanos() % 1_000_000_000)
}

/// Asks until there is an answer; fails after 90 s with what was waited for. Brokers learn of topics, users and rights one after
/// another: whatever one of them has confirmed, another one may not know yet.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within 90 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
