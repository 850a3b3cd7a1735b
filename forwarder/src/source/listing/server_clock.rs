//! The time of day at the API, believed only where several answers agree. Pure.
//!
//! An answer's `Date` (RFC 9110, section 6.6.1) may be wrong: a node of a pool with a bad clock, a cache on the way, a
//! peer that lies. So one answer decides nothing. The dates of the last answers are laid beside the steady clock of
//! this machine, and the largest group that agrees is believed when it is large enough, or when the time of day of this
//! machine agrees with it. Three times follow, from the boldest to the most careful:
//!
//! - [`ServerClock::now`]: the server's time, for the watermark and the lag.
//! - [`ServerClock::limit`]: nothing that a record says of a later time is believed.
//! - [`ServerClock::sure`]: a time that has passed by the server's clock and by ours, for what may be forgotten.

use std::collections::VecDeque;

use crate::time::{Millis, Now, PLAUSIBLE};

/// Answers that are remembered.
const REMEMBERED: usize = 8;
/// Dates agree when they differ by at most this much; a date knows whole seconds only.
const TOLERANCE: Millis = 5_000;
/// Without the agreement of this machine's clock, this many answers have to agree, over this long.
const ENOUGH: usize = 3;
const LONG_ENOUGH: Millis = 5_000;
/// This machine's time of day agrees with the server's when they differ by at most this much.
const NEAR: Millis = 60_000;
/// Further apart than this, the earlier of the two clocks is taken: one of them is in another year.
const FAR: Millis = 24 * 3_600_000;
/// What one answer's date was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The answer had no date.
    Nothing,
    /// It agrees with what is believed, or nothing is believed yet.
    Agrees,
    /// It differs from what is believed, and changes nothing.
    Differs,
}

/// Where the server's clock lay beside our steady one, by one answer.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Millis,
    low: Millis,
    high: Millis,
}

impl Sample {
    fn agrees_with(&self, other: &Self) -> bool {
        self.low <= other.high + TOLERANCE && other.low <= self.high + TOLERANCE
    }
}

/// The server's clock beside ours.
#[derive(Debug, Clone, Default)]
pub struct ServerClock {
    samples: VecDeque<Sample>,
}

impl ServerClock {
    /// Takes the date of a whole answer; `asked` and `answered` are times of the steady clock.
    pub fn hear(&mut self, asked: Millis, answered: Now, date: Option<Millis>) -> Heard {
        let Some(date) = date else { return Heard::Nothing };
        if date < PLAUSIBLE {
            return Heard::Differs;
        }
        let (low, high) = (date - answered.steady, date + 999 - asked);
        let sample = Sample { at: answered.steady, low, high: high.max(low) };
        if self.samples.len() == REMEMBERED {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        match self.believed(answered) {
            Some(offset) if !(low - TOLERANCE <= offset && offset <= high + TOLERANCE) => {
                Heard::Differs
            }
            Some(_) | None => Heard::Agrees,
        }
    }

    /// Whether dates have come and nothing is believed: another answer would help.
    pub fn is_undecided(&self, now: Now) -> bool {
        !self.samples.is_empty() && self.believed(now).is_none()
    }

    /// The server's clock minus this machine's time of day; `None` while nothing is believed.
    pub fn skew(&self, now: Now) -> Option<Millis> {
        self.believed(now).map(|offset| offset - now.offset())
    }

    /// The server's time, never ahead of it by what is believed. Where the two clocks are more than a day apart, the
    /// earlier one.
    pub fn now(&self, now: Now) -> Option<Millis> {
        let server = self.believed(now)?.saturating_add(now.steady);
        let ours = now.time_of_day();
        Some(ours.filter(|ours| server - ours > FAR).unwrap_or(server))
    }

    /// No record is believed to be of a later time than this: while nothing is believed, the earliest time that any
    /// clock gives.
    pub fn limit(&self, now: Now) -> Option<Millis> {
        let heard = self.samples.iter().map(|sample| sample.low.saturating_add(now.steady));
        self.now(now).or_else(|| heard.chain(now.time_of_day()).min())
    }

    /// A time that had passed at the moment `steady`, whichever of the two clocks is right. `None` while nothing is
    /// believed, or this machine has not found the time yet.
    pub fn sure(&self, now: Now, steady: Millis) -> Option<Millis> {
        let server = self.believed(now)?.saturating_add(steady);
        Some(server.min(now.time_of_day()? - (now.steady - steady)))
    }

    /// What is added to the steady clock to get the server's time.
    fn believed(&self, now: Now) -> Option<Millis> {
        let group = |sample: &Sample| -> Vec<Sample> {
            self.samples.iter().filter(|other| sample.agrees_with(other)).copied().collect()
        };
        let group = self.samples.iter().map(group).max_by_key(Vec::len)?;
        let (n_agreeing, n_all) = (group.len(), self.samples.len());
        let low = group.iter().map(|sample| sample.low).min()?;
        let high = group.iter().map(|sample| sample.high).max()?;
        let began = group.iter().map(|sample| sample.at).min()?;
        let ended = group.iter().map(|sample| sample.at).max()?;
        let ours = now.time_of_day().map(|_| now.offset());
        if n_agreeing >= ENOUGH && 2 * n_agreeing > n_all && ended - began >= LONG_ENOUGH {
            return Some(low);
        }
        let ours = ours.filter(|ours| low - NEAR <= *ours && *ours <= high + NEAR)?;
        (2 * n_agreeing >= n_all).then(|| low.min(ours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Millis = 1_790_000_000_000;

    /// A moment `seconds` after noon by the steady clock, with ours this far off.
    fn at(seconds: Millis, wrong_by: Millis) -> Now {
        Now { steady: seconds * 1_000, wall: NOON + seconds * 1_000 + wrong_by }
    }

    fn hear(clock: &mut ServerClock, seconds: Millis, wrong_by: Millis, ours: Millis) -> Heard {
        let date = NOON + seconds * 1_000 + wrong_by;
        clock.hear(seconds * 1_000 - 20, at(seconds, ours), Some(date / 1_000 * 1_000))
    }

    #[test]
    fn one_answer_is_believed_only_where_our_clock_agrees() {
        let hour = 3_600_000;
        let mut clock = ServerClock::default();
        assert_eq!(hear(&mut clock, 10, 0, 0), Heard::Agrees);
        assert_eq!(clock.now(at(10, 0)), Some(NOON + 10_000));
        let mut clock = ServerClock::default();
        hear(&mut clock, 10, hour, 0);
        assert_eq!(clock.now(at(10, 0)), None);
        assert!(clock.is_undecided(at(10, 0)));
        assert_eq!(clock.limit(at(10, 0)), Some(NOON + 10_000), "ours, for want of a better one");
        hear(&mut clock, 14, hour, 0);
        assert_eq!(clock.now(at(14, 0)), None);
        hear(&mut clock, 18, hour, 0);
        assert_eq!(clock.now(at(18, 0)), Some(NOON + 18_000 + hour), "three agree: ours is wrong");
        assert_eq!(clock.sure(at(18, 0), 18_000), Some(NOON + 18_000), "both have passed this");
        assert_eq!(clock.skew(at(18, 0)), Some(hour));
    }

    #[test]
    fn two_answers_one_moment_or_a_minority_decide_nothing() {
        let hour = 3_600_000;
        let mut clock = ServerClock::default();
        for seconds in [10, 40] {
            hear(&mut clock, seconds, hour, 0);
            assert_eq!(clock.now(at(seconds, 0)), None, "two answers, however far apart");
        }
        let mut clock = ServerClock::default();
        for millis in [10_000, 11_000, 12_000, 13_000] {
            let now = Now { steady: millis, wall: NOON + millis };
            clock.hear(millis - 20, now, Some(NOON + millis + hour));
            assert_eq!(clock.now(now), None, "a cache that gives the same answer at once");
        }
        let mut clock = ServerClock::default();
        for (index, wrong_by) in (0..).zip([1, 2, 1, 3, 1, 4, 5, 6]) {
            hear(&mut clock, 10 + 4 * index, wrong_by * hour, 0);
        }
        assert_eq!(clock.now(at(38, 0)), None, "three of eight");
    }

    #[test]
    fn a_node_with_a_wrong_clock_changes_nothing() {
        for wrong_by in [-7 * 3_600_000, -20_000, 20_000, 3_600_000, 73 * 365 * 86_400_000] {
            for ours in [0, -500_000, 500_000] {
                let mut clock = ServerClock::default();
                for answer in 1..40 {
                    let is_wrong = answer % 4 == 0;
                    let wrong = if is_wrong { wrong_by } else { 0 };
                    let heard = hear(&mut clock, 4 * answer, wrong, ours);
                    let now = at(4 * answer, ours);
                    if answer > 4 {
                        assert_eq!(heard == Heard::Differs, is_wrong, "{wrong_by} {ours}");
                        let told = clock.now(now).unwrap();
                        let off = NOON + now.steady - told;
                        assert!(
                            (0..1_500).contains(&off),
                            "{off} ms behind with {wrong_by} {ours}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_year_that_cannot_be_is_no_time() {
        let mut clock = ServerClock::default();
        for answer in 1..20 {
            let heard = clock.hear(answer * 4_000, at(answer * 4, 0), Some(answer * 4_000));
            assert_eq!(heard, Heard::Differs);
        }
        assert_eq!(clock.now(at(80, 0)), None);
        let in_1970 = Now { steady: 80_000, wall: 80_000 };
        assert_eq!(clock.limit(in_1970), None);
        // Every node says 2099: it is believed, but ours limits it.
        let mut clock = ServerClock::default();
        for answer in 1..20 {
            hear(&mut clock, answer * 4, 73 * 365 * 86_400_000, 0);
        }
        assert_eq!(clock.now(at(76, 0)), Some(NOON + 76_000));
    }

    #[test]
    fn a_clock_that_was_set_right_is_followed_after_a_few_answers() {
        let mut clock = ServerClock::default();
        for answer in 1..10 {
            hear(&mut clock, answer * 4, 3_600_000, -7_200_000);
        }
        let mut needed = 0;
        for answer in 10..20 {
            hear(&mut clock, answer * 4, 0, -7_200_000);
            let now = at(answer * 4, -7_200_000);
            if clock.now(now).is_none_or(|told| told > NOON + now.steady) {
                needed += 1;
            }
        }
        assert!((2..6).contains(&needed), "{needed} answers");
    }

    #[test]
    fn drift_is_followed() {
        // The server's clock runs one part in a thousand faster, then slower.
        for pace in [1, -1] {
            let mut clock = ServerClock::default();
            for answer in 1..2_000 {
                hear(&mut clock, answer * 4, pace * answer * 4, 900_000);
                let now = at(answer * 4, 900_000);
                if answer > 4 {
                    let off = NOON + now.steady + pace * answer * 4 - clock.now(now).unwrap();
                    assert!((0..1_500).contains(&off), "{off} ms behind");
                }
            }
        }
    }
}
