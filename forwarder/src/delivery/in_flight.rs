//! What is handed over and not confirmed, in the order in which it was taken. Pure.
//!
//! Each batch is unwritten, being written, written up to an offset of the connection's bytes, or acknowledged since a
//! moment of that connection. A broken connection turns all of them back into unwritten ones, in the same order.

use std::collections::VecDeque;
use std::time::Duration;

/// The unconfirmed batches.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    entries: VecDeque<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    batch: T,
    written: Written,
    was_written: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    No,
    InProgress,
    Until { offset: u64 },
    Acknowledged { at: Duration },
}

impl<T> InFlight<T> {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new() }
    }

    pub(super) fn push(&mut self, batch: T) {
        self.entries.push_back(Entry { batch, written: Written::No, was_written: false });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something was written, so that a confirmation can be waited for.
    pub(super) fn awaits_confirmation(&self) -> bool {
        self.entries.front().is_some_and(|entry| entry.written != Written::No)
    }

    /// Whether something was written that the peer's kernel has not acknowledged.
    pub(super) fn awaits_acknowledgement(&self) -> bool {
        let written =
            |entry: &Entry<T>| matches!(entry.written, Written::InProgress | Written::Until { .. });
        self.entries.iter().any(written)
    }

    /// Takes the next batch to write, and whether it was written before.
    pub(super) fn start_write(&mut self) -> Option<(&T, bool)> {
        let entry = self.entries.iter_mut().find(|entry| entry.written == Written::No)?;
        entry.written = Written::InProgress;
        let is_again = std::mem::replace(&mut entry.was_written, true);
        Some((&entry.batch, is_again))
    }

    /// The batch in progress is written whole; the connection has carried `offset` bytes in all.
    pub(super) fn finish_write(&mut self, offset: u64) {
        if let Some(entry) =
            self.entries.iter_mut().find(|entry| entry.written == Written::InProgress)
        {
            entry.written = Written::Until { offset };
        }
    }

    /// Notes which batches the peer's kernel has acknowledged.
    pub(super) fn acknowledge(&mut self, bytes_acked: u64, now: Duration) {
        for entry in &mut self.entries {
            match entry.written {
                Written::Until { offset } if offset <= bytes_acked => {
                    entry.written = Written::Acknowledged { at: now };
                }
                Written::Acknowledged { .. } => {}
                Written::Until { .. } | Written::InProgress | Written::No => break,
            }
        }
    }

    /// Lets go of the batches that were acknowledged at least `grace` ago. The caller has just seen the connection
    /// healthy, and confirms them.
    pub(super) fn confirm(&mut self, grace: Duration, now: Duration) -> Vec<T> {
        let mut confirmed = Vec::new();
        while let Some(Entry { written: Written::Acknowledged { at }, .. }) = self.entries.front()
            && now.saturating_sub(*at) >= grace
            && let Some(entry) = self.entries.pop_front()
        {
            confirmed.push(entry.batch);
        }
        confirmed
    }

    /// The connection broke: everything has to be written again.
    pub(super) fn rewind(&mut self) {
        for entry in &mut self.entries {
            entry.written = Written::No;
        }
    }

    /// Lets go of what was never written, so that only confirmations are left to wait for.
    pub(super) fn drop_unwritten(&mut self) {
        self.entries.retain(|entry| entry.written != Written::No);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(250);
    const MILLISECOND: Duration = Duration::from_millis(1);
    const BEGAN: Duration = Duration::from_secs(1);

    fn filled<const N: usize>(texts: [&'static str; N]) -> InFlight<&'static str> {
        let mut in_flight = InFlight::new();
        for text in texts {
            in_flight.push(text);
        }
        in_flight
    }

    /// Writes all that is not written: the batches, and whether they were written before.
    fn write(in_flight: &mut InFlight<&'static str>, mut offset: u64) -> Vec<(&'static str, bool)> {
        let mut written = Vec::new();
        while let Some((text, is_again)) =
            in_flight.start_write().map(|(text, again)| (*text, again))
        {
            offset += text.len() as u64;
            in_flight.finish_write(offset);
            written.push((text, is_again));
        }
        written
    }

    #[test]
    fn only_what_is_acknowledged_whole_for_the_grace_is_confirmed() {
        let mut in_flight = filled(["first\n", "second\n", "third\n"]);
        assert!(!in_flight.awaits_confirmation(), "nothing is written");
        let written = write(&mut in_flight, 0);
        assert_eq!(written, [("first\n", false), ("second\n", false), ("third\n", false)]);
        assert!(in_flight.confirm(Duration::ZERO, BEGAN).is_empty(), "nothing is acknowledged");
        // The first one whole, of the second one all bytes but the last.
        in_flight.acknowledge(12, BEGAN);
        assert!(in_flight.confirm(GRACE, BEGAN + GRACE - MILLISECOND).is_empty());
        // That it is seen acknowledged again makes it no younger.
        in_flight.acknowledge(13, BEGAN + GRACE - MILLISECOND);
        assert_eq!(in_flight.confirm(GRACE, BEGAN + GRACE), ["first\n"]);
        assert!(in_flight.confirm(GRACE, BEGAN + GRACE + GRACE - 2 * MILLISECOND).is_empty());
        assert_eq!(in_flight.confirm(GRACE, BEGAN + GRACE + GRACE - MILLISECOND), ["second\n"]);
        assert!(in_flight.confirm(GRACE, BEGAN + 100 * GRACE).is_empty(), "never acknowledged");
        assert!(in_flight.awaits_confirmation() && in_flight.awaits_acknowledgement());
    }

    #[test]
    fn what_is_still_being_written_is_confirmed_by_no_number() {
        let mut in_flight = filled(["first\n"]);
        assert_eq!(in_flight.start_write(), Some((&"first\n", false)));
        in_flight.acknowledge(u64::MAX, BEGAN);
        assert!(in_flight.confirm(Duration::ZERO, BEGAN).is_empty());
    }

    #[test]
    fn after_a_break_the_same_batches_come_in_the_same_order_and_are_counted() {
        let mut in_flight = filled(["first\n", "second\n", "third\n"]);
        write(&mut in_flight, 0);
        in_flight.acknowledge(6, BEGAN);
        assert_eq!(in_flight.confirm(GRACE, BEGAN + GRACE), ["first\n"]);
        // The second one is acknowledged, but not for long enough.
        in_flight.acknowledge(13, BEGAN + GRACE);
        in_flight.rewind();
        assert!(in_flight.confirm(Duration::ZERO, BEGAN + 100 * GRACE).is_empty());
        assert_eq!(write(&mut in_flight, 0), [("second\n", true), ("third\n", true)]);
        in_flight.acknowledge(13, BEGAN);
        assert_eq!(in_flight.confirm(GRACE, BEGAN + GRACE), ["second\n", "third\n"]);
        assert!(in_flight.is_empty(), "offsets begin anew");
    }
}
