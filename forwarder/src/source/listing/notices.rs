//! What of a stream is counted or logged once, and not with every page. Pure.

use std::time::Duration;

use crate::time::Millis;

/// The server's clock and ours are as right as clocks are when they differ by less.
const RIGHT_CLOCK: Millis = 60_000;

/// What was noticed of one stream.
#[derive(Debug, Default)]
pub struct Notices {
    has_begun: bool,
    /// Through which time a gap is counted.
    gap_counted: Option<Millis>,
    is_clock_wrong: bool,
    is_contradicted: bool,
}

/// Time that the API does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// What is to be counted of it.
    pub seconds: f64,
    /// Whether it is another gap than the last one.
    pub is_another: bool,
}

impl Notices {
    /// A record has come. Says whether it is the first since the start.
    pub fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.has_begun, true)
    }

    /// Everything after a watermark was asked for, of which the API keeps only what happened after the other time: what
    /// lies between and is not counted yet.
    pub fn gap(&mut self, watermark: Millis, kept_from: Millis) -> Option<Gap> {
        let from = self.gap_counted.map_or(watermark, |counted| counted.max(watermark));
        let gap @ 1.. = u64::try_from(kept_from.saturating_sub(from)).ok()? else { return None };
        let is_another = self.gap_counted.is_none_or(|counted| counted < watermark);
        self.gap_counted = Some(kept_from);
        Some(Gap { seconds: Duration::from_millis(gap).as_secs_f64(), is_another })
    }

    /// The server's clock minus ours, as it is believed. Says whether they differ, where that has changed.
    pub fn skew(&mut self, skew: Millis) -> Option<bool> {
        let is_wrong = skew.abs() > RIGHT_CLOCK;
        let was_wrong = std::mem::replace(&mut self.is_clock_wrong, is_wrong);
        (was_wrong != is_wrong).then_some(is_wrong)
    }

    /// An answer's date contradicts the others. Says whether it is the first one.
    pub fn contradicts(&mut self) -> bool {
        !std::mem::replace(&mut self.is_contradicted, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_counted_and_told_once_however_short_it_is() {
        let mut notices = Notices::default();
        let is = |seconds, is_another| Some(Gap { seconds, is_another });
        assert_eq!(notices.gap(10_000, 9_000), None, "all of it is kept");
        assert_eq!(notices.gap(10_000, 12_000), is(2.0, true));
        assert_eq!(notices.gap(10_000, 12_500), is(0.5, false), "the same gap, and a little more");
        assert_eq!(notices.gap(12_500, 12_400), None);
        assert_eq!(notices.gap(20_000, 21_000), is(1.0, true), "another one");
    }

    #[test]
    fn clocks_that_begin_or_cease_to_differ_are_told_once() {
        let mut notices = Notices::default();
        let told = [0, 60_000, 60_001, -90_000, 10, 0].map(|skew| notices.skew(skew));
        assert_eq!(told, [None, None, Some(true), None, Some(false), None]);
        assert!(notices.contradicts() && !notices.contradicts());
        assert!(notices.begins() && !notices.begins());
    }
}
