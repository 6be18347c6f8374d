//! Keys of views that the spec does not have any more. Called with the workers stopped, before status forgets the views.

use kube::runtime::events::EventType;
use sluice_crds::conditions::{ConditionType, Finding, Reason};
use sluice_crds::v1alpha1::{DeletionAction, ViewStatus};

use super::cache;
use crate::controller::halt::{Halt, Retry};
use crate::controller::kafka::rights::watermark_prefix;
use crate::controller::kind::SluiceKind;
use crate::controller::round::Round;
use crate::controller::{redis_keys, report};
use crate::settings::ConnectionName;

/// Deletes the keys of views that are not `wanted` any more, if `deletionPolicy.redisKeys` says so. Keys that a wanted view
/// writes as well are left to its rebuild; keys behind inline addresses, and those that another resource may have
/// written, stay.
pub async fn forget<K: SluiceKind>(round: &Round<'_, K>, wanted: &[ViewStatus]) -> Result<(), Halt> {
    let mut prefixes = removed(&round.status.draft.views, wanted);
    let spec = round.object.redis();
    if round.resource.deletion.redis_keys != DeletionAction::Delete || prefixes.is_empty() || spec.inline.is_some() {
        return Ok(());
    }
    let watermarks = watermark_prefix(round.resource);
    if wanted.is_empty() {
        prefixes.push(&watermarks);
    }
    let name = spec.connection_ref.as_ref().map_or("default", |reference| reference.name.as_str());
    let progressing = |reason, message: String| Finding::progressing(ConditionType::CacheReady, reason, message);
    let Some(connection) = round.settings.redis.get(&ConnectionName::new(name)) else {
        let message = format!("keys of removed views are to be deleted, but there is no redis connection {name:?}");
        return Err(Halt::found(progressing(Reason::RedisUnreachable, message)));
    };
    let failed = |error| Halt::found(cache::finding(ConditionType::CacheReady, "redis client", &error));
    let redis = round.ctx.connections.redis(connection).map_err(failed)?;
    for prefix in prefixes {
        let namespace = &round.resource.id.namespace;
        let kept = redis_keys::kept(round.ctx, round.claimant, namespace, connection, prefix);
        if let Some(why) = kept.filter(|_| prefix != watermarks) {
            let note = format!("keys {prefix}* of a removed view stay: {why}");
            report::say(round.ctx, round.object, EventType::Warning, Reason::CatchingUp, &note).await;
            continue;
        }
        match redis_keys::delete(&redis, prefix).await {
            Ok(true) => {}
            Ok(false) => {
                let message = format!("keys {prefix}* of a removed view are being deleted");
                return Err(Halt::Found(progressing(Reason::Progressing, message), Retry::After(LOOK_AGAIN)));
            }
            Err(why) => {
                let message = format!("keys {prefix}* of a removed view are to be deleted: {why}");
                return Err(Halt::found(progressing(Reason::RedisUnreachable, message)));
            }
        }
    }
    Ok(())
}

/// How soon to go on with many keys.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Prefixes of views that were there and that no wanted view covers.
fn removed<'a>(before: &'a [ViewStatus], wanted: &[ViewStatus]) -> Vec<&'a str> {
    let covered = |prefix: &str| wanted.iter().any(|view| prefix.starts_with(&view.key_prefix));
    before.iter().map(|view| view.key_prefix.as_str()).filter(|prefix| !covered(prefix)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prefixes_that_no_view_covers_are_removed() {
        let views = |prefixes: &[&str]| -> Vec<ViewStatus> {
            let view = |prefix: &&str| ViewStatus {
                name: (*prefix).into(),
                key_prefix: (*prefix).into(),
                topic: "t".into(),
                definition: None,
            };
            prefixes.iter().map(view).collect()
        };
        let before = views(&["a:", "b:{", "c:"]);
        assert_eq!(removed(&before, &views(&["a:", "b:", "c:x"])), ["c:"], "a wider view rebuilds what it covers");
        assert_eq!(removed(&before, &[]), ["a:", "b:{", "c:"]);
        assert!(removed(&[], &before).is_empty());
    }
}
