use sluice_crds::v1alpha1::Ownership;

use super::*;
use crate::controller::test_support::{CACHE, PIPELINE, cache, pipeline};
use crate::controller::validated::ValidatedResource;

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

fn there(id: &str, partitions: i32, config: &[(&str, &str)]) -> Observed {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Observed { id: id.to_owned(), partitions, replication_factor: 3, config }
}

/// Everything of the pipeline, as it asks for.
fn all_there() -> ObservedTopics {
    ObservedTopics::from([
        (name("order.created"), there("c", 4, &[("retention.ms", "604800000")])),
        (name("order.enriched"), there("e", 4, &[])),
        (name("order.rejected"), there("r", 2, &[])),
        (name("customer.changed"), there("x", 6, &[])),
        (name("sluice.demo.shop.eventpipeline.enrich.model"), there("m", 6, &[("cleanup.policy", "compact")])),
    ])
}

fn resource() -> ValidatedResource {
    pipeline(PIPELINE).unwrap()
}

fn status_of(plan: &TopicPlan, topic: &str) -> TopicStatus {
    plan.statuses.iter().find(|status| status.name == topic).cloned().unwrap()
}

/// Statuses of topics that were created here.
fn created(observed: &ObservedTopics) -> Vec<TopicStatus> {
    let mut plan = plan(&resource(), observed, &[]);
    plan.statuses.iter_mut().for_each(|status| status.ownership = Ownership::Created);
    plan.statuses
}

#[test]
fn what_is_not_there_is_announced_and_then_created() {
    let mut observed = ObservedTopics::from([(name("customer.changed"), there("x", 6, &[]))]);
    let first = plan(&resource(), &observed, &[]);
    assert_eq!(first.create.len(), 4);
    assert_eq!(status_of(&first, "order.created").ownership, Ownership::Creating);
    let model = first.create.iter().find(|topic| topic.name.ends_with("model")).unwrap();
    assert_eq!(model.partitions, 6, "as wide as the widest source");
    assert_eq!(model.config["cleanup.policy"], "compact");

    observed.extend(all_there());
    let second = plan(&resource(), &observed, &first.statuses);
    assert!(second.is_settled() && second.problem.is_none());
    let status = status_of(&second, "order.created");
    assert_eq!((status.ownership, status.id.as_deref()), (Ownership::Created, Some("c")));
}

#[test]
fn what_was_there_and_matches_is_adopted_and_nothing_else() {
    let settled = plan(&resource(), &all_there(), &[]);
    assert!(settled.is_settled() && settled.problem.is_none());
    assert_eq!(status_of(&settled, "order.created").ownership, Ownership::Adopted);
    assert_eq!(status_of(&settled, "customer.changed").ownership, Ownership::Foreign);
    for other in
        [there("c", 3, &[("retention.ms", "604800000")]), there("c", 4, &[("retention.ms", "1")]), there("c", 4, &[])]
    {
        let mut observed = all_there();
        observed.insert(name("order.created"), other);
        let plan = plan(&resource(), &observed, &[]);
        assert_eq!(plan.problem.as_ref().unwrap().reason, Reason::TopicMismatch);
        assert!(plan.is_settled(), "a topic of somebody else is never changed");
    }
}

#[test]
fn a_topic_of_ours_is_repaired_and_grown() {
    let mut observed = all_there();
    let before = created(&observed);
    observed.insert(name("order.created"), there("c", 3, &[("retention.ms", "1")]));
    let plan = plan(&resource(), &observed, &before);
    assert_eq!(plan.grow.get("order.created"), Some(&4));
    assert_eq!(plan.alter["order.created"]["retention.ms"], ConfigChange::Set("604800000".to_owned()));
    assert!(plan.problem.is_none());
}

#[test]
fn nothing_shrinks() {
    let mut observed = all_there();
    let before = created(&observed);
    observed.insert(name("order.created"), there("c", 5, &[("retention.ms", "604800000")]));
    assert_eq!(plan(&resource(), &observed, &before).problem.unwrap().reason, Reason::TopicMismatch);
}

#[test]
fn a_topic_with_a_view_never_grows() {
    let text = PIPELINE.replace("- name: model\n", "- name: model\n      topic: order.model\n").replace(
        "- {name: order.rejected, partitions: 2}",
        "- {name: order.rejected, partitions: 2}\n  - {name: order.model, partitions: 8, config: {cleanup.policy: compact}}",
    );
    let resource = pipeline(&text).unwrap();
    let mut observed = all_there();
    observed.insert(name("order.model"), there("m", 4, &[("cleanup.policy", "compact")]));
    let status = TopicStatus {
        name: "order.model".to_owned(),
        id: Some("m".to_owned()),
        ownership: Ownership::Created,
        partitions: Some(4),
        started_partitions: None,
    };
    let plan = plan(&resource, &observed, &[status]);
    assert!(plan.grow.is_empty());
    assert_eq!(plan.problem.unwrap().reason, Reason::TopicMismatch);
}

#[test]
fn a_topic_made_anew_by_somebody_is_not_ours_to_delete() {
    let mut observed = all_there();
    let before = created(&observed);
    observed.insert(name("order.enriched"), there("other", 4, &[]));
    let plan = plan(&resource(), &observed, &before);
    assert_eq!(status_of(&plan, "order.enriched").ownership, Ownership::Adopted);
}

#[test]
fn a_used_topic_that_is_not_there_is_waited_for() {
    let mut observed = all_there();
    observed.remove(&name("customer.changed"));
    let problem = plan(&resource(), &observed, &[]).problem.unwrap();
    assert_eq!(problem.reason, Reason::TopicMissing);
    assert_eq!(problem.outcome, sluice_crds::conditions::Outcome::Progressing, "its owner may just be applied");
}

#[test]
fn a_view_topic_must_hold_what_its_views_show() {
    let resource = cache(CACHE).unwrap();
    let problem = |config: &[(&str, &str)]| {
        let observed = ObservedTopics::from([(name("customer.state"), there("s", 4, config))]);
        plan(&resource, &observed, &[]).problem.map(|problem| problem.reason)
    };
    assert_eq!(problem(&[("cleanup.policy", "compact")]), None);
    assert_eq!(problem(&[("cleanup.policy", "compact,delete")]), Some(Reason::RetentionShorterThanView));
    let kept = [("cleanup.policy", "compact,delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
    assert_eq!(problem(&kept), None);
    assert_eq!(problem(&[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")]), None);
    assert_eq!(problem(&[("cleanup.policy", "delete")]), Some(Reason::RetentionShorterThanView));
    let sized = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "1000")];
    assert_eq!(problem(&sized), Some(Reason::RetentionShorterThanView));
}

#[test]
fn a_foreign_view_topic_that_grew_is_told() {
    let resource = cache(CACHE).unwrap();
    let compact = [("cleanup.policy", "compact")];
    let four = ObservedTopics::from([(name("customer.state"), there("s", 4, &compact))]);
    let before = plan(&resource, &four, &[]).statuses;
    let five = ObservedTopics::from([(name("customer.state"), there("s", 5, &compact))]);
    let grown = plan(&resource, &five, &before);
    assert_eq!(grown.problem.as_ref().unwrap().reason, Reason::RepartitionedViewTopic);
    assert_eq!(grown.statuses[0].partitions, Some(4), "or the next look would not see it any more");
}

#[test]
fn settings_are_compared_by_what_they_mean() {
    for (wanted, is, same) in [
        ("compact, delete", "compact,delete", true),
        ("delete,compact", "compact,delete", true),
        ("0.50", "0.5", true),
        ("007", "7", true),
        (" 7", "7", true),
        ("TRUE", "true", true),
        ("9223372036854775807", "9223372036854775806", false),
        ("0.5", "0.51", false),
        ("true", "false", false),
        ("true", "1", false),
        ("compact", "compact,delete", false),
        ("compact,delete,x", "compact,delete", false),
        ("LZ4", "lz4", false),
    ] {
        let text = PIPELINE.replace("retention.ms: \"604800000\"", &format!("some.setting: \"{wanted}\""));
        let resource = pipeline(&text).unwrap();
        let mut observed = all_there();
        observed.insert(name("order.created"), there("c", 4, &[("some.setting", is)]));
        let before = created(&all_there());
        let repaired = plan(&resource, &observed, &before);
        assert_eq!(repaired.is_settled(), same, "{wanted:?} {is:?}");
        let drift = first_drift(&resource, &observed);
        assert_eq!(drift.is_none(), same);
        assert!(drift.is_none_or(|drift| drift.contains(&format!("{wanted:?}")) && drift.contains(&format!("{is:?}"))));
        // A new topic of ours must not be taken for somebody else's.
        let creating = plan(&resource, &observed, &plan(&resource, &ObservedTopics::new(), &[]).statuses);
        assert_eq!(creating.problem.is_none(), same, "{wanted:?} {is:?}");
    }
}
