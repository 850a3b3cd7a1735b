//! How often checkpoints are written: each agent's at most once a minute, ten a second in all. Instants are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::budget::Key;

/// One agent's checkpoint is not written more often.
const PER_AGENT: Duration = Duration::from_secs(60);
/// Writes a second, all agents together.
const PER_SECOND: u32 = 10;

/// When which agent's checkpoint was written last.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: BTreeMap<Key, Instant>,
    second: Option<Instant>,
    n_in_second: u32,
}

impl Pace {
    /// Whether this agent's checkpoint may be written at this time; if so, it counts as written.
    pub(crate) fn admit(&mut self, key: &Key, now: Instant) -> bool {
        self.last.retain(|_, last| now.duration_since(*last) < PER_AGENT);
        if self.last.contains_key(key) {
            return false;
        }
        match self.second {
            Some(second) if now.duration_since(second) < Duration::from_secs(1) => {
                if self.n_in_second >= PER_SECOND {
                    return false;
                }
                self.n_in_second += 1;
            }
            Some(_) | None => {
                self.second = Some(now);
                self.n_in_second = 1;
            }
        }
        self.last.insert(key.clone(), now);
        true
    }

    /// The write did not succeed: it may be tried again at once.
    pub(crate) fn retract(&mut self, key: &Key) {
        self.last.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_paced_by_agent_and_altogether() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let key = |n: u32| ("ns".to_owned(), n.to_string());
        let n_admitted = (0..30).filter(|n| pace.admit(&key(*n), start)).count();
        assert_eq!(n_admitted, 10);
        assert!(!pace.admit(&key(0), start + Duration::from_secs(59)));
        assert!(pace.admit(&key(0), start + Duration::from_secs(60)));
        assert!(pace.admit(&key(20), start + Duration::from_secs(60)));
        pace.retract(&key(20));
        assert!(pace.admit(&key(20), start + Duration::from_secs(60)));
    }
}
