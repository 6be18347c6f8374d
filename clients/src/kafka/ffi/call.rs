//! Results of librdkafka's calls → ours.

use std::ffi::{CStr, c_int};
use std::time::Duration;

use rdkafka_sys as sys;

use crate::kafka::error::{ErrorCode, ErrorFlags, KafkaError};

pub(super) fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

pub(super) fn check(call: &'static str, code: sys::rd_kafka_resp_err_t) -> Result<(), KafkaError> {
    match ErrorCode::from_response(code) {
        None => Ok(()),
        Some(code) => Err(call_error(call, code)),
    }
}

pub(super) fn call_error(call: &'static str, code: ErrorCode) -> KafkaError {
    KafkaError::Call { call, code, detail: code.to_string(), flags: ErrorFlags::default() }
}

/// Turns librdkafka's error object into ours.
///
/// # Safety
/// `error` must be null or an error object that the caller owns.
pub(super) unsafe fn take_error(call: &'static str, error: *mut sys::rd_kafka_error_t) -> Result<(), KafkaError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: live and ours by the contract; destroyed once, after the last read.
    unsafe {
        let result = KafkaError::Call {
            call,
            code: ErrorCode(sys::rd_kafka_error_code(error).into()),
            detail: CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned(),
            flags: ErrorFlags {
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                retriable: sys::rd_kafka_error_is_retriable(error) != 0,
                abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
            },
        };
        sys::rd_kafka_error_destroy(error);
        Err(result)
    }
}
