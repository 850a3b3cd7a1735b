//! How far one stream is: a cursor that only a proof can move. Pure.
//!
//! The API lists records by the time at which it saved them, but shows some of them late. So a cursor has two times:
//!
//! - the **watermark**: everything that the API has shown up to it is delivered;
//! - **settled**, behind it: up to this time nothing new can appear any more. Every look begins there or later.
//!
//! Between `settled` and the newest record every delivered record is remembered by its key, so that a look never
//! delivers one twice. Keys are forgotten only as `settled` rises, and neither time ever goes back:
//! [`Cursor::record_delivered`] consumes a proof of delivery, [`Cursor::advance`] a walk's proof that everything listed is
//! accounted for.

use std::collections::BTreeMap;

use crate::delivery::Delivered;
use crate::record::{Mark, RecordKey};
use crate::time::Millis;

/// Where one stream stands. Times are milliseconds since the Unix epoch, by the API's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    floor: Millis,
    settled: Millis,
    watermark: Millis,
    last_event: Option<Millis>,
    is_exact: bool,
    seen: BTreeMap<RecordKey, Millis>,
}

/// Proof that everything shown up to some time is delivered; only a [`Walk`](super::walk::Walk) makes it.
#[derive(Debug)]
pub struct Passed {
    pub(crate) through: Option<Millis>,
    pub(crate) settled: Option<Millis>,
}

impl Cursor {
    /// A cursor that has delivered nothing and starts here.
    pub fn starting_at(watermark: Millis) -> Self {
        Self { floor: watermark, settled: watermark, watermark, ..Self::default() }
    }

    /// A cursor as it was stored. `settled` is unknown of one that somebody else kept: then nothing is, within `late`
    /// of its watermark, the longest time by which a record may appear late.
    pub fn restore(
        floor: Millis,
        settled: Option<Millis>,
        watermark: Millis,
        late: Millis,
        last_event: Option<Millis>,
        seen: impl IntoIterator<Item = (RecordKey, Millis)>,
    ) -> Self {
        let seen: BTreeMap<_, _> = seen.into_iter().collect();
        let is_exact = settled.is_some();
        let settled = settled.unwrap_or_else(|| {
            let behind = watermark.saturating_sub(late);
            seen.values().min().map_or(behind, |oldest| behind.min(*oldest)).max(floor)
        });
        Self { floor, settled: settled.min(watermark), watermark, last_event, is_exact, seen }
    }

    /// Where the export began; nothing before it is ever asked for.
    pub fn floor(&self) -> Millis {
        self.floor
    }

    /// Nothing new can appear up to this time.
    pub fn settled(&self) -> Millis {
        self.settled
    }

    /// Everything that the API has shown up to this time is delivered.
    pub fn watermark(&self) -> Millis {
        self.watermark
    }

    /// Whether its times come from what the API listed, and not from somebody's clock.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// When the newest delivered record happened.
    pub fn last_event(&self) -> Option<Millis> {
        self.last_event
    }

    /// The remembered keys with the times that place them, in the order of the keys.
    pub fn seen(&self) -> impl ExactSizeIterator<Item = (RecordKey, Millis)> + '_ {
        self.seen.iter().map(|(key, time)| (*key, *time))
    }

    /// Whether a record with this key is remembered.
    pub fn has_seen(&self, key: RecordKey) -> bool {
        self.seen.contains_key(&key)
    }

    /// The time of the n-th newest remembered record; `None` when fewer are remembered.
    pub fn newest(&self, n_records: usize) -> Option<Millis> {
        let index = self.seen.len().checked_sub(n_records)?;
        let mut times: Vec<Millis> = self.seen.values().copied().collect();
        (index < times.len()).then(|| *times.select_nth_unstable(index).1)
    }

    /// Remembers what is proven to be delivered.
    #[expect(clippy::needless_pass_by_value, reason = "a proof is used up")]
    pub fn record_delivered(&mut self, delivered: Delivered) {
        for mark in delivered.marks() {
            self.remember(*mark);
        }
    }

    /// Remembers a record that cannot be sent, so that it is counted once and not at every look behind the watermark.
    pub fn skip(&mut self, key: RecordKey, time: Millis) {
        self.seen.insert(key, time);
    }

    /// Raises both times to what a page or a whole walk has proven, and forgets what is settled.
    pub fn advance(&mut self, passed: Passed) {
        let Passed { through, settled } = passed;
        self.watermark = self.watermark.max(through.unwrap_or(Millis::MIN));
        let settled = settled.unwrap_or(Millis::MIN);
        if settled > self.settled {
            self.settled = settled;
            self.watermark = self.watermark.max(settled);
            self.seen.retain(|_, time| *time >= settled);
        }
        self.is_exact |= through.is_some();
    }

    /// Puts a cursor whose times cannot be true back to a start, and keeps the keys of what it has delivered.
    pub fn restart(&mut self, start: Millis) {
        self.floor = self.floor.min(start);
        (self.settled, self.watermark) = (start, start);
    }

    /// Moves a cursor that lies too far back to a start: what lies between is not asked for.
    pub fn skip_to(&mut self, start: Millis) {
        self.floor = self.floor.max(start);
        self.settled = self.settled.max(start);
        self.watermark = self.watermark.max(start);
    }

    /// For a test's mutation: forgets too early.
    #[cfg(test)]
    pub(crate) fn forget_before(&mut self, time: Millis) {
        self.seen.retain(|_, of| *of >= time);
    }

    pub(crate) fn remember(&mut self, mark: Mark) {
        self.seen.insert(mark.key(), mark.time());
        self.last_event = self.last_event.max(Some(mark.happened()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_that_somebody_else_kept_looks_back_as_far_as_records_may_be_late() {
        let kept = |settled, seen: &[(u64, Millis)]| {
            let seen = seen.iter().map(|(key, time)| (RecordKey::from_bits(*key), *time));
            Cursor::restore(1_000, settled, 9_000, 3_000, None, seen).settled()
        };
        assert_eq!(kept(None, &[]), 6_000);
        assert_eq!(kept(None, &[(1, 5_000), (2, 8_000)]), 5_000, "and as far as it remembers");
        assert_eq!(kept(None, &[(1, 500)]), 1_000, "but not before its start");
        assert_eq!(kept(Some(8_500), &[(1, 8_600)]), 8_500, "what is exact is exact");
        assert_eq!(kept(Some(9_500), &[]), 9_000);
    }

    proptest! {
        #[test]
        fn neither_time_goes_back_and_nothing_unsettled_is_forgotten(
            steps in proptest::collection::vec((0_i64..1_000, 0_i64..1_000, 0_i64..1_200), 1..50)
        ) {
            let mut cursor = Cursor::starting_at(0);
            for (number, (through, settled, time)) in steps.into_iter().enumerate() {
                let key = RecordKey::from_bits(number as u64);
                cursor.remember(Mark::with_event_time(key, time, time));
                let before = (cursor.watermark(), cursor.settled());
                cursor.advance(Passed { through: Some(through), settled: Some(settled) });
                prop_assert!(cursor.watermark() >= before.0.max(through));
                prop_assert!(cursor.settled() >= before.1.max(settled));
                prop_assert!(cursor.watermark() >= cursor.settled());
                prop_assert!(cursor.has_seen(key) || time < cursor.settled());
            }
        }
    }
}
