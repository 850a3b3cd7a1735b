//! The only place that reads the wall clock. Durations are measured with `tokio::time::Instant`, which tests can pause.

use jiff::Timestamp;

/// The wall clock of this machine, UTC.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
