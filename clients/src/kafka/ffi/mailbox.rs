//! What librdkafka tells a consumer by callback, kept for the polling thread.
//!
//! A rebalance is not answered inside the callback: see [`super::consumer`].

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka_sys as sys;

use super::call::take_error;
use super::list;
use super::record::Record;
use crate::kafka::admin::TopicPartition;
use crate::kafka::error::ErrorCode;

const NO_ERROR: sys::rd_kafka_resp_err_t = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// What a poll gives.
#[derive(Debug)]
pub enum Polled {
    /// A record.
    Record(Record),
    /// The end of a partition (of its committed part): `offset` is the position after everything, markers included.
    End {
        /// Where.
        partition: TopicPartition,
        /// The next offset a record could have.
        offset: i64,
    },
    /// A partition cannot be read.
    PartitionError {
        /// Which.
        partition: TopicPartition,
        /// Why.
        code: ErrorCode,
    },
    /// These partitions are to be assigned.
    Assign(Vec<TopicPartition>),
    /// These partitions are to be given back.
    Revoke {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// They are lost already: somebody else may own them now.
        lost: bool,
    },
    /// Trouble with the client as a whole: brokers, authentication.
    Trouble {
        /// Why.
        code: ErrorCode,
        /// The client is of no use any more.
        fatal: bool,
        /// librdkafka's words.
        message: String,
    },
}

/// What callbacks leave for the polling thread.
#[derive(Default)]
pub(super) struct Mailbox {
    items: Mutex<VecDeque<Polled>>,
    /// Saves the lock for each record; callbacks run on the polling thread, so it is exact there.
    any: AtomicBool,
    /// Nobody polls any more: rebalances are answered at once.
    closing: AtomicBool,
}

impl Mailbox {
    pub(super) fn push(&self, item: Polled) {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).push_back(item);
        self.any.store(true, Ordering::Release);
    }

    /// Rebalances are answered at once from now on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn pop(&self) -> Option<Polled> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let item = items.pop_front();
        self.any.store(!items.is_empty(), Ordering::Release);
        item
    }
}

/// Runs inside `poll`, on its thread.
pub(super) unsafe extern "C" fn on_rebalance(
    client: *mut sys::rd_kafka_t,
    code: sys::rd_kafka_resp_err_t,
    partitions: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the mailbox that `new` set; it outlives the client.
    let mailbox = unsafe { &*opaque.cast::<Mailbox>() };
    let is_known = matches!(
        code,
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS
            | sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS
    );
    if !partitions.is_null() && (!is_known || mailbox.closing.load(Ordering::Acquire)) {
        // librdkafka wants an answer to failed rebalances, and to those during a close, too: own nothing of these.
        // SAFETY: live client and list. The error object is ours; there is nobody to tell it.
        let _ = unsafe { take_error("unassign", sys::rd_kafka_incremental_unassign(client, partitions)) };
    }
    // SAFETY: librdkafka keeps the list alive during the callback.
    let partitions: Vec<_> = unsafe { list::entries(partitions) }.into_iter().map(|entry| entry.partition).collect();
    let item = match code {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Polled::Assign(partitions),
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
            // SAFETY: live client.
            let lost = unsafe { sys::rd_kafka_assignment_lost(client) } != 0;
            Polled::Revoke { partitions, lost }
        }
        other => {
            let code = ErrorCode(other.into());
            Polled::Trouble { code, fatal: false, message: "rebalance failed".to_owned() }
        }
    };
    mailbox.push(item);
    // SAFETY: called from a callback, as it must be; makes `poll` return now.
    unsafe { sys::rd_kafka_yield(client) };
}

/// Runs inside `poll`, on its thread.
pub(super) unsafe extern "C" fn on_error(
    client: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_rebalance`.
    let mailbox = unsafe { &*opaque.cast::<Mailbox>() };
    let mut text = [0 as c_char; 256];
    // SAFETY: live client, buffer with its length. Tells the underlying code when there is a fatal error.
    let fatal = unsafe { sys::rd_kafka_fatal_error(client, text.as_mut_ptr(), text.len()) };
    let code = ErrorCode::from_response(fatal).unwrap_or_else(|| ErrorCode::from_raw(code));
    let message = if reason.is_null() {
        String::new()
    } else {
        // SAFETY: a C string during the callback.
        unsafe { CStr::from_ptr(reason) }.to_string_lossy().into_owned()
    };
    mailbox.push(Polled::Trouble { code, fatal: fatal != NO_ERROR, message });
}

/// Runs on librdkafka's threads.
pub(super) unsafe extern "C" fn on_log(
    _: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: C strings during the callback.
    let (facility, text) =
        unsafe { (CStr::from_ptr(facility).to_string_lossy(), CStr::from_ptr(text).to_string_lossy()) };
    match level {
        0..=3 => tracing::error!(target: "librdkafka", %facility, "{text}"),
        4 => tracing::warn!(target: "librdkafka", %facility, "{text}"),
        5 | 6 => tracing::info!(target: "librdkafka", %facility, "{text}"),
        _ => tracing::debug!(target: "librdkafka", %facility, "{text}"),
    }
}
