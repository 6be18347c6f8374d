//! Admin calls of librdkafka: one client, one thread that hands results to the tasks that wait for them.
//!
//! ```text
//! request (topics.rs, configs.rs, acls.rs, users.rs, groups.rs)      dispatching thread
//!   native.rs objects ── submit, opaque = number ──▶ librdkafka ──▶ main queue ──▶ pending[number] ──▶ Pending
//! ```
//!
//! The opaque value of a call is a number, not a pointer: a call that nobody waits for any more leaves nothing behind,
//! and a late result finds no entry and is freed.

mod acls;
mod configs;
mod groups;
mod native;
mod topics;
mod users;

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaType};
use rdkafka_sys as sys;
use tokio::sync::oneshot;

use self::native::{Native, text};
use super::call::check;
use super::openssl::keep_openssl;
use crate::kafka::admin::{AdminError, Counted, Requests, error_code};
use crate::kafka::lock;

/// How much longer than librdkafka's own deadline a caller waits: it is a backstop, not the deadline.
const GRACE: Duration = Duration::from_secs(2);
/// librdkafka's own deadline for a call to a coordinator, the longest it takes. When such a call passes it before the
/// coordinator was found, librdkafka frees it, and ends the process (`eonce->refcnt > 0`) as soon as the coordinator can be
/// reached again: so the caller's deadline ends the waiting, and the client ends the call (see ADR 0007).
const COORDINATOR_DEADLINE: Duration = Duration::from_secs(3_600);
/// librdkafka knows producers and consumers only. It takes one with a group for granted when `OffsetFetch` is answered with
/// `NOT_COORDINATOR`, and ends the process (SIGSEGV) where there is none (librdkafka #5040); brokers that restart answer so all
/// the time. So this is a consumer of a group that is closed before any broker hears its name.
const NO_GROUP: &str = "none";
/// How long the thread sleeps at most when nothing happens; closing wakes it at once.
const IDLE_POLL_MILLISECONDS: c_int = 1_000;

/// How long the client believes what it knows about a topic. `ListOffsets` takes leaders from that memory, and it
/// remembers "no leader yet" and "not authorized" as well: with the default, 15 minutes, a topic that was looked at
/// too early could not be read for so long.
const METADATA_AGE_MILLISECONDS: &str = "1000";

/// How often the client says how many requests it has sent.
const STATISTICS_MILLISECONDS: &str = "5000";

/// A client for admin calls.
pub struct AdminHandle {
    native: Option<Arc<NativeClient>>,
    shared: Arc<Shared>,
}

/// The librdkafka client and its main queue, which carries logs, errors and results.
struct NativeClient {
    queue: NonNull<sys::rd_kafka_queue_t>,
    client: Client<DefaultClientContext>,
}

// SAFETY: librdkafka's client and queue may be used by any thread at any time; nothing in them belongs to the thread
// that made them.
unsafe impl Send for NativeClient {}
// SAFETY: as above; every call that takes the pointers takes librdkafka's own locks.
unsafe impl Sync for NativeClient {}

impl Drop for NativeClient {
    fn drop(&mut self) {
        // SAFETY: the queue reference was given to us by `rd_kafka_queue_get_main` and is given back once. The client
        // is dropped after this body, as librdkafka demands.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl NativeClient {
    fn ptr(&self) -> *mut RDKafka {
        self.client.native_ptr()
    }
}

#[derive(Default)]
struct Shared {
    pending: Mutex<HashMap<usize, oneshot::Sender<Event>>>,
    next: AtomicUsize,
    trouble: Mutex<Option<Trouble>>,
    stop: AtomicBool,
    /// A call to a coordinator was left unanswered: the client must end long before that call's own deadline.
    spent: AtomicBool,
    /// The closing handle's reference to the client: the thread must hold the last one, because destroying a client
    /// joins its threads and must not block an async task.
    retired: Mutex<Option<Arc<NativeClient>>>,
    requests: Arc<Mutex<Requests>>,
}

/// A connection error the client reported.
struct Trouble {
    code: RDKafkaErrorCode,
    text: String,
}

impl Trouble {
    /// True when it explains why calls get no answer: the caller's login or certificate is refused.
    fn is_refusal(&self) -> bool {
        self.weight() == 2
    }

    /// A refused login explains more than a refused connection, and that more than "all brokers are down".
    fn weight(&self) -> u8 {
        match self.code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL => 2,
            RDKafkaErrorCode::AllBrokersDown => 0,
            _ => 1,
        }
    }
}

/// A result, freed when dropped. Holds the client: librdkafka wants it alive until then.
struct Event {
    ptr: NonNull<sys::rd_kafka_event_t>,
    _client: Arc<NativeClient>,
}

// SAFETY: an event belongs to whoever polled it and has no tie to a thread; it is only read through `&self` getters that
// do not change it, and freed once.
unsafe impl Send for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event came from `rd_kafka_queue_poll`, is ours alone, and is freed once.
        unsafe { sys::rd_kafka_event_destroy(self.ptr.as_ptr()) }
    }
}

/// A call under way.
struct Pending {
    call: &'static str,
    deadline: Duration,
    number: usize,
    receiver: oneshot::Receiver<Event>,
    shared: Arc<Shared>,
    /// It goes to a coordinator and has no answer yet.
    holds_client: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.shared.pending).remove(&self.number);
        if self.holds_client {
            self.shared.spent.store(true, Ordering::Release);
        }
    }
}

impl AdminHandle {
    /// `requests`: where it counts what it sends.
    pub fn new(config: &ClientConfig, requests: Arc<Mutex<Requests>>) -> Result<Self, AdminError> {
        keep_openssl();
        let failed = |error: rdkafka::error::KafkaError| AdminError::Client(error.to_string());
        let mut config = config.clone();
        config.set("metadata.max.age.ms", METADATA_AGE_MILLISECONDS).set("group.id", NO_GROUP);
        config.set("statistics.interval.ms", STATISTICS_MILLISECONDS);
        let properties = config.create_native_config().map_err(failed)?;
        let events = sys::RD_KAFKA_EVENT_ERROR | sys::RD_KAFKA_EVENT_LOG | sys::RD_KAFKA_EVENT_STATS;
        // SAFETY: the configuration is alive and not yet given to a client. With these bits librdkafka reports errors
        // as events of the main queue instead of printing them.
        unsafe { sys::rd_kafka_conf_set_events(properties.ptr(), events) };
        let kind = RDKafkaType::RD_KAFKA_CONSUMER;
        let client = Client::new(&config, properties, kind, DefaultClientContext).map_err(failed)?;
        // SAFETY: the client is alive. It has not subscribed, so this sends nothing and waits for nobody.
        check("close", unsafe { sys::rd_kafka_consumer_close(client.native_ptr()) })
            .map_err(|error| AdminError::Client(error.to_string()))?;
        // SAFETY: the client is alive; the returned reference is given back in `NativeClient::drop`.
        let queue = unsafe { sys::rd_kafka_queue_get_main(client.native_ptr()) };
        let queue = NonNull::new(queue).ok_or_else(|| AdminError::Client("no main queue".to_owned()))?;
        let native = Arc::new(NativeClient { queue, client });
        let shared = Arc::new(Shared { requests, ..Shared::default() });
        let (thread_native, thread_shared) = (Arc::clone(&native), Arc::clone(&shared));
        std::thread::Builder::new()
            .name("kafka-admin".to_owned())
            .spawn(move || dispatch(thread_native, &thread_shared))
            .map_err(|error| AdminError::Client(format!("no thread for it: {error}")))?;
        Ok(Self { native: Some(native), shared })
    }

    pub fn last_trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).as_ref().map(|trouble| trouble.text.clone())
    }

    /// True when no more calls may be begun: what was left unanswered ends with the client, when its last caller is gone.
    pub fn is_spent(&self) -> bool {
        self.shared.spent.load(Ordering::Acquire)
    }

    fn native(&self) -> Result<&Arc<NativeClient>, AdminError> {
        self.native.as_ref().ok_or(AdminError::Closed)
    }

    /// Options of one call.
    fn options(&self, op: sys::rd_kafka_admin_op_t, deadline: Duration) -> Result<Options, AdminError> {
        let client = self.native()?;
        // SAFETY: the client is alive and `op` is one of librdkafka's own values.
        let ptr = unsafe { sys::rd_kafka_AdminOptions_new(client.ptr(), op) };
        let native = Native::new(ptr, sys::rd_kafka_AdminOptions_destroy, "call", "its options")?;
        let options = Options { native, deadline, to_coordinator: goes_to_coordinator(op) };
        let native_deadline = if options.to_coordinator { COORDINATOR_DEADLINE } else { deadline };
        let milliseconds = c_int::try_from(native_deadline.as_millis()).unwrap_or(c_int::MAX);
        options.set(|options, text, size| {
            // SAFETY: the options are alive; text and size describe a live buffer.
            unsafe { sys::rd_kafka_AdminOptions_set_request_timeout(options, milliseconds, text, size) }
        })?;
        Ok(options)
    }

    /// Starts a call. `submit` gets client, options and queue, and calls the one librdkafka function.
    fn start(
        &self,
        call: &'static str,
        options: &Options,
        submit: impl FnOnce(*mut RDKafka, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Pending, AdminError> {
        let client = self.native()?;
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.pending).insert(number, sender);
        let (deadline, shared, holds_client) = (options.deadline, Arc::clone(&self.shared), options.to_coordinator);
        let pending = Pending { call, deadline, number, receiver, shared, holds_client };
        let opaque: *mut c_void = ptr::without_provenance_mut(number);
        // SAFETY: the options are alive; the opaque value is a number that is only compared, never followed.
        unsafe { sys::rd_kafka_AdminOptions_set_opaque(options.native.ptr(), opaque) };
        submit(client.ptr(), options.native.ptr(), client.queue.as_ptr());
        Ok(pending)
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        let Some(native) = self.native.take() else { return };
        let mut retired = lock(&self.shared.retired);
        self.shared.stop.store(true, Ordering::Release);
        // SAFETY: client and queue are alive: `native` holds them.
        unsafe { sys::rd_kafka_queue_yield(native.queue.as_ptr()) };
        *retired = Some(native);
    }
}

/// True for calls that librdkafka sends to the coordinator of a group.
fn goes_to_coordinator(op: sys::rd_kafka_admin_op_t) -> bool {
    use sys::rd_kafka_admin_op_t as op_t;
    matches!(
        op,
        op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS
            | op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS
            | op_t::RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS
            | op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS
            | op_t::RD_KAFKA_ADMIN_OP_DELETEGROUPS
    )
}

/// Options of one call.
struct Options {
    native: Native<sys::rd_kafka_AdminOptions_t>,
    deadline: Duration,
    to_coordinator: bool,
}

impl Options {
    /// Calls a setter that reports through a code and a text.
    fn set(
        &self,
        set: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, *mut std::ffi::c_char, usize) -> sys::rd_kafka_resp_err_t,
    ) -> Result<(), AdminError> {
        let mut buffer = native::ErrorText::default();
        let code = set(self.native.ptr(), buffer.as_mut_ptr(), buffer.capacity());
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        Err(buffer.invalid("call", "its options"))
    }

    /// How long the brokers may take to spread a change before they answer: most of the deadline, so that the answer
    /// still arrives in time.
    fn set_operation_timeout(&self) -> Result<(), AdminError> {
        let milliseconds = c_int::try_from(self.deadline.as_millis() * 4 / 5).unwrap_or(c_int::MAX).max(1);
        self.set(|options, text, size| {
            // SAFETY: the options are alive; text and size describe a live buffer.
            unsafe { sys::rd_kafka_AdminOptions_set_operation_timeout(options, milliseconds, text, size) }
        })
    }
}

impl Event {
    /// The items of a result: two librdkafka getters, the one from the event to the result of its kind, the other from
    /// that to the array of items, which lives as long as the event.
    fn items<R, T>(
        &self,
        call: &'static str,
        result: unsafe extern "C" fn(*mut sys::rd_kafka_event_t) -> *const R,
        items: unsafe extern "C" fn(*const R, *mut usize) -> *mut *const T,
    ) -> Result<&[*const T], AdminError> {
        // SAFETY: the event is alive; the getter gives null when the event is a result of another kind.
        let result = unsafe { result(self.ptr.as_ptr()) };
        if result.is_null() {
            return Err(AdminError::Incomplete(call));
        }
        let mut len = 0;
        // SAFETY: the result is alive; `len` is a live variable, and the array has that length and the event's life.
        Ok(unsafe { native::array(items(result, &raw mut len), len) })
    }
}

impl Pending {
    /// Waits for the result; the call's own failure is an error here.
    async fn finish(mut self) -> Result<Event, AdminError> {
        let limit = if self.holds_client { self.deadline } else { self.deadline + GRACE };
        let event = match tokio::time::timeout(limit, &mut self.receiver).await {
            Ok(Ok(event)) => event,
            Ok(Err(_closed)) => return Err(AdminError::Closed),
            Err(_elapsed) => return Err(self.timed_out()),
        };
        // SAFETY: the event is alive and is an admin result.
        let code = error_code(unsafe { native::raw::rd_kafka_event_error(event.ptr.as_ptr()) });
        // One that ends by its own deadline has left what it waited for behind, as one nobody waits for does.
        self.holds_client &= code == RDKafkaErrorCode::OperationTimedOut;
        match code {
            RDKafkaErrorCode::NoError => {
                *lock(&self.shared.trouble) = None;
                Ok(event)
            }
            RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut => Err(self.timed_out()),
            code => {
                // SAFETY: the event is alive; the text lives as long and is copied.
                let message = unsafe { text(sys::rd_kafka_event_error_string(event.ptr.as_ptr())) };
                Err(AdminError::from_code(code, &message))
            }
        }
    }

    fn timed_out(&self) -> AdminError {
        match &*lock(&self.shared.trouble) {
            Some(trouble) if trouble.is_refusal() => AdminError::Authentication(trouble.text.clone()),
            trouble => AdminError::TimedOut {
                call: self.call,
                after: self.deadline,
                last_trouble: trouble.as_ref().map(|trouble| trouble.text.clone()),
            },
        }
    }
}

/// The thread: takes events until the handle is closed, then destroys the client.
fn dispatch(native: Arc<NativeClient>, shared: &Shared) {
    let mut counted = Counted::default();
    while !shared.stop.load(Ordering::Acquire) {
        // SAFETY: client and queue are alive: `native` holds them.
        let event = unsafe { sys::rd_kafka_queue_poll(native.queue.as_ptr(), IDLE_POLL_MILLISECONDS) };
        if let Some(ptr) = NonNull::new(event) {
            deliver(Event { ptr, _client: Arc::clone(&native) }, shared, &mut counted);
        }
    }
    // Whoever still waits learns that it is over.
    lock(&shared.pending).clear();
    drop(native);
    let retired = lock(&shared.retired).take();
    drop(retired);
}

fn deliver(event: Event, shared: &Shared, counted: &mut Counted) {
    let ptr = event.ptr.as_ptr();
    // SAFETY: the event is alive.
    match unsafe { sys::rd_kafka_event_type(ptr) } {
        sys::RD_KAFKA_EVENT_LOG => log(&event),
        sys::RD_KAFKA_EVENT_ERROR => note_trouble(&event, shared),
        sys::RD_KAFKA_EVENT_STATS => count(&event, shared, counted),
        _ => {
            // SAFETY: the event is alive; for other events than results the opaque value is null, which is no number
            // of a call.
            let number = unsafe { sys::rd_kafka_event_opaque(ptr) }.addr();
            if let Some(sender) = lock(&shared.pending).remove(&number) {
                // The receiver may be gone: then the event is freed here.
                drop(sender.send(event));
            }
        }
    }
}

fn log(event: &Event) {
    let (mut facility, mut message, mut level) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the event is alive and the three pointers are to live variables; the texts are copied before it is freed.
    let (facility, message) = unsafe {
        if sys::rd_kafka_event_log(event.ptr.as_ptr(), &raw mut facility, &raw mut message, &raw mut level) != 0 {
            return;
        }
        (text(facility), text(message))
    };
    match level {
        0..=3 => tracing::warn!(target: "librdkafka", facility, "{message}"),
        4..=5 => tracing::info!(target: "librdkafka", facility, "{message}"),
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

fn count(event: &Event, shared: &Shared, counted: &mut Counted) {
    // SAFETY: the event is alive; the text is copied before it is freed.
    let statistics = unsafe { text(sys::rd_kafka_event_stats(event.ptr.as_ptr())) };
    if let Err(error) = counted.add(&statistics, &mut lock(&shared.requests)) {
        tracing::debug!(target: "librdkafka", %error, "statistics could not be read");
    }
}

fn note_trouble(event: &Event, shared: &Shared) {
    let ptr = event.ptr.as_ptr();
    // SAFETY: the event is alive; the text is copied before it is freed.
    let (code, text) = unsafe { (native::raw::rd_kafka_event_error(ptr), text(sys::rd_kafka_event_error_string(ptr))) };
    let trouble = Trouble { code: error_code(code), text };
    tracing::debug!(target: "librdkafka", code = ?trouble.code, "{}", trouble.text);
    let mut last = lock(&shared.trouble);
    if last.as_ref().is_none_or(|last| trouble.weight() >= last.weight()) {
        *last = Some(trouble);
    }
}
