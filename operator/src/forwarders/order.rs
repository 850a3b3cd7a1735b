//! Whose turn it is to be asked for its report. Pure: instants are arguments, and nothing is asked here.
//!
//! A ready agent is asked every 15 s, at a time of its own within them; any other one every 5 s. A forwarder that does not
//! answer holds its asker for a whole time-out: it is asked less and less often, and together the silent ones have a lane
//! of their own, so that the others are asked as if there were none. Both lanes are bounded, and so are the sockets.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::drift;
use crate::key::Key;

/// How often a ready agent is asked.
const INTERVAL: Duration = Duration::from_secs(15);
/// How often one is that is not ready.
const INTERVAL_OF_TROUBLE: Duration = Duration::from_secs(5);
/// How seldom a silent one is asked at last.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// Forwarders that are asked at once and answered when last asked, or were never asked.
const PROMPT_AT_ONCE: usize = 256;
/// Forwarders that are asked at once and did not answer when last asked.
const SILENT_AT_ONCE: usize = 64;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) key: Key,
    pub(crate) agent_uid: String,
    pub(crate) pod_uid: String,
    pub(crate) address: String,
    /// Whether all is well, so that there is no hurry.
    pub(crate) is_ready: bool,
}

/// A target whose turn it is; it goes back to [`Turns::done`].
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) target: Target,
    is_silent: bool,
}

/// Those that wait for their turn, and those that are being asked.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Target>,
    n_asked: usize,
}

/// What is known of a target.
#[derive(Debug)]
struct Entry {
    agent_uid: String,
    pod_uid: String,
    address: String,
    due: Instant,
    is_asked: bool,
    was_ready: bool,
    /// How often in succession it has not answered.
    n_silent: u32,
}

/// Every target's next turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    entries: BTreeMap<Key, Entry>,
    prompt: Lane,
    silent: Lane,
}

impl Turns {
    /// Whom there is to ask now. Another pod is asked at once, and so is one that has become ready again.
    pub(crate) fn offer(&mut self, targets: Vec<Target>, now: Instant) {
        let mut known = std::mem::take(&mut self.entries);
        let mut due = Vec::new();
        for target in targets {
            let entry = known
                .remove(&target.key)
                .filter(|entry| entry.is_of(&target))
                .unwrap_or_else(|| Entry::new(&target, now));
            if !entry.is_asked && entry.due <= now {
                due.push((entry.due, !target.is_ready, entry.n_silent > 0, target.clone()));
            }
            self.entries.insert(target.key, entry);
        }
        // Who has waited longest comes first, and of a new operator's agents those that were ready.
        due.sort_by_key(|one| (one.0, one.1));
        self.prompt.waiting.clear();
        self.silent.waiting.clear();
        for (.., is_silent, target) in due {
            self.lane(is_silent).waiting.push_back(target);
        }
    }

    /// The next to be asked, if another one may be asked now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Turn> {
        for (is_silent, at_once) in [(false, PROMPT_AT_ONCE), (true, SILENT_AT_ONCE)] {
            let lane = self.lane(is_silent);
            if lane.n_asked >= at_once {
                continue;
            }
            let Some(target) = lane.waiting.pop_front() else { continue };
            lane.n_asked += 1;
            if let Some(entry) = self.entries.get_mut(&target.key) {
                entry.is_asked = true;
                entry.due = now + wait(&target, entry.was_ready);
                entry.was_ready = target.is_ready;
            }
            return Some(Turn { target, is_silent });
        }
        None
    }

    /// A turn is over.
    pub(crate) fn done(&mut self, turn: &Turn, has_answered: bool, now: Instant) {
        let lane = self.lane(turn.is_silent);
        lane.n_asked = lane.n_asked.saturating_sub(1);
        let entry = self.entries.get_mut(&turn.target.key);
        let Some(entry) = entry.filter(|entry| entry.is_of(&turn.target)) else { return };
        entry.is_asked = false;
        if has_answered {
            entry.n_silent = 0;
        } else {
            entry.n_silent = entry.n_silent.saturating_add(1);
            let factor = 2_u32.saturating_pow(entry.n_silent - 1);
            entry.due = now + INTERVAL_OF_TROUBLE.saturating_mul(factor).min(LONGEST_SILENCE);
        }
    }

    fn lane(&mut self, is_silent: bool) -> &mut Lane {
        if is_silent { &mut self.silent } else { &mut self.prompt }
    }
}

impl Entry {
    fn new(target: &Target, now: Instant) -> Self {
        Self {
            agent_uid: target.agent_uid.clone(),
            pod_uid: target.pod_uid.clone(),
            address: target.address.clone(),
            due: now,
            is_asked: false,
            was_ready: false,
            n_silent: 0,
        }
    }

    fn is_of(&self, target: &Target) -> bool {
        self.pod_uid == target.pod_uid
            && self.agent_uid == target.agent_uid
            && self.address == target.address
    }
}

/// The first wait of a ready agent is a part of the interval that its UID decides, so that the rest are spread.
fn wait(target: &Target, was_ready: bool) -> Duration {
    if !target.is_ready {
        return INTERVAL_OF_TROUBLE;
    }
    if was_ready {
        return INTERVAL;
    }
    let digest = drift::hex(&target.agent_uid);
    let part = u32::from_str_radix(digest.get(..4).unwrap_or_default(), 16).unwrap_or(0);
    INTERVAL.mul_f64(f64::from(part) / 65_536.0) + Duration::from_secs(1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn target(name: &str, is_ready: bool) -> Target {
        Target {
            key: Key::new("ns", name),
            agent_uid: format!("uid-{name}"),
            pod_uid: "pod".to_owned(),
            address: "127.0.0.1".to_owned(),
            is_ready,
        }
    }

    /// Asks all whose turn it is; each answers, or not, at once.
    fn ask(turns: &mut Turns, targets: &[Target], has_answered: bool, now: Instant) -> usize {
        turns.offer(targets.to_vec(), now);
        let asked: Vec<_> = std::iter::from_fn(|| turns.next(now)).collect();
        asked.iter().for_each(|turn| turns.done(turn, has_answered, now));
        asked.len()
    }

    #[test]
    fn ready_agents_are_asked_at_times_of_their_own() {
        let mut turns = Turns::default();
        let targets: Vec<_> = (0..250).map(|n| target(&format!("a{n}"), true)).collect();
        let start = Instant::now();
        assert_eq!(ask(&mut turns, &targets, true, start), 250);
        let mut n_asked = Vec::new();
        for second in 1..=31 {
            n_asked.push(ask(&mut turns, &targets, true, start + Duration::from_secs(second)));
        }
        assert!(n_asked.iter().all(|n| *n < 40), "{n_asked:?}");
        assert!(n_asked[16..].iter().sum::<usize>() >= 249, "{n_asked:?}");
    }

    #[test]
    fn a_silent_forwarder_is_asked_less_and_less_often_until_it_answers_or_its_pod_is_another() {
        let mut turns = Turns::default();
        let first = target("a", true);
        let start = Instant::now();
        let mut asked_at = |targets: &[Target], seconds: std::ops::Range<u64>, answers: bool| {
            let at = |second| start + Duration::from_secs(second);
            seconds
                .filter(|second| ask(&mut turns, targets, answers, at(*second)) > 0)
                .collect::<Vec<_>>()
        };
        let silent = [first.clone()];
        assert_eq!(asked_at(&silent, 0..260, false), [0, 5, 15, 35, 75, 135, 195, 255]);
        // One answer, and it is asked as before.
        assert_eq!(asked_at(&silent, 260..345, true), [315, 330]);
        assert_eq!(asked_at(&silent, 345..400, false), [345, 350, 360, 380]);
        let another = [Target { pod_uid: "other".to_owned(), ..first.clone() }];
        assert_eq!(asked_at(&another, 400..408, false), [400, 405]);
        let elsewhere = [Target { address: "127.0.0.2".to_owned(), ..another[0].clone() }];
        assert_eq!(asked_at(&elsewhere, 408..414, false), [408, 413]);
        // It was not ready in between.
        assert_eq!(asked_at(&[], 414..415, false), [0_u64; 0]);
        assert_eq!(asked_at(&elsewhere, 415..416, false), [415]);
    }

    #[test]
    fn the_silent_never_take_the_place_of_others_and_both_are_bounded() {
        let mut turns = Turns::default();
        let now = Instant::now();
        let silent: Vec<_> = (0..1_000).map(|n| target(&format!("s{n:04}"), false)).collect();
        while ask(&mut turns, &silent, false, now) > 0 {}
        let others: Vec<_> = (0..1_000).map(|n| target(&format!("t{n:04}"), true)).collect();
        let all: Vec<_> = silent.iter().chain(&others).cloned().collect();
        let now = now + Duration::from_secs(6);
        turns.offer(all, now);
        let mut asked: Vec<_> = std::iter::from_fn(|| turns.next(now)).collect();
        let n_silent = asked.iter().filter(|turn| turn.is_silent).count();
        assert_eq!((n_silent, asked.len()), (SILENT_AT_ONCE, SILENT_AT_ONCE + PROMPT_AT_ONCE));
        assert!(asked.len() - n_silent >= 128);
        // No silent one has answered, and every other one has its turn.
        asked.retain(|turn| !turn.is_silent);
        let mut n_others = 0;
        while let Some(turn) = asked.pop() {
            turns.done(&turn, true, now);
            n_others += 1;
            asked.extend(turns.next(now));
        }
        assert_eq!(n_others, 1_000);
    }

    #[test]
    fn nobody_is_asked_twice_at_once_and_a_late_end_is_of_no_other_pod() {
        let mut turns = Turns::default();
        let now = Instant::now();
        let first = target("a", false);
        turns.offer(vec![first.clone()], now);
        let slow = turns.next(now).unwrap();
        let later = now + Duration::from_secs(30);
        turns.offer(vec![first.clone()], later);
        assert!(turns.next(later).is_none());
        let second = Target { pod_uid: "other".to_owned(), ..first };
        turns.offer(vec![second.clone()], later);
        let turn = turns.next(later).unwrap();
        turns.done(&slow, false, later);
        turns.done(&turn, true, later);
        let next = later + INTERVAL_OF_TROUBLE;
        turns.offer(vec![second], next);
        assert!(turns.next(next).is_some_and(|turn| !turn.is_silent));
    }
}
