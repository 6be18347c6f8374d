//! The chart as an administrator would install it: Secrets with the servers' credentials, and values with connections to them.

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::datapath::HarnessError;
use crate::stack::kafka::Security;
use crate::stack::redis::Mode;
use crate::stack::{Kafka, Redis, Stack};

/// Secrets with the administrators' credentials and the authorities, for the operator's namespace. What is in them belongs in a
/// pipe or a file of the test's own, not in arguments.
pub fn secrets(namespace: &str, kafka: &Kafka, redis: &Redis) -> Result<Vec<Value>, HarnessError> {
    let secret = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data});
    let user =
        |name: &str, password: &secrecy::SecretString| json!({"username": name, "password": password.expose_secret()});
    let mut all = vec![
        secret("kafka-admin", user(kafka.username(), kafka.password())),
        secret("redis-admin", user(redis.username(), redis.password())),
    ];
    for (name, file) in [("kafka-ca", kafka.ca_file()), ("redis-ca", redis.ca_file())] {
        if let Some(file) = file {
            let pem = std::fs::read_to_string(file)
                .map_err(|error| HarnessError::Process { name: name.into(), message: error.to_string() })?;
            all.push(secret(name, json!({"ca.crt": pem})));
        }
    }
    Ok(all)
}

/// The value `connections`: both servers as `default`, each with the policy of one namespace.
pub fn connections(kafka: &Kafka, redis: &Redis, kafka_policy: &Value, redis_policy: &Value) -> Value {
    let mut kafka_connection = json!({
        "name": "default",
        "brokers": kafka.bootstrap().split(',').collect::<Vec<_>>(),
        "namespaces": [kafka_policy],
    });
    if kafka.security() == Security::SaslSsl {
        kafka_connection["tls"] = authorities(kafka.ca_file().is_some(), "kafka-ca");
        kafka_connection["admin"] = json!({"secretName": "kafka-admin"});
    }
    let mut redis_connection = json!({
        "name": "default",
        "mode": if redis.mode() == Mode::Cluster { "Cluster" } else { "Standalone" },
        "addresses": redis.addresses(),
        "admin": {"secretName": "redis-admin"},
        "namespaces": [redis_policy],
    });
    if redis.tls() {
        redis_connection["tls"] = authorities(redis.ca_file().is_some(), "redis-ca");
    }
    json!({"kafka": [kafka_connection], "redis": [redis_connection]})
}

/// Values of an installation with these connections and the images of the stack.
pub fn values(stack: &Stack, instance: &str, connections: &Value) -> Value {
    let mut values = json!({"instanceId": instance, "connections": connections});
    if let Some(image) = image(stack, "sluice-operator", "SLUICE_OPERATOR_IMAGE") {
        values["image"] = image;
    }
    if let Some(image) = image(stack, "sluice-worker", "SLUICE_WORKER_IMAGE") {
        values["worker"] = json!({"image": image});
    }
    values
}

/// TLS by the authorities of a Secret, or by those of the system.
fn authorities(given: bool, secret: &str) -> Value {
    if given { json!({"secretName": secret}) } else { json!({}) }
}

/// The image of that variable; on the built-in stack the one that was just built; elsewhere the chart's own.
fn image(stack: &Stack, name: &str, variable: &str) -> Option<Value> {
    let policy = if stack.is_local() { "Never" } else { "IfNotPresent" };
    let built = || stack.is_local().then(|| format!("localhost/{name}:dev"));
    let given = std::env::var(variable).ok().filter(|image| !image.is_empty()).or_else(built)?;
    // A colon before the last slash is a port's.
    let tag_at = given.rfind(':').filter(|colon| given.rfind('/').is_none_or(|slash| slash < *colon));
    let (repository, tag) = tag_at.map_or((given.as_str(), "latest"), |colon| (&given[..colon], &given[colon + 1..]));
    Some(json!({"repository": repository, "tag": tag, "pullPolicy": policy}))
}
