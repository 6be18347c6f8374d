//! What is asked for. Pure.

use super::selector::Selector;

/// The API group.
pub const GROUP: &str = "external.metrics.k8s.io";
/// Its one version.
pub const VERSION: &str = "v1beta1";
/// The metrics: two names of one thing. The second one is what some dashboards and their autoscalers call it.
pub const METRICS: [&str; 2] = ["kafka_consumer_lag", "consumer_lag"];
/// Longest query, in bytes.
const MAX_QUERY: usize = 8_192;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Whether the process answers.
    Alive,
    /// The list of groups.
    Groups,
    /// The group.
    Group,
    /// The resources of the version.
    Resources,
    /// Values of a metric.
    Metric(MetricQuery),
    /// Discovery in the aggregated form, which we do not speak: the asker falls back to [`Route::Resources`].
    NotAcceptable,
    /// Nothing of ours.
    NotFound,
    /// Not a reading of one moment.
    MethodNotAllowed,
    /// Something of ours, asked for in a way we do not understand, with the reason.
    Bad(String),
}

/// Values of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricQuery {
    /// Whose.
    pub namespace: String,
    /// Which; one of [`METRICS`].
    pub metric: &'static str,
    /// Of which groups and topics.
    pub selector: Selector,
}

/// What a request asks for.
pub fn route(method: &str, path: &str, query: Option<&str>, accept: &str) -> Route {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let found = match segments.as_slice() {
        ["healthz" | "livez" | "readyz"] => Route::Alive,
        ["apis"] if accept.contains("as=APIGroupDiscoveryList") => Route::NotAcceptable,
        ["apis"] => Route::Groups,
        ["apis", GROUP] => Route::Group,
        ["apis", GROUP, VERSION] => Route::Resources,
        ["apis", GROUP, VERSION, "namespaces", namespace, metric] => {
            match METRICS.into_iter().find(|known| known == metric) {
                Some(metric) if is_namespace(namespace) => metric_query(namespace, metric, query.unwrap_or_default()),
                _ => Route::NotFound,
            }
        }
        _ => Route::NotFound,
    };
    match found {
        Route::NotFound => Route::NotFound,
        _ if method != "GET" => Route::MethodNotAllowed,
        found => found,
    }
}

fn is_namespace(text: &str) -> bool {
    sluice_crds::names::Namespace::parse(text).is_ok()
}

fn metric_query(namespace: &str, metric: &'static str, query: &str) -> Route {
    if query.len() > MAX_QUERY {
        return Route::Bad(format!("the query has {} bytes: at most {MAX_QUERY} are read", query.len()));
    }
    let mut text = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "labelSelector" if text.replace(value.to_string()).is_some() => {
                return Route::Bad("labelSelector is there twice".to_owned());
            }
            "watch" if matches!(value.as_ref(), "" | "1" | "true") => return Route::MethodNotAllowed,
            "fieldSelector" if !value.is_empty() => {
                return Route::Bad("fieldSelector is not supported: use labelSelector".to_owned());
            }
            // Paging and time-outs of a list that is small and at hand.
            _ => {}
        }
    }
    match Selector::parse(text.as_deref().unwrap_or_default()) {
        Ok(selector) => Route::Metric(MetricQuery { namespace: namespace.to_owned(), metric, selector }),
        Err(error) => Route::Bad(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, query: &str) -> Route {
        route("GET", path, Some(query), "application/json")
    }

    const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";

    #[test]
    fn discovery_is_as_the_aggregator_wants_it() {
        assert_eq!(get(BASE, "timeout=32s"), Route::Resources);
        assert_eq!(get("/apis/external.metrics.k8s.io", ""), Route::Group);
        assert_eq!(get("/apis", ""), Route::Groups);
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(route("GET", "/apis", None, aggregated), Route::NotAcceptable);
        // Whoever asks for it has a way without it.
        assert_eq!(route("GET", "/apis", None, &format!("{aggregated},application/json")), Route::NotAcceptable);
        for path in ["/openapi/v2", "/openapi/v3", "/openapi/v3/apis/external.metrics.k8s.io/v1beta1", "/", "/metrics"]
        {
            assert_eq!(get(path, ""), Route::NotFound, "{path}");
        }
        for path in ["/healthz", "/livez", "/readyz"] {
            assert_eq!(get(path, ""), Route::Alive);
        }
    }

    #[test]
    fn a_metric_is_asked_for_in_a_namespace() {
        let path = format!("{BASE}/namespaces/shop/kafka_consumer_lag");
        let Route::Metric(query) = get(&path, "labelSelector=group%3Dbilling%2Ctopic+in+%28a%29&limit=500") else {
            panic!("should be a metric");
        };
        assert_eq!((query.namespace.as_str(), query.metric), ("shop", "kafka_consumer_lag"));
        assert!(query.selector.matches(&[("group", "billing"), ("topic", "a")]));
        assert!(!query.selector.matches(&[("group", "billing"), ("topic", "b")]));
        assert!(matches!(get(&format!("{BASE}/namespaces/shop/consumer_lag"), ""), Route::Metric(_)));
        for path in
            ["namespaces/shop/other", "namespaces/Shop/consumer_lag", "consumer_lag", "namespaces/shop/consumer_lag/x"]
        {
            assert_eq!(get(&format!("{BASE}/{path}"), ""), Route::NotFound, "{path}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let path = format!("{BASE}/namespaces/shop/consumer_lag");
        for query in ["labelSelector=a%3E1", "labelSelector=a&labelSelector=b", "fieldSelector=a%3Db"] {
            assert!(matches!(get(&path, query), Route::Bad(_)), "{query}");
        }
        assert!(matches!(get(&path, &"a".repeat(MAX_QUERY + 1)), Route::Bad(_)));
        assert_eq!(get(&path, "watch=true"), Route::MethodNotAllowed);
        for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD"] {
            assert_eq!(route(method, &path, None, ""), Route::MethodNotAllowed, "{method}");
        }
    }
}
