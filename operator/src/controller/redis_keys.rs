//! IO: deletes keys of views that are gone or are to be rebuilt. Only where the resource's namespace may write, and never
//! keys that another resource could have written: status tells what a resource once had, not what it may have now.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sluice_clients::redis::admin::{KeyDeletion, KeyDeletionBudget, KeyDeletionProgress, KeyPrefix, RedisAdminError};
use sluice_crds::names::Namespace;

use super::context::Context;
use crate::claims::{Claimant, Claims};
use crate::connections::RedisClient;
use crate::settings::RedisConnection;

/// Longest time that one reconcile deletes keys, a portion of the size of [`KeyDeletionBudget`] apart.
const TURN: Duration = Duration::from_secs(10);

/// Why keys with a prefix are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The policy of the namespace does not cover them, any more or ever.
    NotAllowed,
    /// Another resource asks for such keys.
    Shared,
}

impl Kept {
    /// In words.
    pub fn why(self) -> &'static str {
        match self {
            Self::NotAllowed => "the namespace may not write them on this connection",
            Self::Shared => "another resource writes such keys",
        }
    }
}

/// Why keys with a prefix are left alone; none = they may go.
pub fn kept(
    ctx: &Context,
    who: &Claimant,
    namespace: &Namespace,
    connection: &RedisConnection,
    prefix: &str,
) -> Option<Kept> {
    if !connection.namespaces.get(namespace).is_some_and(|policy| policy.may_write(prefix)) {
        return Some(Kept::NotAllowed);
    }
    let prefix = prefix.to_owned();
    let what = Claims::remembered("", std::iter::empty(), connection.name.as_str(), std::iter::once(&prefix));
    ctx.claims.lock().is_shared(who, &what).then_some(Kept::Shared)
}

/// Deletions of keys that take more than one reconcile, by uid. In memory: what a crash forgets begins anew.
#[derive(Debug, Default)]
pub struct KeySweeps<S = KeyDeletion> {
    of: Mutex<HashMap<String, Sweep<S>>>,
}

#[derive(Debug, Default)]
struct Sweep<S> {
    /// Prefixes without keys.
    done: BTreeSet<String>,
    /// The one at work.
    going: Option<(String, S)>,
}

impl<S: Default> KeySweeps<S> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Sweep<S>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was done for a resource: it is over, or its workers may have written since.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Where the deletion of a prefix stands; none = it is done. Taken out, so that a failure begins anew: after a restart
    /// of a server its cursor would pass over keys.
    fn take(&self, uid: &str, prefix: &str) -> Option<S> {
        let mut all = self.lock();
        let sweep = all.entry(uid.to_owned()).or_default();
        if sweep.done.contains(prefix) {
            return None;
        }
        let going = sweep.going.take().filter(|(of, _)| of == prefix);
        Some(going.map_or_else(S::default, |(_, state)| state))
    }

    fn put(&self, uid: &str, prefix: &str, state: S) {
        self.lock().entry(uid.to_owned()).or_default().going = Some((prefix.to_owned(), state));
    }

    fn finish(&self, uid: &str, prefix: &str) {
        self.lock().entry(uid.to_owned()).or_default().done.insert(prefix.to_owned());
    }
}

/// The end of a turn that begins now.
pub fn turn() -> Instant {
    Instant::now() + TURN
}

/// Deletes keys with a prefix until the end of a turn, at least a portion; true = none is left, false = to be continued.
/// Nobody may write such keys meanwhile: what is done for a uid is remembered until [`KeySweeps::forget`].
pub async fn delete(
    sweeps: &KeySweeps,
    uid: &str,
    redis: &RedisClient,
    prefix: &str,
    until: Instant,
) -> Result<bool, RedisAdminError> {
    let asked = KeyPrefix::new(prefix)?;
    let Some(mut state) = sweeps.take(uid, prefix) else { return Ok(true) };
    loop {
        let (mut going, asked) = (state, asked.clone());
        let (progress, next) = redis
            .call(|admin| async move {
                let progress = admin.delete_keys(&asked, &mut going, KeyDeletionBudget::default()).await?;
                Ok((progress, going))
            })
            .await?;
        if progress == KeyDeletionProgress::Done {
            sweeps.finish(uid, prefix);
            return Ok(true);
        }
        state = next;
        if Instant::now() >= until {
            sweeps.put(uid, prefix, state);
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_goes_on_where_it_was_and_begins_anew_after_a_failure_or_when_forgotten() {
        let sweeps = KeySweeps::<u32>::default();
        sweeps.put("uid", "a:", 7);
        assert_eq!(sweeps.take("uid", "a:"), Some(7));
        assert_eq!(sweeps.take("uid", "a:"), Some(0), "taken and not put back: it failed");
        sweeps.put("uid", "a:", 7);
        assert_eq!(sweeps.take("uid", "b:"), Some(0), "another prefix is another pass");
        sweeps.finish("uid", "a:");
        assert_eq!((sweeps.take("uid", "a:"), sweeps.take("other", "a:")), (None, Some(0)));
        sweeps.forget("uid");
        assert_eq!(sweeps.take("uid", "a:"), Some(0));
    }
}
