//! A Kafka record as the steps see it.

/// A header: its name and its value, if any.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// A borrowed Kafka record.
#[derive(Clone, Copy)]
pub struct RecordView<'a> {
    /// Topic it was read from.
    pub topic: &'a str,
    /// Partition it was read from.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970; negative = none.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none = tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order. May be left empty when the program's `uses_headers()` is false.
    pub headers: &'a [Header<'a>],
}

/// Contents stay out of logs.
impl std::fmt::Debug for RecordView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordView({}-{}@{})", self.topic, self.partition, self.offset)
    }
}
