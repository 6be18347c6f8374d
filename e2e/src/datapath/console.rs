//! Kafka's own console consumer as a witness: another client, another language, the same topic.

use std::collections::BTreeMap;
use std::time::Duration;

use super::HarnessError;
use crate::checker::{Record, TopicDump};
use crate::stack::Kafka;

/// Between header entries; no header of ours holds it.
const SEPARATOR: char = '\u{1}';
/// What null is told to be printed as. It goes through the deserializer like a value, so it only works while no value of ours
/// is this.
const NULL: &str = "\u{2}null\u{2}";
/// What it looks like then.
const NULL_PRINTED: &str = "\\x02null\\x02";

/// How long the console consumer waits for a record before it ends, try by try.
const PATIENCE: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(60)];

/// All committed records of a topic, as the console consumer prints them. It ends when nothing came for a while, its own start
/// included: it is asked again, with more patience, until it has seen as much as another witness, and believed at last even if
/// it has not.
pub fn dump(kafka: &Kafka, topic: &str, other: &TopicDump) -> Result<TopicDump, HarnessError> {
    let mut seen = TopicDump::default();
    for patience in PATIENCE {
        seen = dump_once(kafka, topic, patience)?;
        if seen.records.len() >= other.records.len() {
            break;
        }
    }
    Ok(seen)
}

/// It ends when nothing came for `idle`.
fn dump_once(kafka: &Kafka, topic: &str, idle: Duration) -> Result<TopicDump, HarnessError> {
    let bytes = "org.apache.kafka.common.serialization.BytesDeserializer";
    let mut command = kafka.tool("kafka-console-consumer")?;
    command.args(["--topic", topic, "--from-beginning", "--isolation-level", "read_committed"]);
    command.args(["--timeout-ms", &idle.as_millis().to_string()]);
    for part in ["timestamp", "partition", "offset", "headers", "key", "value"] {
        command.arg("--property").arg(format!("print.{part}=true"));
    }
    for part in ["key", "value", "headers"] {
        command.arg("--property").arg(format!("{part}.deserializer={bytes}"));
    }
    command.arg("--property").arg(format!("headers.separator={SEPARATOR}"));
    command.arg("--property").arg(format!("null.literal={NULL}"));
    let output = command
        .output()
        .map_err(|error| HarnessError::Process { name: "kafka-console-consumer".into(), message: error.to_string() })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let records: Result<Vec<Record>, HarnessError> = text.lines().map(parse).collect();
    let records = records.map_err(|error| HarnessError::Process {
        name: "kafka-console-consumer".into(),
        message: format!("{error}; it said {}", String::from_utf8_lossy(&output.stderr)),
    })?;
    Ok(TopicDump::new(topic, records, BTreeMap::new()))
}

/// `CreateTime:1 ⇥ Partition:0 ⇥ Offset:5 ⇥ headers ⇥ key ⇥ value`.
fn parse(line: &str) -> Result<Record, HarnessError> {
    let unreadable = || HarnessError::Unreadable { witness: "kafka-console-consumer", message: line.to_owned() };
    let parts: Vec<&str> = line.split('\t').collect();
    let [time, partition, offset, headers, key, value] = parts[..] else { return Err(unreadable()) };
    let number = |text: &str, name: &str| text.strip_prefix(name)?.parse::<i64>().ok();
    let headers: Option<Vec<(String, Vec<u8>)>> = match headers {
        "NO_HEADERS" => Some(Vec::new()),
        _ => headers
            .split(SEPARATOR)
            .map(|header| {
                let (name, value) = header.split_once(':')?;
                Some((name.to_owned(), unescape(value)?))
            })
            .collect(),
    };
    let optional = |text: &str| if text == NULL_PRINTED { Some(None) } else { unescape(text).map(Some) };
    let record = || {
        Some(Record {
            partition: i32::try_from(number(partition, "Partition:")?).ok()?,
            offset: number(offset, "Offset:")?,
            timestamp_ms: number(time, "CreateTime:")?,
            key: optional(key)?,
            value: optional(value)?,
            headers: headers?,
        })
    };
    record().ok_or_else(unreadable)
}

/// `\xNN` for everything that is not printable ASCII, and for the backslash, as Kafka's `Bytes.toString` writes it.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\\' {
            let digits = std::str::from_utf8(after.strip_prefix(b"x")?.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[3..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_back_to_bytes() {
        let line =
            "CreateTime:17\tPartition:3\tOffset:42\tevent-id:3:7\u{1}opaque:\\xFF\\x00a\to-1\t{\"a\":\"\\x5Cn\\x09\"}";
        let record = parse(line).expect("a record");
        assert_eq!((record.timestamp_ms, record.partition, record.offset), (17, 3, 42));
        assert_eq!(record.headers[0], ("event-id".to_owned(), b"3:7".to_vec()));
        assert_eq!(record.headers[1].1, [0xff, 0, b'a']);
        assert_eq!(record.value, Some(b"{\"a\":\"\\n\t\"}".to_vec()));
    }

    #[test]
    fn tells_null_from_the_text_null() {
        let line = |value| format!("CreateTime:1\tPartition:0\tOffset:0\tNO_HEADERS\tk\t{value}");
        assert_eq!(parse(&line("\\x02null\\x02")).expect("a record").value, None);
        assert_eq!(parse(&line("null")).expect("a record").value, Some(b"null".to_vec()));
        assert_eq!(parse(&line("")).expect("a record").value, Some(Vec::new()));
        assert!(parse("rubbish").is_err());
    }
}
