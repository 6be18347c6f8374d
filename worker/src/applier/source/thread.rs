//! The loop of a source.

mod positions;
#[cfg(test)]
mod positions_tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sluice_clients::kafka::admin::TopicPartition;
use sluice_clients::kafka::config::{Credentials, client_config};
use sluice_clients::kafka::consumer::{Consumer, Polled, Record, consumer_config};
use sluice_clients::kafka::error::{ErrorCode, KafkaError};
use sluice_crds::worker_config::KafkaEndpoint;
use tokio::sync::mpsc::Sender;

use self::positions::ANYWHERE;
use super::budget::{Advice, Budget};
use super::{Command, Mode, Told};
use crate::applier::decode::Decoder;
use crate::applier::engine::{Event, PartitionId, Reading};
use crate::applier::mutation::Change;
use crate::health::HealthHandle;

/// Longest wait for a record.
const POLL: Duration = Duration::from_millis(20);
const WATERMARKS: Duration = Duration::from_secs(5);
/// Most weight of records that wait to be told together.
const CHUNK: usize = 256 * 1024;
/// The repair consumer is given up when nothing needed it for so long.
const IDLE: Duration = Duration::from_secs(30);
/// Between two looks at the high watermarks.
const ENDS: Duration = Duration::from_secs(2);
/// Longest time for leaving the group in order.
const LEAVE: Duration = Duration::from_secs(5);

/// What a source works with.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Kafka.
    pub kafka: KafkaEndpoint,
    /// Who we are there.
    pub credentials: Option<Credentials>,
    /// The applier's group.
    pub group: String,
    /// The topics, in the configuration's order.
    pub decoders: Arc<Vec<Decoder>>,
    /// Ticked by the loop.
    pub health: HealthHandle,
}

/// One partition being read.
#[derive(Debug)]
struct Place {
    reading: Reading,
    /// Where to begin, until that has worked.
    wanted: Option<i64>,
    paused: bool,
    changes: Vec<Change>,
    weight: usize,
}

/// A source: a consumer and what it reads.
pub struct Source {
    settings: SourceSettings,
    mode: Mode,
    commands: Receiver<Command>,
    told: Sender<Told>,
    consumer: Option<Consumer>,
    /// Assigned by the group, or by us.
    assigned: BTreeMap<PartitionId, TopicPartition>,
    places: BTreeMap<PartitionId, Place>,
    budget: Budget,
    retry_at: Option<Instant>,
    /// Whose position could not be taken last.
    refused: Option<PartitionId>,
    used_at: Instant,
    ends_at: Instant,
}

/// The engine is gone, or wants us to end.
struct Ended;

impl Source {
    /// A source that has not begun.
    pub fn new(settings: SourceSettings, mode: Mode, commands: Receiver<Command>, told: Sender<Told>) -> Self {
        let now = Instant::now();
        Self {
            settings,
            mode,
            commands,
            told,
            consumer: None,
            assigned: BTreeMap::new(),
            places: BTreeMap::new(),
            budget: Budget::default(),
            retry_at: None,
            refused: None,
            used_at: now,
            ends_at: now,
        }
    }

    /// Runs until told to end.
    pub fn run(mut self) {
        if self.mode == Mode::Group
            && let Err(error) = self.connect()
        {
            let _ = self.tell(Told::Fatal(error.to_string()));
            return;
        }
        while self.turn().is_ok() {}
        self.leave();
    }

    fn connect(&mut self) -> Result<(), KafkaError> {
        let base = client_config(&self.settings.kafka, self.settings.credentials.as_ref());
        let consumer = Consumer::new(&consumer_config(base, &self.settings.group))?;
        if self.mode == Mode::Group {
            consumer.subscribe(self.settings.decoders.iter().map(Decoder::topic))?;
        }
        self.consumer = Some(consumer);
        Ok(())
    }

    /// Commands, then whatever Kafka has, until it has nothing more at once.
    fn turn(&mut self) -> Result<(), Ended> {
        self.settings.health.tick();
        self.take_commands()?;
        if self.consumer.is_none() {
            return self.wait(POLL * 5);
        }
        self.move_positions();
        match self.advice() {
            Advice::Wait => return self.wait(Duration::from_millis(5)),
            Advice::Pause(full) => self.pause(&full),
            Advice::Poll => {}
        }
        self.resume();
        self.poll()?;
        self.flush_all()?;
        self.look_around()
    }

    /// Takes what Kafka has, until it has nothing more within [`POLL`], the engine is to be waited for, or for long enough.
    fn poll(&mut self) -> Result<(), Ended> {
        let (mut timeout, mut taken) = (Duration::ZERO, 0_u32);
        loop {
            let Some(polled) = self.consumer.as_ref().and_then(|consumer| consumer.poll(timeout)) else {
                if timeout == POLL {
                    return Ok(());
                }
                // Nothing at once: say what there is, then wait a little.
                self.flush_all()?;
                timeout = POLL;
                continue;
            };
            timeout = Duration::ZERO;
            taken += 1;
            // What a callback reported may come before a record that was already out: commands, which may move
            // positions, wait until that is told.
            if self.take(polled)? && taken.is_multiple_of(64) && (taken >= 1024 || self.advice() != Advice::Poll) {
                return Ok(());
            }
        }
    }

    fn take_commands(&mut self) -> Result<(), Ended> {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command)?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Ended),
            }
        }
    }

    fn wait(&mut self, longest: Duration) -> Result<(), Ended> {
        match self.commands.recv_timeout(longest) {
            Ok(command) => self.obey(command),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }

    fn obey(&mut self, command: Command) -> Result<(), Ended> {
        match command {
            Command::Read { reading, offset } => {
                if self.consumer.is_none()
                    && let Err(error) = self.connect()
                {
                    return self.tell(Told::Fatal(error.to_string()));
                }
                let id = reading.partition;
                let paused = self.places.get(&id).is_none_or(|place| place.paused);
                let place = Place { reading, wanted: Some(offset), paused, changes: Vec::new(), weight: 0 };
                self.forget(id);
                self.places.insert(id, place);
                self.used_at = Instant::now();
            }
            Command::Stop(partition) => self.stop(partition),
            Command::Released { partition, weight } => self.budget.release(partition, weight),
            Command::Commit(commits) => self.commit(&commits),
            Command::Shutdown => return Err(Ended),
        }
        Ok(())
    }

    /// Ends what was read of a partition. What the engine was not told of yet it never gives back, so it is given back here.
    fn forget(&mut self, id: PartitionId) {
        if let Some(place) = self.places.remove(&id) {
            self.budget.release(id, place.weight);
        }
    }

    fn stop(&mut self, partition: PartitionId) {
        self.forget(partition);
        if self.mode == Mode::Repair
            && let Some(place) = self.assigned.remove(&partition)
            && let Some(consumer) = &self.consumer
            && let Err(error) = consumer.incremental_unassign([&place])
        {
            tracing::warn!(%error, "cannot stop reading a repaired partition");
        }
    }

    fn reading_now(&self) -> Vec<PartitionId> {
        self.places.iter().filter(|(_, place)| !place.paused && place.wanted.is_none()).map(|(id, _)| *id).collect()
    }

    fn advice(&mut self) -> Advice {
        let reading = self.reading_now();
        self.budget.advise(&reading, Instant::now())
    }

    fn pause(&mut self, full: &[PartitionId]) {
        for id in full {
            if let (Some(consumer), Some(partition)) = (&self.consumer, self.assigned.get(id))
                && consumer.pause([partition]).is_ok()
                && let Some(place) = self.places.get_mut(id)
            {
                place.paused = true;
            }
        }
    }

    fn resume(&mut self) {
        let count = self.places.len();
        for (id, place) in &mut self.places {
            if place.paused
                && place.wanted.is_none()
                && self.budget.may_resume(*id, count)
                && let (Some(consumer), Some(partition)) = (&self.consumer, self.assigned.get(id))
                && consumer.resume([partition]).is_ok()
            {
                place.paused = false;
            }
        }
    }

    /// True after a record or an end: everything that was out before it is told.
    fn take(&mut self, polled: Polled) -> Result<bool, Ended> {
        match polled {
            Polled::Record(record) => {
                self.record(&record)?;
                return Ok(true);
            }
            Polled::End { partition, offset } => {
                if let Some(reading) = self.id(&partition).and_then(|id| self.current(id)) {
                    self.flush(reading.partition)?;
                    self.tell(Told::Event(Event::End { reading, offset }))?;
                }
                return Ok(true);
            }
            Polled::PartitionError { partition, code } => self.partition_error(&partition, code)?,
            Polled::Assign(partitions) => self.assign(&partitions)?,
            Polled::Revoke { partitions, .. } => self.revoke(&partitions)?,
            Polled::Trouble { message, fatal: true, .. } => self.tell(Told::Fatal(message))?,
            Polled::Trouble { code, message, .. } => {
                let category = if code.is_authorization() { "KafkaAuthorization" } else { "Kafka" };
                self.tell(Told::Trouble { category, message })?;
            }
        }
        Ok(false)
    }

    fn id(&self, partition: &TopicPartition) -> Option<PartitionId> {
        let topic = self.settings.decoders.iter().position(|decoder| decoder.topic() == partition.topic)?;
        Some(PartitionId { topic: u16::try_from(topic).ok()?, partition: partition.partition })
    }

    /// The reading that what is delivered now belongs to; none while a position is not taken.
    fn current(&self, id: PartitionId) -> Option<Reading> {
        self.places.get(&id).filter(|place| place.wanted.is_none()).map(|place| place.reading)
    }

    fn record(&mut self, record: &Record) -> Result<(), Ended> {
        let decoders = self.settings.decoders.clone();
        let Some(topic) = decoders.iter().position(|decoder| decoder.topic() == record.topic()) else { return Ok(()) };
        let id = PartitionId { topic: u16::try_from(topic).unwrap_or(u16::MAX), partition: record.partition() };
        let Some(place) = self.places.get_mut(&id).filter(|place| place.wanted.is_none()) else { return Ok(()) };
        let change = decoders[topic].read(record, unix_ms());
        place.weight += change.weight;
        self.budget.take(id, change.weight);
        place.changes.push(change);
        if place.weight >= CHUNK { self.flush(id) } else { Ok(()) }
    }

    fn flush(&mut self, id: PartitionId) -> Result<(), Ended> {
        let Some(place) = self.places.get_mut(&id).filter(|place| !place.changes.is_empty()) else { return Ok(()) };
        place.weight = 0;
        let (reading, changes) = (place.reading, std::mem::take(&mut place.changes));
        self.tell(Told::Event(Event::Fetched { reading, changes }))
    }

    fn flush_all(&mut self) -> Result<(), Ended> {
        let full: Vec<PartitionId> =
            self.places.iter().filter(|(_, place)| !place.changes.is_empty()).map(|(id, _)| *id).collect();
        full.into_iter().try_for_each(|id| self.flush(id))
    }

    fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), Ended> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let outcome = consumer
            .incremental_assign(partitions.iter().map(|partition| (partition, ANYWHERE)))
            .and_then(|()| consumer.pause(partitions));
        if let Err(error) = outcome {
            return self.tell(Told::Fatal(format!("cannot take partitions: {error}")));
        }
        let ids: Vec<PartitionId> = partitions.iter().filter_map(|partition| self.id(partition)).collect();
        for (id, partition) in ids.iter().zip(partitions) {
            self.assigned.insert(*id, partition.clone());
            self.forget(*id);
        }
        self.tell(Told::Event(Event::Assigned(ids)))
    }

    fn revoke(&mut self, partitions: &[TopicPartition]) -> Result<(), Ended> {
        let ids: Vec<PartitionId> = partitions.iter().filter_map(|partition| self.id(partition)).collect();
        for id in &ids {
            self.assigned.remove(id);
            self.forget(*id);
        }
        if let Some(consumer) = &self.consumer
            && let Err(error) = consumer.incremental_unassign(partitions)
        {
            return self.tell(Told::Fatal(format!("cannot give partitions back: {error}")));
        }
        // Scripts on their way do no harm: the next owner's compare decides.
        self.tell(Told::Event(Event::Revoked(ids)))
    }

    fn partition_error(&mut self, partition: &TopicPartition, code: ErrorCode) -> Result<(), Ended> {
        let Some(reading) = self.id(partition).and_then(|id| self.current(id)) else { return Ok(()) };
        if !code.is_position() {
            let category = if code.is_authorization() { "KafkaAuthorization" } else { "KafkaPartition" };
            return self.tell(Told::Trouble { category, message: format!("partition {}: {code}", reading.partition) });
        }
        self.flush(reading.partition)?;
        let watermarks = self.consumer.as_ref().map(|consumer| consumer.watermarks(partition, WATERMARKS));
        match watermarks {
            Some(Ok((first, end))) => self.tell(Told::Event(Event::OutOfRange { reading, first, end })),
            // The error comes again when the partition is fetched again.
            _ => Ok(()),
        }
    }

    fn commit(&mut self, commits: &[(PartitionId, i64, sluice_crds::report::PartitionReport)]) {
        let Some(consumer) = &self.consumer else { return };
        let texts: Vec<(&TopicPartition, i64, String)> = commits
            .iter()
            .filter_map(|(id, offset, report)| Some((self.assigned.get(id)?, *offset, report.encode())))
            .collect();
        if texts.is_empty() {
            return;
        }
        let offsets = texts.iter().map(|(partition, offset, text)| (*partition, *offset, text.as_str()));
        if let Err(error) = consumer.commit_async(offsets) {
            tracing::debug!(%error, "group offsets were not committed");
        }
    }

    /// Now and then: high watermarks, and whether the repair consumer is still needed.
    fn look_around(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        if self.mode == Mode::Repair && self.places.is_empty() {
            if now.duration_since(self.used_at) > IDLE
                && let Some(consumer) = self.consumer.take()
            {
                self.assigned.clear();
                close(&consumer);
            }
            return Ok(());
        }
        self.used_at = now;
        if self.mode == Mode::Repair || now.duration_since(self.ends_at) < ENDS {
            return Ok(());
        }
        self.ends_at = now;
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let ends = self.assigned.iter().filter_map(|(id, partition)| Some((*id, consumer.last_seen_end(partition)?)));
        let ends = ends.collect();
        self.tell(Told::Ends(ends))
    }

    fn tell(&self, told: Told) -> Result<(), Ended> {
        self.told.blocking_send(told).map_err(|_| Ended)
    }

    /// Leaves the group in order, so that the others take over at once.
    fn leave(&mut self) {
        let Some(consumer) = self.consumer.take() else { return };
        if self.mode == Mode::Group && consumer.unsubscribe().is_ok() {
            let deadline = Instant::now() + LEAVE;
            while !self.assigned.is_empty() && Instant::now() < deadline {
                if let Some(Polled::Revoke { partitions, .. }) = consumer.poll(POLL) {
                    let ids: Vec<_> = partitions.iter().filter_map(|partition| self.id(partition)).collect();
                    let _ = consumer.incremental_unassign(&partitions);
                    for id in ids {
                        self.assigned.remove(&id);
                    }
                }
            }
        }
        close(&consumer);
    }
}

fn close(consumer: &Consumer) {
    if let Err(error) = consumer.close() {
        tracing::debug!(%error, "a consumer did not close in order");
    }
}

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
