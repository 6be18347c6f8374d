//! A transactional producer: the crate's client and polling thread, librdkafka's own transaction calls.
//!
//! The crate's `commit_transaction` waits in steps of 100 ms; librdkafka's own wakes when the last record is
//! acknowledged. Topic handles are cached and headers handed over as they are.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError as CrateError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka_sys as sys;

use super::call::{millis, take_error};
use super::list::{List, c_string};
use super::membership::GroupMetadata;
use super::openssl::keep_openssl;
use crate::kafka::admin::TopicPartition;
use crate::kafka::error::{ErrorCode, ErrorFlags, KafkaError};

/// Most delivery failures kept of one transaction: the first ones tell why.
const MAX_FAILURES: usize = 64;

/// A record that was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryFailure {
    /// The number it was produced with.
    pub tag: usize,
    /// Why.
    pub code: ErrorCode,
}

#[derive(Clone, Default)]
struct Context {
    failures: Arc<Mutex<Vec<DeliveryFailure>>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: CrateError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "producer trouble");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(rdkafka::error::RDKafkaErrorCode::Unknown);
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            if failures.len() < MAX_FAILURES {
                failures.push(DeliveryFailure { tag, code: ErrorCode(code) });
            }
        }
    }
}

/// A topic this producer writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicHandle(usize);

/// A record to produce.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Key; absent and empty are different things.
    pub key: Option<&'a [u8]>,
    /// Value; absent is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Unix milliseconds; absent = now.
    pub timestamp: Option<i64>,
    /// Headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Comes back in [`DeliveryFailure`].
    pub tag: usize,
}

struct Topic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: topic handles are thread-safe in librdkafka.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: ours; the client is still alive (field order of `TransactionalProducer`).
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// A producer with a transactional id. One thread at a time; every call blocks up to its time-out, and
/// [`TransactionalProducer::send_offsets`] possibly for ever (librdkafka #5456): call it on a thread that is watched.
pub struct TransactionalProducer {
    /// Before the client: handles must go first.
    topics: Vec<Topic>,
    producer: ThreadedProducer<Context>,
    failures: Arc<Mutex<Vec<DeliveryFailure>>>,
}

impl TransactionalProducer {
    /// Makes the client from `config`, which must hold `transactional.id` and `delivery.report.only.error`; connects in
    /// the background. Topics get the handles 0, 1, 2 … in the order given.
    pub fn new<'a>(config: &ClientConfig, topics: impl IntoIterator<Item = &'a str>) -> Result<Self, KafkaError> {
        keep_openssl();
        let context = Context::default();
        let failures = context.failures.clone();
        let producer: ThreadedProducer<Context> =
            config.create_with_context(context).map_err(|error| KafkaError::Creation { reason: error.to_string() })?;
        let mut handles = Vec::new();
        for topic in topics {
            let name = c_string(topic)?;
            // SAFETY: live client, C string, null = the client's default topic configuration.
            let handle =
                unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
            let handle = NonNull::new(handle)
                .ok_or_else(|| KafkaError::Creation { reason: format!("topic {topic:?} is not valid") })?;
            handles.push(Topic(handle));
        }
        Ok(Self { topics: handles, producer, failures })
    }

    /// The handle of the `index`th topic given to [`TransactionalProducer::new`].
    pub fn topic(&self, index: usize) -> Option<TopicHandle> {
        (index < self.topics.len()).then_some(TopicHandle(index))
    }

    fn raw(&self) -> *mut sys::rd_kafka_t {
        self.producer.client().native_ptr()
    }

    /// Gets a producer id, after the predecessor with this transactional id is fenced and its transaction resolved.
    pub fn init(&self, timeout: Duration) -> Result<(), KafkaError> {
        // SAFETY: live client; the error object is ours.
        unsafe { take_error("init_transactions", sys::rd_kafka_init_transactions(self.raw(), millis(timeout))) }
    }

    /// Begins a transaction (locally: the first record or offset begins it on the brokers).
    pub fn begin(&self) -> Result<(), KafkaError> {
        self.lock_failures().clear();
        // SAFETY: as above.
        unsafe { take_error("begin_transaction", sys::rd_kafka_begin_transaction(self.raw())) }
    }

    /// Queues a record; everything is copied. `QueueFull` means "wait and try again".
    pub fn produce(&self, topic: TopicHandle, record: &Outgoing<'_>) -> Result<(), KafkaError> {
        let Some(topic) = self.topics.get(topic.0) else {
            return Err(KafkaError::Creation { reason: "topic handle of another producer".to_owned() });
        };
        let headers = Headers::new(record.headers);
        let (key, key_size) = raw_parts(record.key);
        let (value, value_size) = raw_parts(record.value);
        let entries = [
            vu(sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, sys::rd_kafka_vu_s__bindgen_ty_1 { rkt: topic.0.as_ptr() }),
            vu(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::rd_kafka_vu_s__bindgen_ty_1 { i: sys::RD_KAFKA_MSG_F_COPY },
            ),
            vu(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                sys::rd_kafka_vu_s__bindgen_ty_1 {
                    mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: value, size: value_size },
                },
            ),
            vu(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                sys::rd_kafka_vu_s__bindgen_ty_1 {
                    mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: key, size: key_size },
                },
            ),
            vu(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
                sys::rd_kafka_vu_s__bindgen_ty_1 { i64_: record.timestamp.unwrap_or(0) },
            ),
            vu(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                sys::rd_kafka_vu_s__bindgen_ty_1 { ptr: record.tag as *mut c_void },
            ),
            vu(
                sys::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                sys::rd_kafka_vu_s__bindgen_ty_1 { headers: headers.as_ptr() },
            ),
        ];
        // The HEADERS entry is last and left out when there are none.
        let count = entries.len() - usize::from(headers.as_ptr().is_null());
        // SAFETY: live client; key and value are copied during the call; the headers become librdkafka's on success.
        let result = unsafe { take_error("produce", sys::rd_kafka_produceva(self.raw(), entries.as_ptr(), count)) };
        if result.is_ok() {
            headers.released();
        }
        result
    }

    /// Adds consumer offsets (next offset to read, with metadata) to the transaction, checked against the membership.
    pub fn send_offsets<'a>(
        &self,
        offsets: impl IntoIterator<Item = (&'a TopicPartition, i64, &'a str)>,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let list = List::of_offsets(offsets)?;
        // SAFETY: live client, list and metadata, all copied; the error object is ours.
        unsafe {
            take_error(
                "send_offsets_to_transaction",
                sys::rd_kafka_send_offsets_to_transaction(self.raw(), list.as_ptr(), group.as_ptr(), millis(timeout)),
            )
        }
    }

    /// Waits for all records to be written and commits.
    pub fn commit(&self, timeout: Duration) -> Result<(), KafkaError> {
        // SAFETY: live client; the error object is ours. The polling thread drains delivery reports meanwhile.
        unsafe { take_error("commit_transaction", sys::rd_kafka_commit_transaction(self.raw(), millis(timeout))) }
    }

    /// Drops what is queued and aborts.
    pub fn abort(&self, timeout: Duration) -> Result<(), KafkaError> {
        // SAFETY: as above; librdkafka purges and flushes by itself here.
        unsafe { take_error("abort_transaction", sys::rd_kafka_abort_transaction(self.raw(), millis(timeout))) }
    }

    /// The error that made this client useless, if there is one.
    pub fn fatal_error(&self) -> Option<KafkaError> {
        let mut text = [0 as c_char; 512];
        // SAFETY: live client, buffer with its length; librdkafka writes a C string.
        let (code, detail) = unsafe {
            let code = sys::rd_kafka_fatal_error(self.raw(), text.as_mut_ptr(), text.len());
            (code, CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned())
        };
        let code = ErrorCode::from_response(code)?;
        let flags = ErrorFlags { fatal: true, ..ErrorFlags::default() };
        Some(KafkaError::Call { call: "fatal_error", code, detail, flags })
    }

    /// Records queued or on their way.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// Records of this transaction that were not written, the first 64 of them.
    pub fn take_failures(&self) -> Vec<DeliveryFailure> {
        std::mem::take(&mut *self.lock_failures())
    }

    fn lock_failures(&self) -> std::sync::MutexGuard<'_, Vec<DeliveryFailure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransactionalProducer").field("topics", &self.topics.len()).finish_non_exhaustive()
    }
}

fn vu(vtype: sys::rd_kafka_vtype_t, u: sys::rd_kafka_vu_s__bindgen_ty_1) -> sys::rd_kafka_vu_t {
    sys::rd_kafka_vu_t { vtype, u }
}

/// Absent = null; empty = a valid pointer with length 0, which librdkafka keeps apart.
fn raw_parts(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| (bytes.as_ptr().cast_mut().cast(), bytes.len()))
}

/// Headers until librdkafka takes them.
struct Headers(*mut sys::rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[(&str, Option<&[u8]>)]) -> Self {
        if headers.is_empty() {
            return Self(ptr::null_mut());
        }
        // SAFETY: no preconditions.
        let list = unsafe { sys::rd_kafka_headers_new(headers.len()) };
        for (name, value) in headers {
            let (bytes, size) = raw_parts(*value);
            // SAFETY: live list; name and value are copied with their lengths.
            unsafe {
                sys::rd_kafka_header_add(list, name.as_ptr().cast(), name.len() as isize, bytes, size as isize);
            }
        }
        Self(list)
    }

    fn as_ptr(&self) -> *mut sys::rd_kafka_headers_t {
        self.0
    }

    /// librdkafka owns them now.
    fn released(mut self) {
        self.0 = ptr::null_mut();
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: still ours.
            unsafe { sys::rd_kafka_headers_destroy(self.0) }
        }
    }
}
