//! Records → outcomes: the compiled program with its lookups, over a whole batch at a time.
//!
//! All records run to their next lookup; what they want is fetched at once, each key once; and so on until all are
//! through. No transaction is open meanwhile: Redis may take as long as it needs.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_clients::kafka::consumer::Record;
use sluice_clients::redis::lookup::LookupError;
use sluice_transform::{self as transform, Header, Pending, Program, Progress, RecordView};

use super::lookups::{Lookups, Values};
use super::work::{Bytes, Item, LaneLoad, Outcome, Outputs, Work};
use crate::health::HealthHandle;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The steps of one lane.
pub struct Steps {
    program: Arc<Program>,
    lookups: Lookups,
    max_record_bytes: usize,
}

impl Steps {
    /// Steps over a shared program.
    pub fn new(program: Arc<Program>, lookups: Lookups, max_record_bytes: usize) -> Self {
        Self { program, lookups, max_record_bytes }
    }

    /// Runs a batch. Gives the time that went into waiting for Redis, or the batch back when a rebalance cannot wait for
    /// Redis.
    pub fn run(
        &mut self,
        items: Vec<Item>,
        load: &LaneLoad,
        health: &HealthHandle,
    ) -> Result<(Vec<Work>, Duration), Vec<Item>> {
        let program = self.program.clone();
        let mut waited = Duration::ZERO;
        let mut outcomes: Vec<Option<Outcome>> = items.iter().map(|_| None).collect();
        let headers: Vec<Vec<Header<'_>>> =
            if program.uses_headers() { items.iter().map(|item| item.record.headers()).collect() } else { Vec::new() };
        let mut pending: Vec<(usize, Pending<'_, '_>)> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let headers = headers.get(index).map_or(&[][..], Vec::as_slice);
            match program.start(view(&item.record, headers)) {
                Progress::Done(outcome) => outcomes[index] = Some(self.outcome(outcome, &item.record)),
                Progress::NeedLookups(waiting) => pending.push((index, waiting)),
            }
        }
        while !pending.is_empty() {
            let began = Instant::now();
            let Some(values) = self.fetch(&pending, load, health) else {
                drop(pending);
                drop(headers);
                return Err(items);
            };
            waited += began.elapsed();
            let mut still = Vec::new();
            for (index, waiting) in pending {
                let results: Vec<_> = waiting
                    .requests()
                    .iter()
                    .filter_map(|request| values.get(&(request.lookup_type, request.key.clone())).cloned())
                    .collect();
                match waiting.resume(results) {
                    Progress::Done(outcome) => outcomes[index] = Some(self.outcome(outcome, &items[index].record)),
                    Progress::NeedLookups(next) => still.push((index, next)),
                }
            }
            pending = still;
        }
        drop(headers);
        let work = items
            .into_iter()
            .zip(outcomes)
            .map(|(item, outcome)| Work { item, outcome: outcome.unwrap_or(Outcome::Skip) })
            .collect();
        Ok((work, waited))
    }

    /// Everything the pending records want, however long it takes; nothing when a lease is asked for meanwhile.
    fn fetch(
        &mut self,
        pending: &[(usize, Pending<'_, '_>)],
        load: &LaneLoad,
        health: &HealthHandle,
    ) -> Option<Values> {
        let wanted: Vec<_> = pending.iter().flat_map(|(_, waiting)| waiting.requests().iter().cloned()).collect();
        let mut values = Values::new();
        let mut pause = FIRST_PAUSE;
        let mut told: Option<&'static str> = None;
        loop {
            health.tick();
            match self.lookups.fetch(&wanted, &mut values) {
                Ok(()) => {
                    if told.is_some() {
                        health.held_up(None);
                        tracing::info!("lookups work again");
                    }
                    return Some(values);
                }
                Err(error) => {
                    if told != Some(error.category()) {
                        told = Some(error.category());
                        health.held_up(told);
                        say(&error);
                    }
                }
            }
            if load.is_asked() {
                health.held_up(None);
                return None;
            }
            // The lane's records stay in flight, so the consumer pauses its partitions: that is the circuit breaker,
            // and this one batch is its probe.
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn outcome(&self, outcome: transform::Outcome<'_>, record: &Record) -> Outcome {
        match outcome {
            transform::Outcome::Filtered { .. } => Outcome::Filtered,
            transform::Outcome::Discarded { .. } | transform::Outcome::NoRoute => Outcome::Discarded,
            transform::Outcome::DeadLetter(letter) => Outcome::DeadLetter(letter),
            transform::Outcome::Outputs(outputs) => self.outputs(outputs, record),
        }
    }

    fn outputs(&self, outputs: transform::Outputs<'_>, record: &Record) -> Outcome {
        let key_bytes = outputs.routes.iter().filter_map(|route| route.key.as_ref().map(|key| key.len())).max();
        let size =
            outputs.value.as_ref().map_or(0, |value| value.len()) + key_bytes.unwrap_or(0) + headers_size(record);
        if size > self.max_record_bytes {
            return Outcome::DeadLetter(transform::DeadLetter {
                step: transform::ROUTING.to_owned(),
                reason: transform::Reason::TooLarge,
                message: format!("the result has {size} bytes with its headers, {} are allowed", self.max_record_bytes),
            });
        }
        let value = bytes(outputs.value, record.value());
        let routes = outputs.routes.into_iter().map(|route| (route.route, bytes(route.key, record.key()))).collect();
        Outcome::Produce(Outputs { value, routes })
    }
}

fn say(error: &LookupError) {
    tracing::warn!(%error, category = error.category(), "lookups fail, trying again until they work");
}

fn view<'r>(record: &'r Record, headers: &'r [Header<'r>]) -> RecordView<'r> {
    RecordView {
        topic: record.topic(),
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().unwrap_or(-1),
        key: record.key(),
        value: record.value(),
        headers,
    }
}

/// Keeps "untouched" as that: the source's bytes are not copied into the batch.
fn bytes(new: Option<Cow<'_, [u8]>>, source: Option<&[u8]>) -> Bytes {
    match new {
        None => Bytes::Null,
        Some(Cow::Borrowed(new)) if source.is_some_and(|source| std::ptr::eq(source, new)) => Bytes::Source,
        Some(new) => Bytes::Own(new.into_owned()),
    }
}

fn headers_size(record: &Record) -> usize {
    record.iter_headers().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 10).sum()
}
