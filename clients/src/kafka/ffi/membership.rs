//! Membership in a consumer group at one moment.

use std::ffi::CStr;
use std::ptr::NonNull;

use rdkafka_sys as sys;

use crate::kafka::error::KafkaError;

/// Membership in the group at one moment, for [`super::producer::TransactionalProducer::send_offsets`].
pub struct GroupMetadata(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: an immutable value on librdkafka's heap.
unsafe impl Send for GroupMetadata {}
// SAFETY: as above.
unsafe impl Sync for GroupMetadata {}

impl GroupMetadata {
    /// Generation of the group.
    pub fn generation(&self) -> i32 {
        // SAFETY: live value.
        unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) }
    }

    /// Takes what librdkafka gave; an error when it is no membership.
    ///
    /// # Safety
    /// `metadata` must be null or a value that the caller owns.
    pub(super) unsafe fn take(metadata: *mut sys::rd_kafka_consumer_group_metadata_t) -> Result<Self, KafkaError> {
        let metadata = Self(NonNull::new(metadata).ok_or(KafkaError::NotAMember)?);
        if metadata.generation() < 0 || metadata.member_id().is_empty() {
            return Err(KafkaError::NotAMember);
        }
        Ok(metadata)
    }

    fn member_id(&self) -> &CStr {
        // SAFETY: live value; the text lives as long as it.
        unsafe {
            let id = sys::rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr());
            if id.is_null() { c"" } else { CStr::from_ptr(id) }
        }
    }

    pub(super) fn as_ptr(&self) -> *const sys::rd_kafka_consumer_group_metadata_t {
        self.0.as_ptr()
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

impl std::fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupMetadata(generation {})", self.generation())
    }
}
