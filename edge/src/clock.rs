//! The only place that reads the wall clock.
//!
//! Everything else takes `now` as an argument, so that a test can say what time it is. Durations are measured with
//! `tokio::time::Instant`, which tests can pause.

use jiff::Timestamp;

/// The wall clock of this machine, UTC.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Milliseconds since the Unix epoch, the unit in which the API speaks of time.
pub fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}
