//! Whose turn it is in the roll-outs, and what is remembered of them: lost with a restart without harm.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::key::Key;
use crate::lock::lock;
use crate::rollout::{Plan, Turn};

/// Everybody's turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pub(crate) inner: Mutex<Inner>,
    /// Something has changed that the plan is made of.
    pub(crate) stir: Notify,
}

/// What the plan is, and what it is made of beside the caches.
#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) plan: Plan,
    /// Since when it has been an agent's turn that has not gone.
    pub(crate) granted: BTreeMap<Key, Instant>,
    /// The release with which the API server refuses an agent's Deployment, and why.
    pub(crate) refused: BTreeMap<Key, (String, String)>,
    /// Forwarders that did not come up: the pod, and why. A crash loop looks well for a moment between two crashes.
    pub(crate) failing: BTreeMap<Key, (String, String)>,
}

impl Turns {
    /// Whether it is an agent's turn.
    pub(crate) fn turn(&self, key: &Key) -> Option<Turn> {
        lock(&self.inner).plan.turns.get(key).cloned()
    }

    /// Whether a roll-out is halted.
    pub(crate) fn is_halted(&self) -> bool {
        !lock(&self.inner).plan.halted.is_empty()
    }

    /// The API server refuses an agent's Deployment of this release.
    pub(crate) fn refuse(&self, key: &Key, release: &str, why: &str) {
        let refused = (release.to_owned(), why.to_owned());
        lock(&self.inner).refused.insert(key.clone(), refused);
        self.stir.notify_one();
    }

    /// The API server takes it.
    pub(crate) fn accept(&self, key: &Key) {
        lock(&self.inner).refused.remove(key);
    }

    /// Forgets an agent that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        let mut inner = lock(&self.inner);
        inner.plan.turns.remove(key);
        inner.granted.remove(key);
        inner.refused.remove(key);
        inner.failing.remove(key);
        self.stir.notify_one();
    }
}
