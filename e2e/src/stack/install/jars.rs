//! Kafka's jars, fetched by Maven, and an archive of the classes in them.

use std::path::Path;

use super::Recipe;
use crate::stack::command::{bounded, run};
use crate::stack::error::StackError;
use crate::stack::files;
use crate::stack::kafka::{self, Jars, KafkaOptions};
use crate::stack::layout::Layout;

const POM: &str = include_str!("../../../kafka/pom.xml");
const CLASSES: &str = include_str!("../../../kafka/classes.sh");
const GOAL: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
const ARCHIVE: &str = "kafka.jsa";

/// Where they are or will be; the archive only when it is there.
pub(super) fn locate(layout: &Layout) -> Jars {
    let archive = classes().folder(layout).join(ARCHIVE);
    Jars { folder: recipe().folder(layout), classes: archive.is_file().then_some(archive) }
}

/// Brokers and tools.
pub(super) fn recipe() -> Recipe {
    Recipe {
        name: "kafka",
        version: version(),
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

/// The archive, after the jars.
pub(super) fn classes() -> Recipe {
    Recipe {
        name: "kafka-classes",
        version: version(),
        sources: vec![("pom.xml", POM), ("classes.sh", CLASSES)],
        flags: Vec::new(),
        expect: "archiving classes, so that brokers and tools start sooner; takes half a minute the first time",
        build: archive,
    }
}

/// Runs a cluster like those of the tests, in a network of its own, and the tools against it.
fn archive(sources: &Path, result: &Path, _: &Recipe) -> Result<(), StackError> {
    // The jars are beside the folder in which this is being made.
    let artifacts = result.ancestors().nth(2).unwrap_or(result);
    let jars = Jars { folder: artifacts.join(recipe().key()), classes: None };
    let options = KafkaOptions { name: "classes".into(), brokers: 1, ..KafkaOptions::shared() };
    let (folder, lists) = (sources.join("cluster"), sources.join("lists"));
    let cluster = kafka::create(&folder, &jars, &options)?;
    files::make_dir(&lists)?;
    let addresses = cluster.brokers.iter().map(ToString::to_string);
    let mut command = bounded(300, "unshare");
    command.args(["--net", "sh"]).arg(sources.join("classes.sh")).args([&jars.folder, &folder]).args(addresses);
    run(command.arg(result.join(ARCHIVE)).current_dir(&lists))
}

fn version() -> String {
    let version = POM.split_once("<kafka.version>").and_then(|(_, rest)| rest.split_once('<'));
    version.map_or("unknown", |(version, _)| version).to_owned()
}
