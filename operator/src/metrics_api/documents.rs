//! What is answered. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::route::{GROUP, METRICS, MetricQuery, VERSION};
use crate::sweep::TopicLag;

/// An answer: HTTP status and document.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// JSON.
    pub body: Value,
}

/// Why there is no answer, as Kubernetes words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not understood.
    BadRequest,
    /// Nobody that we believe asks.
    Unauthorized,
    /// Who asks may not.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// There is, but not to be done so.
    MethodNotAllowed,
    /// There is, but not in that form.
    NotAcceptable,
    /// It is not known now.
    Unavailable,
}

impl Refusal {
    const fn words(self) -> (u16, &'static str) {
        match self {
            Self::BadRequest => (400, "BadRequest"),
            Self::Unauthorized => (401, "Unauthorized"),
            Self::Forbidden => (403, "Forbidden"),
            Self::NotFound => (404, "NotFound"),
            Self::MethodNotAllowed => (405, "MethodNotAllowed"),
            Self::NotAcceptable => (406, "NotAcceptable"),
            Self::Unavailable => (503, "ServiceUnavailable"),
        }
    }

    /// Bounded label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotAcceptable => "not_acceptable",
            Self::Unavailable => "unavailable",
        }
    }

    /// As a `Status`.
    pub fn answer(self, message: &str) -> Answer {
        let (code, reason) = self.words();
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code,
        });
        Answer { code, body }
    }
}

fn ok(body: Value) -> Answer {
    Answer { code: 200, body }
}

fn group() -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version})
}

/// The one group we serve.
pub fn one_group() -> Answer {
    ok(group())
}

/// All groups we serve.
pub fn groups() -> Answer {
    ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}))
}

/// The metrics, as resources. They are always the same: an empty list would be an error to those who cache discovery.
pub fn resources() -> Answer {
    let resource = |name: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"]});
    let resources: Vec<Value> = METRICS.iter().map(|name| resource(name)).collect();
    let version = format!("{GROUP}/{VERSION}");
    ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}))
}

/// The values of a metric; refused as a whole while one of them is not known: an autoscaler sums them, and does nothing
/// when it gets none.
pub fn values(query: &MetricQuery, lags: &[TopicLag]) -> Result<Answer, (Refusal, String)> {
    let mut items = Vec::new();
    for lag in lags {
        if !query.selector.matches(&labels(lag)) {
            continue;
        }
        let Some((records, at)) = lag.records else {
            let message = format!(
                "the lag of group {:?} in topic {:?} is not known: the group has committed nothing there, or Kafka could not \
                 be asked for a minute",
                lag.group, lag.topic
            );
            return Err((Refusal::Unavailable, message));
        };
        let at = Timestamp::from_millisecond(at - at.rem_euclid(1_000)).unwrap_or(Timestamp::UNIX_EPOCH);
        items.push(json!({
            "metricName": query.metric,
            "metricLabels": {"group": lag.group, "topic": lag.topic},
            "timestamp": at.to_string(),
            "value": records.to_string(),
        }));
    }
    let version = format!("{GROUP}/{VERSION}");
    Ok(ok(json!({"kind": "ExternalMetricValueList", "apiVersion": version, "metadata": {}, "items": items})))
}

fn labels(lag: &TopicLag) -> [(&'static str, &str); 2] {
    [("group", &lag.group), ("topic", &lag.topic)]
}

#[cfg(test)]
mod tests {
    use super::super::selector::Selector;
    use super::*;

    fn lag(group: &str, topic: &str, records: Option<i64>) -> TopicLag {
        let records = records.map(|records| (records, 1_000_500));
        TopicLag { group: group.to_owned(), topic: topic.to_owned(), records }
    }

    fn ask(selector: &str, lags: &[TopicLag]) -> Result<Answer, (Refusal, String)> {
        let selector = Selector::parse(selector).unwrap();
        values(&MetricQuery { namespace: "shop".to_owned(), metric: "consumer_lag", selector }, lags)
    }

    #[test]
    fn values_are_as_an_autoscaler_reads_them() {
        let lags = [lag("a", "t", Some(12_000)), lag("a", "u", Some(0)), lag("b", "t", None)];
        let answer = ask("group=a,topic=t", &lags).unwrap();
        let item = json!({
            "metricName": "consumer_lag", "metricLabels": {"group": "a", "topic": "t"},
            "timestamp": "1970-01-01T00:16:40Z", "value": "12000",
        });
        assert_eq!((answer.code, &answer.body["items"]), (200, &json!([item])));
        assert_eq!(ask("group=a", &lags).unwrap().body["items"].as_array().unwrap().len(), 2);
        assert_eq!(ask("group=c", &lags).unwrap().body["items"], json!([]), "not granted looks like not there");
        let (refusal, message) = ask("topic=t", &lags).unwrap_err();
        assert_eq!(refusal, Refusal::Unavailable);
        assert!(message.contains("\"b\"") && message.contains("\"t\""), "{message}");
    }

    #[test]
    fn discovery_is_never_empty() {
        let body = resources().body;
        let names: Vec<&str> =
            body["resources"].as_array().unwrap().iter().filter_map(|r| r["name"].as_str()).collect();
        assert_eq!(names, METRICS);
        assert_eq!(body["groupVersion"], "external.metrics.k8s.io/v1beta1");
        assert_eq!(groups().body["groups"][0]["preferredVersion"]["version"], "v1beta1");
        assert_eq!(Refusal::NotAcceptable.answer("no").body["code"], 406);
    }
}
