//! Views.

use sluice_crds::names::{KeyPrefix, PartName, ResourceId};
use sluice_crds::v1alpha1 as api;
use sluice_crds::worker_config as wc;
use sluice_transform::{KeyForm, VIEW_KEY_VARIABLES, key_form};

use super::expressions::key_prefix;
use super::{Invalid, contradiction, no_duplicates};
use crate::controller::validated::{RedisPlace, RedisUse, ValidViewTopic};

/// Views of one list, as the worker takes them.
pub fn views(list: &str, views: &[api::View], format: api::Format) -> Result<Vec<wc::View>, Invalid> {
    views.iter().map(|v| view(&format!("{list}[{}]", v.name), v, format)).collect()
}

fn view(field: &str, view: &api::View, format: api::Format) -> Result<wc::View, Invalid> {
    PartName::parse(view.name.clone()).map_err(|problem| Invalid::Name { field: field.to_owned(), problem })?;
    let prefix = key_prefix(&format!("{field}.key"), &view.key, view.key_prefix.as_deref(), &VIEW_KEY_VARIABLES)?;
    if view.type_ == api::ViewType::Hash && format == api::Format::Raw {
        return Err(contradiction(
            format!("{field}.type"),
            "a Hash is made of the members of a JSON object: set format Json",
        ));
    }
    let ttl_seconds = match view.ttl_seconds {
        None => None,
        Some(seconds) if (1..=315_360_000).contains(&seconds) => Some(seconds as u64),
        Some(value) => {
            let field = format!("{field}.ttlSeconds");
            return Err(Invalid::Bounds { field, value, min: 1, max: 315_360_000 });
        }
    };
    // Replace is the one operation there is; the match keeps a new one from passing unseen.
    match view.operation.unwrap_or_default() {
        api::ViewOperation::Replace => {}
    }
    Ok(wc::View {
        name: view.name.clone(),
        key: view.key.clone(),
        key_prefix: prefix.to_string(),
        view_type: view.type_,
        when: view.when.clone(),
        ttl_seconds,
    })
}

/// Rules over all views of a resource: other names, and no Redis key that two of them could write.
pub fn together(topics: &[ValidViewTopic]) -> Result<(), Invalid> {
    let all: Vec<&wc::View> = topics.iter().flat_map(|topic| &topic.views).collect();
    let mut distinct: Vec<&wc::View> = Vec::new();
    for view in all {
        // A CacheSync shows each of its topics in every view: the same view again is no second one.
        if !distinct.contains(&view) {
            distinct.push(view);
        }
    }
    one_partition(topics)?;
    no_duplicates("views", distinct.iter().map(|view| view.name.as_str()))?;
    for (at, view) in distinct.iter().enumerate() {
        for other in &distinct[at + 1..] {
            if overlap(&view.key_prefix, &other.key_prefix) {
                let problem = format!(
                    "its keys begin with {:?} and those of view {:?} with {:?}: both could write one key",
                    view.key_prefix, other.name, other.key_prefix
                );
                return Err(contradiction(format!("views[{}].key", view.name), problem));
            }
        }
    }
    Ok(())
}

/// A Redis key belongs to one record key of one topic, so that it comes from one partition: offsets of two cannot be
/// compared, and the older value could stay. A key derived from a part of the record key is taken: whether it tells record
/// keys apart lies in the data.
fn one_partition(topics: &[ValidViewTopic]) -> Result<(), Invalid> {
    for (at, topic) in topics.iter().enumerate() {
        for view in &topic.views {
            let field = || format!("views[{}].key", view.name);
            let form = key_form(&view.key, topic.topic.as_str());
            if form == Some(KeyForm::Same) {
                let problem = "it does not name `key`: records of all partitions would write one Redis key";
                return Err(contradiction(field(), problem));
            }
            let shared = |other: &&ValidViewTopic| {
                other.views.contains(view)
                    && !are_apart(form.as_ref(), key_form(&view.key, other.topic.as_str()).as_ref())
            };
            if let Some(other) = topics[at + 1..].iter().find(shared) {
                let problem = format!(
                    "topics {} and {} could both write one Redis key, and their offsets cannot be compared: name `topic` \
                     before the whole `key` (\"'orders:' + topic + ':' + key\"), or show each topic with a resource of its own",
                    topic.topic, other.topic
                );
                return Err(contradiction(field(), problem));
            }
        }
    }
    Ok(())
}

/// Whether no record key of the one gives a Redis key of the other.
fn are_apart(one: Option<&KeyForm>, other: Option<&KeyForm>) -> bool {
    let (Some(KeyForm::Whole { before, after }), Some(KeyForm::Whole { before: before_other, after: after_other })) =
        (one, other)
    else {
        return false;
    };
    !overlap(before, before_other) || !(after.ends_with(after_other) || after_other.ends_with(after))
}

fn overlap(a: &str, b: &str) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// Whether the namespace may write and read these keys. Inline addresses have no policy: they are reached with the
/// tenant's own credentials, which are the limit.
pub fn allowed(
    id: &ResourceId,
    redis: &RedisUse,
    written: impl IntoIterator<Item = KeyPrefix>,
    read: impl IntoIterator<Item = KeyPrefix>,
) -> Result<(), Invalid> {
    let RedisPlace::Connection(connection) = &redis.place else { return Ok(()) };
    let refused = |action, prefix: &KeyPrefix| Invalid::NotAllowed {
        field: "key prefix".to_owned(),
        sort: "redis",
        connection: connection.name.to_string(),
        action,
        name: prefix.to_string(),
    };
    let policy = redis.policy(id);
    for prefix in written {
        if !policy.is_some_and(|policy| policy.may_write(prefix.as_str())) {
            return Err(refused("write keys with the prefix", &prefix));
        }
    }
    for prefix in read {
        if !policy.is_some_and(|policy| policy.may_read(prefix.as_str())) {
            return Err(refused("read keys with the prefix", &prefix));
        }
    }
    Ok(())
}
