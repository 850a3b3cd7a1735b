//! When to try again: the backoff law, and what each kind of failure at the source means for the next request.
//!
//! Pure: time and jitter are arguments. What is refused waits as `run::credential` has it.

use std::time::Duration;

use crate::source::failure::{Failure, Refusal};

/// Waits that grow with decorrelated jitter: each lies between `min` and three times the one before, at most `max`.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    previous: Option<Duration>,
}

impl Backoff {
    /// A law with its bounds; the first wait lies between `min` and three times `min`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, previous: None }
    }

    /// The next wait; `jitter` lies in `0.0..=1.0`.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let ceiling =
            self.previous.unwrap_or(self.min).saturating_mul(3).min(self.max).max(self.min);
        let wait = self.min + (ceiling - self.min).mul_f64(jitter.clamp(0.0, 1.0));
        self.previous = Some(wait);
        wait
    }

    /// Forgets what failed: the next wait is a first one.
    pub fn reset(&mut self) {
        self.previous = None;
    }
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// When to try again is for [`Credential`](crate::run::credential::Credential) to say.
    Halt(Refusal),
    /// No request of any stream before this long has passed.
    PauseAll(Duration),
    /// This stream waits this long; the others are read on.
    Retry(Duration),
}

/// A throttled client of this API is let in again after a minute at the latest.
const THROTTLE_MIN: Duration = Duration::from_secs(5);
const THROTTLE_MAX: Duration = Duration::from_secs(60);
/// What a server may ask of us: a shorter wait would hammer it, and after a longer one a request finds out whether it
/// is still so.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(5);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
const TRANSIENT_MIN: Duration = Duration::from_secs(1);
const TRANSIENT_MAX: Duration = Duration::from_secs(60);

/// Decides; `attempt` counts from 0 the failures of this kind in a row, `jitter` lies in `0.0..=1.0`.
pub fn decide(failure: Failure, attempt: u32, jitter: f64) -> Decision {
    match failure {
        Failure::Refused(refusal) => Decision::Halt(refusal),
        Failure::Throttled { retry_after: Some(wait) } => {
            Decision::PauseAll(wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
        }
        Failure::Throttled { retry_after: None } => {
            Decision::PauseAll(grow(THROTTLE_MIN, THROTTLE_MAX, attempt, jitter))
        }
        Failure::Transient => Decision::Retry(grow(TRANSIENT_MIN, TRANSIENT_MAX, attempt, jitter)),
    }
}

/// `min` doubled `attempt` times, at most `max`, with up to a quarter on top: never shorter than the bound.
pub(crate) fn grow(min: Duration, max: Duration, attempt: u32, jitter: f64) -> Duration {
    let base = min.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(max);
    base + base.mul_f64(0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_server_gets_the_wait_that_it_asks_for_within_reason() {
        for (asked, given) in [(0, 5), (1, 5), (17, 17), (300, 300), (3_600, 300), (u64::MAX, 300)]
        {
            let failure = Failure::Throttled { retry_after: Some(Duration::from_secs(asked)) };
            assert_eq!(decide(failure, 3, 1.0), Decision::PauseAll(Duration::from_secs(given)));
        }
    }

    proptest! {
        #[test]
        fn backoff_stays_between_its_bounds(jitters in proptest::collection::vec(0.0..=1.0_f64, 1..50)) {
            let (min, max) = (Duration::from_millis(250), Duration::from_secs(30));
            let mut backoff = Backoff::new(min, max);
            for jitter in jitters {
                let wait = backoff.next(jitter);
                prop_assert!(wait >= min && wait <= max);
            }
        }
    }
}
