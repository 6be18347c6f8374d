//! Steps and routes → the worker's form of them.

use std::collections::BTreeSet;

use sluice_crds::names::{PartName, ResourceId, TopicName};
use sluice_crds::v1alpha1 as api;
use sluice_crds::worker_config as wc;
use sluice_transform::RECORD_VARIABLES;

use super::expressions::key_prefix;
use super::topics::{Role, TopicRules};
use super::{Invalid, contradiction, no_duplicates};
use crate::controller::validated::ValidRoute;

/// `steps`, as the worker takes them.
pub fn steps(steps: &[api::Step]) -> Result<Vec<wc::Step>, Invalid> {
    no_duplicates("steps", steps.iter().map(|step| step.name.as_str()))?;
    let mut known = RECORD_VARIABLES.to_vec();
    let mut valid = Vec::with_capacity(steps.len());
    for each in steps {
        valid.push(step(each, &known)?);
        if each.lookup.is_some() {
            known.push(&each.name);
        }
    }
    Ok(valid)
}

/// `known`: variables its expressions may name.
fn step(step: &api::Step, known: &[&str]) -> Result<wc::Step, Invalid> {
    let field = format!("steps[{}]", step.name);
    let found =
        [step.filter.is_some(), step.lookup.is_some(), step.set.is_some(), step.remove.is_some(), step.mask.is_some()];
    let found = found.into_iter().filter(|set| *set).count();
    let action = match step {
        _ if found != 1 => None,
        api::Step { filter: Some(filter), .. } => Some(wc::Action::Filter { keep_when: filter.keep_when.clone() }),
        api::Step { lookup: Some(lookup), .. } => Some(lookup_action(&field, &step.name, lookup, known)?),
        api::Step { set: Some(fields), .. } => Some(wc::Action::Set { fields: set_fields(&field, fields)? }),
        api::Step { remove: Some(remove), .. } => {
            Some(wc::Action::Remove { fields: paths(&format!("{field}.remove"), &remove.fields)? })
        }
        api::Step { mask: Some(mask), .. } => {
            Some(wc::Action::Mask { fields: paths(&format!("{field}.mask"), &mask.fields)?, method: mask.method })
        }
        _ => None,
    };
    // None with one member set would be a step this operator is too old to know; it is then not in the struct at all.
    let members = "filter, lookup, set, remove, mask";
    let action = action.ok_or(Invalid::Union { field, members, found })?;
    Ok(wc::Step { name: step.name.clone(), action })
}

fn lookup_action(field: &str, name: &str, lookup: &api::Lookup, known: &[&str]) -> Result<wc::Action, Invalid> {
    if !is_identifier(name) {
        let problem = "the name of a lookup is a variable of the later expressions: it must be a letter or _, then letters, digits or _";
        return Err(contradiction(field, problem));
    }
    if RECORD_VARIABLES.contains(&name) {
        return Err(contradiction(field, format!("{name:?} is a variable of every expression: choose another name")));
    }
    let prefix = key_prefix(&format!("{field}.lookup.key"), &lookup.key, lookup.key_prefix.as_deref(), known)?;
    Ok(wc::Action::Lookup {
        key: lookup.key.clone(),
        key_prefix: prefix.to_string(),
        lookup_type: lookup.type_,
        on_miss: lookup.on_miss.unwrap_or_default(),
    })
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn set_fields(field: &str, fields: &[api::SetField]) -> Result<Vec<wc::SetField>, Invalid> {
    if fields.is_empty() {
        return Err(Invalid::Empty { field: format!("{field}.set") });
    }
    let one = |set: &api::SetField| {
        Ok(wc::SetField { field: path(&format!("{field}.set"), &set.field)?, expression: set.expression.clone() })
    };
    fields.iter().map(one).collect()
}

fn paths(field: &str, texts: &[String]) -> Result<Vec<wc::FieldPath>, Invalid> {
    if texts.is_empty() {
        return Err(Invalid::Empty { field: format!("{field}.fields") });
    }
    texts.iter().map(|text| path(field, text)).collect()
}

fn path(field: &str, text: &str) -> Result<wc::FieldPath, Invalid> {
    wc::FieldPath::try_from(text.to_owned()).map_err(|problem| contradiction(field, problem))
}

/// `routing.routes`, with real names for internal topics.
pub fn routes(rules: TopicRules<'_>, id: &ResourceId, routes: &[api::Route]) -> Result<Vec<ValidRoute>, Invalid> {
    if routes.is_empty() {
        return Err(Invalid::Empty { field: "routing.routes".to_owned() });
    }
    no_duplicates("routing.routes", routes.iter().map(|route| route.name.as_str()))?;
    let mut valid = Vec::with_capacity(routes.len());
    for route in routes {
        let field = format!("routing.routes[{}]", route.name);
        let topic = match &route.topic {
            Some(topic) => rules.topic(&format!("{field}.topic"), topic, Role::Produce)?,
            None if route.views.is_empty() => {
                return Err(contradiction(field, "a route without views needs a topic"));
            }
            None => internal_topic(&field, id, &route.name)?,
        };
        valid.push(ValidRoute {
            name: route.name.clone(),
            topic,
            when: route.when.clone(),
            key: route.key.clone(),
            has_views: !route.views.is_empty(),
        });
    }
    // Views show a topic, not a route: another route to the same topic feeds them too.
    let viewed: BTreeSet<TopicName> = valid.iter().filter(|r| r.has_views).map(|r| r.topic.clone()).collect();
    for route in &mut valid {
        route.has_views = viewed.contains(&route.topic);
    }
    Ok(valid)
}

fn internal_topic(field: &str, id: &ResourceId, route: &str) -> Result<TopicName, Invalid> {
    let route = PartName::parse(route).map_err(|problem| Invalid::Name { field: field.to_owned(), problem })?;
    let topic = id.internal_topic(&route);
    TopicName::parse(topic.to_string()).map_err(|problem| Invalid::Name { field: field.to_owned(), problem })
}

/// What is produced must not be consumed by the same resource: a record would go round for ever.
pub fn no_loop(sources: &[TopicName], routes: &[ValidRoute], dead_letter: Option<&TopicName>) -> Result<(), Invalid> {
    let loops = |topic: &TopicName| sources.contains(topic);
    if let Some(route) = routes.iter().find(|route| loops(&route.topic)) {
        let field = format!("routing.routes[{}].topic", route.name);
        return Err(contradiction(field, format!("{:?} is consumed by this resource", route.topic.as_str())));
    }
    let Some(topic) = dead_letter else { return Ok(()) };
    if loops(topic) {
        return Err(contradiction("deadLetter.topic", format!("{:?} is consumed by this resource", topic.as_str())));
    }
    if routes.iter().any(|route| route.has_views && route.topic == *topic) {
        return Err(contradiction("deadLetter.topic", "a topic that views show cannot take dead letters"));
    }
    Ok(())
}
