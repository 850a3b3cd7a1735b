//! Whose checkpoint is written next: each agent's at most once a minute, ten a second in all, and first the one that has
//! waited longest. Pure: instants are arguments.
//!
//! So no agent starves, however many are busy and however many writes fail: of N busy agents each has its turn every
//! max(60 s, N / 10 s).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::key::Key;

/// One agent's checkpoint is not written more often.
const PER_AGENT: Duration = Duration::from_secs(60);
/// Between two writes, all agents together.
const BETWEEN: Duration = Duration::from_millis(100);
/// What failed is not tried again before, and then only behind whoever waits already.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What there is to write now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// This agent's checkpoint; it goes back to [`Limiter::saved`] or one of its like.
    Save(Key),
    /// Nothing before this time.
    At(Instant),
    /// Nothing.
    Idle,
}

#[derive(Debug, Default)]
struct Agent {
    /// Since when it is known that events were delivered which the checkpoint does not know.
    unsaved_since: Option<Instant>,
    /// Its place in the line: from when on it may be written.
    in_line: Option<Instant>,
    is_taken: bool,
    not_before: Option<Instant>,
}

/// Who waits for a write.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    agents: BTreeMap<Key, Agent>,
    line: BTreeSet<(Instant, Key)>,
    next_write: Option<Instant>,
}

impl Limiter {
    /// There is something to write for this agent.
    pub(crate) fn wants(&mut self, key: &Key, now: Instant) {
        let agent = self.agents.entry(key.clone()).or_default();
        agent.unsaved_since.get_or_insert(now);
        if agent.is_taken || agent.in_line.is_some() {
            return;
        }
        let from = agent.not_before.map_or(now, |not_before| not_before.max(now));
        agent.in_line = Some(from);
        self.line.insert((from, key.clone()));
    }

    /// There is nothing to write for this agent.
    pub(crate) fn settled(&mut self, key: &Key) {
        let Some(agent) = self.agents.get_mut(key) else { return };
        agent.unsaved_since = None;
        agent.is_taken = false;
        if let Some(from) = agent.in_line.take() {
            self.line.remove(&(from, key.clone()));
        }
    }

    /// The next write, if one may be made now; it counts as made.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        let Some((from, _)) = self.line.first() else { return Next::Idle };
        let from = self.next_write.map_or(*from, |next| next.max(*from));
        if from > now {
            return Next::At(from);
        }
        let Some((_, key)) = self.line.pop_first() else { return Next::Idle };
        // One that comes late by less than a write does not slow the others down.
        let due =
            self.next_write.map_or(now, |next| next.max(now.checked_sub(BETWEEN).unwrap_or(now)));
        self.next_write = Some(due + BETWEEN);
        if let Some(agent) = self.agents.get_mut(&key) {
            agent.in_line = None;
            agent.is_taken = true;
        }
        Next::Save(key)
    }

    /// It was written.
    pub(crate) fn saved(&mut self, key: &Key, now: Instant) {
        self.settled(key);
        if let Some(agent) = self.agents.get_mut(key) {
            agent.not_before = Some(now + PER_AGENT);
        }
    }

    /// It was not written: it waits anew.
    pub(crate) fn failed(&mut self, key: &Key, now: Instant) {
        self.wait(key, now, AFTER_FAILURE);
    }

    /// It cannot be written as it is: it waits anew, as if it had been.
    pub(crate) fn refused(&mut self, key: &Key, now: Instant) {
        self.wait(key, now, PER_AGENT);
    }

    fn wait(&mut self, key: &Key, now: Instant, wait: Duration) {
        if let Some(agent) = self.agents.get_mut(key) {
            agent.is_taken = false;
            agent.not_before = Some(now + wait);
            self.wants(key, now);
        }
    }

    /// Nobody answers who knows what to write: it leaves the line until there is a report again.
    pub(crate) fn left(&mut self, key: &Key) {
        if let Some(agent) = self.agents.get_mut(key) {
            agent.is_taken = false;
        }
    }

    /// How long delivered events have been missing from the agent's checkpoint; zero where none are.
    pub(crate) fn unsaved_for(&self, key: &Key, now: Instant) -> Duration {
        let since = self.agents.get(key).and_then(|agent| agent.unsaved_since);
        since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// Forgets an agent that is gone.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.settled(key);
        self.agents.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Key {
        Key::new("ns", format!("{n:05}"))
    }

    /// Busy agents, asked every 15 s each at a time of its own; the writes of some fail. When each was tried, in seconds.
    fn tried(n_agents: usize, fails: impl Fn(usize) -> bool, seconds: u64) -> Vec<Vec<f64>> {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let mut tried = vec![Vec::new(); n_agents];
        for tenth in 0..seconds * 10 {
            let now = start + Duration::from_millis(tenth * 100);
            // The last by name are always asked first.
            let asked =
                (0..n_agents).rev().filter(|n| n % 150 == usize::try_from(tenth % 150).unwrap());
            asked.for_each(|n| limiter.wants(&key(n), now));
            while let Next::Save(of) = limiter.next(now) {
                let n: usize = of.name.parse().unwrap();
                tried[n].push(now.duration_since(start).as_secs_f64());
                if fails(n) { limiter.failed(&of, now) } else { limiter.saved(&of, now) }
            }
        }
        tried
    }

    fn longest_wait(times: &[f64], seconds: f64) -> f64 {
        let ends: Vec<_> = [0.0].iter().chain(times).chain(&[seconds]).copied().collect();
        ends.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }

    #[test]
    fn of_five_thousand_busy_agents_each_has_its_turn_every_five_hundred_seconds() {
        let tried = tried(5_000, |_| false, 1_600);
        for times in &tried {
            let longest = longest_wait(times, 1_600.0);
            assert!(longest < 516.0, "{longest} s: {times:?}");
            assert!(times.windows(2).all(|pair| pair[1] - pair[0] > 59.9), "{times:?}");
        }
        let n_writes: usize = tried.iter().map(Vec::len).sum();
        assert!((15_900..=16_001).contains(&n_writes), "{n_writes}");
    }

    #[test]
    fn few_agents_wait_a_minute_and_writes_that_fail_hold_nobody_up() {
        for times in tried(300, |_| false, 400) {
            let longest = longest_wait(&times, 400.0);
            assert!(longest < 76.0, "{longest} s: {times:?}");
        }
        // They are tried every ten seconds and would take every write that there is.
        let tried = tried(400, |n| n >= 300, 400);
        for times in &tried[..300] {
            let longest = longest_wait(times, 400.0);
            assert!(longest < 100.0, "{longest} s: {times:?}");
        }
    }

    #[test]
    fn what_was_delivered_is_unsaved_until_it_is_written_or_there_is_nothing_to_write() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let unsaved =
            |limiter: &Limiter, second| limiter.unsaved_for(&key(1), at(second)).as_secs();
        assert_eq!(limiter.next(at(0)), Next::Idle);
        limiter.wants(&key(1), at(0));
        assert_eq!(limiter.next(at(5)), Next::Save(key(1)));
        limiter.wants(&key(1), at(5));
        assert_eq!(
            (limiter.next(at(5)), unsaved(&limiter, 7)),
            (Next::Idle, 7),
            "it is being written"
        );
        limiter.failed(&key(1), at(7));
        assert_eq!((limiter.next(at(8)), unsaved(&limiter, 8)), (Next::At(at(17)), 8));
        assert_eq!(limiter.next(at(17)), Next::Save(key(1)));
        limiter.saved(&key(1), at(17));
        assert_eq!(unsaved(&limiter, 20), 0);
        limiter.wants(&key(1), at(20));
        limiter.wants(&key(1), at(35));
        assert_eq!((limiter.next(at(36)), unsaved(&limiter, 36)), (Next::At(at(77)), 16));
        limiter.settled(&key(1));
        assert_eq!((limiter.next(at(99)), unsaved(&limiter, 99)), (Next::Idle, 0));
        limiter.wants(&key(1), at(99));
        assert_eq!(limiter.next(at(99)), Next::Save(key(1)));
        limiter.left(&key(1));
        assert_eq!((limiter.next(at(200)), unsaved(&limiter, 200)), (Next::Idle, 101));
        limiter.wants(&key(1), at(200));
        assert_eq!(limiter.next(at(200)), Next::Save(key(1)));
        limiter.refused(&key(1), at(200));
        assert_eq!((limiter.next(at(201)), unsaved(&limiter, 201)), (Next::At(at(260)), 102));
        limiter.forget(&key(1));
        assert_eq!(limiter.next(at(99)), Next::Idle);
    }
}
