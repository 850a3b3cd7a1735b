//! What is to be reconciled, and when: each agent at most once at a time, never lost, failures further and further apart.
//! The queue is pure: instants are arguments. The names of its numbers are those of client-go's work queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::key::Key;
use crate::lock::lock;

/// The first wait after a failure; it doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// No wait is longer.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5 * 60);

/// Of those that go first so many are taken one after the other while somebody else waits.
const FIRST_IN_A_ROW: u32 = 7;

/// Agents that are reconciled at once.
pub(crate) const WORKERS: usize = 16;

/// A queue of agents.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// When each waiting agent is due.
    due: BTreeMap<Key, Instant>,
    by_time: BTreeSet<(Instant, Key)>,
    /// Those that go first: nobody has done anything for them yet.
    first_by_time: BTreeSet<(Instant, Key)>,
    n_first_in_a_row: u32,
    /// Agents that are being reconciled, and since when.
    active: BTreeMap<Key, Instant>,
    /// What came in for an active agent: it is due again at this time.
    again: BTreeMap<Key, Instant>,
    failures: BTreeMap<Key, u32>,
    /// How often anything was put in.
    pub(crate) n_adds: u64,
    /// How often a failure was put back.
    pub(crate) n_retries: u64,
}

impl Queue {
    /// Makes an agent due at this time, or earlier if it already is.
    pub(crate) fn add(&mut self, key: Key, at: Instant) {
        if self.active.contains_key(&key) {
            let earliest = self.again.get(&key).map_or(at, |there| at.min(*there));
            self.again.insert(key, earliest);
            return;
        }
        if let Some(there) = self.due.get(&key) {
            if *there <= at {
                return;
            }
            let waiting = (*there, key.clone());
            self.by_time.remove(&waiting);
            if self.first_by_time.remove(&waiting) {
                self.first_by_time.insert((at, key.clone()));
                self.due.insert(key, at);
                return;
            }
        } else {
            self.n_adds += 1;
        }
        self.by_time.insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// Makes an agent due at this time, before others that are due: a new one is not held up by what others write of
    /// themselves. An active one is due again like any other.
    pub(crate) fn add_first(&mut self, key: Key, at: Instant) {
        self.add(key.clone(), at);
        if let Some(due) = self.due.get(&key) {
            let waiting = (*due, key);
            if self.by_time.remove(&waiting) {
                self.first_by_time.insert(waiting);
            }
        }
    }

    /// Makes an agent due at this time, unless its last reconcile failed: then it keeps its wait, whatever else is heard of it.
    pub(crate) fn add_unless_failing(&mut self, key: Key, at: Instant) {
        if !self.failures.contains_key(&key) {
            self.add(key, at);
        }
    }

    /// Takes the agent that has been due the longest, and since when it has been. Those that go first are taken before the
    /// others, which have at least every eighth turn.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(Key, Instant)> {
        let is_due =
            |waiting: &BTreeSet<(Instant, Key)>| waiting.first().is_some_and(|(at, _)| *at <= now);
        let (has_first, has_other) = (is_due(&self.first_by_time), is_due(&self.by_time));
        let takes_first = has_first && !(has_other && self.n_first_in_a_row >= FIRST_IN_A_ROW);
        let (at, key) = if takes_first {
            self.n_first_in_a_row = self.n_first_in_a_row.saturating_add(1);
            self.first_by_time.pop_first()?
        } else if has_other {
            self.n_first_in_a_row = 0;
            self.by_time.pop_first()?
        } else {
            return None;
        };
        self.due.remove(&key);
        self.active.insert(key.clone(), now);
        Some((key, at))
    }

    /// When the next agent is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let next = [self.first_by_time.first(), self.by_time.first()];
        next.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// An agent is done; it is due again at this time at the latest.
    pub(crate) fn done(&mut self, key: Key, again: Option<Instant>) {
        self.active.remove(&key);
        let asked = self.again.remove(&key);
        if let Some(at) = [asked, again].into_iter().flatten().min() {
            self.add(key, at);
        }
    }

    /// It went well.
    pub(crate) fn succeeded(&mut self, key: &Key) {
        self.failures.remove(key);
    }

    /// It failed: how long to wait, before `jitter` (0 to 1) is taken off up to a quarter of it.
    pub(crate) fn failed(&mut self, key: &Key, jitter: f64) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let wait = FIRST_BACKOFF.saturating_mul(1 << (*failures).min(9)).min(LONGEST_BACKOFF);
        *failures += 1;
        self.n_retries += 1;
        wait.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
    }

    /// How many are due and wait.
    pub(crate) fn depth(&self, now: Instant) -> usize {
        let due = |waiting: &BTreeSet<(Instant, Key)>| {
            waiting.iter().take_while(|(at, _)| *at <= now).count()
        };
        due(&self.first_by_time) + due(&self.by_time)
    }

    /// How long each active one has been so.
    pub(crate) fn active(&self, now: Instant) -> impl Iterator<Item = Duration> + '_ {
        self.active.values().map(move |since| now.duration_since(*since))
    }
}

/// The queue and what wakes its workers.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) queue: Mutex<Queue>,
    /// Something is due, or room for it.
    pub(crate) wake: Notify,
    /// The shares have to be counted again.
    pub(crate) recount: Notify,
}

impl Work {
    /// Makes an agent due.
    pub(crate) fn add(&self, key: Key, at: Instant) {
        lock(&self.queue).add(key, at);
        self.wake.notify_one();
    }

    /// Makes an agent due before others.
    pub(crate) fn add_first(&self, key: Key, at: Instant) {
        lock(&self.queue).add_first(key, at);
        self.wake.notify_one();
    }

    /// Makes an agent due now, unless its last reconcile failed: then it waits its time.
    pub(crate) fn add_unless_failing(&self, key: Key, at: Instant) {
        lock(&self.queue).add_unless_failing(key, at);
        self.wake.notify_one();
    }

    /// Makes these due at once.
    pub(crate) fn add_now(&self, keys: Vec<Key>) {
        let now = Instant::now();
        for key in keys {
            self.add(key, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[test]
    fn one_agent_is_never_taken_twice_at_once_and_nothing_is_lost() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add(key("a"), now);
        queue.add(key("a"), now + Duration::from_secs(9));
        assert_eq!(queue.take(now).unwrap().0, key("a"));
        queue.add(key("a"), now);
        assert_eq!(queue.take(now), None);
        queue.done(key("a"), Some(now + Duration::from_secs(60)));
        assert_eq!(queue.next_due(), Some(now));
        assert_eq!(queue.take(now).unwrap().0, key("a"));
        queue.done(key("a"), None);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn new_agents_go_first_and_the_others_have_every_eighth_turn() {
        let now = Instant::now();
        let mut queue = Queue::default();
        (0..10).for_each(|n| queue.add(key(&format!("old{n}")), now));
        (0..20).for_each(|n| queue.add_first(key(&format!("new{n:02}")), now));
        assert_eq!(queue.depth(now), 30);
        let mut taken = Vec::new();
        while let Some((key, _)) = queue.take(now) {
            taken.push(key.name);
        }
        assert_eq!(taken.len(), 30);
        let is_old = |name: &String| name.starts_with("old");
        let turns: Vec<_> = (0..30).filter(|n| is_old(&taken[*n])).collect();
        assert_eq!(turns[..3], [7, 15, 22], "{taken:?}");
        // One that is active is due again like any other.
        queue.add_first(key("new00"), now);
        queue.add(key("old0"), now);
        queue.done(key("old0"), None);
        queue.done(key("new00"), None);
        assert_eq!(queue.take(now).unwrap().0, key("new00"));
        assert_eq!(queue.take(now).unwrap().0, key("old0"));
    }

    #[test]
    fn one_that_goes_first_keeps_its_place_when_it_is_due_earlier() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut queue = Queue::default();
        queue.add_first(key("new"), later);
        queue.add(key("a-old-one"), now);
        queue.add(key("new"), now);
        assert_eq!((queue.depth(now), queue.next_due()), (2, Some(now)));
        assert_eq!(queue.take(now), Some((key("new"), now)));
        assert_eq!(queue.take(now), Some((key("a-old-one"), now)));
        assert_eq!((queue.take(later), queue.next_due()), (None, None));
    }

    #[test]
    fn the_earlier_time_wins() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let mut queue = Queue::default();
        queue.add(key("a"), later);
        assert_eq!((queue.take(now), queue.depth(now)), (None, 0));
        queue.add(key("a"), now);
        assert_eq!(queue.depth(now), 1);
        assert_eq!(queue.take(now), Some((key("a"), now)));
    }

    #[test]
    fn what_is_heard_of_a_failing_agent_does_not_shorten_its_wait() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add_unless_failing(key("a"), now);
        queue.take(now).unwrap();
        let wait = queue.failed(&key("a"), 0.0);
        queue.add_unless_failing(key("a"), now);
        queue.done(key("a"), Some(now + wait));
        queue.add_unless_failing(key("a"), now);
        assert_eq!(queue.next_due(), Some(now + wait));
        queue.add(key("a"), now);
        assert_eq!(queue.next_due(), Some(now), "a change of its object does");
        queue.take(now).unwrap();
        queue.succeeded(&key("a"));
        queue.done(key("a"), None);
        queue.add_unless_failing(key("a"), now);
        assert_eq!(queue.next_due(), Some(now));
    }

    #[test]
    fn failures_wait_longer_and_longer_within_bounds_and_start_over_after_a_success() {
        let mut queue = Queue::default();
        let waits: Vec<_> = (0..12).map(|_| queue.failed(&key("a"), 0.0)).collect();
        assert_eq!(waits[0], FIRST_BACKOFF);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(*waits.last().unwrap(), LONGEST_BACKOFF);
        assert!(queue.failed(&key("a"), 1.0) >= LONGEST_BACKOFF.mul_f64(0.74));
        assert_eq!(queue.failed(&key("b"), 0.0), FIRST_BACKOFF);
        queue.succeeded(&key("a"));
        assert_eq!(queue.failed(&key("a"), 0.0), FIRST_BACKOFF);
    }
}
