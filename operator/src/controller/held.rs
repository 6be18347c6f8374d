//! What a resource holds by its status, which is all that is known of it after a start of the operator. Pure.

use sluice_crds::v1alpha1::{ClaimState, Ownership, Status};

use super::kind::SluiceKind;
use super::validated::redis_scope;
use crate::claims::Claims;

/// Topics that it owns, prefixes that its workers write, and the group that its spec names, which never changes.
pub fn of_status<K: SluiceKind>(object: &K, status: &Status) -> Claims {
    if status.claims == Some(ClaimState::Released) {
        return Claims::default();
    }
    let reference = object.kafka().connection_ref.as_ref();
    let kafka = reference.map_or("default", |reference| reference.name.as_str());
    let topics = status.topics.iter().filter(|topic| topic.ownership != Ownership::Foreign).map(|topic| &topic.name);
    let prefixes = status.views.iter().map(|view| &view.key_prefix);
    let claims = Claims::remembered(kafka, topics, &redis_scope(object.redis()), prefixes);
    match object.group_id().filter(|_| status.claims.is_some()) {
        Some(group) => claims.and(Claims::group(kafka, group)),
        None => claims,
    }
}
