//! Owning and reading librdkafka's objects.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;

use rdkafka_sys as sys;

use crate::kafka::admin::{AdminError, TopicPartition, failure};

/// Getters that give an enumeration, declared as plain integers: a value that a newer broker sends and the bindings do
/// not list would be undefined behaviour as a Rust `enum`.
pub(super) mod raw {
    use std::ffi::c_int;

    use rdkafka_sys as sys;

    unsafe extern "C" {
        pub fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
        pub fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
        pub fn rd_kafka_topic_result_error(result: *const sys::rd_kafka_topic_result_t) -> c_int;
        pub fn rd_kafka_ConfigResource_error(resource: *const sys::rd_kafka_ConfigResource_t) -> c_int;
        pub fn rd_kafka_ConfigEntry_source(entry: *const sys::rd_kafka_ConfigEntry_t) -> c_int;
        pub fn rd_kafka_AclBinding_restype(acl: *const sys::rd_kafka_AclBinding_t) -> c_int;
        pub fn rd_kafka_AclBinding_resource_pattern_type(acl: *const sys::rd_kafka_AclBinding_t) -> c_int;
        pub fn rd_kafka_AclBinding_operation(acl: *const sys::rd_kafka_AclBinding_t) -> c_int;
        pub fn rd_kafka_AclBinding_permission_type(acl: *const sys::rd_kafka_AclBinding_t) -> c_int;
        pub fn rd_kafka_ScramCredentialInfo_mechanism(info: *const sys::rd_kafka_ScramCredentialInfo_t) -> c_int;
    }
}

/// An object we must free, and how.
pub(super) struct Native<T> {
    ptr: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Native<T> {
    /// Takes over what a `…_new` function gave, which is freed with `destroy`; null means it refused its arguments.
    pub fn new(
        ptr: *mut T,
        destroy: unsafe extern "C" fn(*mut T),
        what: &'static str,
        value: &str,
    ) -> Result<Self, AdminError> {
        NonNull::new(ptr).map(|ptr| Self { ptr, destroy }).ok_or_else(|| AdminError::InvalidArgument {
            what,
            value: value.to_owned(),
            reason: "librdkafka refuses it".to_owned(),
        })
    }

    pub fn ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }

    /// The pointers of a list, for calls that take an array. They live as long as the list.
    pub fn pointers(list: &[Self]) -> Vec<*mut T> {
        list.iter().map(Self::ptr).collect()
    }
}

impl<T> Drop for Native<T> {
    fn drop(&mut self) {
        // SAFETY: the object is ours alone (calls copy what they are given) and is freed once, with its own function.
        unsafe { (self.destroy)(self.ptr.as_ptr()) }
    }
}

/// Where a function writes why it refused its arguments.
pub(super) struct ErrorText([u8; 512]);

impl Default for ErrorText {
    fn default() -> Self {
        Self([0; 512])
    }
}

impl ErrorText {
    pub fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr().cast()
    }

    pub fn capacity(&self) -> usize {
        self.0.len()
    }

    pub fn invalid(&self, what: &'static str, value: &str) -> AdminError {
        let reason = CStr::from_bytes_until_nul(&self.0)
            .map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
        AdminError::InvalidArgument { what, value: value.to_owned(), reason }
    }
}

/// A text as C takes it.
pub(super) fn c_text(what: &'static str, value: &str) -> Result<CString, AdminError> {
    CString::new(value).map_err(|_| AdminError::InvalidArgument {
        what,
        value: value.to_owned(),
        reason: "it holds a zero byte".to_owned(),
    })
}

/// Texts as C takes them, and the array of them. The pointers live as long as the first part.
pub(super) fn c_texts<'a>(
    what: &'static str,
    values: impl IntoIterator<Item = &'a String>,
) -> Result<(Vec<CString>, Vec<*const c_char>), AdminError> {
    let texts = values.into_iter().map(|value| c_text(what, value)).collect::<Result<Vec<_>, _>>()?;
    let pointers = texts.iter().map(|text| text.as_ptr()).collect();
    Ok((texts, pointers))
}

/// Copies a text; null is empty.
///
/// # Safety
/// `ptr` is null or points to a text that ends with a zero byte.
pub(super) unsafe fn text(ptr: *const c_char) -> String {
    if ptr.is_null() {
        return String::new();
    }
    // SAFETY: not null, so by the caller's promise a text that ends with a zero byte.
    unsafe { CStr::from_ptr(ptr) }.to_string_lossy().into_owned()
}

/// An error object of a result; null is success.
///
/// # Safety
/// `error` is null or points to a live error object.
pub(super) unsafe fn object_failure(error: *const sys::rd_kafka_error_t) -> Result<(), AdminError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so by the caller's promise a live error object; its text is copied.
    unsafe { failure(raw::rd_kafka_error_code(error), &text(sys::rd_kafka_error_string(error))) }
}

/// Takes over an error object that a setter returned; null is success.
///
/// # Safety
/// `error` is null or an error object that nobody else has.
pub(super) unsafe fn take_failure(error: *mut sys::rd_kafka_error_t) -> Result<(), AdminError> {
    // SAFETY: by the caller's promise; it is freed once and its text was copied.
    unsafe {
        let outcome = object_failure(error);
        if !error.is_null() {
            sys::rd_kafka_error_destroy(error);
        }
        outcome
    }
}

/// The array of pointers that a getter gives with its length.
///
/// # Safety
/// `array` is null or points to `len` pointers that live for `'a`.
pub(super) unsafe fn array<'a, T>(array: *mut *const T, len: usize) -> &'a [*const T] {
    if array.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: not null, so by the caller's promise `len` live pointers.
    unsafe { std::slice::from_raw_parts(array, len) }
}

/// A list of partitions we made.
pub(super) struct PartitionList(Native<sys::rd_kafka_topic_partition_list_t>);

impl PartitionList {
    pub fn new<'a>(
        entries: impl ExactSizeIterator<Item = (&'a TopicPartition, i64, Option<&'a str>)>,
    ) -> Result<Self, AdminError> {
        let size = i32::try_from(entries.len()).unwrap_or(i32::MAX);
        // SAFETY: makes an empty list; the size is a hint.
        let ptr = unsafe { sys::rd_kafka_topic_partition_list_new(size) };
        let list = Native::new(ptr, sys::rd_kafka_topic_partition_list_destroy, "partitions", "")?;
        for (partition, offset, metadata) in entries {
            let topic = c_text("topic", &partition.topic)?;
            // SAFETY: the list is alive and copies the topic. The returned element lives until the list grows; it is
            // only used before that. Metadata is librdkafka's to free (with `free`), so it is allocated by `strdup`.
            unsafe {
                let element = sys::rd_kafka_topic_partition_list_add(list.ptr(), topic.as_ptr(), partition.partition);
                (*element).offset = offset;
                if let Some(metadata) = metadata.filter(|metadata| !metadata.is_empty()) {
                    let copy = c_text("offset metadata", metadata)?;
                    (*element).metadata = libc_strdup(&copy)?.cast();
                    (*element).metadata_size = metadata.len();
                }
            }
        }
        Ok(Self(list))
    }

    pub fn ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0.ptr()
    }
}

/// Copies a text into memory of C's allocator.
fn libc_strdup(text: &CStr) -> Result<*mut c_char, AdminError> {
    unsafe extern "C" {
        fn strdup(text: *const c_char) -> *mut c_char;
    }
    // SAFETY: the text is alive and ends with a zero byte.
    let copy = unsafe { strdup(text.as_ptr()) };
    if copy.is_null() { Err(AdminError::Client("out of memory".to_owned())) } else { Ok(copy) }
}

/// One element of a list librdkafka gave us.
pub(super) struct PartitionEntry {
    pub partition: TopicPartition,
    pub offset: i64,
    pub outcome: Result<(), AdminError>,
}

/// Copies one element.
///
/// # Safety
/// `element` points to a live element.
pub(super) unsafe fn entry(element: *const sys::rd_kafka_topic_partition_t) -> PartitionEntry {
    // SAFETY: alive by the caller's promise; texts are copied. The code is read as an integer (see `raw`).
    unsafe {
        let topic = text((*element).topic);
        let number = (&raw const (*element).err).cast::<i32>().read();
        PartitionEntry {
            partition: TopicPartition { topic, partition: (*element).partition },
            offset: (*element).offset,
            outcome: failure(number, ""),
        }
    }
}

/// Copies a list.
///
/// # Safety
/// `list` is null or points to a live list.
pub(super) unsafe fn entries(list: *const sys::rd_kafka_topic_partition_list_t) -> Vec<PartitionEntry> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: not null, so by the caller's promise a live list of `cnt` elements.
    unsafe {
        let len = usize::try_from((*list).cnt).unwrap_or(0);
        (0..len).map(|index| entry((*list).elems.add(index))).collect()
    }
}

/// Every object asked for has an outcome: one that the answer does not name failed.
pub(super) fn complete<T>(
    call: &'static str,
    asked: impl IntoIterator<Item = String>,
    mut outcomes: BTreeMap<String, Result<T, AdminError>>,
) -> BTreeMap<String, Result<T, AdminError>> {
    for name in asked {
        outcomes.entry(name).or_insert(Err(AdminError::Incomplete(call)));
    }
    outcomes
}
