//! A consumed record, borrowed from librdkafka's fetch buffer for as long as it lives.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka_sys as sys;

use super::consumer::Native;

/// A consumed record. It pins the fetch buffer it lies in, so holding few records of many fetches holds much memory.
pub struct Record {
    message: NonNull<sys::rd_kafka_message_t>,
    /// Destroyed after the message: librdkafka wants all messages back before the client goes.
    _client: Arc<Native>,
}

// SAFETY: a fetched message is read-only; its destruction only drops atomic reference counts and is documented as
// callable from any thread.
unsafe impl Send for Record {}
// Not Sync: librdkafka parses headers into the message on first use, without a lock.

impl Record {
    /// # Safety
    /// `message` must be an error-free message fetched by `client`, owned by the caller.
    pub(super) unsafe fn new(message: NonNull<sys::rd_kafka_message_t>, client: Arc<Native>) -> Self {
        Self { message, _client: client }
    }

    fn raw(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: owned and live until drop.
        unsafe { self.message.as_ref() }
    }

    /// Topic.
    pub fn topic(&self) -> &str {
        // SAFETY: the message keeps its topic handle alive; topic names are ASCII C strings.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.raw().rkt)) };
        name.to_str().unwrap_or_default()
    }

    /// A number that is equal for records of the same topic and consumer, and cheaper than the name.
    pub fn topic_token(&self) -> usize {
        self.raw().rkt as usize
    }

    /// Partition.
    pub fn partition(&self) -> i32 {
        self.raw().partition
    }

    /// Offset.
    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    /// Key; absent and empty are different things.
    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka guarantees `key_len` bytes at `key` unless it is null.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    /// Value; absent (a tombstone) and empty are different things.
    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: librdkafka guarantees `len` bytes at `payload` unless it is null.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    /// Timestamp in Unix milliseconds; absent when the topic's format has none.
    pub fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: live message, valid out pointer.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(millis)
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        self.raw().key_len + self.raw().len
    }

    /// Headers, in order, as `(name, value)`.
    pub fn headers(&self) -> Vec<(&str, Option<&[u8]>)> {
        self.iter_headers().collect()
    }

    /// As [`Self::headers`], one at a time.
    pub fn iter_headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let mut headers: *mut sys::rd_kafka_headers_t = ptr::null_mut();
        // SAFETY: live message that no other thread touches (not Sync), valid out pointer. The headers belong to it.
        let found = unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut headers) };
        let is_there = found == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && !headers.is_null();
        // SAFETY: live headers.
        let count = if is_there { unsafe { sys::rd_kafka_header_cnt(headers) } } else { 0 };
        (0..count).map_while(move |index| {
            let (mut name, mut value, mut size): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
            // SAFETY: live headers and valid out pointers; name and value live as long as the message.
            let got =
                unsafe { sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
            if got != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            // SAFETY: a C string by librdkafka's contract.
            let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap_or_default();
            // SAFETY: `size` bytes at `value` unless it is null.
            Some((name, unsafe { bytes(value.cast_mut(), size) }))
        })
    }
}

/// # Safety
/// `pointer` must be null or valid for `length` bytes as long as the caller uses the slice.
unsafe fn bytes<'a>(pointer: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract above.
    (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) })
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: owned; any thread may destroy a message.
        unsafe { sys::rd_kafka_message_destroy(self.message.as_ptr()) }
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the content: it may be personal data.
        write!(f, "Record({}[{}]@{})", self.topic(), self.partition(), self.offset())
    }
}
