//! Kafka's jars, fetched by Maven.

use super::Recipe;
use crate::stack::command::{bounded, run};

const POM: &str = include_str!("../../../kafka/pom.xml");
const GOAL: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// Brokers and tools.
pub(super) fn recipe() -> Recipe {
    let version = POM.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once('<'));
    Recipe {
        name: "kafka",
        version: version.map_or("unknown", |(version, _)| version).to_owned(),
        sources: vec![("pom.xml", POM)],
        flags: vec![GOAL.into()],
        expect: "fetching jars; takes 20 seconds the first time",
        build: |sources, result, _| {
            let output = format!("-DoutputDirectory={}", result.display());
            let mut command = bounded(900, "mvn");
            run(command.args(["-q", "-B", GOAL, "-DincludeScope=runtime", &output]).current_dir(sources))
        },
    }
}
