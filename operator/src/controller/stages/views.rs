//! Keys that a new epoch must not find. Called with the workers stopped, before status says what the views are now.
//!
//! ```text
//! status: the views that are cleared have no definition; the epoch is not below any in Redis
//!   → the watermark records go, all of them     from here on nothing says that anything is in Redis
//!   → the keys go, prefix by prefix
//!   → (epochs.rs) status: the views as they are now, and the new epoch
//! ```
//!
//! After a crash, or a change of the spec under way, the next reconcile finds views without a definition and goes through
//! all of it again: what is gone already costs a pass that meets nothing.

use std::sync::Arc;

use kube::runtime::events::EventType;
use sluice_clients::redis::admin::RedisAdminError;
use sluice_crds::conditions::{ConditionType, Finding, Reason};

use super::cache;
use crate::connections::RedisClient;
use crate::controller::clearing::{Ground, mark};
use crate::controller::halt::{Halt, Retry};
use crate::controller::kafka::rights::watermark_prefix;
use crate::controller::kind::SluiceKind;
use crate::controller::redis_keys::{self, Kept};
use crate::controller::report;
use crate::controller::round::Round;
use crate::controller::validated::WorkerAccess;
use crate::settings::{ConnectionName, RedisConnection};

/// How soon to go on with many keys.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Halts while keys that must be cleared are asked for by another resource, too: asked before the workers stop, so that they
/// go on under the old definition until a person has decided whose keys these are.
pub fn check<K: SluiceKind>(round: &Round<'_, K>, ground: &[Ground]) -> Result<(), Halt> {
    let needed: Vec<&Ground> = ground.iter().filter(|ground| ground.needed).collect();
    let Some(connection) = (if needed.is_empty() { None } else { place(round)? }) else { return Ok(()) };
    let shared = |ground: &&Ground| kept(round, &connection, ground) == Some(Kept::Shared);
    let Some(ground) = needed.into_iter().find(shared) else { return Ok(()) };
    let message = format!(
        "the definition of a view has changed, and its keys {}* cannot be cleared: another resource asks for such keys, too; \
         choose another prefix in one of them",
        ground.prefix
    );
    Err(Halt::found(Finding::stalled(ConditionType::CacheReady, Reason::KeyPrefixConflict, message)))
}

/// Deletes the keys on the `ground`, after the records that say they are there; `recorded` is the highest epoch of those.
/// Halts until all is done. Keys that the operator has no way to, and those it may not touch, stay and are named.
pub async fn clear<K: SluiceKind>(
    round: &mut Round<'_, K>,
    ground: &[Ground],
    recorded: Option<u64>,
) -> Result<(), Halt> {
    if ground.is_empty() {
        return Ok(());
    }
    check(round, ground)?;
    let Some(connection) = place(round)? else {
        for Ground { prefix, .. } in ground {
            stay(round, prefix, "the operator has no way to this Redis; delete them").await;
        }
        return Ok(());
    };
    let (going, staying): (Vec<_>, Vec<_>) =
        ground.iter().map(|each| (each, kept(round, &connection, each))).partition(|(_, kept)| kept.is_none());
    if !going.is_empty() {
        mark(&mut round.status.draft.views, ground);
        let floor = recorded.and_then(|epoch| i64::try_from(epoch).ok());
        round.status.draft.epoch = round.status.draft.epoch.max(floor);
        round.status.write().await?;
        let redis = round.ctx.connections.redis(&connection).map_err(|error| failed("redis client", &error))?;
        let records = watermark_prefix(round.resource);
        let prefixes = std::iter::once(records.as_str()).chain(going.iter().map(|(each, _)| each.prefix.as_str()));
        delete_all(round, &redis, prefixes).await?;
    }
    for (each, why) in staying {
        stay(round, &each.prefix, why.map_or("", Kept::why)).await;
    }
    Ok(())
}

async fn delete_all<'p, K: SluiceKind>(
    round: &Round<'_, K>,
    redis: &RedisClient,
    prefixes: impl Iterator<Item = &'p str>,
) -> Result<(), Halt> {
    let (uid, until) = (round.resource.uid.as_str(), redis_keys::turn());
    for prefix in prefixes {
        let doing = format!("clearing keys {prefix}* of an earlier definition");
        let done = redis_keys::delete(&round.ctx.key_sweeps, uid, redis, prefix, until).await;
        if !done.map_err(|error| failed(&doing, &error))? {
            let finding = Finding::progressing(ConditionType::CacheReady, Reason::Rebuilding, doing);
            return Err(Halt::Found(finding, Retry::After(LOOK_AGAIN)));
        }
    }
    Ok(())
}

fn failed(doing: &str, error: &RedisAdminError) -> Halt {
    Halt::found(cache::finding(ConditionType::CacheReady, doing, error))
}

fn kept<K: SluiceKind>(round: &Round<'_, K>, connection: &RedisConnection, ground: &Ground) -> Option<Kept> {
    redis_keys::kept(round.ctx, round.claimant, &round.resource.id.namespace, connection, &ground.prefix)
}

/// Says that keys stay.
async fn stay<K: SluiceKind>(round: &Round<'_, K>, prefix: &str, why: &str) {
    let note = format!("keys {prefix}* of an earlier definition may stay: {why}");
    report::say(round.ctx, round.object, EventType::Warning, Reason::Rebuilding, &note).await;
}

/// The connection that the keys are behind; none when the operator has no way to it. Looked up in the spec: a resource whose
/// last view was removed may not use Redis any more.
pub fn place<K: SluiceKind>(round: &Round<'_, K>) -> Result<Option<Arc<RedisConnection>>, Halt> {
    let spec = round.object.redis();
    if spec.inline.is_some() {
        return Ok(None);
    }
    let name = spec.connection_ref.as_ref().map_or("default", |reference| reference.name.as_str());
    let Some(connection) = round.settings.redis.get(&ConnectionName::new(name)) else {
        let message =
            format!("keys of an earlier definition are to be deleted, but there is no redis connection {name:?}");
        let finding = Finding::progressing(ConditionType::CacheReady, Reason::RedisUnreachable, message);
        return Err(Halt::found(finding));
    };
    let closed = round.resource.redis.as_ref().is_some_and(|redis| redis.access != WorkerAccess::Open);
    Ok((connection.admin.is_some() || !closed).then(|| Arc::clone(connection)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    use serde_json::json;
    use sluice_crds::v1alpha1::{EventPipeline, RedisMode};

    use super::*;
    use crate::claims::{Claimant, Claims};
    use crate::controller::test_support::{PIPELINE, api_server, in_round, settings};
    use crate::settings::Settings;

    /// A standalone Redis that knows `SCAN` and `UNLINK`, and refuses a `SCAN` for one pattern.
    #[derive(Default)]
    struct Keys {
        there: BTreeSet<String>,
        refused: Option<String>,
    }

    type Server = Arc<Mutex<Keys>>;

    fn serve(server: Server) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                std::thread::spawn(move || converse(&stream, &server));
            }
        });
        port
    }

    fn converse(mut stream: &TcpStream, server: &Server) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let count: usize = line.trim_end()[1..].parse().ok()?;
            if line.starts_with('*') {
                return Some((count, String::new()));
            }
            let mut bytes = vec![0; count + 2];
            reader.read_exact(&mut bytes).ok()?;
            Some((count, String::from_utf8_lossy(&bytes[..count]).into_owned()))
        };
        loop {
            let (count, _) = line()?;
            let words: Vec<String> = (0..count).map(|_| line().map(|(_, word)| word)).collect::<Option<_>>()?;
            stream.write_all(answer(&words, &mut server.lock().unwrap()).as_bytes()).ok()?;
        }
    }

    fn answer(words: &[String], keys: &mut Keys) -> String {
        match words[0].as_str() {
            "SCAN" if keys.refused.as_ref() == Some(&words[3]) => "-NOPERM no\r\n".to_owned(),
            "SCAN" => {
                let found: Vec<&String> =
                    keys.there.iter().filter(|key| key.starts_with(words[3].trim_end_matches('*'))).collect();
                let texts: Vec<String> = found.iter().map(|key| format!("${}\r\n{key}\r\n", key.len())).collect();
                format!("*2\r\n$1\r\n0\r\n*{}\r\n{}", found.len(), texts.concat())
            }
            "UNLINK" => format!(":{}\r\n", u8::from(keys.there.remove(&words[1]))),
            _ => "+OK\r\n".to_owned(),
        }
    }

    /// The settings, with the default Redis here.
    fn settings_with(port: u16) -> Settings {
        let mut settings = settings();
        let connection = settings.redis.get_mut(&ConnectionName::new("default")).unwrap();
        let changed = Arc::make_mut(connection);
        (changed.mode, changed.addresses, changed.tls) =
            (RedisMode::Standalone, vec![format!("127.0.0.1:{port}")], None);
        settings
    }

    fn materialised() -> EventPipeline {
        let mut object: EventPipeline = serde_saphyr::from_str(PIPELINE).unwrap();
        let view = json!({"name": "order", "keyPrefix": "order:{", "topic": "t", "definition": "old"});
        object.status = Some(serde_json::from_value(json!({"conditions": [], "epoch": 5, "views": [view]})).unwrap());
        object
    }

    const RECORDS: &str = "sluice/demo/0b5c2c4e-7a55-4a0e-9d6e-2f0d8e7a1c11/n/{tag}";

    fn ground() -> Vec<Ground> {
        vec![Ground { prefix: "order:{".into(), needed: true }]
    }

    #[tokio::test]
    async fn nothing_says_that_keys_are_there_before_the_first_of_them_goes_and_a_crash_resumes() {
        let keys = [RECORDS, "order:{1}", "order:{2}", "order:other", "sluice/demo/another/n/{tag}"];
        let server = Server::default();
        server.lock().unwrap().there = keys.map(str::to_owned).into();
        server.lock().unwrap().refused = Some("order:{*".to_owned());
        let (object, seen) = (materialised(), Arc::clone(&server));
        let written = serde_json::to_value(&object).unwrap();
        let (client, calls) = api_server(move |_| {
            assert_eq!(seen.lock().unwrap().there.len(), 5, "status is written before anything goes");
            (200, written.clone())
        });
        let port = serve(Arc::clone(&server));
        in_round(&object, client, settings_with(port), None, async |round| {
            let halt = clear(round, &ground(), Some(9)).await.unwrap_err();
            assert_eq!(halt.category(), "RedisRefused");
            let there = server.lock().unwrap().there.clone();
            assert!(!there.contains(RECORDS) && there.contains("order:{1}") && there.len() == 4, "{there:?}");
            let status = calls.lock().unwrap()[0].body["status"].clone();
            assert_eq!((&status["epoch"], status["views"][0].get("definition")), (&json!(9), None));

            server.lock().unwrap().refused = None;
            clear(round, &ground(), None).await.unwrap();
            let left: Vec<String> = server.lock().unwrap().there.iter().cloned().collect();
            assert_eq!(left, ["order:other", "sluice/demo/another/n/{tag}"]);
            assert_eq!((calls.lock().unwrap().len(), round.status.draft.epoch), (1, Some(9)));
        })
        .await;
    }

    #[tokio::test]
    async fn keys_that_another_resource_asks_for_are_left_alone_and_no_view_begins_on_them() {
        let server = Server::default();
        server.lock().unwrap().there = ["order:{1}".to_owned()].into();
        let (object, port) = (materialised(), serve(Arc::clone(&server)));
        let (client, calls) = api_server(|_| (200, json!({})));
        in_round(&object, client, settings_with(port), None, async |round| {
            let rival = Claimant { uid: "rival".to_owned(), ..round.claimant.clone() };
            let prefix = "order:{1".to_owned();
            let claims = Claims::remembered("", std::iter::empty(), "default", std::iter::once(&prefix));
            round.ctx.claims.lock().insert(&rival, claims);
            assert!(check(round, &[Ground { needed: false, ..ground().remove(0) }]).is_ok(), "nobody begins there");
            assert_eq!(check(round, &ground()).unwrap_err().category(), "KeyPrefixConflict");
            assert_eq!(clear(round, &ground(), Some(9)).await.unwrap_err().category(), "KeyPrefixConflict");
            assert!(calls.lock().unwrap().is_empty() && server.lock().unwrap().there.len() == 1);
        })
        .await;
    }
}
