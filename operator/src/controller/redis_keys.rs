//! IO: deletes keys of views that are gone. Only where the resource's namespace may write, and never keys that another
//! resource could have written: status tells what a resource once had, not what it may have now.

use sluice_clients::redis::admin::{KeyDeletion, KeyDeletionBudget, KeyDeletionProgress, KeyPrefix};
use sluice_crds::names::Namespace;

use super::context::Context;
use crate::claims::{Claimant, Claims};
use crate::connections::RedisClient;
use crate::settings::RedisConnection;

/// Portions of keys deleted in one go; each is bounded itself.
const PORTIONS: usize = 50;

/// Why keys with a prefix are left alone; none = they may go with the resource.
pub fn kept(
    ctx: &Context,
    who: &Claimant,
    namespace: &Namespace,
    connection: &RedisConnection,
    prefix: &str,
) -> Option<&'static str> {
    if !connection.namespaces.get(namespace).is_some_and(|policy| policy.may_write(prefix)) {
        return Some("the namespace may not write them on this connection");
    }
    let prefix = prefix.to_owned();
    let what = Claims::remembered("", std::iter::empty(), connection.name.as_str(), std::iter::once(&prefix));
    ctx.claims.lock().is_shared(who, &what).then_some("another resource writes such keys")
}

/// Deletes keys with a prefix; true = none is left, false = a bounded part of them is gone.
pub async fn delete(redis: &RedisClient, prefix: &str) -> Result<bool, String> {
    let prefix = KeyPrefix::new(prefix).map_err(|error| error.to_string())?;
    let mut state = KeyDeletion::default();
    for _ in 0..PORTIONS {
        let (mut going, asked) = (state, prefix.clone());
        let (progress, next) = redis
            .call(|admin| async move {
                let progress = admin.delete_keys(&asked, &mut going, KeyDeletionBudget::default()).await?;
                Ok((progress, going))
            })
            .await
            .map_err(|error| error.to_string())?;
        state = next;
        if progress == KeyDeletionProgress::Done {
            return Ok(true);
        }
    }
    Ok(false)
}
