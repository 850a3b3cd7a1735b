//! When a stream is looked at, and how far behind its watermark each look reaches. Pure but for tokio's clock.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::event::Stream;
use crate::source::gate::Purpose;

/// Alerts are listed by the time at which they happened; each poll looks this far back for late ones.
const ALERT_OVERLAP: Duration = Duration::from_secs(10 * 60);
/// Now and then a pass looks a whole day back.
const RESCAN_INTERVAL: Duration = Duration::from_secs(15 * 60);
const RESCAN_REACH: Duration = Duration::from_secs(24 * 3600);

/// One look at a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What is new, and the overlap.
    Poll,
    /// The last day, at low priority.
    Rescan,
}

impl Look {
    pub(super) fn purpose(self) -> Purpose {
        match self {
            Self::Poll => Purpose::Poll,
            Self::Rescan => Purpose::Rescan,
        }
    }

    /// How far behind the watermark it begins.
    pub(super) fn reach(self, stream: Stream, overlap: Duration) -> Duration {
        match (self, stream) {
            (Self::Poll, Stream::Activities) => overlap,
            (Self::Poll, Stream::Alerts) => ALERT_OVERLAP,
            (Self::Rescan, _) => RESCAN_REACH,
        }
    }
}

/// How long a delivered record has to be remembered: as far back as any look reaches.
pub(super) fn memory(stream: Stream, overlap: Duration) -> Duration {
    match stream {
        Stream::Activities => overlap,
        Stream::Alerts => RESCAN_REACH + RESCAN_INTERVAL,
    }
}

/// The looks of one stream.
#[derive(Debug)]
pub(super) struct Schedule {
    interval: Duration,
    next_poll: Instant,
    next_rescan: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(stream: Stream, interval: Duration) -> Self {
        let now = Instant::now();
        let next_rescan = (stream == Stream::Alerts).then_some(now + RESCAN_INTERVAL);
        Self { interval, next_poll: now, next_rescan }
    }

    /// Waits until a look is due. A poll that is due goes before a pass over the last day.
    pub(super) async fn due(&mut self) -> Look {
        loop {
            let now = Instant::now();
            if self.next_poll <= now {
                self.next_poll = now + self.interval;
                return Look::Poll;
            }
            if let Some(rescan) = &mut self.next_rescan
                && *rescan <= now
            {
                *rescan = now + RESCAN_INTERVAL;
                return Look::Rescan;
            }
            sleep_until(
                self.next_rescan.map_or(self.next_poll, |rescan| rescan.min(self.next_poll)),
            )
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn polls_keep_their_interval_and_a_day_is_looked_over_every_quarter_of_an_hour() {
        let mut schedule = Schedule::new(Stream::Alerts, Duration::from_secs(4));
        let start = Instant::now();
        let mut n_polls = 0;
        while schedule.due().await == Look::Poll {
            n_polls += 1;
        }
        assert_eq!(start.elapsed().as_secs(), 900);
        assert_eq!(n_polls, 226);
        let mut activities = Schedule::new(Stream::Activities, Duration::from_secs(4));
        for _ in 0..1_000 {
            assert_eq!(activities.due().await, Look::Poll);
        }
    }
}
