//! Who may read which metric in which namespace: the API server's word (`SubjectAccessReview`), remembered for a moment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};

use super::identity::User;
use super::route::{GROUP, MetricQuery, VERSION};
use crate::kube_ext::{KubeError, timed};

/// How long a word is remembered: a right that is taken away is gone after so long.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most words remembered. Autoscalers are one user: each pair of namespace and metric is one word.
const MAX_REMEMBERED: usize = 1_024;

/// A question to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    user: User,
    namespace: String,
    metric: &'static str,
}

/// What was answered a moment ago.
#[derive(Debug, Default)]
struct Remembered {
    answers: HashMap<Question, (Instant, bool)>,
}

impl Remembered {
    fn of(&self, question: &Question, now: Instant) -> Option<bool> {
        let (since, allowed) = self.answers.get(question)?;
        (now.saturating_duration_since(*since) < REMEMBERED).then_some(*allowed)
    }

    fn note(&mut self, question: Question, allowed: bool, now: Instant) {
        if self.answers.len() >= MAX_REMEMBERED {
            self.answers.retain(|_, (since, _)| now.saturating_duration_since(*since) < REMEMBERED);
        }
        // All of them are fresh: asking again is always right.
        if self.answers.len() >= MAX_REMEMBERED {
            self.answers.clear();
        }
        self.answers.insert(question, (now, allowed));
    }
}

/// Asks, and remembers.
#[derive(Debug, Default)]
pub struct Access {
    remembered: Mutex<Remembered>,
}

impl Access {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// True when the user may read the metric in the namespace.
    pub async fn may_read(&self, client: &Client, user: &User, query: &MetricQuery) -> Result<bool, KubeError> {
        let question = Question { user: user.clone(), namespace: query.namespace.clone(), metric: query.metric };
        if let Some(allowed) = self.lock().of(&question, Instant::now()) {
            return Ok(allowed);
        }
        let api: Api<SubjectAccessReview> = Api::all(client.clone());
        let asked = timed("review access", api.create(&PostParams::default(), &review(&question))).await?;
        let allowed = asked.status.is_some_and(|status| status.allowed && !status.denied.unwrap_or(false));
        self.lock().note(question, allowed, Instant::now());
        Ok(allowed)
    }
}

fn review(question: &Question) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        namespace: Some(question.namespace.clone()),
        // A metric without a name in its path is a list of values, to the API server's own check of the same request too.
        verb: Some("list".to_owned()),
        group: Some(GROUP.to_owned()),
        version: Some(VERSION.to_owned()),
        resource: Some(question.metric.to_owned()),
        ..ResourceAttributes::default()
    };
    let user = &question.user;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(user: &str, namespace: &str) -> Question {
        let user = User { name: user.to_owned(), uid: None, groups: vec![], extra: [].into() };
        Question { user, namespace: namespace.to_owned(), metric: "consumer_lag" }
    }

    #[test]
    fn a_word_is_remembered_for_a_moment_and_for_its_question_only() {
        let (mut remembered, start) = (Remembered::default(), Instant::now());
        remembered.note(question("ada", "shop"), true, start);
        remembered.note(question("bob", "shop"), false, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(remembered.of(&question("ada", "shop"), at(9)), Some(true));
        assert_eq!(remembered.of(&question("bob", "shop"), at(9)), Some(false));
        assert_eq!(remembered.of(&question("ada", "other"), at(9)), None);
        let mut in_a_group = question("ada", "shop");
        in_a_group.user.groups.push("admins".to_owned());
        assert_eq!(remembered.of(&in_a_group, at(9)), None);
        assert_eq!(remembered.of(&question("ada", "shop"), at(10)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut remembered, start) = (Remembered::default(), Instant::now());
        for n in 0..3 * MAX_REMEMBERED {
            remembered.note(question("ada", &n.to_string()), true, start);
            assert!(remembered.answers.len() <= MAX_REMEMBERED);
        }
    }

    #[test]
    fn the_question_is_the_api_servers_own() {
        let spec = review(&question("ada", "shop")).spec;
        let resource = spec.resource_attributes.unwrap();
        assert_eq!(spec.user.as_deref(), Some("ada"));
        assert_eq!((resource.verb.as_deref(), resource.resource.as_deref()), (Some("list"), Some("consumer_lag")));
        assert_eq!((resource.namespace.as_deref(), resource.group.as_deref()), (Some("shop"), Some(GROUP)));
    }
}
