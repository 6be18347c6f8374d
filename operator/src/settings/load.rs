//! IO: the settings file and the files it names, at start and whenever they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::watch;

use super::file::SettingsFile;
use super::model::{Contents, InvalidSettings, Settings};

/// Most bytes of a file we read.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// How often files are looked at. Mounted `ConfigMaps` and Secrets change by a swapped link, which a file watch sees
/// only in some set-ups; reading a few files is cheap and always works.
const RELOAD_EVERY: Duration = Duration::from_secs(5);

/// Why settings could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{} has {bytes} bytes: at most {MAX_FILE_BYTES} are read", .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not the YAML we know.
    #[error("{} is not a settings file: {message}", .path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Well-formed, but it cannot be used.
    #[error("{}: {source}", .path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        source: InvalidSettings,
    },
    /// Another installation's id than the one at start.
    #[error("instanceId changed from {old:?} to {new:?}: it is in every external name and cannot change")]
    InstanceChanged {
        /// At start.
        old: String,
        /// Now.
        new: String,
    },
}

/// The settings of the moment, and whether the last reload failed.
#[derive(Clone, Debug)]
pub struct SettingsHandle {
    current: watch::Receiver<Arc<Settings>>,
    broken: watch::Receiver<Option<String>>,
}

impl SettingsHandle {
    /// Settings that never change.
    pub fn fixed(settings: Settings) -> Self {
        let (_, current) = watch::channel(Arc::new(settings));
        let (_, broken) = watch::channel(None);
        Self { current, broken }
    }

    /// The last good settings.
    pub fn current(&self) -> Arc<Settings> {
        Arc::clone(&self.current.borrow())
    }

    /// Why the file as it is now is not in use, or which connections of it are not.
    pub fn broken(&self) -> Option<String> {
        let unusable = || {
            let current = self.current.borrow();
            let problems: Vec<&str> = current.unusable.values().map(String::as_str).collect();
            (!problems.is_empty()).then(|| problems.join("; "))
        };
        self.broken.borrow().clone().or_else(unusable)
    }

    /// Ends when the settings have changed; never when they cannot change any more.
    pub async fn changed(&mut self) {
        if self.current.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Reads and checks the settings. Files of connections that cannot be read make only those connections unusable.
pub fn load(path: &Path) -> Result<Settings, LoadError> {
    let text = read(path)?;
    let file: SettingsFile = serde_saphyr::from_str(&text)
        .map_err(|error| LoadError::Parse { path: path.to_owned(), message: error.to_string() })?;
    let mut contents = Contents::new();
    for name in file.referenced_files() {
        match read(Path::new(&name)) {
            Ok(content) => drop(contents.insert(name, SecretString::from(content))),
            // Said once and by name when it makes a connection unusable; this is looked at every few seconds.
            Err(error) => tracing::debug!(%error, "a file of the settings cannot be used"),
        }
    }
    file.check(&contents).map_err(|source| LoadError::Invalid { path: path.to_owned(), source })
}

/// Names connections that cannot be used, in the log.
pub fn say_unusable(settings: &Settings) {
    for problem in settings.unusable.values() {
        tracing::error!(%problem, "a connection cannot be used; its resources are told");
    }
}

fn read(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// A handle on the settings and the loop that keeps it fresh; the loop never ends.
pub fn reload_loop(path: PathBuf, first: Settings) -> (SettingsHandle, impl Future<Output = ()>) {
    let (broken_tx, broken) = watch::channel(None);
    let instance = first.instance.clone();
    let (tx, current) = watch::channel(Arc::new(first));
    let work = async move {
        let mut ticks = tokio::time::interval(RELOAD_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let path = path.clone();
            let loaded = tokio::task::spawn_blocking(move || load(&path))
                .await
                .unwrap_or_else(|error| Err(LoadError::Parse { path: PathBuf::new(), message: error.to_string() }));
            let loaded = loaded.and_then(|settings| {
                if settings.instance == instance {
                    return Ok(settings);
                }
                let (old, new) = (instance.to_string(), settings.instance.to_string());
                Err(LoadError::InstanceChanged { old, new })
            });
            match loaded {
                Ok(settings) => {
                    broken_tx.send_if_modified(|broken| broken.take().is_some());
                    let settings = settings.keeping_usable(&tx.borrow());
                    let changed = tx.send_if_modified(|current| {
                        let changed = **current != settings;
                        if changed {
                            *current = Arc::new(settings);
                        }
                        changed
                    });
                    if changed {
                        tracing::info!("settings changed and are in use");
                        say_unusable(&tx.borrow());
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    let changed =
                        broken_tx.send_if_modified(|broken| broken.replace(text.clone()) != Some(text.clone()));
                    if changed {
                        tracing::error!(%error, "settings cannot be used; the last good ones stay in use");
                    }
                }
            }
        }
    };
    (SettingsHandle { current, broken }, work)
}
