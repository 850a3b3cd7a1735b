//! How long to wait before the next try. Pure: time and jitter are arguments.

use std::time::Duration;

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

/// `min` doubled `attempt` times, at most `max`, with up to a quarter on top: never shorter than the bound.
pub(crate) fn grow(min: Duration, max: Duration, attempt: u32, jitter: f64) -> Duration {
    let base = min.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(max);
    base + base.mul_f64(0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
