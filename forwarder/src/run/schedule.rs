//! When a stream is looked at, and how far back each look reaches. Pure but for tokio's clock.
//!
//! A poll asks for what is new and for the overlap, so that late records are found. Where the overlap holds more than a
//! page can, reading all of it every few seconds would spend the budget on what is known: a poll then asks again for the
//! newest records only, and a rescan, page by page between the polls, reads the rest often enough that nothing that is
//! late by up to the overlap is missed. Alerts have a rescan of their own, a day back, because they come later.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::checkpoint::{Cursor, Millis};
use crate::event::Stream;
use crate::source::gate::Purpose;

/// Alerts are listed by the time at which they happened; each poll looks this far back for late ones.
const ALERT_OVERLAP: Duration = Duration::from_secs(10 * 60);
/// Now and then a pass looks a whole day back for alerts.
const ALERT_RESCAN_INTERVAL: Duration = Duration::from_secs(15 * 60);
const ALERT_RESCAN_REACH: Duration = Duration::from_secs(24 * 3600);
/// A poll of activities asks again for so many known ones at most: less than half a page of 5,000.
const KNOWN_AGAIN: usize = 2_000;

/// One look at a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What is new, and as much of the overlap as fits.
    Poll,
    /// Begin to look far back, at low priority.
    Rescan,
    /// The next page of the rescan that was begun.
    RescanPage,
}

impl Look {
    pub(super) fn purpose(self) -> Purpose {
        match self {
            Self::Poll => Purpose::Poll,
            Self::Rescan | Self::RescanPage => Purpose::Rescan,
        }
    }
}

/// From where a look begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// The lower end, inclusive.
    pub(super) from: Millis,
    /// The watermark at the beginning, when everything that may still come late is looked at.
    whole: Option<Millis>,
}

/// The looks of one stream.
#[derive(Debug)]
pub(super) struct Schedule {
    stream: Stream,
    interval: Duration,
    overlap: Duration,
    next_poll: Instant,
    next_rescan: Option<Instant>,
    /// The watermark when the last look over the whole overlap began, and when that was.
    whole: Option<(Millis, Instant)>,
    polled_last: bool,
}

impl Schedule {
    pub(super) fn new(stream: Stream, interval: Duration, overlap: Duration) -> Self {
        let now = Instant::now();
        let next_rescan = (stream == Stream::Alerts).then_some(now + ALERT_RESCAN_INTERVAL);
        let (next_poll, whole, polled_last) = (now, None, false);
        Self { stream, interval, overlap, next_poll, next_rescan, whole, polled_last }
    }

    /// The last look failed: the next poll is due at once, however long the interval is.
    pub(super) fn again(&mut self) {
        self.next_poll = Instant::now();
    }

    /// Waits until a look is due. A poll that is due goes first, but lets a page of a rescan pass before the next poll.
    pub(super) async fn due(&mut self, rescanning: bool) -> Look {
        loop {
            let now = Instant::now();
            if self.next_poll <= now && !(rescanning && self.polled_last) {
                self.next_poll = now + self.interval;
                self.polled_last = true;
                return Look::Poll;
            }
            if rescanning {
                self.polled_last = false;
                return Look::RescanPage;
            }
            if self.next_rescan.is_some_and(|rescan| rescan <= now) {
                self.next_rescan =
                    (self.stream == Stream::Alerts).then(|| now + ALERT_RESCAN_INTERVAL);
                return Look::Rescan;
            }
            let wake = self.next_rescan.map_or(self.next_poll, |rescan| rescan.min(self.next_poll));
            sleep_until(wake).await;
        }
    }

    /// How far back this look reaches.
    pub(super) fn reach(&self, look: Look, cursor: &Cursor) -> Reach {
        let watermark = cursor.watermark();
        let whole = Some(watermark);
        match (self.stream, look) {
            (Stream::Alerts, Look::Poll) => {
                Reach { from: cursor.behind(ALERT_OVERLAP), whole: None }
            }
            (Stream::Alerts, Look::Rescan | Look::RescanPage) => {
                Reach { from: cursor.behind(ALERT_RESCAN_REACH), whole }
            }
            (Stream::Activities, Look::Rescan | Look::RescanPage) => {
                Reach { from: self.late_from(cursor, cursor.oldest()), whole }
            }
            (Stream::Activities, Look::Poll) => {
                let all = self.late_from(cursor, cursor.oldest());
                match cursor.newest(KNOWN_AGAIN).filter(|known| *known > all) {
                    Some(known) if self.whole.is_some() => Reach { from: known, whole: None },
                    Some(_) | None => Reach { from: all, whole },
                }
            }
        }
    }

    /// A look has seen all that there was.
    pub(super) fn ended(&mut self, reach: Reach) {
        match reach.whole {
            Some(watermark) => self.whole = Some((watermark, Instant::now())),
            None if self.stream == Stream::Activities && self.next_rescan.is_none() => {
                self.next_rescan = self.whole.map(|(_, at)| at + self.overlap / 2);
            }
            None => {}
        }
    }

    /// Delivered records from this time on have to be remembered: as far back as any look may reach.
    pub(super) fn keep_from(&self, cursor: &Cursor) -> Millis {
        match self.stream {
            Stream::Activities => self.late_from(cursor, None),
            Stream::Alerts => {
                cursor.watermark() - millis(ALERT_RESCAN_REACH + ALERT_RESCAN_INTERVAL)
            }
        }
    }

    /// What was saved before this time, and was late by the overlap at most, has been looked at. The first look of a
    /// life goes as far back as the last life remembers.
    fn late_from(&self, cursor: &Cursor, remembered: Option<Millis>) -> Millis {
        let behind = cursor.behind(self.overlap);
        let known = match self.whole {
            Some((watermark, _)) => watermark - millis(self.overlap),
            None => remembered.unwrap_or(behind),
        };
        behind.min(known).max(cursor.floor())
    }
}

fn millis(duration: Duration) -> Millis {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RecordKey;

    const MINUTE: Duration = Duration::from_secs(60);

    fn cursor(watermark: Millis, n_seen: usize, apart: Millis) -> Cursor {
        let seen = (0..n_seen).map(|index| {
            let time = watermark - apart * i64::try_from(index).unwrap();
            (RecordKey::from_bits(index as u64), time)
        });
        Cursor::restore(0, watermark, None, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn polls_keep_their_interval_and_a_day_is_looked_over_every_quarter_of_an_hour() {
        let mut schedule = Schedule::new(Stream::Alerts, Duration::from_secs(4), 5 * MINUTE);
        let start = Instant::now();
        let mut n_polls = 0;
        while schedule.due(false).await == Look::Poll {
            n_polls += 1;
        }
        assert_eq!(start.elapsed().as_secs(), 900);
        assert_eq!(n_polls, 226);
        let mut activities = Schedule::new(Stream::Activities, Duration::from_secs(4), 5 * MINUTE);
        for _ in 0..1_000 {
            assert_eq!(activities.due(false).await, Look::Poll);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rescan_in_progress_gets_a_page_after_every_poll_and_more_between_them() {
        let mut schedule = Schedule::new(Stream::Alerts, Duration::from_secs(4), 5 * MINUTE);
        assert_eq!(schedule.due(true).await, Look::Poll);
        assert_eq!(schedule.due(true).await, Look::RescanPage);
        assert_eq!(schedule.due(true).await, Look::RescanPage);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(schedule.due(true).await, Look::Poll);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(schedule.due(true).await, Look::RescanPage);
        assert_eq!(schedule.due(true).await, Look::Poll);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_tenant_is_asked_for_the_whole_overlap_every_time() {
        let mut schedule = Schedule::new(Stream::Activities, Duration::from_secs(4), 5 * MINUTE);
        let cursor = cursor(10_000_000, 1_000, 100);
        for _ in 0..10 {
            let reach = schedule.reach(Look::Poll, &cursor);
            assert_eq!(reach, Reach { from: 9_700_000, whole: Some(10_000_000) });
            schedule.ended(reach);
        }
        assert_eq!(schedule.keep_from(&cursor), 9_700_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_tenant_is_asked_for_the_newest_and_rescanned_before_late_ones_fall_out() {
        let mut schedule = Schedule::new(Stream::Activities, Duration::from_secs(4), 5 * MINUTE);
        let busy = cursor(10_000_000, 60_000, 10);
        let first = schedule.reach(Look::Poll, &busy);
        assert_eq!(first.from, 10_000_000 - 599_990, "as far as the last life remembers");
        assert_eq!(schedule.keep_from(&busy), 9_700_000, "which it may forget then");
        schedule.ended(first);
        let later = cursor(10_100_000, 60_000, 10);
        let tail = schedule.reach(Look::Poll, &later);
        assert_eq!(tail, Reach { from: 10_100_000 - 19_990, whole: None });
        schedule.ended(tail);
        assert_eq!(
            schedule.keep_from(&later),
            9_700_000,
            "since the overlap before the whole look"
        );
        let start = Instant::now();
        while schedule.due(false).await == Look::Poll {}
        assert_eq!(start.elapsed(), 5 * MINUTE / 2);
        let rescan = schedule.reach(Look::Rescan, &later);
        assert_eq!(rescan, Reach { from: 9_700_000, whole: Some(10_100_000) });
        schedule.ended(rescan);
        assert_eq!(schedule.keep_from(&later), 9_800_000);
    }
}
