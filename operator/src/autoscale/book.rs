//! What reconciles allow the autoscaler, and what it gives them to show.
//!
//! A reconcile that has come to its end allows scaling; one that stops workers (an epoch, offsets, a refusal, a deletion)
//! forbids it first. Between [`ScalingBook::begin`] and [`ScalingBook::end`] a write of the autoscaler's is under way: who wants
//! to forbid then has to come again.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};

use sluice_autoscaler::{Seed, Settings};
use sluice_crds::v1alpha1::{AutoscalingMode, AutoscalingStatus};

use crate::claims::Claimant;

/// How one resource is scaled.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who acts: not `Manual`.
    pub mode: AutoscalingMode,
    /// The brain's settings.
    pub settings: Settings,
    /// Threads of a worker.
    pub lanes: NonZeroU32,
    /// The autoscaler that the operator makes; with mode `Hpa` only.
    pub hpa: Option<Hpa>,
}

/// What a `HorizontalPodAutoscaler` of ours is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hpa {
    /// Fewest workers, at least 1.
    pub min_replicas: i32,
    /// Most workers.
    pub max_replicas: i32,
    /// Waiting records for each worker.
    pub lag: i64,
    /// How long fewer must be enough before workers are removed, in seconds.
    pub scale_down_window_seconds: i32,
    /// The group whose lag it is; a label value.
    pub group: String,
}

/// A resource that the autoscaler looks after.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Whose workers.
    pub claimant: Claimant,
    /// How.
    pub plan: Arc<Plan>,
    /// Name and uid of the Deployment.
    pub deployment: (String, String),
    /// Workers that it asked for when it was last looked at.
    pub replicas: u32,
    /// What is known from before this process.
    pub seed: Seed,
}

/// What became of forbidding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// It was not allowed.
    Already,
    /// It is from now on: look again at what may have been written until now.
    Now,
    /// It is from now on, and a write is under way: come again when it has ended.
    UnderWay,
}

#[derive(Debug)]
struct Entry {
    subject: Option<Subject>,
    under_way: bool,
    /// A write has begun since it was last forbidden.
    touched: bool,
    shown: Option<AutoscalingStatus>,
    advice: Option<String>,
    rival: Option<String>,
}

/// What reconciles allow and show, by uid.
#[derive(Debug, Default)]
pub struct ScalingBook {
    entries: Mutex<HashMap<String, Entry>>,
}

impl ScalingBook {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The autoscaler may act on a resource whose workers are as its spec says.
    pub fn allow(&self, mut subject: Subject) {
        let mut entries = self.lock();
        let uid = subject.claimant.uid.clone();
        let entry = entries.entry(uid).or_insert(Entry {
            subject: None,
            under_way: false,
            touched: false,
            shown: None,
            advice: None,
            rival: None,
        });
        if let Some(before) = &entry.subject {
            if before.plan.mode != subject.plan.mode {
                entry.rival = None;
            }
            subject.seed = before.seed;
        }
        entry.subject = Some(subject);
    }

    /// It may not any more.
    pub fn forbid(&self, uid: &str) -> Forbidden {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else { return Forbidden::Already };
        entry.rival = None;
        let allowed = entry.subject.take().is_some();
        if entry.under_way {
            return Forbidden::UnderWay;
        }
        if std::mem::take(&mut entry.touched) || allowed { Forbidden::Now } else { Forbidden::Already }
    }

    /// Forgets a resource that is gone, or that nobody scales.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Everything that it may act on now.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        self.lock().values().filter_map(|entry| entry.subject.clone()).collect()
    }

    /// Takes the right to write the number of workers of a resource that is still as it was decided upon.
    pub(super) fn begin(&self, subject: &Subject) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&subject.claimant.uid) else { return false };
        let same = entry
            .subject
            .as_ref()
            .is_some_and(|now| now.replicas == subject.replicas && now.plan.mode == AutoscalingMode::Operator);
        if !same || entry.under_way {
            return false;
        }
        (entry.under_way, entry.touched) = (true, true);
        true
    }

    /// Gives it back; `replicas`: what the Deployment asks for now, if that is known.
    pub(super) fn end(&self, uid: &str, replicas: Option<u32>) {
        if let Some(entry) = self.lock().get_mut(uid) {
            entry.under_way = false;
            if let (Some(subject), Some(replicas)) = (&mut entry.subject, replicas) {
                subject.replicas = replicas;
            }
        }
    }

    /// Notes what is to be shown.
    pub(super) fn show(&self, uid: &str, shown: AutoscalingStatus, advice: Option<String>) {
        if let Some(entry) = self.lock().get_mut(uid) {
            (entry.shown, entry.advice) = (Some(shown), advice);
        }
    }

    /// Notes who else scales the workers; true when that is another one than before.
    pub(super) fn note_rival(&self, uid: &str, rival: Option<String>) -> bool {
        self.lock().get_mut(uid).is_some_and(|entry| {
            let changed = entry.rival != rival;
            entry.rival = rival;
            changed
        })
    }

    /// What is to be shown of a resource.
    pub fn shown(&self, uid: &str) -> Option<AutoscalingStatus> {
        self.lock().get(uid)?.shown.clone()
    }

    /// What a person should do so that scaling helps.
    pub fn advice(&self, uid: &str) -> Option<String> {
        self.lock().get(uid)?.advice.clone()
    }

    /// Who else scales its workers.
    pub fn rival(&self, uid: &str) -> Option<String> {
        self.lock().get(uid)?.rival.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sluice_autoscaler::SettingsSpec;
    use sluice_crds::names::Kind;

    use super::*;

    pub(crate) fn subject() -> Subject {
        let claimant = Claimant {
            created: 1,
            uid: "u".to_owned(),
            kind: Kind::EventPipeline,
            namespace: "shop".to_owned(),
            name: "enrich".to_owned(),
        };
        let settings = Settings::new(SettingsSpec { max_replicas: 8, ..SettingsSpec::default() }).unwrap();
        let plan = Plan { mode: AutoscalingMode::Operator, settings, lanes: NonZeroU32::new(2).unwrap(), hpa: None };
        let deployment = ("evp-enrich".to_owned(), "d".to_owned());
        Subject { claimant, plan: Arc::new(plan), deployment, replicas: 2, seed: Seed::default() }
    }

    #[test]
    fn nobody_forbids_in_the_middle_of_a_write_and_nobody_writes_what_is_forbidden() {
        let (book, subject) = (ScalingBook::default(), subject());
        assert_eq!(book.forbid("u"), Forbidden::Already);
        assert!(!book.begin(&subject), "not allowed yet");
        book.allow(subject.clone());
        assert!(book.begin(&subject));
        assert!(!book.begin(&subject), "one write at a time");
        assert_eq!(book.forbid("u"), Forbidden::UnderWay);
        assert!(book.subjects().is_empty(), "no other one begins");
        book.end("u", Some(3));
        assert_eq!(book.forbid("u"), Forbidden::Now, "what was read before may be old");
        assert_eq!(book.forbid("u"), Forbidden::Already);
        book.allow(subject.clone());
        assert!(book.begin(&subject));
        book.end("u", Some(3));
        assert!(!book.begin(&subject), "decided upon two, and there are three");
        assert!(book.begin(&Subject { replicas: 3, ..subject.clone() }));
        book.end("u", None);
        assert_eq!((book.forbid("u"), book.forbid("u")), (Forbidden::Now, Forbidden::Already));
        assert!(!book.begin(&Subject { replicas: 3, ..subject.clone() }));
        assert!(book.subjects().is_empty());
        book.allow(subject.clone());
        assert_eq!(book.subjects().len(), 1);
        book.forget("u");
        assert!(!book.begin(&subject) && book.shown("u").is_none());
    }

    #[test]
    fn recommendations_are_never_written() {
        let (book, mut subject) = (ScalingBook::default(), subject());
        subject.plan = Arc::new(Plan { mode: AutoscalingMode::Recommend, ..(*subject.plan).clone() });
        book.allow(subject.clone());
        assert!(!book.begin(&subject));
        assert_eq!(book.forbid("u"), Forbidden::Now);
    }
}
