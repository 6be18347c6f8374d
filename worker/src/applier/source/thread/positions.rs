//! Where reading begins.

use std::time::{Duration, Instant};

use sluice_clients::kafka::admin::TopicPartition;
use sluice_clients::kafka::error::KafkaError;

use super::Source;
use crate::applier::engine::PartitionId;
use crate::applier::source::Mode;

/// Where an assigned partition waits, paused, until the engine knows where it begins. Never a logical offset, here or in a seek:
/// librdkafka asks a broker what "end" or "beginning" is, and when a pause or a seek comes before the answer, it does not forget
/// the question but asks once more half a second later (`outdated offset response`). That answer then moves the position away
/// from where the seek had put it, and what lies between is never read.
pub(super) const ANYWHERE: i64 = 0;
/// Longest wait for librdkafka's own thread, and for a broker's word on where a log begins.
const SEEK: Duration = Duration::from_secs(2);
/// Between attempts on a position that could not be taken.
const RETRY: Duration = Duration::from_millis(200);

impl Source {
    /// Takes the positions that were asked for.
    pub(super) fn move_positions(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        let mut wanted: Vec<(PartitionId, i64)> =
            self.places.iter().filter_map(|(id, place)| Some((*id, place.wanted?))).collect();
        // The one that failed last comes last: a partition without a leader holds up no other one.
        let first = wanted.partition_point(|(id, _)| Some(*id) <= self.refused);
        wanted.rotate_left(first);
        for (id, offset) in wanted {
            match self.go_to(id, offset) {
                Ok(true) => {
                    if let Some(place) = self.places.get_mut(&id) {
                        place.wanted = None;
                        place.paused = false;
                    }
                }
                // Not ours any more; the engine hears of it too.
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "a position is not taken yet");
                    (self.retry_at, self.refused) = (Some(Instant::now() + RETRY), Some(id));
                    // Brokers that do not answer are not waited for once for each partition: polling goes on in between.
                    return;
                }
            }
        }
    }

    fn go_to(&mut self, id: PartitionId, offset: i64) -> Result<bool, KafkaError> {
        let Some(consumer) = &self.consumer else { return Ok(false) };
        // See ANYWHERE for why the beginning is asked for here.
        let begin = |partition: &TopicPartition| match offset {
            0 => consumer.watermarks(partition, SEEK).map(|(first, _)| first),
            offset => Ok(offset),
        };
        match (self.assigned.get(&id), self.mode) {
            (Some(partition), _) => {
                let offset = begin(partition)?;
                if let Err(error) = consumer.seek([(partition, offset)], SEEK) {
                    // A fetcher that ended at a position the topic no longer has refuses to be moved; it is begun anew.
                    // If a revocation waits unpolled, librdkafka takes this for its answer and asks again for what is
                    // left: a rebalance more, and at worst a fresh process. A refused seek repeated for ever is worse.
                    tracing::debug!(%error, "a position is not taken by a seek");
                    if let Err(error) = consumer.incremental_unassign([partition]) {
                        tracing::debug!(%error, "not assigned");
                    }
                    consumer.incremental_assign([(partition, offset)])?;
                }
                consumer.resume([partition])?;
            }
            (None, Mode::Group) => return Ok(false),
            (None, Mode::Repair) => {
                let Some(decoder) = self.settings.decoders.get(usize::from(id.topic)) else { return Ok(false) };
                let partition = TopicPartition::new(decoder.topic(), id.partition);
                consumer.incremental_assign([(&partition, begin(&partition)?)])?;
                self.assigned.insert(id, partition);
            }
        }
        Ok(true)
    }
}
