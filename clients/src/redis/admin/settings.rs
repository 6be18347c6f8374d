//! Server settings on every node.

use super::{PerNode, RedisAdmin, RedisAdminError, command, parameter};

/// What setting a parameter did on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingOutcome {
    /// It had this value already.
    Unchanged,
    /// It has it now, until the server's process ends: the server's file is its administrator's.
    Changed,
}

impl RedisAdmin {
    /// Reads a parameter (`CONFIG GET`) on every node; `None` = the server does not know it. `maxmemory-policy` tells
    /// whether keys may vanish by eviction.
    pub async fn setting(&self, name: &str) -> Result<PerNode<Option<String>>, RedisAdminError> {
        check_name(name)?;
        self.on_every_node(|link| {
            let name = name.to_owned();
            async move { parameter(&link, &name).await }
        })
        .await
    }

    /// Sets a parameter (`CONFIG SET`) on every node that has another value.
    pub async fn set_setting(&self, name: &str, value: &str) -> Result<PerNode<SettingOutcome>, RedisAdminError> {
        check_name(name)?;
        self.on_every_node(|link| {
            let (name, value) = (name.to_owned(), value.to_owned());
            async move {
                let before = parameter(&link, &name).await?;
                if before.as_deref() == Some(value.as_str()) {
                    return Ok(SettingOutcome::Unchanged);
                }
                link.command(&command(&["CONFIG", "SET", &name, &value])).await?;
                // Servers write some values in their own words ("KEA" comes back as "AKE", "1mb" as "1048576").
                let after = parameter(&link, &name).await?;
                Ok(if after == before { SettingOutcome::Unchanged } else { SettingOutcome::Changed })
            }
        })
        .await
    }
}

/// `CONFIG GET` takes patterns; we take names.
fn check_name(name: &str) -> Result<(), RedisAdminError> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Ok(());
    }
    Err(RedisAdminError::InvalidArgument {
        what: "setting",
        value: name.to_owned(),
        reason: "a name of lower-case letters, digits and dashes is expected",
    })
}
