//! One Kafka and one Redis admin client a connection, shared by all resources on it.
//!
//! A connection that is away fails fast: after a failed call the next ones get the same error at once, instead of each
//! waiting for its own deadline, and only one of them at a time tries whether it is back. So a dead Kafka never takes the
//! places in which resources on other ones are worked on.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use sluice_clients::kafka::admin::{Admin, AdminError, Requests};
use sluice_clients::kafka::config::{Credentials as KafkaCredentials, client_config};
use sluice_clients::redis::admin::{RedisAdmin, RedisAdminError};
use sluice_clients::redis::{
    NodeAddress, RedisFault, RedisSettings, RedisTimeouts, RedisTls, RedisUser, SettingsError,
};
use sluice_crds::worker_config::{KafkaEndpoint, SaslFiles, TlsFiles};

use crate::settings::{ConnectionName, KafkaConnection, RedisConnection};

/// Longest wait for one answer of Kafka.
const KAFKA_DEADLINE: Duration = Duration::from_secs(8);
/// Longest wait for one Redis node.
const REDIS_DEADLINE: Duration = Duration::from_secs(5);
/// How long a failure is repeated without asking again.
const COOL_DOWN: Duration = Duration::from_secs(3);

/// Repeats a failure instead of waiting for the next one, and lets one caller at a time find out whether it is over.
#[derive(Debug)]
struct Gate<E> {
    state: Mutex<GateState<E>>,
}

#[derive(Debug)]
struct GateState<E> {
    /// The last failure of the connection, if nothing has succeeded since.
    failed: Option<(Instant, E)>,
    /// True while somebody tries again.
    probing: bool,
}

impl<E> Default for Gate<E> {
    fn default() -> Self {
        Self { state: Mutex::new(GateState { failed: None, probing: false }) }
    }
}

/// The right to try again; given back when dropped, also by a caller that was cancelled.
struct Probe<'a, E>(Option<&'a Gate<E>>);

impl<E> Drop for Probe<'_, E> {
    fn drop(&mut self) {
        if let Some(gate) = self.0 {
            gate.lock().probing = false;
        }
    }
}

impl<E> Gate<E> {
    fn lock(&self) -> MutexGuard<'_, GateState<E>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<E: Clone> Gate<E> {
    /// Does the work, unless the connection is known to be away. `away` tells errors of the connection from errors of
    /// the request.
    async fn run<T>(&self, away: fn(&E) -> bool, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let probe = self.enter()?;
        let done = work.await;
        self.lock().failed = match &done {
            Err(error) if away(error) => Some((Instant::now(), error.clone())),
            _ => None,
        };
        drop(probe);
        done
    }

    /// [`Self::run`] for a part of the connection that can fail by itself: its failure says nothing about the rest.
    async fn run_part<T>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let probe = self.enter()?;
        let done = work.await;
        if done.is_ok() {
            self.lock().failed = None;
        }
        drop(probe);
        done
    }

    /// Whether this caller may ask; the known failure if not.
    fn enter(&self) -> Result<Probe<'_, E>, E> {
        let mut state = self.lock();
        match &state.failed {
            None => Ok(Probe(None)),
            Some((when, error)) if state.probing || when.elapsed() < COOL_DOWN => Err(error.clone()),
            Some(_) => {
                state.probing = true;
                Ok(Probe(Some(self)))
            }
        }
    }
}

/// Kafka of one connection.
#[derive(Debug)]
pub struct KafkaClient {
    connection: Arc<KafkaConnection>,
    admin: Admin,
    gate: Gate<AdminError>,
}

/// Redis of one connection.
#[derive(Debug)]
pub struct RedisClient {
    connection: Arc<RedisConnection>,
    admin: RedisAdmin,
    gate: Gate<RedisAdminError>,
}

impl KafkaClient {
    /// One admin call; fails at once while the brokers are known to be away.
    pub async fn call<T, F>(&self, work: impl FnOnce(Admin) -> F) -> Result<T, AdminError>
    where
        F: Future<Output = Result<T, AdminError>>,
    {
        self.gate.run(kafka_is_away, work(self.admin.clone())).await
    }

    /// Requests sent to the brokers, by Kafka's name for them.
    pub fn requests(&self) -> Requests {
        self.admin.requests()
    }

    /// One admin call about one group, whose coordinator may be away while the other brokers are well.
    pub async fn call_group<T, F>(&self, work: impl FnOnce(Admin) -> F) -> Result<T, AdminError>
    where
        F: Future<Output = Result<T, AdminError>>,
    {
        self.gate.run_part(work(self.admin.clone())).await
    }
}

/// True when the error speaks of the connection, not of what was asked.
pub fn kafka_is_away(error: &AdminError) -> bool {
    error.retryable() || matches!(error, AdminError::Authentication(_) | AdminError::Closed)
}

impl RedisClient {
    /// One admin call; fails at once while the servers are known to be away.
    pub async fn call<T, F>(&self, work: impl FnOnce(RedisAdmin) -> F) -> Result<T, RedisAdminError>
    where
        F: Future<Output = Result<T, RedisAdminError>>,
    {
        self.gate.run(redis_is_away, work(self.admin.clone())).await
    }
}

/// True when the error speaks of the connection, not of what was asked.
pub fn redis_is_away(error: &RedisAdminError) -> bool {
    error.retryable() || matches!(error, RedisAdminError::Fault(RedisFault::Unauthenticated))
}

/// All clients, made when first needed and made anew when the settings give a connection another endpoint.
#[derive(Debug, Default)]
pub struct Connections {
    kafka: Mutex<HashMap<ConnectionName, Arc<KafkaClient>>>,
    redis: Mutex<HashMap<ConnectionName, Arc<RedisClient>>>,
}

impl Connections {
    /// The client of a Kafka connection.
    pub fn kafka(&self, connection: &Arc<KafkaConnection>) -> Result<Arc<KafkaClient>, AdminError> {
        let mut clients = self.kafka.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = clients.get(&connection.name)
            && client.connection.same_endpoint(connection)
        {
            return Ok(Arc::clone(client));
        }
        let admin = Admin::new(&kafka_config(connection), KAFKA_DEADLINE)?;
        let client = Arc::new(KafkaClient { connection: Arc::clone(connection), admin, gate: Gate::default() });
        clients.insert(connection.name.clone(), Arc::clone(&client));
        Ok(client)
    }

    /// Requests sent to the brokers of each connection.
    pub fn kafka_requests(&self) -> BTreeMap<String, Requests> {
        let clients = self.kafka.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        clients.iter().map(|(name, client)| (name.to_string(), client.requests())).collect()
    }

    /// The client of a Redis connection.
    pub fn redis(&self, connection: &Arc<RedisConnection>) -> Result<Arc<RedisClient>, RedisAdminError> {
        let mut clients = self.redis.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = clients.get(&connection.name)
            && client.connection.same_endpoint(connection)
        {
            return Ok(Arc::clone(client));
        }
        let admin = redis_settings(connection).and_then(RedisAdmin::new)?;
        let client = Arc::new(RedisClient { connection: Arc::clone(connection), admin, gate: Gate::default() });
        clients.insert(connection.name.clone(), Arc::clone(&client));
        Ok(client)
    }

    /// Closes clients of connections that are not in the settings any more.
    pub fn retain(&self, settings: &crate::settings::Settings) {
        let keep = |map: &mut HashMap<ConnectionName, Arc<KafkaClient>>| {
            map.retain(|name, _| settings.kafka.contains_key(name));
        };
        keep(&mut self.kafka.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let mut redis = self.redis.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        redis.retain(|name, _| settings.redis.contains_key(name));
    }
}

fn kafka_config(connection: &KafkaConnection) -> ClientConfig {
    let endpoint = KafkaEndpoint {
        brokers: connection.brokers.clone(),
        tls: connection.tls.as_ref().map(|_| TlsFiles::default()),
        // The files are the worker's business; what matters here is that there is SASL, and with which mechanism.
        sasl: connection.admin.as_ref().map(|(mechanism, _)| SaslFiles {
            mechanism: *mechanism,
            username_file: String::new(),
            password_file: String::new(),
        }),
    };
    let credentials = connection.admin.as_ref().map(|(_, credentials)| KafkaCredentials {
        username: credentials.username.clone(),
        password: credentials.password.clone(),
    });
    let mut config = client_config(&endpoint, credentials.as_ref());
    config.set("client.id", "sluice-operator");
    if let Some(pem) = connection.tls.as_ref().and_then(|tls| tls.ca_pem.as_deref()) {
        config.remove("ssl.ca.location");
        config.set("ssl.ca.pem", pem);
    }
    config
}

fn redis_settings(connection: &RedisConnection) -> Result<RedisSettings, RedisAdminError> {
    let refused = |error: SettingsError| RedisAdminError::Connection(error.to_string());
    let user = |credentials: &crate::settings::Credentials| RedisUser {
        name: credentials.username.clone(),
        password: credentials.password.clone(),
    };
    let tls = |tls: &crate::settings::TlsMaterial| RedisTls {
        ca_pem: tls.ca_pem.as_ref().map(|pem| pem.as_bytes().to_vec()),
    };
    Ok(RedisSettings {
        mode: connection.mode,
        seeds: connection
            .addresses
            .iter()
            .map(|text| NodeAddress::parse(text).map_err(refused))
            .collect::<Result<_, _>>()?,
        tls: connection.tls.as_ref().map(tls),
        user: connection.admin.as_ref().map(user),
        timeouts: RedisTimeouts { response: REDIS_DEADLINE, ..RedisTimeouts::default() },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failed_connection_is_not_asked_again_at_once_and_a_failed_request_is_none() {
        let gate: Gate<&'static str> = Gate::default();
        let asked = AtomicU32::new(0);
        let asked_ref = &asked;
        let ask = |answer: Result<(), &'static str>| {
            gate.run(|error| *error == "away", async move {
                asked_ref.fetch_add(1, Ordering::Relaxed);
                answer
            })
        };
        assert_eq!(ask(Err("refused")).await, Err("refused"));
        assert_eq!(ask(Ok(())).await, Ok(()));
        assert_eq!(ask(Err("away")).await, Err("away"));
        assert_eq!(ask(Ok(())).await, Err("away"));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_part_that_is_away_takes_nothing_else_with_it_and_waits_for_the_whole() {
        let gate: Gate<&'static str> = Gate::default();
        assert_eq!(
            gate.run_part(async { Err::<(), _>("the coordinator is away") }).await,
            Err("the coordinator is away")
        );
        assert_eq!(gate.run(|_| true, async { Ok(()) }).await, Ok(()));
        assert_eq!(gate.run(|_| true, async { Err::<(), _>("away") }).await, Err("away"));
        assert_eq!(gate.run_part(async { Ok(()) }).await, Err("away"));
    }

    #[tokio::test]
    async fn one_caller_at_a_time_finds_out_whether_a_connection_is_back() {
        let gate: Gate<&'static str> = Gate::default();
        let long_ago = Instant::now().checked_sub(COOL_DOWN * 2).unwrap();
        gate.lock().failed = Some((long_ago, "away"));
        let (answer, answered) = tokio::sync::oneshot::channel();
        let probe = gate.run(|_| true, async { answered.await.map_err(|_| "away") });
        let other = gate.run(|_| true, async { Ok(()) });
        tokio::pin!(probe);
        assert!(futures::poll!(&mut probe).is_pending());
        assert_eq!(other.await, Err("away"), "while one tries, the others know");
        answer.send(()).unwrap();
        assert_eq!(probe.await, Ok(()));
        assert_eq!(gate.run(|_| true, async { Ok(()) }).await, Ok(()));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_lets_the_next_one_try() {
        let gate: Gate<&'static str> = Gate::default();
        gate.lock().failed = Some((Instant::now().checked_sub(COOL_DOWN * 2).unwrap(), "away"));
        {
            let probe = gate.run(|_| true, std::future::pending::<Result<(), _>>());
            tokio::pin!(probe);
            assert!(futures::poll!(&mut probe).is_pending());
        }
        assert_eq!(gate.run(|_| true, async { Ok(()) }).await, Ok(()));
    }
}
