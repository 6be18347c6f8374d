//! What a record becomes → records to produce: headers, dead letters, stubs. Pure.

use sluice_clients::kafka::consumer::Record;
use sluice_clients::kafka::producer::Outgoing;
use sluice_transform::DeadLetter;

use crate::processor::work::{Bytes, Outcome};

/// What Kafka adds to a record, at most, in bytes (lengths, attributes, deltas; KIP-98 record format), and some room.
const RECORD_OVERHEAD: usize = 96;

type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Calls `produce` with the topic index and the record, for each record that `outcome` means.
///
/// `topics` maps routes to topic indexes. Dead letters larger than `max_bytes` are made stubs here already.
pub fn each_outgoing<E>(
    outcome: &Outcome,
    record: &Record,
    tag: usize,
    topics: &Topics,
    mut produce: impl FnMut(usize, &Outgoing<'_>) -> Result<(), E>,
) -> Result<(), E> {
    match outcome {
        Outcome::Produce(outputs) => {
            let headers = record.headers();
            for (route, key) in &outputs.routes {
                let outgoing = Outgoing {
                    key: select(key, record.key()),
                    value: select(&outputs.value, record.value()),
                    timestamp: record.timestamp(),
                    headers: &headers,
                    tag,
                };
                produce(topics.routes[*route], &outgoing)?;
            }
            Ok(())
        }
        Outcome::DeadLetter(letter) | Outcome::Stub(letter) => {
            // Without the topic, records never get this outcome.
            let Some(topic) = topics.dead_letter else { return Ok(()) };
            let wants_stub = matches!(outcome, Outcome::Stub(_));
            dead_letter(letter, record, tag, wants_stub, topics.max_record_bytes, |outgoing| produce(topic, outgoing))
        }
        Outcome::Filtered | Outcome::Discarded | Outcome::Skip => Ok(()),
    }
}

/// Where records go.
#[derive(Clone, Debug)]
pub struct Topics {
    /// All topics, each once.
    pub names: Vec<String>,
    /// Route → index in `names`.
    pub routes: Vec<usize>,
    /// Index of the dead-letter topic.
    pub dead_letter: Option<usize>,
    /// Largest record, in bytes.
    pub max_record_bytes: usize,
}

impl Topics {
    /// Topics of these routes.
    pub fn new<'a>(
        routes: impl IntoIterator<Item = &'a str>,
        dead_letter: Option<&str>,
        max_record_bytes: u64,
    ) -> Self {
        let mut names: Vec<String> = Vec::new();
        let mut index = |name: &str| {
            names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            })
        };
        let routes = routes.into_iter().map(&mut index).collect();
        let dead_letter = dead_letter.map(&mut index);
        let max_record_bytes = usize::try_from(max_record_bytes).unwrap_or(usize::MAX);
        Self { names, routes, dead_letter, max_record_bytes }
    }
}

fn select<'a>(bytes: &'a Bytes, source: Option<&'a [u8]>) -> Option<&'a [u8]> {
    match bytes {
        Bytes::Source => source,
        Bytes::Null => None,
        Bytes::Own(own) => Some(own),
    }
}

fn dead_letter<E>(
    letter: &DeadLetter,
    record: &Record,
    tag: usize,
    stub: bool,
    max_bytes: usize,
    produce: impl FnOnce(&Outgoing<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let texts = [record.partition().to_string(), record.offset().to_string()];
    let timestamp = record.timestamp().map(|millis| millis.to_string());
    let mut ours: Vec<Header<'_>> = vec![
        ("sluice-error-step", Some(letter.step.as_bytes())),
        ("sluice-error-reason", Some(letter.reason.as_str().as_bytes())),
        ("sluice-error-message", Some(letter.message.as_bytes())),
        ("sluice-source-topic", Some(record.topic().as_bytes())),
        ("sluice-source-partition", Some(texts[0].as_bytes())),
        ("sluice-source-offset", Some(texts[1].as_bytes())),
    ];
    if let Some(millis) = &timestamp {
        ours.push(("sluice-source-timestamp", Some(millis.as_bytes())));
    }
    let originals = record.headers();
    let full = record.size() + size_of_headers(&originals) + size_of_headers(&ours) + RECORD_OVERHEAD;
    if stub || full > max_bytes {
        ours.push(("sluice-error-stub", Some(b"true")));
        // Empty, not null: on a compacted topic a null value would delete.
        let outgoing = Outgoing { key: None, value: Some(b""), timestamp: record.timestamp(), headers: &ours, tag };
        return produce(&outgoing);
    }
    let headers: Vec<Header<'_>> = originals.iter().chain(&ours).copied().collect();
    let outgoing =
        Outgoing { key: record.key(), value: record.value(), timestamp: record.timestamp(), headers: &headers, tag };
    produce(&outgoing)
}

fn size_of_headers(headers: &[Header<'_>]) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 10).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_listed_once() {
        let topics = Topics::new(["a", "b", "a"], Some("b"), 1000);
        assert_eq!(topics.names, ["a", "b"]);
        assert_eq!((topics.routes.as_slice(), topics.dead_letter), ([0, 1, 0].as_slice(), Some(1)));
        assert_eq!(Topics::new(["a"], Some("dlq"), 1000).dead_letter, Some(1));
        assert_eq!(Topics::new(["a"], None, 1000).dead_letter, None);
    }
}
