//! Where records go after the steps.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::patterns::{LABEL, TOPIC};
use super::{Expression, View};

/// Where records go after the steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// Which routes take a record: the `First` that matches, or `All` that match.
    #[serde(rename = "match", default)]
    pub match_: RouteMatch,
    /// What happens to a record that no route takes: `DeadLetter` (it goes to the dead-letter topic with reason
    /// `NoRoute`; without such a topic its partition stalls) or `Discard` (it is done, counted as discarded).
    #[serde(default)]
    pub on_no_match: OnNoMatch,
    /// Routes, tried in order.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub routes: Vec<Route>,
}

/// Which matching routes take a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteMatch {
    /// The first one.
    #[default]
    First,
    /// All of them.
    All,
}

/// What happens to a record that no route takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNoMatch {
    /// It goes to the dead-letter topic with reason `NoRoute`.
    #[default]
    DeadLetter,
    /// It is done, counted as discarded.
    Discard,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.topic) || (has(self.views) && self.views.size() > 0)")
    .message("a route without views needs a topic"))]
pub struct Route {
    /// Name, unique among the routes.
    #[schemars(length(min = 1, max = 40), regex(pattern = LABEL))]
    pub name: String,
    /// Topic to produce to. Absent (only with `views`): an internal compacted topic is made and owned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = TOPIC))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..'])").message("not a topic name Kafka takes"))]
    #[x_kube(validation = Rule::new("!self.startsWith('__')").message("topics that begin with __ are Kafka's own"))]
    pub topic: Option<String>,
    /// Takes the record when true. Absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expression>,
    /// Record key of the output. Absent: the key of the source record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expression>,
    /// Redis views of this route's topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub views: Vec<View>,
}

/// Where records go that cannot be processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Topic; the original bytes and headers with `sluice-error-*` and `sluice-source-*` headers added.
    #[schemars(length(min = 1, max = 249), regex(pattern = TOPIC))]
    #[x_kube(validation = Rule::new("!(self in ['.', '..'])").message("not a topic name Kafka takes"))]
    #[x_kube(validation = Rule::new("!self.startsWith('__')").message("topics that begin with __ are Kafka's own"))]
    pub topic: String,
}
