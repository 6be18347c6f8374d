//! SCRAM-SHA-512 users (KIP-554).

use secrecy::SecretString;

use super::{Admin, AdminError, ByName};

/// A change of one user.
#[derive(Clone, Debug)]
pub enum ScramChange {
    /// Make the user or replace its credential.
    Upsert {
        /// User name, without `User:`.
        user: String,
        /// Its password. Kafka is sent a salted hash of it, never the text.
        password: SecretString,
        /// Rounds of PBKDF2; brokers take 4096 to 16384.
        iterations: u32,
        /// Salt, not empty; must differ between users and between passwords of one user.
        salt: Vec<u8>,
    },
    /// Remove the user's SCRAM-SHA-512 credential. Its open connections live on.
    Delete {
        /// User name.
        user: String,
    },
}

impl ScramChange {
    /// Whose credential it changes.
    pub fn user(&self) -> &str {
        match self {
            Self::Upsert { user, .. } | Self::Delete { user } => user,
        }
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramOutcome {
    /// Made as asked.
    Changed,
    /// There was no such credential to delete.
    NotFound,
}

/// A user's SCRAM-SHA-512 credential, as far as Kafka tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScramUser {
    /// Rounds of PBKDF2.
    pub iterations: u32,
}

impl Admin {
    /// Makes, replaces and removes users. One change a user in a call.
    pub async fn alter_scram_users(&self, changes: &[ScramChange]) -> Result<ByName<ScramOutcome>, AdminError> {
        self.handle()?.alter_scram_users(changes, self.deadline).await
    }

    /// Reads users; `None` = the user has no SCRAM-SHA-512 credential. `None` for `users` reads all there are.
    pub async fn describe_scram_users(
        &self,
        users: Option<&[String]>,
    ) -> Result<ByName<Option<ScramUser>>, AdminError> {
        self.handle()?.describe_scram_users(users, self.deadline).await
    }
}
