//! The wall clock of the tests; nothing else here reads it.

use jiff::Timestamp;

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn millis() -> i64 {
    Timestamp::now().as_millisecond()
}
