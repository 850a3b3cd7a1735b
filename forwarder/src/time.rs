//! Times as the pure core speaks of them: milliseconds, and the two clocks of this machine side by side. Pure.

use std::time::Duration;

/// Milliseconds: since the Unix epoch for a time of day, since any fixed moment for the steady clock.
pub type Millis = i64;

/// 2024-01-01: no time of day at which this program runs lies before it.
pub const PLAUSIBLE: Millis = 1_704_067_200_000;

/// A duration in milliseconds; one that does not fit is the longest.
pub fn millis(duration: Duration) -> Millis {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// One moment on both clocks of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// A clock that only ever runs forward, at a true pace, from any start.
    pub steady: Millis,
    /// The time of day as this machine believes it; it may be wrong, and may jump.
    pub wall: Millis,
}

impl Now {
    /// What is added to the steady clock to get the time of day.
    pub fn offset(self) -> Millis {
        self.wall.saturating_sub(self.steady)
    }

    /// The time of day, unless this machine has not found the time yet: one before 2024 is from a clock that was never
    /// set.
    pub fn time_of_day(self) -> Option<Millis> {
        (self.wall >= PLAUSIBLE).then_some(self.wall)
    }
}
