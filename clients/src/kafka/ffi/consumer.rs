//! A group consumer as a pull API: records, ends of partitions and rebalances all come out of [`Consumer::poll`].
//!
//! Why not the crate's: it loses the topic and offset of an end of partition and ignores errors of (un)assignment, and
//! `rd_kafka_consume_batch_queue` (faster) moves the position past an end of partition, which after a pause and resume
//! would skip a record (librdkafka #4844).
//!
//! A rebalance is not answered inside the callback: [`Polled::Assign`] and [`Polled::Revoke`] wait for the caller's
//! [`Consumer::incremental_assign`] and [`Consumer::incremental_unassign`], so that it can finish open transactions first
//! and keep polling meanwhile. librdkafka holds the group's next step, and all fetching, until then.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka_sys as sys;

use super::call::{call_error, check, millis, take_error};
use super::list::{self, List};
use super::mailbox::{self, Mailbox, Polled};
use super::membership::GroupMetadata;
use super::openssl::keep_openssl;
use super::record::Record;
use crate::kafka::admin::TopicPartition;
use crate::kafka::error::{ErrorCode, KafkaError};

/// A committed offset with its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where.
    pub partition: TopicPartition,
    /// Next offset to read; absent when nothing is committed.
    pub offset: Option<i64>,
    /// Metadata, if it is text. Anybody who may commit can write it.
    pub metadata: String,
    /// Why this partition could not be told.
    pub error: Option<ErrorCode>,
}

/// The client. Destroyed by the last holder: the consumer or a record of it.
pub(super) struct Native {
    client: NonNull<sys::rd_kafka_t>,
    /// Callbacks hold a pointer to it; boxed so that it does not move, dropped after the client.
    mailbox: Box<Mailbox>,
}

// SAFETY: librdkafka handles are thread-safe; the mailbox is behind a mutex.
unsafe impl Send for Native {}
// SAFETY: as above.
unsafe impl Sync for Native {}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: the last owner; no message of this client is alive. Closing was done (or given up) by `close`: doing it
        // here could block for ever.
        unsafe { sys::rd_kafka_destroy_flags(self.client.as_ptr(), sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) }
    }
}

/// A group consumer.
pub struct Consumer {
    native: Arc<Native>,
}

impl Consumer {
    /// Makes a consumer from `config`, which must hold `group.id`. Callbacks are ours.
    pub fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        keep_openssl();
        let native_config =
            config.create_native_config().map_err(|error| KafkaError::Creation { reason: error.to_string() })?;
        let mailbox = Box::<Mailbox>::default();
        let mut text = [0 as c_char; 512];
        // SAFETY: the configuration is live and duplicated; `opaque` points to the boxed mailbox, which outlives the
        // client (field order and Drop of `Native`); on success the duplicate belongs to the client, else it is destroyed.
        let client = unsafe {
            let conf = sys::rd_kafka_conf_dup(native_config.ptr());
            sys::rd_kafka_conf_set_opaque(conf, ptr::from_ref::<Mailbox>(&mailbox).cast_mut().cast::<c_void>());
            sys::rd_kafka_conf_set_rebalance_cb(conf, Some(mailbox::on_rebalance));
            sys::rd_kafka_conf_set_error_cb(conf, Some(mailbox::on_error));
            sys::rd_kafka_conf_set_log_cb(conf, Some(mailbox::on_log));
            let client =
                sys::rd_kafka_new(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, conf, text.as_mut_ptr(), text.len());
            if client.is_null() {
                sys::rd_kafka_conf_destroy(conf);
            }
            client
        };
        let Some(client) = NonNull::new(client) else {
            // SAFETY: librdkafka wrote a C string.
            let reason = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            return Err(KafkaError::Creation { reason });
        };
        let native = Arc::new(Native { client, mailbox });
        // SAFETY: live client. Errors and logs then come through `poll` too.
        check("poll_set_consumer", unsafe { sys::rd_kafka_poll_set_consumer(client.as_ptr()) })?;
        Ok(Self { native })
    }

    fn raw(&self) -> *mut sys::rd_kafka_t {
        self.native.client.as_ptr()
    }

    /// Joins the group for these topics.
    pub fn subscribe<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> Result<(), KafkaError> {
        let mut list = List::empty();
        for topic in topics {
            list.add(&TopicPartition::new(topic, -1), i64::from(sys::RD_KAFKA_OFFSET_INVALID), None)?;
        }
        // SAFETY: live client and list; the list is copied.
        check("subscribe", unsafe { sys::rd_kafka_subscribe(self.raw(), list.as_ptr()) })
    }

    /// Begins to leave the group; a [`Polled::Revoke`] of everything follows if anything is assigned.
    pub fn unsubscribe(&self) -> Result<(), KafkaError> {
        // SAFETY: live client.
        check("unsubscribe", unsafe { sys::rd_kafka_unsubscribe(self.raw()) })
    }

    /// The next thing, or nothing within `timeout`. One thread at a time.
    pub fn poll(&self, timeout: Duration) -> Option<Polled> {
        if let Some(item) = self.native.mailbox.pop() {
            return Some(item);
        }
        // SAFETY: live client; a returned message is ours.
        let message = NonNull::new(unsafe { sys::rd_kafka_consumer_poll(self.raw(), millis(timeout)) });
        match message {
            None => self.native.mailbox.pop(),
            Some(message) => {
                let polled = self.convert(message);
                // A callback may have run before the message came out: hand that over first.
                match self.native.mailbox.pop() {
                    None => Some(polled),
                    Some(first) => {
                        self.native.mailbox.push(polled);
                        Some(first)
                    }
                }
            }
        }
    }

    fn convert(&self, message: NonNull<sys::rd_kafka_message_t>) -> Polled {
        // SAFETY: ours and live.
        let raw = unsafe { message.as_ref() };
        let Some(code) = ErrorCode::from_response(raw.err) else {
            // SAFETY: error-free, ours, fetched by this client.
            return Polled::Record(unsafe { Record::new(message, self.native.clone()) });
        };
        let place = (!raw.rkt.is_null()).then(|| {
            // SAFETY: the message keeps its topic alive; the name is a C string.
            let topic = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(raw.rkt)) };
            TopicPartition::new(topic.to_string_lossy(), raw.partition)
        });
        let end = raw.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF;
        let polled = match place {
            Some(partition) if end => Polled::End { partition, offset: raw.offset },
            Some(partition) => Polled::PartitionError { partition, code },
            None => {
                // SAFETY: live message; the text lives as long as it.
                let text = unsafe { sys::rd_kafka_message_errstr(message.as_ptr()) };
                let message = if text.is_null() {
                    String::new()
                } else {
                    // SAFETY: a C string.
                    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
                };
                Polled::Trouble { code, fatal: false, message }
            }
        };
        // SAFETY: ours; nothing borrows from it any more.
        unsafe { sys::rd_kafka_message_destroy(message.as_ptr()) };
        polled
    }

    /// Answers [`Polled::Assign`]: reading of each partition begins at its offset.
    pub fn incremental_assign<'a>(
        &self,
        starts: impl IntoIterator<Item = (&'a TopicPartition, i64)>,
    ) -> Result<(), KafkaError> {
        let mut list = List::empty();
        for (partition, offset) in starts {
            list.add(partition, offset, None)?;
        }
        // SAFETY: live client and list; the list is copied. An error object is ours.
        unsafe { take_error("incremental_assign", sys::rd_kafka_incremental_assign(self.raw(), list.as_ptr())) }
    }

    /// Answers [`Polled::Revoke`].
    pub fn incremental_unassign<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<(), KafkaError> {
        let list = List::new(partitions)?;
        // SAFETY: as above.
        unsafe { take_error("incremental_unassign", sys::rd_kafka_incremental_unassign(self.raw(), list.as_ptr())) }
    }

    /// Stops reading these partitions; what was fetched of them is dropped and read again after a resume.
    pub fn pause<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<(), KafkaError> {
        let list = List::new(partitions)?;
        // SAFETY: live client and list.
        check("pause", unsafe { sys::rd_kafka_pause_partitions(self.raw(), list.as_ptr()) })
    }

    /// Reads these partitions again.
    pub fn resume<'a>(&self, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<(), KafkaError> {
        let list = List::new(partitions)?;
        // SAFETY: live client and list.
        check("resume", unsafe { sys::rd_kafka_resume_partitions(self.raw(), list.as_ptr()) })
    }

    /// Moves assigned partitions to new positions; records fetched from the old ones are dropped.
    pub fn seek<'a>(
        &self,
        positions: impl IntoIterator<Item = (&'a TopicPartition, i64)>,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let mut list = List::empty();
        for (partition, offset) in positions {
            list.add(partition, offset, None)?;
        }
        // SAFETY: live client and list.
        unsafe {
            take_error("seek", sys::rd_kafka_seek_partitions(self.raw(), list.as_ptr(), millis(timeout)))?;
        }
        match list.entries().into_iter().find_map(|entry| entry.error) {
            None => Ok(()),
            Some(code) => Err(call_error("seek", code)),
        }
    }

    /// The group's committed offsets of these partitions, asked from the broker. With `isolation.level=read_committed`
    /// it waits out offsets of transactions still open (KIP-447), by `timeout` at most.
    pub fn committed<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
        timeout: Duration,
    ) -> Result<Vec<Committed>, KafkaError> {
        let list = List::new(partitions)?;
        // SAFETY: live client and list.
        check("committed", unsafe { sys::rd_kafka_committed(self.raw(), list.as_ptr(), millis(timeout)) })?;
        let committed = |entry: list::Entry| Committed {
            partition: entry.partition,
            offset: (entry.offset >= 0).then_some(entry.offset),
            metadata: String::from_utf8(entry.metadata).unwrap_or_default(),
            error: entry.error,
        };
        Ok(list.entries().into_iter().map(committed).collect())
    }

    /// Commits offsets outside a transaction, waiting for the answer; for consumers whose output is not Kafka.
    pub fn commit<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a TopicPartition, i64, &'a str)>,
    ) -> Result<(), KafkaError> {
        self.give_commit(&List::of_offsets(offsets)?, 0)
    }

    /// As [`Self::commit`], without waiting: a commit that fails is not heard of, the next one makes up for it.
    pub fn commit_async<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a TopicPartition, i64, &'a str)>,
    ) -> Result<(), KafkaError> {
        self.give_commit(&List::of_offsets(offsets)?, 1)
    }

    fn give_commit(&self, offsets: &List, asynchronously: c_int) -> Result<(), KafkaError> {
        // SAFETY: live client and list; the list is copied.
        check("commit", unsafe { sys::rd_kafka_commit(self.raw(), offsets.as_ptr(), asynchronously) })
    }

    /// High watermark as of the last fetch of an assigned partition, without asking anybody; none before the first.
    pub fn last_seen_end(&self, partition: &TopicPartition) -> Option<i64> {
        let topic = list::c_string(&partition.topic).ok()?;
        let (mut low, mut high) = (0_i64, 0_i64);
        // SAFETY: live client, C string, valid out pointers.
        check("get_watermark_offsets", unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.raw(),
                topic.as_ptr(),
                partition.partition,
                &raw mut low,
                &raw mut high,
            )
        })
        .ok()?;
        (high >= 0).then_some(high)
    }

    /// First offset and high watermark of a partition, asked from its leader.
    pub fn watermarks(&self, partition: &TopicPartition, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        let topic = list::c_string(&partition.topic)?;
        let (mut low, mut high) = (0_i64, 0_i64);
        // SAFETY: live client, C string, valid out pointers.
        check("query_watermark_offsets", unsafe {
            sys::rd_kafka_query_watermark_offsets(
                self.raw(),
                topic.as_ptr(),
                partition.partition,
                &raw mut low,
                &raw mut high,
                millis(timeout),
            )
        })?;
        Ok((low, high))
    }

    /// This consumer's membership now. Call it from the polling thread, while it owns the partitions the metadata is
    /// for: brokers check member and generation, not who owns a partition. A consumer that is no member gives an error,
    /// since a broker would then check nothing.
    pub fn group_metadata(&self) -> Result<GroupMetadata, KafkaError> {
        // SAFETY: live client; the value is ours, and handed over.
        unsafe { GroupMetadata::take(sys::rd_kafka_consumer_group_metadata(self.raw())) }
    }

    /// Whether the assignment is lost: somebody else may own its partitions already.
    pub fn assignment_lost(&self) -> bool {
        // SAFETY: live client.
        unsafe { sys::rd_kafka_assignment_lost(self.raw()) != 0 }
    }

    /// Leaves the group and closes. Give everything back first ([`Consumer::unsubscribe`], poll, unassign); what is left
    /// is unassigned here. May block for a broker's time-out, so call it last and bounded.
    pub fn close(&self) -> Result<(), KafkaError> {
        self.native.mailbox.close();
        // SAFETY: live client.
        check("close", unsafe { sys::rd_kafka_consumer_close(self.raw()) })
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}
