//! ACL bindings.

use super::{Admin, AdminError};

/// A principal, without Kafka's `User:` in front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(String);

impl Principal {
    /// The principal of a SCRAM user.
    pub fn user(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// From Kafka's notation; `None` for principals that are not users.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("User:").map(Self::user)
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User:{}", self.0)
    }
}

/// Kind of a resource that ACLs protect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AclResource {
    /// Topic.
    Topic,
    /// Consumer group.
    Group,
    /// Transactional id.
    TransactionalId,
    /// The cluster; its one name is `kafka-cluster`.
    Cluster,
}

/// How a binding's name is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PatternType {
    /// Equal.
    Literal,
    /// The resource's name starts with it.
    Prefixed,
}

/// What is allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // Kafka's own names
pub enum AclOperation {
    All,
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    ClusterAction,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
}

/// Whether a binding gives or takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AclPermission {
    /// Gives the right.
    Allow,
    /// Takes it, whatever else allows it.
    Deny,
}

/// One binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclBinding {
    /// Kind of resource.
    pub resource: AclResource,
    /// How `name` is compared.
    pub pattern: PatternType,
    /// Name or prefix.
    pub name: String,
    /// Who.
    pub principal: Principal,
    /// From which host; `*` = any.
    pub host: String,
    /// What.
    pub operation: AclOperation,
    /// Given or taken.
    pub permission: AclPermission,
}

impl AclBinding {
    /// A binding that allows `operation` from any host.
    pub fn allow(
        principal: &Principal,
        operation: AclOperation,
        resource: AclResource,
        pattern: PatternType,
        name: impl Into<String>,
    ) -> Self {
        Self {
            resource,
            pattern,
            name: name.into(),
            principal: principal.clone(),
            host: "*".to_owned(),
            operation,
            permission: AclPermission::Allow,
        }
    }
}

/// Which bindings to read. `None` matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclFilter {
    /// Bindings of exactly this principal.
    pub principal: Option<Principal>,
    /// Bindings on exactly this resource.
    pub resource: Option<(AclResource, PatternType, String)>,
}

impl Admin {
    /// Creates bindings; one outcome a binding, in order. A binding that is there already is no error.
    pub async fn create_acls(&self, bindings: &[AclBinding]) -> Result<Vec<Result<(), AdminError>>, AdminError> {
        self.handle()?.create_acls(bindings, self.deadline).await
    }

    /// Reads bindings. Bindings of a kind this library does not know (delegation tokens, other principals than users)
    /// are left out.
    pub async fn describe_acls(&self, filter: &AclFilter) -> Result<Vec<AclBinding>, AdminError> {
        self.handle()?.describe_acls(filter, self.deadline).await
    }

    /// All bindings of principals whose user name starts with `prefix`. Kafka filters by whole principals only, so this
    /// reads every binding of the cluster.
    pub async fn acls_of_principals_with_prefix(&self, prefix: &str) -> Result<Vec<AclBinding>, AdminError> {
        let mut bindings = self.describe_acls(&AclFilter::default()).await?;
        bindings.retain(|binding| binding.principal.name().starts_with(prefix));
        Ok(bindings)
    }

    /// Deletes exactly these bindings; one outcome a binding, in order: how many were deleted (0 or 1).
    pub async fn delete_acls(&self, bindings: &[AclBinding]) -> Result<Vec<Result<usize, AdminError>>, AdminError> {
        self.handle()?.delete_acls(bindings, self.deadline).await
    }
}
