//! One node, one multiplexed connection: calls are pipelined on it by whoever shares the link.
//!
//! A connection that broke or did not answer in time is thrown away and made anew at the next call, not before a
//! jittered pause that doubles up to a bound. Each connection has a [`Generation`]: a call that only makes sense on the
//! connection its plan was made on (the applier's scripts) names it and is refused, unsent, on any other.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, Value};
use tokio::sync::Mutex;

use super::error::{Lost, NotSent, RedisFault};
use super::settings::{NodeAddress, RedisSettings, RedisTimeouts, SettingsError};

/// Which connection of a link, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The `number`th connection; for tests and models, links give theirs themselves.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
}

/// Shortest and longest pause between attempts to connect, before jitter.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// One answer of a pipeline.
pub type Answer = Result<Value, RedisFault>;

/// A node and our connection to it. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct NodeLink {
    inner: Arc<Inner>,
}

struct Inner {
    address: NodeAddress,
    client: redis::Client,
    timeouts: RedisTimeouts,
    state: Mutex<State>,
}

struct State {
    connection: Option<MultiplexedConnection>,
    /// Of the connection that is or was there; 0 before the first.
    generation: u64,
    failures: u32,
    retry_at: Option<Instant>,
}

impl NodeLink {
    /// A link that connects at its first call.
    pub fn new(settings: &RedisSettings, address: NodeAddress) -> Result<Self, SettingsError> {
        let client = settings.client(&address)?;
        let state = Mutex::new(State { connection: None, generation: 0, failures: 0, retry_at: None });
        Ok(Self { inner: Arc::new(Inner { address, client, timeouts: settings.timeouts, state }) })
    }

    /// The node's address.
    pub fn address(&self) -> &NodeAddress {
        &self.inner.address
    }

    /// Connects when there is no connection, and says which one is there now.
    pub async fn connect(&self) -> Result<Generation, RedisFault> {
        self.connection(None).await.map(|(_, generation)| generation)
    }

    /// Sends the commands in one write and gives each its answer. `Err` is for all of them.
    pub async fn pipeline(&self, commands: &Pipeline) -> Result<Vec<Answer>, RedisFault> {
        let (connection, generation) = self.connection(None).await?;
        self.run(connection, generation, commands).await
    }

    /// As [`Self::pipeline`], on this very connection; [`NotSent::Replaced`] when it is gone.
    pub async fn pipeline_on(&self, on: Generation, commands: &Pipeline) -> Result<Vec<Answer>, RedisFault> {
        let (connection, generation) = self.connection(Some(on)).await?;
        self.run(connection, generation, commands).await
    }

    /// One command.
    pub async fn command(&self, command: &redis::Cmd) -> Answer {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command.clone());
        only(self.pipeline(&pipeline).await?)
    }

    async fn connection(&self, wanted: Option<Generation>) -> Result<(MultiplexedConnection, Generation), RedisFault> {
        let mut state = self.inner.state.lock().await;
        if let Some(wanted) = wanted
            && (state.connection.is_none() || state.generation != wanted.0)
        {
            return Err(RedisFault::NotSent(NotSent::Replaced));
        }
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), Generation(state.generation)));
        }
        if state.retry_at.is_some_and(|at| Instant::now() < at) {
            return Err(RedisFault::NotSent(NotSent::BackingOff));
        }
        let timeouts = self.inner.timeouts;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeouts.connect))
            .set_response_timeout(Some(timeouts.response));
        // The library's time-out covers TCP and TLS; ours covers AUTH too.
        let attempt = self.inner.client.get_multiplexed_async_connection_with_config(&config);
        let outcome = match tokio::time::timeout(timeouts.connect, attempt).await {
            Err(_elapsed) => Err(RedisFault::NotSent(NotSent::Connect("timed out".to_owned()))),
            Ok(Err(error)) => Err(RedisFault::of_connect(&error)),
            Ok(Ok(connection)) => Ok(connection),
        };
        match outcome {
            Ok(connection) => {
                state.generation += 1;
                state.failures = 0;
                state.retry_at = None;
                state.connection = Some(connection.clone());
                Ok((connection, Generation(state.generation)))
            }
            Err(fault) => {
                let pause = pause(state.failures, RandomState::new().build_hasher().finish());
                state.failures = state.failures.saturating_add(1);
                state.retry_at = Some(Instant::now() + pause);
                Err(fault)
            }
        }
    }

    async fn run(
        &self,
        mut connection: MultiplexedConnection,
        generation: Generation,
        commands: &Pipeline,
    ) -> Result<Vec<Answer>, RedisFault> {
        let count = commands.len();
        let fault = match connection.send_packed_commands(commands, 0, count).await {
            Ok(values) if values.len() == count => return Ok(values.into_iter().map(answer).collect()),
            Ok(_) => RedisFault::Malformed("not one answer a command"),
            Err(error) => match RedisFault::of_call(&error) {
                fault @ RedisFault::UnknownOutcome(_) => fault,
                // The library gives server errors one by one: an error of the whole call is the connection's.
                _ => RedisFault::UnknownOutcome(Lost::Disconnected),
            },
        };
        self.discard(generation).await;
        Err(fault)
    }

    /// Throws this connection away; calls in flight on it end with an unknown outcome.
    pub async fn discard(&self, generation: Generation) {
        let mut state = self.inner.state.lock().await;
        if state.generation == generation.0 {
            state.connection = None;
        }
    }
}

/// The answer of the only command.
pub fn only(answers: Vec<Answer>) -> Answer {
    answers.into_iter().next().unwrap_or(Err(RedisFault::Malformed("no answer")))
}

fn answer(value: Value) -> Answer {
    match value {
        Value::ServerError(error) => Err(RedisFault::of_answer(&error)),
        value => Ok(value),
    }
}

/// Between half and all of the doubled pause.
fn pause(failures: u32, random: u64) -> Duration {
    let full = PAUSE_MIN.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
    full / 2 + full.mul_f64((random % 1_000) as f64 / 2_000.0)
}

impl fmt::Debug for NodeLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeLink({})", self.inner.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        assert_eq!(pause(0, 0), PAUSE_MIN / 2);
        assert!(pause(40, 999) <= PAUSE_MAX && pause(40, 0) == PAUSE_MAX / 2);
        assert!((0..1_000).all(|random| pause(3, random) >= pause(2, 0)));
    }
}
