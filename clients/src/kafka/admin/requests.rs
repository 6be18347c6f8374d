//! How many requests were sent to the brokers, by librdkafka's statistics. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Requests sent, by the name that Kafka's protocol has for them (`OffsetFetch`). librdkafka does not count all of them: changes of
/// SCRAM users and of settings are left out.
pub type Requests = BTreeMap<String, u64>;

/// What matters here of the statistics (librdkafka, STATISTICS.md).
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    #[serde(default)]
    req: BTreeMap<String, u64>,
}

/// What one client has said last, by broker and request.
#[derive(Debug, Default)]
pub(in crate::kafka) struct Counted(BTreeMap<(String, String), u64>);

impl Counted {
    /// Adds to `total` what was sent since this client's last statistics.
    pub fn add(&mut self, statistics: &str, total: &mut Requests) -> Result<(), serde_json::Error> {
        let Statistics { brokers } = serde_json::from_str(statistics)?;
        for (broker, Broker { req }) in brokers {
            for (request, sent) in req {
                let before = self.0.insert((broker.clone(), request.clone()), sent).unwrap_or(0);
                // A broker that was forgotten and is known again begins at none.
                let more = sent.checked_sub(before).unwrap_or(sent);
                if more > 0 {
                    *total.entry(request).or_default() += more;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_brokers_and_all_clients_add_up() {
        let said = |one: u64, two: u64| {
            format!(
                r#"{{"type": "consumer", "brokers": {{"a:1/1": {{"state": "UP", "req": {{"OffsetFetch": {one}, "Fetch": 0}}}},
                "b:1/2": {{"req": {{"OffsetFetch": {two}}}}}, "GroupCoordinator": {{}}}}}}"#
            )
        };
        let (mut total, mut first, mut second) = (Requests::new(), Counted::default(), Counted::default());
        first.add(&said(3, 4), &mut total).unwrap();
        first.add(&said(5, 4), &mut total).unwrap();
        assert_eq!(total, Requests::from([("OffsetFetch".to_owned(), 9)]));
        second.add(&said(1, 0), &mut total).unwrap();
        assert_eq!(total["OffsetFetch"], 10, "the next client begins anew, the sum does not");
        first.add(&said(2, 4), &mut total).unwrap();
        assert_eq!(total["OffsetFetch"], 12, "a broker that was forgotten meanwhile");
        assert!(first.add("no statistics", &mut total).is_err());
    }
}
