//! Questions about many consumer groups at once, asked of their coordinators by requests of our own (ADR 0015). librdkafka asks
//! for one group in a request, and finds its coordinator anew nearly each time.
//!
//! ```text
//! endpoint.rs    brokers, TLS and user, by the properties of a librdkafka client
//! login.rs       SASL; pure
//! connection.rs  one connection to one broker: a request, its answer
//! question.rs    what is asked, and what an answer means; pure
//! mod.rs         who is asked: coordinators are remembered until one says that it is not, or does not answer
//! ```

mod connection;
mod endpoint;
mod login;
mod question;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::{join_all, select_ok};
use kafka_protocol::protocol::Request;
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::{sleep, timeout};

use self::connection::{Connection, Sent};
use self::endpoint::{Address, Endpoint};
pub use self::question::{Description, Offsets, Question};
use super::admin::{AdminError, ByName};
use super::lock;

/// Where a coordinator is can be asked of every broker: so long one has for itself before the next is asked, too.
const NEXT_BROKER: Duration = Duration::from_millis(500);
/// Most coordinators and connections that are remembered: with more, all are found anew.
const REMEMBERED: usize = 50_000;
const CONNECTIONS: usize = 512;

/// One broker's connection, while nobody uses it.
type Line = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// Asks coordinators. Connects when first asked.
pub struct Coordinators {
    endpoint: Endpoint,
    sent: Sent,
    known: Mutex<HashMap<String, Address>>,
    lines: Mutex<HashMap<Address, Line>>,
}

impl Coordinators {
    /// With the properties of a librdkafka client; counts what it sends.
    pub fn new(config: &ClientConfig, sent: Sent) -> Result<Self, AdminError> {
        Ok(Self { endpoint: Endpoint::of(config)?, sent, known: Mutex::default(), lines: Mutex::default() })
    }

    /// Asks for each group. An error as a whole when no broker can say where any of them is.
    pub async fn ask<Q: Question>(
        &self,
        question: &Q,
        groups: BTreeSet<String>,
        deadline: Duration,
    ) -> Result<ByName<Q::Answer>, AdminError> {
        let began = Instant::now();
        let (known, mut unknown) = self.remembered(groups);
        // Half of the time for those who are remembered: when they are wrong or away, there is time to ask anew.
        let mut answers = self.ask_each(question, &known, deadline / 2).await;
        for group in known.keys().filter(|group| answers.get(*group).is_some_and(has_moved)) {
            lock(&self.known).remove(group);
            unknown.insert(group.clone());
        }
        if unknown.is_empty() {
            return Ok(answers);
        }
        let left = || deadline.saturating_sub(began.elapsed());
        let found =
            timeout(left(), self.find(&unknown)).await.unwrap_or_else(|_| Err(late("FindCoordinator", deadline)));
        let found = match found {
            Ok(found) => found,
            Err(error) if answers.values().any(Result::is_ok) => {
                unknown.into_iter().map(|group| (group, Err(error.clone()))).collect()
            }
            Err(error) => return Err(error),
        };
        let mut moved = BTreeMap::new();
        for (group, coordinator) in found {
            match coordinator {
                // It was asked already.
                Ok(coordinator) if known.get(&group) == Some(&coordinator) => {}
                Ok(coordinator) => drop(moved.insert(group, coordinator)),
                Err(error) => drop(answers.insert(group, Err(error))),
            }
        }
        answers.extend(self.ask_each(question, &moved, left()).await);
        Ok(answers)
    }

    /// Groups whose coordinator is remembered, and the others.
    fn remembered(&self, groups: BTreeSet<String>) -> (BTreeMap<String, Address>, BTreeSet<String>) {
        let all = lock(&self.known);
        let (mut known, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for group in groups {
            match all.get(&group) {
                Some(address) => drop(known.insert(group, address.clone())),
                None => drop(unknown.insert(group)),
            }
        }
        (known, unknown)
    }

    /// Asks all coordinators at the same time.
    async fn ask_each<Q: Question>(
        &self,
        question: &Q,
        groups: &BTreeMap<String, Address>,
        limit: Duration,
    ) -> ByName<Q::Answer> {
        let mut by_address: BTreeMap<&Address, Vec<String>> = BTreeMap::new();
        for (group, address) in groups {
            by_address.entry(address).or_default().push(group.clone());
        }
        let asked = by_address.into_iter().map(|(address, groups)| self.ask_one(question, address, groups, limit));
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Asks one coordinator for all its groups.
    async fn ask_one<Q: Question>(
        &self,
        question: &Q,
        address: &Address,
        groups: Vec<String>,
        limit: Duration,
    ) -> ByName<Q::Answer> {
        let mut answers = ByName::new();
        let asked = timeout(limit, async {
            for some in groups.chunks(Q::MOST) {
                answers.extend(Q::answers(self.request(address, &question.request(some), Q::VERSION).await?));
            }
            Ok(())
        });
        let missing = match asked.await {
            Ok(Ok(())) => AdminError::Incomplete(Q::CALL),
            Ok(Err(error)) => error,
            Err(_) => late(Q::CALL, limit),
        };
        for group in groups {
            answers.entry(group).or_insert_with(|| Err(missing.clone()));
        }
        answers
    }

    /// Finds and remembers coordinators; an error when no broker answers.
    async fn find(&self, groups: &BTreeSet<String>) -> Result<ByName<Address>, AdminError> {
        let (names, mut all): (Vec<String>, _) = (groups.iter().cloned().collect(), ByName::new());
        for some in names.chunks(question::FIND_MOST) {
            all.extend(question::found(self.request_anywhere(&question::find(some), question::FIND).await?));
        }
        let mut known = lock(&self.known);
        if known.len() + all.len() > REMEMBERED {
            known.clear();
        }
        known.extend(all.iter().filter_map(|(group, found)| Some((group.clone(), found.clone().ok()?))));
        drop(known);
        for group in names {
            all.entry(group).or_insert(Err(AdminError::Incomplete("FindCoordinator")));
        }
        Ok(all)
    }

    /// Asks any broker: first one that is connected.
    async fn request_anywhere<R: Request>(&self, request: &R, version: i16) -> Result<R::Response, AdminError> {
        let mut brokers: Vec<Address> = Vec::new();
        for address in self.connected().into_iter().chain(self.endpoint.bootstrap.iter().cloned()) {
            if !brokers.contains(&address) {
                brokers.push(address);
            }
        }
        if brokers.is_empty() {
            return Err(AdminError::from_code(RDKafkaErrorCode::AllBrokersDown, "no broker is named"));
        }
        let tries = brokers.into_iter().zip(0_u32..).map(|(address, place)| {
            Box::pin(async move {
                // One that takes connections and never answers must not hold up the others.
                sleep(NEXT_BROKER * place).await;
                self.request(&address, request, version).await
            })
        });
        select_ok(tries).await.map(|(answer, _)| answer)
    }

    /// Brokers with a connection that nobody uses now.
    fn connected(&self) -> Vec<Address> {
        let idle = |line: &Line| line.try_lock().is_ok_and(|line| line.is_some());
        lock(&self.lines).iter().filter(|(_, line)| idle(line)).map(|(address, _)| address.clone()).collect()
    }

    /// One request to one broker, over its connection.
    async fn request<R: Request>(
        &self,
        address: &Address,
        request: &R,
        version: i16,
    ) -> Result<R::Response, AdminError> {
        let line = self.line(address);
        let mut line = line.lock().await;
        // Taken out: one who stops waiting leaves no connection behind on which an answer is under way.
        let kept = line.take().filter(Connection::is_fresh);
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.open(address).await?,
        };
        let mut answer = connection.ask(request, version).await;
        if was_kept && answer.as_ref().is_err_and(AdminError::retryable) {
            // The broker may have closed it long ago.
            connection = self.open(address).await?;
            answer = connection.ask(request, version).await;
        }
        if answer.is_ok() {
            *line = Some(connection);
        }
        answer
    }

    async fn open(&self, address: &Address) -> Result<Connection, AdminError> {
        Connection::open(&self.endpoint, address, &self.sent).await
    }

    fn line(&self, address: &Address) -> Line {
        let mut lines = lock(&self.lines);
        if lines.len() >= CONNECTIONS && !lines.contains_key(address) {
            lines.clear();
        }
        Arc::clone(lines.entry(address.clone()).or_default())
    }
}

/// Whether an answer may be another one elsewhere.
fn has_moved<T>(answer: &Result<T, AdminError>) -> bool {
    answer.as_ref().is_err_and(AdminError::retryable)
}

fn late(call: &'static str, after: Duration) -> AdminError {
    AdminError::TimedOut { call, after, last_trouble: None }
}
