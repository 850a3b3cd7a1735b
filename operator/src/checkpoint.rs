//! The checkpoints that are kept for forwarders: `decide` says what is worth a write and what it says then, `limiter` whose is
//! written next. Here is the line of those that wait.

pub(crate) mod decide;
pub(crate) mod limiter;

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::limiter::Limiter;
use crate::key::Key;
use crate::lock::lock;

/// The line of those that wait for a write.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    pub(crate) limiter: Mutex<Limiter>,
    pub(crate) wake: Notify,
}

impl Keeper {
    /// How long delivered events have been missing from the agent's checkpoint; zero where none are.
    pub(crate) fn unsaved_for(&self, key: &Key, now: Instant) -> Duration {
        lock(&self.limiter).unsaved_for(key, now)
    }

    /// Forgets an agent that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        lock(&self.limiter).forget(key);
    }
}
