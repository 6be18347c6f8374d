//! Kafka records → what they do to Redis. Pure.

use sluice_clients::kafka::consumer::Record;
use sluice_crds::worker_config::ViewTopic;
use sluice_transform::{CompileError, RecordView, ViewProgram};

use super::mutation::{Change, Mutation, Op, Poison};

/// What a record costs in memory besides its mutations, about.
const OVERHEAD: usize = 160;

/// The views of one topic, compiled.
#[derive(Debug)]
pub struct Decoder {
    topic: String,
    program: ViewProgram,
}

impl Decoder {
    /// Compiles the views of a topic.
    pub fn compile(topic: &ViewTopic) -> Result<Self, Vec<CompileError>> {
        let program = ViewProgram::compile("views", topic.format, &topic.views)?;
        Ok(Self { topic: topic.topic.name.clone(), program })
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Reads a record. `now_ms` is Unix time.
    pub fn read(&self, record: &Record, now_ms: i64) -> Change {
        let headers = if self.program.uses_headers() { record.headers() } else { Vec::new() };
        self.change(
            &RecordView {
                topic: &self.topic,
                partition: record.partition(),
                offset: record.offset(),
                timestamp_ms: record.timestamp().unwrap_or(-1),
                key: record.key(),
                value: record.value(),
                headers: &headers,
            },
            now_ms,
        )
    }

    fn change(&self, record: &RecordView<'_>, now_ms: i64) -> Change {
        let effect = match self.program.mutations(record, now_ms) {
            Ok(mutations) => Ok(mutations.into_iter().map(mutation).collect::<Vec<_>>()),
            Err(error) => Err(Poison { category: error.reason.as_str(), message: error.to_string() }),
        };
        let bytes: usize = effect.iter().flatten().map(Mutation::bytes).sum();
        Change { offset: record.offset, timestamp_ms: record.timestamp_ms, weight: OVERHEAD + bytes, effect }
    }
}

fn mutation(from: sluice_transform::Mutation) -> Mutation {
    let expire_at_ms = from.expire_at_ms;
    let op = match from.op {
        sluice_transform::Op::Delete => Op::Delete,
        sluice_transform::Op::SetString(value) => Op::Set { value, expire_at_ms },
        sluice_transform::Op::SetHash(fields) => Op::SetHash { fields, expire_at_ms },
    };
    Mutation::new(from.key, op)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder() -> Decoder {
        let topic = serde_json::json!({
            "topic": {"name": "orders", "id": "7Wc2m-Qd_kOZr4hV0nH3xA"},
            "format": "Json",
            "views": [
                {"name": "order", "key": "'order:{' + key + '}'", "keyPrefix": "order:", "viewType": "Json", "ttlSeconds": 10},
                {"name": "state", "key": "'state:' + key", "keyPrefix": "state:", "viewType": "Hash", "when": "value.on"}
            ]
        });
        Decoder::compile(&serde_json::from_value(topic).expect("a topic")).expect("good views")
    }

    fn read(value: Option<&str>) -> Change {
        let record = RecordView {
            topic: "orders",
            partition: 3,
            offset: 17,
            timestamp_ms: 1_000,
            key: Some(b"a"),
            value: value.map(str::as_bytes),
            headers: &[],
        };
        decoder().change(&record, 2_000)
    }

    #[test]
    fn a_record_becomes_one_mutation_a_view() {
        let change = read(Some(r#"{"on": true}"#));
        let mutations = change.effect.expect("good");
        assert_eq!((change.offset, change.timestamp_ms, mutations.len()), (17, 1_000, 2));
        let set = Op::Set { value: br#"{"on": true}"#.to_vec(), expire_at_ms: Some(11_000) };
        assert_eq!(mutations[0], Mutation::new(b"order:{a}".to_vec(), set));
        let hash = Op::SetHash { fields: vec![(b"on".to_vec(), b"true".to_vec())], expire_at_ms: None };
        assert_eq!(mutations[1], Mutation::new(b"state:a".to_vec(), hash));
    }

    #[test]
    fn tombstones_delete_and_nonsense_is_poison() {
        let gone = read(None).effect.expect("good");
        assert!(gone.iter().all(|mutation| mutation.op == Op::Delete), "{gone:?}");
        let poison = read(Some("{")).effect.expect_err("not JSON");
        assert_eq!(poison.category, "InvalidJson");
    }
}
