//! Whether a connection that owes us acknowledgements is well, stalled or dead, from what the kernel knows of it. Pure.
//!
//! A receiver that does not read closes its window. Its kernel still answers our kernel's probes, so it is
//! alive, and breaking the connection would only send again what it may hold already: such a stall is waited out, for a
//! while. A peer whose kernel answers nothing at all is gone.

use std::time::Duration;

/// Without an acknowledgement this long, while some are owed, the target is reported as stalled.
const STALLED: Duration = Duration::from_secs(5);
/// A stall is waited out this long; then a new connection is tried.
const GIVEN_UP: Duration = Duration::from_secs(10 * 60);
/// A peer whose kernel answers nothing this long is gone.
const GONE: Duration = Duration::from_secs(20);

/// One look at the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Bytes of ours that the peer's kernel has acknowledged on this connection.
    pub(super) bytes_acked: u64,
    /// Whether both directions are open.
    pub(super) established: bool,
    /// Whether a segment or a probe of ours waits for an answer.
    pub(super) unanswered: bool,
    /// How long the peer's kernel has acknowledged nothing.
    pub(super) silent_for: Duration,
}

/// What is to be done about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Acknowledgements come, or none is owed.
    Well,
    /// The peer is alive and takes nothing.
    Stalled,
    /// The peer takes nothing for so long that a new connection is the better bet.
    GivenUp,
    /// The peer does not answer any more.
    Gone,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Health {
    bytes_acked: u64,
    progress_at: Option<Duration>,
    unanswered_since: Option<Duration>,
}

impl Health {
    /// Judges a look at the connection; `owes` says whether something was written and is not acknowledged. Times count
    /// from any moment.
    pub(super) fn judge(&mut self, look: &Look, owes: bool, now: Duration) -> Verdict {
        if !owes {
            *self = Self { bytes_acked: look.bytes_acked, ..Self::default() };
            return Verdict::Well;
        }
        if look.bytes_acked != self.bytes_acked || self.progress_at.is_none() {
            self.bytes_acked = look.bytes_acked;
            self.progress_at = Some(now);
        }
        self.unanswered_since =
            if look.unanswered { self.unanswered_since.or(Some(now)) } else { None };
        let since =
            |time: Option<Duration>| time.map_or(Duration::ZERO, |time| now.saturating_sub(time));
        let without_progress = since(self.progress_at);
        if since(self.unanswered_since).min(without_progress) >= GONE && look.silent_for >= GONE {
            Verdict::Gone
        } else if without_progress >= GIVEN_UP {
            Verdict::GivenUp
        } else if without_progress >= STALLED {
            Verdict::Stalled
        } else {
            Verdict::Well
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(bytes_acked: u64, unanswered: bool, silent_for: u64) -> Look {
        let silent_for = Duration::from_secs(silent_for);
        Look { bytes_acked, established: true, unanswered, silent_for }
    }

    /// The verdicts of looks a second apart.
    fn verdicts(looks: impl IntoIterator<Item = Look>) -> Vec<Verdict> {
        let mut health = Health::default();
        let looks = looks.into_iter().enumerate();
        let judge = |(second, look): (usize, Look)| {
            health.judge(&look, true, Duration::from_secs(second as u64))
        };
        looks.map(judge).collect()
    }

    #[test]
    fn a_window_that_stays_closed_is_a_stall_and_is_waited_out() {
        // Probes are sent ever less often, and each is answered at once.
        let verdicts = verdicts((0..700).map(|second| look(7, second % 97 == 0, second % 97)));
        assert!(verdicts[..5].iter().all(|verdict| *verdict == Verdict::Well));
        assert!(verdicts[5..600].iter().all(|verdict| *verdict == Verdict::Stalled));
        assert_eq!(verdicts[600], Verdict::GivenUp);
    }

    #[test]
    fn a_peer_that_answers_nothing_is_gone_after_twenty_seconds() {
        let verdicts = verdicts((0..30).map(|second| look(7, true, second)));
        assert_eq!(verdicts[19], Verdict::Stalled);
        assert_eq!(verdicts[20], Verdict::Gone);
    }

    #[test]
    fn acknowledgements_end_a_stall_and_nothing_owed_is_well() {
        let slow = (0..100).map(|second| look(second / 4, true, second % 4));
        assert!(verdicts(slow).iter().all(|verdict| *verdict == Verdict::Well));
        let mut health = Health::default();
        for second in 0..1_000 {
            let now = Duration::from_secs(second);
            assert_eq!(health.judge(&look(7, false, second), false, now), Verdict::Well);
        }
    }
}
