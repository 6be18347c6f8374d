//! Where Redis is and how to log in: read once at the edge, from the worker's or the operator's files.

use std::fmt;
use std::fs;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};
use secrecy::{ExposeSecret, SecretString};
use sluice_crds::v1alpha1::RedisMode;
use sluice_crds::worker_config::{RedisEndpoint, RedisUserFiles};
use thiserror::Error;

/// `host:port` of one server. IPv6 hosts are written in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    host: String,
    port: u16,
}

impl NodeAddress {
    /// An address from its parts; the host without brackets.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads `host:port` or `[v6]:port`; a bare IPv6 address before the last colon is taken too, as Redis writes it so.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let wrong = || SettingsError::Address(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['[', ']', '/', '@', ' ']) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port: port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)? })
    }

    /// Host name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// TLS towards Redis.
#[derive(Clone, Default)]
pub struct RedisTls {
    /// Authorities to trust, PEM. None: the system's.
    pub ca_pem: Option<Vec<u8>>,
}

/// An ACL user.
#[derive(Clone)]
pub struct RedisUser {
    /// Name.
    pub name: String,
    /// Password.
    pub password: SecretString,
}

/// How long we wait for Redis.
#[derive(Clone, Copy, Debug)]
pub struct RedisTimeouts {
    /// For TCP, TLS and AUTH together.
    pub connect: Duration,
    /// For the answer of a call.
    pub response: Duration,
}

impl Default for RedisTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), response: Duration::from_secs(2) }
    }
}

/// Everything needed to connect to any node of one Redis.
#[derive(Clone)]
pub struct RedisSettings {
    /// How the servers form one database.
    pub mode: RedisMode,
    /// First addresses; at least one.
    pub seeds: Vec<NodeAddress>,
    /// TLS. None: plaintext.
    pub tls: Option<RedisTls>,
    /// Who we are. None: the default user without a password.
    pub user: Option<RedisUser>,
    /// How long we wait.
    pub timeouts: RedisTimeouts,
}

/// What is wrong with the settings.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// Not `host:port`.
    #[error("redis address {0:?} is not host:port")]
    Address(String),
    /// No address at all.
    #[error("no redis address is given")]
    NoAddress,
    /// A file cannot be read.
    #[error("cannot read {path:?}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The client library refuses them.
    #[error("redis connection settings refused: {0}")]
    Refused(String),
}

impl SettingsError {
    /// Bounded name for metrics and events.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Address(_) => "Address",
            Self::NoAddress => "NoAddress",
            Self::File { .. } => "File",
            Self::Refused(_) => "Refused",
        }
    }
}

impl RedisSettings {
    /// Reads the files that the endpoint names, the user's included.
    pub fn from_endpoint(endpoint: &RedisEndpoint) -> Result<Self, SettingsError> {
        let user = endpoint.user.as_ref().map(read_user).transpose()?;
        Self::with_user(endpoint, user)
    }

    /// Reads the authorities' file; the user is known already.
    pub fn with_user(endpoint: &RedisEndpoint, user: Option<RedisUser>) -> Result<Self, SettingsError> {
        let seeds: Vec<_> = endpoint.addresses.iter().map(|text| NodeAddress::parse(text)).collect::<Result<_, _>>()?;
        if seeds.is_empty() {
            return Err(SettingsError::NoAddress);
        }
        let tls = match &endpoint.tls {
            None => None,
            Some(files) => Some(RedisTls { ca_pem: files.ca_file.as_deref().map(read).transpose()? }),
        };
        Ok(Self { mode: endpoint.mode, seeds, tls, user, timeouts: RedisTimeouts::default() })
    }

    /// A client for one node; does not connect.
    pub(super) fn client(&self, address: &NodeAddress) -> Result<redis::Client, SettingsError> {
        let (host, port) = (address.host.clone(), address.port);
        let address = match &self.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        // Without CLIENT SETINFO: it needs a right of its own and says nothing that we need.
        let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &self.user {
            login = login.set_username(&user.name).set_password(user.password.expose_secret());
        }
        let refused = |error: redis::RedisError| SettingsError::Refused(error.to_string());
        let info = address
            .into_connection_info()
            .map_err(refused)?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(login);
        match self.tls.as_ref().and_then(|tls| tls.ca_pem.clone()) {
            None => redis::Client::open(info).map_err(refused),
            Some(ca) => {
                let trust = TlsCertificates { client_tls: None, root_cert: Some(ca) };
                redis::Client::build_with_tls(info, trust).map_err(refused)
            }
        }
    }
}

fn read_user(files: &RedisUserFiles) -> Result<RedisUser, SettingsError> {
    Ok(RedisUser { name: read_text(&files.username_file)?, password: read_text(&files.password_file)?.into() })
}

/// One line; the newline that editors append is not part of it.
fn read_text(path: &str) -> Result<String, SettingsError> {
    let text = fs::read_to_string(path).map_err(|source| SettingsError::File { path: path.to_owned(), source })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(path: &str) -> Result<Vec<u8>, SettingsError> {
    fs::read(path).map_err(|source| SettingsError::File { path: path.to_owned(), source })
}

/// Never shows the password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("mode", &self.mode)
            .field("seeds", &self.seeds)
            .field("tls", &self.tls.is_some())
            .field("user", &self.user.as_ref().map(|user| &user.name))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        for (text, host, port) in
            [("r-0.redis:6379", "r-0.redis", 6379), ("[::1]:1", "::1", 1), ("::1:7000", "::1", 7000)]
        {
            assert_eq!(NodeAddress::parse(text).expect("good"), NodeAddress::new(host, port));
        }
        for wrong in ["", "host", ":1", "host:", "host:0", "host:65536", "u@host:1", "redis://h:1"] {
            assert!(NodeAddress::parse(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let user = RedisUser { name: "me".to_owned(), password: "hunter2".to_owned().into() };
        let seeds = vec![NodeAddress::new("h", 1)];
        let settings = RedisSettings {
            mode: RedisMode::Cluster,
            seeds,
            tls: None,
            user: Some(user),
            timeouts: RedisTimeouts::default(),
        };
        let text = format!("{settings:?}");
        assert!(text.contains("me") && !text.contains("hunter2"), "{text}");
    }
}
