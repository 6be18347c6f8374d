//! ACL users on every node.

use super::{NodeLink, PerNode, RedisAdmin, RedisAdminError, RedisFault, command, parameter, read};

/// What setting a user did on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOutcome {
    /// False when the user had exactly these rights already.
    pub changed: bool,
    /// Whether it outlives the server's process. `None`: nothing was changed, nothing written.
    pub persistence: Option<Persistence>,
}

/// What deleting users did on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDeletion {
    /// Users that were there and are gone, with their connections.
    pub deleted: u64,
    /// Whether that outlives the server's process. `None`: there was nothing to delete.
    pub persistence: Option<Persistence>,
}

/// A user as a node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    /// Its name.
    pub name: String,
    /// Another number after any change of its rights or passwords; to be compared within this process and with the same
    /// node only, for every server puts rights in words of its own.
    pub fingerprint: u64,
}

impl UserState {
    /// From a line of `ACL LIST`: `user NAME RULES`.
    fn of_line(line: &str) -> Option<Self> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let name = line.strip_prefix("user ")?.split(' ').next()?.to_owned();
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        Some(Self { name, fingerprint: hasher.finish() })
    }
}

/// Whether users outlive the server's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Written to the server's ACL file.
    Saved,
    /// The server has no ACL file: after its restart the user must be set again.
    NoAclFile,
    /// The server could not write it; its words.
    Failed(String),
}

impl RedisAdmin {
    /// Gives a user exactly the rights of `rules` (which begin with `reset`) on every node, in one command a node:
    /// no moment without rights. Saves only where something changed.
    pub async fn set_user(&self, name: &str, rules: &[String]) -> Result<PerNode<UserOutcome>, RedisAdminError> {
        check_name(name)?;
        if rules.first().map(String::as_str) != Some("reset") {
            return Err(RedisAdminError::InvalidArgument {
                what: "acl rules of user",
                value: name.to_owned(),
                reason: "they must begin with reset, or rights of an earlier spec would stay",
            });
        }
        self.on_every_node(|link| set_user(link, name.to_owned(), rules.to_vec())).await
    }

    /// Deletes users on every node and closes their connections.
    pub async fn delete_users(&self, names: &[String]) -> Result<PerNode<UserDeletion>, RedisAdminError> {
        for name in names {
            check_name(name)?;
        }
        self.on_every_node(|link| delete_users(link, names.to_vec())).await
    }

    /// The users whose names start with `prefix`, on every node.
    pub async fn users_with_prefix(&self, prefix: &str) -> Result<PerNode<Vec<UserState>>, RedisAdminError> {
        self.on_every_node(|link| {
            let prefix = prefix.to_owned();
            async move {
                let lines: Vec<String> = read(link.command(&command(&["ACL", "LIST"])).await?, "ACL LIST")?;
                let users = lines.iter().filter_map(|line| UserState::of_line(line));
                Ok(users.filter(|user| user.name.starts_with(&prefix)).collect())
            }
        })
        .await
    }
}

/// `default` is the user of every client that does not log in.
fn check_name(name: &str) -> Result<(), RedisAdminError> {
    let reason = if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "it must not be empty nor hold white space or control characters"
    } else if name == "default" {
        "we never touch the user of clients that do not log in"
    } else {
        return Ok(());
    };
    Err(RedisAdminError::InvalidArgument { what: "user name", value: name.to_owned(), reason })
}

async fn set_user(link: NodeLink, name: String, rules: Vec<String>) -> Result<UserOutcome, RedisFault> {
    // Servers rewrite rules in their own words, so "as it should be" is seen by comparing before and after.
    let mut set = command(&["ACL", "SETUSER", &name]);
    set.arg(&rules);
    let show = command(&["ACL", "GETUSER", &name]);
    let mut pipeline = redis::pipe();
    pipeline.add_command(show.clone()).add_command(set).add_command(show);
    let mut answers = link.pipeline(&pipeline).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Err(RedisFault::Malformed("ACL GETUSER")));
    let (before, set, after) = (next()?, next(), next()?);
    set?;
    let changed = before != after;
    let persistence = if changed { Some(save(&link).await?) } else { None };
    Ok(UserOutcome { changed, persistence })
}

async fn delete_users(link: NodeLink, names: Vec<String>) -> Result<UserDeletion, RedisFault> {
    if names.is_empty() {
        return Ok(UserDeletion { deleted: 0, persistence: None });
    }
    let mut delete = command(&["ACL", "DELUSER"]);
    delete.arg(&names);
    let deleted: u64 = read(link.command(&delete).await?, "ACL DELUSER")?;
    let persistence = if deleted > 0 { Some(save(&link).await?) } else { None };
    Ok(UserDeletion { deleted, persistence })
}

async fn save(link: &NodeLink) -> Result<Persistence, RedisFault> {
    if parameter(link, "aclfile").await?.unwrap_or_default().is_empty() {
        return Ok(Persistence::NoAclFile);
    }
    match link.command(&command(&["ACL", "SAVE"])).await {
        Ok(_) => Ok(Persistence::Saved),
        Err(fault @ (RedisFault::Other(_) | RedisFault::NoPermission(_))) => Ok(Persistence::Failed(fault.to_string())),
        Err(fault) => Err(fault),
    }
}
