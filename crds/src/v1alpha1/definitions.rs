//! The `CustomResourceDefinition`s as an API server gets them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::{CacheSync, EventPipeline};

/// Both kinds, `EventPipeline` first.
pub fn definitions() -> [CustomResourceDefinition; 2] {
    [EventPipeline::crd(), CacheSync::crd()].map(|mut definition| {
        for version in &mut definition.spec.versions {
            version.additional_printer_columns = Some(columns());
            if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                tidy(schema);
            }
        }
        definition
    })
}

/// What `kubectl get` shows, the same for both kinds; the message only with `-o wide`.
fn columns() -> Vec<CustomResourceColumnDefinition> {
    let column = |name: &str, type_: &str, json_path: &str, description: &str| CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: type_.to_owned(),
        json_path: json_path.to_owned(),
        description: Some(description.to_owned()),
        ..Default::default()
    };
    let ready = |field: &str| format!(r#".status.conditions[?(@.type=="Ready")].{field}"#);
    vec![
        column("Ready", "string", &ready("status"), "Whether what the spec asks for is so"),
        column("Reason", "string", &ready("reason"), "Why it is ready or not"),
        column("Partitions", "integer", ".status.partitions", "Source partitions"),
        column("Replicas", "integer", ".status.replicas", "Worker pods that are ready"),
        column("Lag-S", "integer", ".status.lag.seconds", "Seconds behind, in coarse steps"),
        CustomResourceColumnDefinition {
            priority: Some(1),
            ..column("Message", "string", &ready("message"), "What is wrong and what to do")
        },
        column("Age", "date", ".metadata.creationTimestamp", "Time since creation"),
    ]
}

/// Drops `nullable`, which the derive sets on every `Option`: with it a null is stored and counts as present for a
/// rule's `has()`, so that `filter:` left empty by a template would be one action of its step. Without it an API server
/// takes nulls out of what is created or patched, and refuses them by name in a server-side apply. Also joins the lines
/// of descriptions, which `kubectl explain` wraps itself.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(description) = schema.description.as_mut() {
        let paragraphs: Vec<String> = description.split("\n\n").map(|text| text.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        tidy(values);
    }
}
