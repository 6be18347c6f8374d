//! Where the brokers are and how they are talked to, by the properties of a librdkafka client.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rdkafka::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::SecretString;

use super::login::{Mechanism, User};
use crate::kafka::admin::AdminError;

/// Port of a broker that is named without one.
const DEFAULT_PORT: u16 = 9092;

/// Properties of TLS and SASL that are followed here. With another one a connection would not be what the client's are.
const KNOWN: [&str; 7] = [
    "ssl.ca.location",
    "ssl.ca.pem",
    // Names are always checked.
    "ssl.endpoint.identification.algorithm",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
];

/// A broker's host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// `host`, `host:port`, `[host]:port`, and librdkafka's `protocol://host:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, DEFAULT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where the brokers are and how they are talked to.
#[derive(Debug)]
pub struct Endpoint {
    /// Those that are named in the properties.
    pub bootstrap: Vec<Address>,
    /// `client.id`.
    pub client_id: String,
    /// None: without TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// None: without SASL.
    pub user: Option<User>,
}

impl Endpoint {
    /// As a client with these properties would; refuses what it cannot follow.
    pub fn of(config: &ClientConfig) -> Result<Self, AdminError> {
        let security = |key: &str| key.starts_with("ssl.") || key.starts_with("sasl.");
        let unknown = |key: &str| security(key) && !KNOWN.contains(&key);
        if let Some(unknown) = config.config_map().keys().find(|key| unknown(key)) {
            return Err(refused(&format!("{unknown} is not supported")));
        }
        let protocol = config.get("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        let (tls, sasl) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            other => return Err(refused(&format!("security.protocol {other:?} is not known"))),
        };
        Ok(Self {
            bootstrap: config.get("bootstrap.servers").unwrap_or("").split(',').filter_map(Address::parse).collect(),
            client_id: config.get("client.id").unwrap_or("rdkafka").to_owned(),
            tls: if tls { Some(Arc::new(trust(config)?)) } else { None },
            user: if sasl { Some(user(config)?) } else { None },
        })
    }
}

fn user(config: &ClientConfig) -> Result<User, AdminError> {
    let mechanism = config.get("sasl.mechanism").or(config.get("sasl.mechanisms")).unwrap_or_default();
    let mechanism = Mechanism::parse(mechanism)
        .ok_or_else(|| refused(&format!("sasl.mechanism {mechanism:?} is not supported")))?;
    let (Some(name), Some(password)) = (config.get("sasl.username"), config.get("sasl.password")) else {
        return Err(refused("sasl.username and sasl.password are needed"));
    };
    Ok(User { mechanism, name: name.to_owned(), password: SecretString::from(password) })
}

fn trust(config: &ClientConfig) -> Result<rustls::ClientConfig, AdminError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities(config)?);
    if added == 0 {
        return Err(refused("there is no authority to trust: ssl.ca.location or ssl.ca.pem holds no certificate"));
    }
    // Said here and not left to the process: tests have none.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn authorities(config: &ClientConfig) -> Result<Vec<CertificateDer<'static>>, AdminError> {
    let parsed = |pem: &[u8]| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        all.map_err(|error| refused(&format!("the authorities' certificates cannot be read: {error}")))
    };
    match (config.get("ssl.ca.pem"), config.get("ssl.ca.location")) {
        (Some(pem), _) => parsed(pem.as_bytes()),
        (None, None | Some("probe")) => Ok(rustls_native_certs::load_native_certs().certs),
        (None, Some(path)) => {
            let pem = std::fs::read(Path::new(path)).map_err(|error| refused(&format!("{path}: {error}")))?;
            parsed(&pem)
        }
    }
}

fn refused(reason: &str) -> AdminError {
    AdminError::Client(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(properties: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in properties {
            config.set(*key, *value);
        }
        config
    }

    #[test]
    fn addresses_are_what_librdkafka_takes_for_one() {
        for (text, host, port) in [
            ("kafka", "kafka", 9092),
            ("kafka:1", "kafka", 1),
            (" 10.0.0.1:19093 ", "10.0.0.1", 19093),
            ("SASL_SSL://kafka:2", "kafka", 2),
            ("[::1]:3", "::1", 3),
            ("::1", "::1", 9092),
        ] {
            let found = Address::parse(text).unwrap();
            assert_eq!((found.host.as_str(), found.port), (host, port), "{text}");
            assert_eq!(Address::parse(&found.to_string()), Some(found));
        }
        for text in ["", ":1", "kafka:port", "kafka:65536"] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let plain = Endpoint::of(&config(&[("bootstrap.servers", "a:1,b:2,"), ("client.id", "c")])).unwrap();
        assert_eq!((plain.bootstrap.len(), plain.client_id.as_str()), (2, "c"));
        assert!(plain.tls.is_none() && plain.user.is_none());
        let sasl = ("security.protocol", "sasl_plaintext");
        let known = [sasl, ("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "u"), ("sasl.password", "hidden")];
        let with_user = Endpoint::of(&config(&known)).unwrap();
        assert!(!format!("{with_user:?}").contains("hidden"), "{with_user:?}");
        for (properties, word) in [
            (vec![("ssl.key.location", "/key")], "ssl.key.location"),
            (vec![("security.protocol", "tls")], "tls"),
            (vec![sasl, ("sasl.mechanism", "GSSAPI")], "GSSAPI"),
            (vec![sasl, ("sasl.mechanism", "PLAIN"), ("sasl.username", "u")], "sasl.password"),
            (vec![("security.protocol", "ssl"), ("ssl.ca.pem", "nothing")], "no certificate"),
            (vec![("security.protocol", "ssl"), ("ssl.ca.location", "/not/there")], "/not/there"),
        ] {
            let error = Endpoint::of(&config(&properties)).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
