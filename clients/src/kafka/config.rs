//! Endpoint + credentials → client properties. The one place that sets librdkafka's names for them; `coordinators/endpoint.rs` reads
//! them.

use rdkafka::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use sluice_crds::worker_config::{KafkaEndpoint, SaslMechanism};

/// A Kafka user.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password.
    pub password: SecretString,
}

/// Properties common to every client of this endpoint: addresses, TLS, SASL, and latency-minded sockets.
///
/// `credentials` are used when, and only when, the endpoint has SASL.
pub fn client_config(endpoint: &KafkaEndpoint, credentials: Option<&Credentials>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", endpoint.brokers.join(","))
        .set("client.id", "sluice")
        .set("security.protocol", security_protocol(endpoint))
        // Transactions are request-response chains of small packets: Nagle adds up to 40 ms to each.
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "5000")
        // A broker that accepts and never answers must not hold a request for the default minute.
        .set("socket.timeout.ms", "10000")
        .set("log.connection.close", "false");
    if let Some(tls) = &endpoint.tls {
        // The vendored OpenSSL has no default directory: `probe` looks where distributions put theirs.
        config.set("ssl.ca.location", tls.ca_file.as_deref().unwrap_or("probe"));
        config.set("ssl.endpoint.identification.algorithm", "https");
    }
    if let (Some(sasl), Some(credentials)) = (&endpoint.sasl, credentials) {
        config
            .set("sasl.mechanism", mechanism(sasl.mechanism))
            .set("sasl.username", &credentials.username)
            .set("sasl.password", credentials.password.expose_secret());
    }
    config
}

fn security_protocol(endpoint: &KafkaEndpoint) -> &'static str {
    match (endpoint.tls.is_some(), endpoint.sasl.is_some()) {
        (false, false) => "PLAINTEXT",
        (true, false) => "SSL",
        (false, true) => "SASL_PLAINTEXT",
        (true, true) => "SASL_SSL",
    }
}

fn mechanism(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        SaslMechanism::Plain => "PLAIN",
    }
}

#[cfg(test)]
mod tests {
    use sluice_crds::worker_config::{SaslFiles, TlsFiles};

    use super::*;

    fn endpoint(tls: bool, sasl: bool) -> KafkaEndpoint {
        KafkaEndpoint {
            brokers: vec!["a:1".to_owned(), "b:2".to_owned()],
            tls: tls.then(TlsFiles::default),
            sasl: sasl.then(|| SaslFiles {
                mechanism: SaslMechanism::ScramSha512,
                username_file: "/u".to_owned(),
                password_file: "/p".to_owned(),
            }),
        }
    }

    #[test]
    fn protocol_follows_the_endpoint() {
        let credentials = Credentials { username: "u".to_owned(), password: "secret".into() };
        for (tls, sasl, protocol) in [
            (false, false, "PLAINTEXT"),
            (true, false, "SSL"),
            (false, true, "SASL_PLAINTEXT"),
            (true, true, "SASL_SSL"),
        ] {
            let config = client_config(&endpoint(tls, sasl), Some(&credentials));
            assert_eq!(config.get("security.protocol"), Some(protocol));
            assert_eq!(config.get("sasl.password"), sasl.then_some("secret"));
            assert_eq!(config.get("ssl.ca.location"), tls.then_some("probe"));
            assert!(!format!("{config:?}").contains("secret"), "the crate hides secrets in Debug");
        }
        assert_eq!(client_config(&endpoint(false, false), None).get("bootstrap.servers"), Some("a:1,b:2"));
    }
}
