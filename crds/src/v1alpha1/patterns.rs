//! What the API server lets through, as regular expressions (RE2) and bounds.
//!
//! Each pattern says the same as the newtype of `names` that the operator parses the value into; a property test holds
//! the two together. They are here a second time so that a typo is refused by `kubectl apply`, not by a condition later.

/// RFC 1123 label: names of routes and views.
pub(super) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// RFC 1123 subdomain: names of Secrets and connections.
pub(super) const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Identifier of an expression: names of steps.
pub(super) const IDENTIFIER: &str = "^[a-zA-Z_][a-zA-Z0-9_]*$";
/// Kafka topic.
pub(super) const TOPIC: &str = "^[a-zA-Z0-9._-]+$";
/// Consumer group: printable ASCII without space and `*`.
pub(super) const GROUP: &str = "^[!-)+-~]+$";
/// Redis key prefix: printable ASCII without space and `" % ' ( ) * ? [ \ ] ~`.
pub(super) const KEY_PREFIX: &str = "^[!#$&+,./0-9:;<=>@A-Z^_`a-z{|}-]+$";
/// Path of a field: members separated by single dots.
pub(super) const FIELD_PATH: &str = r"^[^.]+(\.[^.]+)*$";
/// `host:port`, with brackets around an IPv6 address.
pub(super) const HOST_PORT: &str = r"^([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$";
/// Name of a Redis setting.
pub(super) const REDIS_SETTING: &str = "^[a-z][a-z0-9-]*$";
/// Positive Kubernetes quantity.
pub(super) const QUANTITY: &str = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";
