//! What a failure at the source means for the next request. Pure: jitter is an argument.
//!
//! What is refused waits as [`Credential`](super::credential::Credential) has it.

use std::time::Duration;

use crate::retry::grow;
use crate::source::failure::{Failure, Refusal};

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// When to try again is for `credential` to say.
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
        Failure::Again => Decision::Retry(Duration::ZERO),
        Failure::Transient => Decision::Retry(grow(TRANSIENT_MIN, TRANSIENT_MAX, attempt, jitter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_the_wait_that_it_asks_for_within_reason() {
        for (asked, given) in [(0, 5), (1, 5), (17, 17), (300, 300), (3_600, 300), (u64::MAX, 300)]
        {
            let failure = Failure::Throttled { retry_after: Some(Duration::from_secs(asked)) };
            assert_eq!(decide(failure, 3, 1.0), Decision::PauseAll(Duration::from_secs(given)));
        }
    }
}
