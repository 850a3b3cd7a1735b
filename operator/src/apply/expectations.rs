//! What this operator has written itself and the watches may not have shown yet. Nothing is lost with it but a request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use siem_agent_crds::SiemAgentStatus;
use tokio::time::Instant;

use crate::key::Key;
use crate::lock::lock;
use crate::names::Owned;
use crate::observed_object::{ObservedObject, Written};

/// A watch shows what was written within so long.
const FRESH: Duration = Duration::from_secs(5);

/// What to expect of the watches.
#[derive(Debug, Default)]
pub(crate) struct Expectations(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    applied: BTreeMap<(String, Owned), Entry>,
    statuses: BTreeMap<String, (u64, SiemAgentStatus)>,
    hidden: BTreeSet<(Key, Owned)>,
    /// What the Deployment of an agent that waits for its roll-out was when it was first seen or last written, by agent.
    kept: BTreeMap<String, String>,
    unsettled: BTreeMap<Key, Instant>,
    /// Which agent of a name is meant.
    uids: BTreeMap<Key, String>,
}

#[derive(Debug)]
struct Entry {
    desired: String,
    live: ObservedObject,
    /// `None` once a list was seen that must have it.
    at: Option<Instant>,
}

impl Expectations {
    /// Takes note of an applied object.
    pub(crate) fn note(&self, uid: &str, which: Owned, desired: &str, live: ObservedObject) {
        let mut inner = lock(&self.0);
        if which == Owned::Deployment
            && let Some(digest) = &live.digest
        {
            inner.kept.insert(uid.to_owned(), digest.clone());
        }
        let written = Entry { desired: desired.to_owned(), live, at: Some(Instant::now()) };
        inner.applied.insert((uid.to_owned(), which), written);
    }

    /// An object as it was after it was applied.
    pub(crate) fn applied(&self, uid: &str, which: Owned) -> Option<ObservedObject> {
        let inner = lock(&self.0);
        inner.applied.get(&(uid.to_owned(), which)).map(|written| written.live.clone())
    }

    /// Whether an object was applied a moment ago.
    pub(crate) fn is_fresh(&self, uid: &str, which: Owned) -> bool {
        let inner = lock(&self.0);
        inner
            .applied
            .get(&(uid.to_owned(), which))
            .and_then(|written| written.at)
            .is_some_and(|at| at.elapsed() < FRESH)
    }

    /// An object with this UID is gone.
    pub(crate) fn forget_object(&self, object_uid: &str) {
        lock(&self.0).applied.retain(|_, written| written.live.uid != object_uid);
    }

    /// A whole list has come: what is not in it is gone, however short a time ago it was written.
    pub(crate) fn distrust(&self) {
        lock(&self.0).applied.values_mut().for_each(|written| written.at = None);
    }

    /// Since when this agent's Deployment has not been seen through by its controller; `None` when it has.
    pub(crate) fn unsettled(&self, key: &Key, is_settled: bool, now: Instant) -> Option<Duration> {
        let mut inner = lock(&self.0);
        if is_settled {
            inner.unsettled.remove(key);
            return None;
        }
        let since = *inner.unsettled.entry(key.clone()).or_insert(now);
        Some(now.duration_since(since))
    }

    /// Takes note of a written status.
    pub(crate) fn note_status(&self, uid: &str, resource_version: &str, status: SiemAgentStatus) {
        let number = resource_version.parse().unwrap_or(0);
        lock(&self.0).statuses.insert(uid.to_owned(), (number, status));
    }

    /// The status that was written after the agent was as the watch shows it, with its resourceVersion.
    pub(crate) fn newer_status(
        &self,
        uid: &str,
        shown: Option<&str>,
    ) -> Option<(String, SiemAgentStatus)> {
        let shown = shown.and_then(|shown| shown.parse::<u64>().ok())?;
        let mut inner = lock(&self.0);
        let (number, status) = inner.statuses.get(uid)?;
        if *number > shown {
            return Some((number.to_string(), status.clone()));
        }
        // The watch has it by now; a second copy is half as large as the agent.
        inner.statuses.remove(uid);
        None
    }

    /// Whether the server has something of this name that no watch shows: most likely somebody else's.
    pub(crate) fn set_hidden(&self, key: &Key, which: Owned, is_hidden: bool) {
        let mut inner = lock(&self.0);
        if is_hidden {
            inner.hidden.insert((key.clone(), which));
        } else {
            inner.hidden.remove(&(key.clone(), which));
        }
    }

    /// Whether there was something of this name that no watch shows.
    pub(crate) fn is_hidden(&self, key: &Key, which: Owned) -> bool {
        lock(&self.0).hidden.contains(&(key.clone(), which))
    }

    /// The digest that the Deployment of an agent that waits for its roll-out had when it was first seen or last written.
    pub(crate) fn kept(&self, uid: &str) -> Option<String> {
        lock(&self.0).kept.get(uid).cloned()
    }

    /// Takes note of the Deployment of an agent that waits, unless it is known.
    pub(crate) fn keep(&self, uid: &str, live: &ObservedObject) {
        if let Some(digest) = &live.digest {
            lock(&self.0).kept.entry(uid.to_owned()).or_insert_with(|| digest.clone());
        }
    }

    /// Takes note of what the workload of an agent that waits was last written as.
    pub(crate) fn keep_written(&self, uid: &str, digest: &str) {
        lock(&self.0).kept.insert(uid.to_owned(), digest.to_owned());
    }

    /// What was last written of each of an agent's objects.
    pub(crate) fn written(&self, uid: &str) -> BTreeMap<Owned, Written> {
        let inner = lock(&self.0);
        let written = Owned::ALL.into_iter().filter_map(|which| {
            let Entry { desired, live, at } = inner.applied.get(&(uid.to_owned(), which))?;
            let is_fresh = at.is_some_and(|at| at.elapsed() < FRESH);
            Some((which, Written { desired: desired.clone(), live: live.clone(), is_fresh }))
        });
        written.collect()
    }

    /// Takes note of which agent of this name there is; what an earlier one left is forgotten.
    pub(crate) fn meet(&self, key: &Key, uid: &str) {
        let known = lock(&self.0).uids.get(key).cloned();
        if known.as_deref() == Some(uid) {
            return;
        }
        self.forget(key);
        lock(&self.0).uids.insert(key.clone(), uid.to_owned());
    }

    /// Forgets an agent that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        let mut inner = lock(&self.0);
        inner.hidden.retain(|(of, _)| of != key);
        inner.unsettled.remove(key);
        if let Some(uid) = inner.uids.remove(key) {
            inner.applied.retain(|(of, _), _| *of != uid);
            inner.kept.remove(&uid);
            inner.statuses.remove(&uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_status_counts_until_the_watch_shows_it_and_is_then_not_kept() {
        let expectations = Expectations::default();
        let status = SiemAgentStatus { observed_generation: 3, ..SiemAgentStatus::default() };
        expectations.note_status("u", "10", status);
        let newer = |shown| {
            let (version, status) = expectations.newer_status("u", Some(shown))?;
            Some((version, status.observed_generation))
        };
        assert_eq!(newer("9"), Some(("10".to_owned(), 3)));
        assert_eq!(newer("9"), Some(("10".to_owned(), 3)), "looking takes nothing away");
        assert_eq!(newer("10"), None);
        assert!(lock(&expectations.0).statuses.is_empty());
    }
}
