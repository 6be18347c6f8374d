//! Partition lists: safe values on one side, librdkafka's list on the other.

use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};

use rdkafka_sys as sys;

use crate::kafka::admin::TopicPartition;
use crate::kafka::error::{ErrorCode, KafkaError};

/// An owned `rd_kafka_topic_partition_list_t`.
pub(super) struct List(NonNull<sys::rd_kafka_topic_partition_list_t>);

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) partition: TopicPartition,
    /// As librdkafka has it: negative numbers are logical offsets.
    pub(super) offset: i64,
    /// Not text we wrote: anybody who may commit to the group can put anything here.
    pub(super) metadata: Vec<u8>,
    pub(super) error: Option<ErrorCode>,
}

/// Longest offset metadata copied out of a list; brokers take 4,096 bytes by default.
const MAX_METADATA: usize = 4096;

impl List {
    pub(super) fn new<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Result<Self, KafkaError> {
        let mut list = Self::empty();
        for partition in partitions {
            list.add(partition, i64::from(sys::RD_KAFKA_OFFSET_INVALID), None)?;
        }
        Ok(list)
    }

    pub(super) fn empty() -> Self {
        // SAFETY: no preconditions; librdkafka aborts the process rather than return null when memory runs out.
        let list = unsafe { sys::rd_kafka_topic_partition_list_new(16) };
        Self(NonNull::new(list).expect("should be a list: librdkafka never returns null here"))
    }

    /// Offsets with their metadata.
    pub(super) fn of_offsets<'a>(
        offsets: impl IntoIterator<Item = (&'a TopicPartition, i64, &'a str)>,
    ) -> Result<Self, KafkaError> {
        let mut list = Self::empty();
        for (partition, offset, metadata) in offsets {
            list.add(partition, offset, Some(metadata))?;
        }
        Ok(list)
    }

    /// Adds a line. `metadata` is copied.
    pub(super) fn add(&mut self, at: &TopicPartition, offset: i64, metadata: Option<&str>) -> Result<(), KafkaError> {
        let topic = c_string(&at.topic)?;
        // SAFETY: the list is ours and live, `topic` is a C string that librdkafka copies; the element returned lives
        // until the next change of the list.
        unsafe {
            let element = sys::rd_kafka_topic_partition_list_add(self.0.as_ptr(), topic.as_ptr(), at.partition);
            (*element).offset = offset;
            if let Some(text) = metadata.filter(|text| !text.is_empty()) {
                // librdkafka frees metadata with free(): it must come from malloc, here through strdup semantics.
                let copy = libc_alloc(text.as_bytes());
                (*element).metadata = copy;
                (*element).metadata_size = text.len();
            }
        }
        Ok(())
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        // SAFETY: the list is ours and live.
        unsafe { entries(self.0.as_ptr()) }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: we own the list and nobody keeps a pointer into it.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0.as_ptr()) }
    }
}

/// Copies a list out.
///
/// # Safety
/// `list` must be null or a live list that nobody changes meanwhile.
pub(super) unsafe fn entries(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: live by the contract; `elems` holds `cnt` elements.
    let (elements, count) = unsafe { ((*list).elems, usize::try_from((*list).cnt).unwrap_or(0)) };
    (0..count)
        .map(|index| {
            // SAFETY: index < cnt.
            let element = unsafe { &*elements.add(index) };
            // SAFETY: librdkafka keeps the topic as a C string.
            let topic = unsafe { CStr::from_ptr(element.topic) }.to_string_lossy().into_owned();
            let metadata = if element.metadata.is_null() {
                Vec::new()
            } else {
                let length = element.metadata_size.min(MAX_METADATA);
                // SAFETY: `metadata` holds `metadata_size` bytes.
                unsafe { std::slice::from_raw_parts(element.metadata.cast::<u8>(), length) }.to_vec()
            };
            Entry {
                partition: TopicPartition { topic, partition: element.partition },
                offset: element.offset,
                metadata,
                error: ErrorCode::from_response(element.err),
            }
        })
        .collect()
}

/// A C string; topic and group names with a NUL byte do not exist in Kafka.
pub(super) fn c_string(text: &str) -> Result<CString, KafkaError> {
    CString::new(text).map_err(|_| KafkaError::NulByte { text: text.replace('\0', "\\0") })
}

/// A `malloc`ed copy, for memory that librdkafka frees.
fn libc_alloc(bytes: &[u8]) -> *mut c_void {
    // SAFETY: `rd_kafka_mem_malloc(NULL, n)` is malloc(n) with librdkafka's own C library; it does not return null but
    // for n = 0, which callers exclude, or memory exhaustion, which is checked.
    unsafe {
        let copy = sys::rd_kafka_mem_malloc(ptr::null_mut(), bytes.len());
        assert!(!copy.is_null(), "out of memory");
        ptr::copy_nonoverlapping(bytes.as_ptr(), copy.cast::<u8>(), bytes.len());
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut list = List::empty();
        let (a, b) = (TopicPartition::new("a", 0), TopicPartition::new("b", 7));
        list.add(&a, 42, Some("sluice1 s=1")).expect("valid");
        list.add(&b, -1001, None).expect("valid");
        let entries = list.entries();
        assert_eq!(entries[0], Entry { partition: a, offset: 42, metadata: b"sluice1 s=1".to_vec(), error: None });
        assert_eq!(entries[1], Entry { partition: b, offset: -1001, metadata: Vec::new(), error: None });
        assert!(list.add(&TopicPartition::new("a\0b", 0), 0, None).is_err());
    }
}
