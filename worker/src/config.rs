//! The `WorkerConfig` file and the secrets it names → [`Settings`]. What a configuration may say is
//! checked where it is defined ([`sluice_crds::worker_config::parse`]); here is what needs this machine's files.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use sluice_clients::kafka::config::Credentials as KafkaCredentials;
use sluice_crds::worker_config::{MAX_WORKER_CONFIG_BYTES, WorkerConfig, WorkerConfigError, parse};

/// Largest user name or password read, in bytes.
const MAX_SECRET_BYTES: u64 = 4096;

/// Name of a pod: 1-253 characters, lower-case letters, digits, `-` and `.`; in particular no `/`, which separates
/// the parts of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName(String);

impl PodName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PodName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        if name.is_empty() || name.len() > 253 || !name.chars().all(valid) {
            return Err(ConfigError::PodName { name });
        }
        Ok(Self(name))
    }
}

/// A Redis ACL user.
#[derive(Clone, Debug)]
pub struct RedisCredentials {
    /// Name.
    pub username: String,
    /// Password.
    pub password: SecretString,
}

/// A configuration that holds together, with its secrets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub config: WorkerConfig,
    /// This pod.
    pub pod: PodName,
    /// Kafka user; there if and only if the endpoint has SASL.
    pub kafka_credentials: Option<KafkaCredentials>,
    /// Redis user; there if and only if the endpoint has one.
    pub redis_credentials: Option<RedisCredentials>,
}

/// Why a worker cannot start from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than anything valid.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Not a configuration that this worker can run.
    #[error("{}: {source}", path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Why.
        source: WorkerConfigError,
    },
    /// A mounted secret is empty or not text.
    #[error("{} is empty or not UTF-8: it should hold one line of text", path.display())]
    Secret {
        /// Which.
        path: PathBuf,
    },
    /// Not a pod name.
    #[error("pod name {name:?} should be 1-253 lower-case letters, digits, '-' and '.'")]
    PodName {
        /// The name.
        name: String,
    },
}

impl ConfigError {
    /// Bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Read",
            Self::TooLarge { .. } => "TooLarge",
            Self::Config { source, .. } => source.category(),
            Self::Secret { .. } => "Secret",
            Self::PodName { .. } => "PodName",
        }
    }
}

impl Settings {
    /// Reads the file and the secrets it names.
    pub fn load(path: &Path, pod: String) -> Result<Self, ConfigError> {
        let pod = PodName::try_from(pod)?;
        let text = read_bounded(path, MAX_WORKER_CONFIG_BYTES as u64)?;
        let config = parse(&text).map_err(|source| ConfigError::Config { path: path.to_owned(), source })?;
        let kafka_credentials = match &config.kafka.sasl {
            None => None,
            Some(sasl) => Some(KafkaCredentials {
                username: read_secret(Path::new(&sasl.username_file))?,
                password: read_secret(Path::new(&sasl.password_file))?.into(),
            }),
        };
        let redis_credentials = match config.redis.as_ref().and_then(|redis| redis.user.as_ref()) {
            None => None,
            Some(user) => Some(RedisCredentials {
                username: read_secret(Path::new(&user.username_file))?,
                password: read_secret(Path::new(&user.password_file))?.into(),
            }),
        };
        Ok(Self { config, pod, kafka_credentials, redis_credentials })
    }
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigError> {
    use std::io::Read;
    let fail = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(fail)?.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Reads one line of text. A final line break is not part of the secret: editors and `kubectl` leave them behind.
fn read_secret(path: &Path) -> Result<String, ConfigError> {
    let bytes = read_bounded(path, MAX_SECRET_BYTES)?;
    let bad = || ConfigError::Secret { path: path.to_owned() };
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.is_empty() { Err(bad()) } else { Ok(line.to_owned()) }
}

#[cfg(test)]
mod tests;
