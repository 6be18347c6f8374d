use std::path::PathBuf;

use super::*;

fn file(name: &str, text: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("sluice-config-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temp dir");
    let path = dir.join(name);
    std::fs::write(&path, text).expect("write");
    path
}

fn valid() -> serde_json::Value {
    serde_json::json!({
        "version": "v1",
        "identity": {"instance": "t", "namespace": "shop", "kind": "eventpipeline", "name": "orders", "uid": "u"},
        "kafka": {"brokers": ["localhost:9092"]},
        "processor": {
            "group": "g", "transactionalIdPrefix": "sluice/t/shop/eventpipeline/orders/",
            "topics": [{"name": "in", "id": "7Wc2m-Qd_kOZr4hV0nH3xA"}], "format": "Json", "steps": [],
            "routing": {"match": "First", "onNoMatch": "Discard",
                "routes": [{"name": "out", "topic": "out", "hasViews": false, "compacted": false}]},
            "lanes": 2, "commitIntervalMilliseconds": 100, "maxBatchRecords": 1000, "maxBatchBytes": 1_048_576,
            "maxRecordBytes": 1_048_576, "lookupCache": {"maxBytes": 1024, "ttlMilliseconds": 1000}
        }
    })
}

fn load(name: &str, config: &serde_json::Value) -> Result<Settings, ConfigError> {
    Settings::load(&file(name, &config.to_string()), "orders-0".to_owned())
}

#[test]
fn a_valid_file_loads() {
    let settings = load("valid.json", &valid()).expect("valid");
    assert_eq!(settings.pod.as_str(), "orders-0");
    assert!(settings.kafka_credentials.is_none());
}

#[test]
fn secrets_are_read_and_never_shown() {
    let mut config = valid();
    let (user, password) = (file("user", "alice\n"), file("password", "hunter2\n"));
    config["kafka"]["sasl"] =
        serde_json::json!({"mechanism": "SCRAM-SHA-512", "usernameFile": user, "passwordFile": password});
    let settings = load("secret.json", &config).expect("valid");
    assert_eq!(settings.kafka_credentials.as_ref().expect("there").username, "alice");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

/// What the file itself may say is tested with the contract; here, that its errors come through, and files.
#[test]
fn each_mistake_has_its_category() {
    let saying = |sasl: serde_json::Value| {
        let mut config = valid();
        config["kafka"]["sasl"] = sasl;
        config
    };
    let (empty, user) = (file("empty", "\n"), file("user", "alice"));
    let long = file("long", &"x".repeat(5_000));
    let scram = |user: &PathBuf| {
        saying(serde_json::json!({"mechanism": "SCRAM-SHA-512", "usernameFile": user, "passwordFile": user}))
    };
    let mut other_version = valid();
    other_version["version"] = "v2".into();
    let plain = serde_json::json!({"mechanism": "PLAIN", "usernameFile": user, "passwordFile": user});
    for (category, config) in [
        ("Version", other_version),
        ("PlainWithoutTls", saying(plain)),
        ("Read", scram(&"/does/not/exist".into())),
        ("Secret", scram(&empty)),
        ("TooLarge", scram(&long)),
    ] {
        let error = load(&format!("case-{category}.json"), &config).expect_err(category);
        assert_eq!(error.category(), category, "{error}");
        assert!(!error.to_string().is_empty());
    }
    let absent = Settings::load(Path::new("/does/not/exist"), "orders-0".to_owned()).expect_err("absent");
    assert_eq!(absent.category(), "Read");
}

#[test]
fn pod_names_cannot_leave_the_prefix() {
    for name in ["", "a/b", "UPPER", &"a".repeat(254)] {
        assert!(PodName::try_from(name.to_owned()).is_err(), "{name:?}");
    }
}
