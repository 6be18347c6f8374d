//! What the process hands to each engine, and what it takes back.

use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use sluice_clients::kafka::config::Credentials as KafkaCredentials;
use sluice_crds::worker_config::{Identity, KafkaEndpoint, RedisEndpoint};
use tokio::sync::watch;

use crate::config::{PodName, RedisCredentials, Settings};
use crate::health::Health;

/// The metrics of the process. An engine registers its own when it starts.
pub type Metrics = Arc<Mutex<Registry>>;

/// What an engine may use. Cheap to clone.
#[derive(Clone)]
pub struct EngineContext {
    /// Whose worker this is.
    pub identity: Identity,
    /// This pod.
    pub pod: PodName,
    /// Kafka's addresses.
    pub kafka: KafkaEndpoint,
    /// Credentials for Kafka; absent when the endpoint has no SASL.
    pub kafka_credentials: Option<KafkaCredentials>,
    /// Redis's addresses and credentials (absent when it has no ACL user).
    pub redis: Option<(RedisEndpoint, Option<RedisCredentials>)>,
    /// Probes.
    pub health: Arc<Health>,
    /// Metrics.
    pub metrics: Metrics,
    /// Raised once, when the process must stop.
    pub shutdown: Shutdown,
}

impl EngineContext {
    /// The context of this process.
    pub fn new(settings: &Settings, shutdown: Shutdown) -> Self {
        let config = &settings.config;
        let health: Arc<Health> = Arc::default();
        let mut registry = Registry::with_prefix("sluice");
        health.register_waits(&mut registry);
        Self {
            identity: config.identity.clone(),
            pod: settings.pod.clone(),
            kafka: config.kafka.clone(),
            kafka_credentials: settings.kafka_credentials.clone(),
            redis: config.redis.clone().map(|endpoint| (endpoint, settings.redis_credentials.clone())),
            health,
            metrics: Arc::new(Mutex::new(registry)),
            shutdown,
        }
    }
}

/// Why an engine gave up: a bounded category for metrics and events, and a message for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// CamelCase word from a fixed set.
    pub category: &'static str,
    /// What happened and what to do.
    pub message: String,
}

/// The stop signal: raised once, seen by everybody, also by those who ask later.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// The one who raises the stop signal.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl Shutdown {
    /// A signal that is not raised, and its trigger. Dropping the trigger raises it.
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger(sender), Self(receiver))
    }

    /// Whether it was raised; for threads that poll.
    pub fn is_raised(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when it is raised.
    pub async fn raised(&self) {
        // An error means that the trigger is gone: nobody is left to run for.
        let _ = self.0.clone().wait_for(|raised| *raised).await;
    }
}

impl ShutdownTrigger {
    /// Raises the signal.
    pub fn raise(&self) {
        self.0.send_replace(true);
    }
}
