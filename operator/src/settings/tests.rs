use super::*;
use crate::settings::monitors::{MAX_MONITORS, MAX_NAMESPACES, MAX_TOPICS};

const GOOD: &str = r#"
instanceId: demo
worker: {image: "localhost/sluice-worker:1", imagePullPolicy: Never}
connections:
  kafka:
  - name: main
    brokers: ["10.0.0.1:9092"]
    tls: {caFile: /ca}
    admin: {usernameFile: /user, passwordFile: /password}
    namespaces:
    - {name: shop, own: [order.], consume: [customer.], maxPartitions: 12}
  redis:
  - name: main
    mode: Cluster
    addresses: ["10.0.0.1:7001"]
    admin: {usernameFile: /user, passwordFile: /password}
    allowedSettings: [notify-keyspace-events]
    namespaces:
    - {name: shop, write: ["order:"], read: ["price:"], settings: [notify-keyspace-events, maxmemory]}
"#;

fn contents() -> Contents {
    [("/ca", "PEM\n"), ("/user", "admin\n"), ("/password", "secret\n")]
        .into_iter()
        .map(|(path, text)| (path.to_owned(), SecretString::from(text)))
        .collect()
}

fn file(text: &str) -> SettingsFile {
    serde_saphyr::from_str(text).expect("should parse")
}

fn error(edit: impl FnOnce(&mut SettingsFile)) -> InvalidSettings {
    let mut file = file(GOOD);
    edit(&mut file);
    file.check(&contents()).expect_err("should be refused")
}

#[test]
fn a_good_file_gives_connections_with_their_policies() {
    let file = file(GOOD);
    assert_eq!(file.referenced_files(), ["/ca", "/password", "/user"].map(str::to_owned).into());
    let settings = file.check(&contents()).expect("should be good");
    let main = ConnectionName::new("main");
    let kafka = &settings.kafka[&main];
    assert_eq!(kafka.tls.as_ref().and_then(|tls| tls.ca_pem.as_deref()), Some("PEM"));
    let (mechanism, credentials) = kafka.admin.as_ref().expect("should have credentials");
    assert_eq!((*mechanism, credentials.username.as_str()), (SaslMechanism::ScramSha512, "admin"));
    assert_eq!(credentials.password.expose_secret(), "secret");
    let shop = Namespace::parse("shop").expect("should be a namespace");
    assert_eq!(kafka.namespaces[&shop].max_partitions, 12);
    let policy = &settings.redis[&main].namespaces[&shop];
    assert!(policy.may_set("notify-keyspace-events"));
    assert!(!policy.may_set("maxmemory"), "a namespace never gets what the connection does not allow");
}

#[test]
fn passwords_are_not_printed() {
    let settings = file(GOOD).check(&contents()).expect("should be good");
    assert!(!format!("{settings:?}").contains("secret\""));
    assert!(!format!("{settings:?}").contains(r#"password: "secret"#));
}

#[test]
fn unknown_fields_are_refused() {
    for (from, to) in [("instanceId: demo", "instanceId: demo\nsurplus: 1"), ("mode: Cluster", "mode: Sentinel")] {
        assert!(serde_saphyr::from_str::<SettingsFile>(&GOOD.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn each_mistake_has_its_error() {
    assert!(matches!(error(|f| f.instance_id = "Not A Label".into()), InvalidSettings::Name { .. }));
    assert!(matches!(error(|f| f.worker.image = " ".into()), InvalidSettings::Empty { .. }));
    assert!(matches!(error(|f| f.worker.termination_grace_period_seconds = 1), InvalidSettings::Bounds { .. }));
    let duplicate = error(|f| {
        let again = f.connections.kafka[0].clone();
        f.connections.kafka.push(again);
    });
    assert!(matches!(duplicate, InvalidSettings::Duplicate { .. }));
    let address = error(|f| f.connections.redis[0].addresses = vec!["redis".into()]);
    assert!(matches!(address, InvalidSettings::Address { .. }));
    assert!(matches!(error(|f| f.connections.kafka[0].brokers.clear()), InvalidSettings::Empty { .. }));
    let plain = error(|f| {
        let kafka = &mut f.connections.kafka[0];
        kafka.tls = None;
        kafka.admin.as_mut().expect("should be there").mechanism = SaslMechanism::Plain;
    });
    assert!(matches!(plain, InvalidSettings::PlainWithoutTls { .. }));
    let prefix = error(|f| f.connections.kafka[0].namespaces[0].own.push(String::new()));
    assert!(matches!(prefix, InvalidSettings::Empty { .. }), "an empty prefix would allow everything");
}

#[test]
fn a_missing_file_makes_only_its_connection_unusable_and_one_that_worked_stays() {
    let text = GOOD.replacen("passwordFile: /password", "passwordFile: /later", 1);
    let (kafka, redis) = (Unusable::Kafka(ConnectionName::new("main")), ConnectionName::new("main"));
    let first = file(&text).check(&contents()).expect("should be good");
    assert!(first.kafka.is_empty() && first.redis.contains_key(&redis));
    assert!(first.unusable[&kafka].contains("/later"), "{:?}", first.unusable);

    let mut all = contents();
    all.insert("/later".to_owned(), SecretString::from("secret"));
    let good = file(&text).check(&all).expect("should be good");
    assert!(good.unusable.is_empty() && good.kafka.len() == 1);
    let lost = file(&text).check(&contents()).expect("should be good").keeping_usable(&good);
    assert_eq!(lost.kafka, good.kafka, "what worked goes on");
    assert!(lost.unusable.contains_key(&kafka), "and it is said");
    assert_ne!(lost, good);
}

/// A value that the chart takes and the operator refuses would be found only when the operator starts next.
#[test]
fn the_charts_schema_has_the_same_bounds() {
    let text = include_str!("../../../charts/sluice/values.schema.json");
    let schema: serde_json::Value = serde_json::from_str(text).unwrap();
    let bounds = |pointer: &str| {
        let at = schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer} should be in the schema"));
        (at["minimum"].as_i64().unwrap(), at["maximum"].as_i64().unwrap())
    };
    assert_eq!(
        bounds("/properties/worker/properties/terminationGracePeriodSeconds"),
        crate::settings::model::GRACE_PERIOD_SECONDS
    );
    let namespaces = "/properties/connections/properties/kafka/items/properties/namespaces/items/properties";
    assert_eq!(bounds(&format!("{namespaces}/maxPartitions")), crate::settings::model::MAX_PARTITIONS);
    let monitors = "/properties/lagMonitors";
    let most = |pointer: &str| schema.pointer(&format!("{monitors}{pointer}/maxItems")).unwrap().as_u64().unwrap();
    assert_eq!(
        [most(""), most("/items/properties/topics"), most("/items/properties/namespaces")],
        [MAX_MONITORS, MAX_TOPICS, MAX_NAMESPACES].map(|most| most as u64)
    );
}
