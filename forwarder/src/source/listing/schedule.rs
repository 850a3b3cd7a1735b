//! When a stream is polled, and from where each poll looks. Pure: times of the steady clock are arguments.
//!
//! A poll asks for what is new and for what may still appear late. Where that holds more than half a page, reading all
//! of it every few seconds would spend the budget on what is known: a poll then asks again for the newest records only,
//! and a rescan, page by page between the polls, reads the rest. Alerts are listed by the time at which they happened
//! and come late by hours; a poll looks ten minutes back, and a rescan every quarter of an hour reads the whole day.

use std::time::Duration;

use super::cursor::Cursor;
use crate::event::Stream;
use crate::source::purpose::Purpose;
use crate::time::{Millis, millis};

/// Each poll of alerts looks this far back.
const ALERT_OVERLAP: Millis = 10 * 60_000;
/// A rescan of alerts reads all that may still come: alerts are late by a day at most.
const ALERT_RESCAN_INTERVAL: Millis = 15 * 60_000;
const ALERTS_ARE_LATE: Millis = 24 * 3_600_000;
/// A poll of activities asks again for this many known ones at most: less than half a page of 5,000.
const KNOWN_AGAIN: usize = 2_000;
/// While the server's clock is not known, the next poll comes after this long at the latest, this many times.
const CLOCK_LOOK: Millis = 5_000;
const CLOCK_LOOKS: u32 = 8;

/// What is asked next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollKind {
    /// What is new, and as much of what may come late as fits.
    Poll,
    /// Begin to read all that may come late, at low priority.
    Rescan,
    /// The next page of the rescan that was begun.
    RescanPage,
}

impl PollKind {
    /// What the rate limiter is to know of it.
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Poll => Purpose::Poll,
            Self::Rescan | Self::RescanPage => Purpose::Rescan,
        }
    }
}

/// Whether something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This is.
    Poll(PollKind),
    /// Nothing is before this moment.
    At(Millis),
}

/// The polls of one stream.
#[derive(Debug)]
pub struct Schedule {
    stream: Stream,
    interval: Millis,
    late: Millis,
    next_poll: Millis,
    next_rescan: Option<Millis>,
    /// When a walk over all that may come late ended.
    whole_at: Option<Millis>,
    polled_last: bool,
    n_clock_looks: u32,
}

impl Schedule {
    /// The first poll is due at once. `overlap` is how late activities may come.
    pub fn new(stream: Stream, interval: Duration, overlap: Duration, now: Millis) -> Self {
        Self {
            stream,
            interval: millis(interval),
            late: lateness(stream, overlap),
            next_poll: now,
            next_rescan: (stream == Stream::Alerts).then_some(now + ALERT_RESCAN_INTERVAL),
            whole_at: None,
            polled_last: false,
            n_clock_looks: 0,
        }
    }

    /// The longest time by which a record may appear late.
    pub fn late(&self) -> Millis {
        self.late
    }

    /// The last poll failed: the next one is due at once, however long the interval is.
    pub fn again(&mut self, now: Millis) {
        self.next_poll = now;
    }

    /// The server's clock is not known yet: the next answer is worth more than the interval.
    pub fn look_at_the_clock(&mut self, now: Millis) {
        if self.n_clock_looks < CLOCK_LOOKS {
            self.n_clock_looks += 1;
            self.next_poll = self.next_poll.min(now + CLOCK_LOOK);
        }
    }

    /// What is due now. A poll that is due goes first, but lets a page of a rescan pass before the next poll.
    pub fn due(&mut self, rescanning: bool, now: Millis) -> Due {
        if self.next_poll <= now && !(rescanning && self.polled_last) {
            self.next_poll = now + self.interval;
            self.polled_last = true;
            return Due::Poll(PollKind::Poll);
        }
        if rescanning {
            self.polled_last = false;
            return Due::Poll(PollKind::RescanPage);
        }
        if self.next_rescan.is_some_and(|rescan| rescan <= now) {
            self.next_rescan =
                (self.stream == Stream::Alerts).then_some(now + ALERT_RESCAN_INTERVAL);
            return Due::Poll(PollKind::Rescan);
        }
        Due::At(self.next_rescan.map_or(self.next_poll, |rescan| rescan.min(self.next_poll)))
    }

    /// From where this poll looks: never from before what is settled.
    pub fn from(&self, kind: PollKind, cursor: &Cursor) -> Millis {
        let settled = cursor.settled();
        match (self.stream, kind) {
            (_, PollKind::Rescan | PollKind::RescanPage) => settled,
            (Stream::Alerts, PollKind::Poll) => settled.max(cursor.watermark() - ALERT_OVERLAP),
            (Stream::Activities, PollKind::Poll) => {
                let newest = cursor.newest(KNOWN_AGAIN).filter(|_| self.whole_at.is_some());
                newest.map_or(settled, |newest| newest.clamp(settled, cursor.watermark()))
            }
        }
    }

    /// A walk has seen all that there was.
    pub fn ended(&mut self, is_whole: bool, now: Millis) {
        if is_whole {
            self.whole_at = Some(now);
        } else if self.stream == Stream::Activities && self.next_rescan.is_none() {
            self.next_rescan = self.whole_at.map(|at| at + self.late / 2);
        }
    }
}

/// The longest time by which a record of this stream may appear late.
pub fn lateness(stream: Stream, overlap: Duration) -> Millis {
    match stream {
        Stream::Alerts => ALERTS_ARE_LATE,
        Stream::Activities => millis(overlap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordKey;

    const MINUTE: Millis = 60_000;

    fn cursor(watermark: Millis, settled: Millis, n_seen: usize, apart: Millis) -> Cursor {
        let seen = (0..n_seen).map(|index| {
            let time = watermark - apart * i64::try_from(index).unwrap();
            (RecordKey::from_bits(index as u64), time)
        });
        Cursor::restore(0, Some(settled), watermark, 0, None, seen)
    }

    fn schedule(stream: Stream) -> Schedule {
        Schedule::new(stream, Duration::from_secs(4), Duration::from_secs(300), 0)
    }

    /// Polls until something else is due; when that is, and how many polls there were.
    fn polls(schedule: &mut Schedule, mut now: Millis) -> (PollKind, Millis, u32) {
        let mut n_polls = 0;
        loop {
            match schedule.due(false, now) {
                Due::Poll(PollKind::Poll) => n_polls += 1,
                Due::Poll(other) => return (other, now, n_polls),
                Due::At(later) => now = later,
            }
            if n_polls > 10_000 {
                return (PollKind::Poll, now, n_polls);
            }
        }
    }

    #[test]
    fn polls_keep_their_interval_and_a_day_is_looked_over_every_quarter_of_an_hour() {
        let mut alerts = schedule(Stream::Alerts);
        assert_eq!(polls(&mut alerts, 0), (PollKind::Rescan, 15 * MINUTE, 226));
        assert_eq!(polls(&mut alerts, 15 * MINUTE).1, 30 * MINUTE);
        assert_eq!(polls(&mut schedule(Stream::Activities), 0).0, PollKind::Poll);
    }

    #[test]
    fn a_rescan_in_progress_gets_a_page_after_every_poll_and_more_between_them() {
        let mut schedule = schedule(Stream::Alerts);
        let mut due = |now| schedule.due(true, now);
        assert_eq!(due(0), Due::Poll(PollKind::Poll));
        assert_eq!(due(0), Due::Poll(PollKind::RescanPage));
        assert_eq!(due(0), Due::Poll(PollKind::RescanPage));
        assert_eq!(due(10_000), Due::Poll(PollKind::Poll));
        assert_eq!(due(20_000), Due::Poll(PollKind::RescanPage));
        assert_eq!(due(20_000), Due::Poll(PollKind::Poll));
    }

    #[test]
    fn a_quiet_tenant_is_asked_for_all_that_may_come_late_every_time() {
        let mut schedule = schedule(Stream::Activities);
        let cursor = cursor(10_000_000, 9_700_000, 1_000, 100);
        for now in 0..10 {
            assert_eq!(schedule.from(PollKind::Poll, &cursor), 9_700_000);
            schedule.ended(true, now);
        }
        assert_eq!(schedule.next_rescan, None);
    }

    #[test]
    fn a_busy_tenant_is_asked_for_the_newest_and_rescanned_before_late_ones_fall_out() {
        let mut schedule = schedule(Stream::Activities);
        let busy = cursor(10_000_000, 9_400_000, 60_000, 10);
        assert_eq!(schedule.from(PollKind::Poll, &busy), 9_400_000, "the first of a life is whole");
        schedule.ended(true, 1_000);
        assert_eq!(schedule.from(PollKind::Poll, &busy), 10_000_000 - 19_990);
        schedule.ended(false, 5_000);
        assert_eq!(schedule.from(PollKind::Rescan, &busy), 9_400_000);
        assert_eq!(polls(&mut schedule, 5_000).1, 1_000 + 5 * MINUTE / 2);
    }

    #[test]
    fn an_unknown_clock_shortens_a_long_interval_for_a_while() {
        let long = Duration::from_secs(3_600);
        let mut schedule = Schedule::new(Stream::Activities, long, Duration::from_secs(300), 0);
        let mut now = 0;
        for _ in 0..20 {
            while let Due::At(later) = schedule.due(false, now) {
                now = later;
            }
            schedule.look_at_the_clock(now);
        }
        assert_eq!(now, 8 * 5_000 + 11 * 3_600_000);
    }
}
