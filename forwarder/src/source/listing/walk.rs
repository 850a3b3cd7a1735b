//! One walk through what the API lists, page by page: what is new, what is outstanding, and what is proven. Pure.

use std::collections::{BTreeSet, VecDeque};

use super::cursor::{Cursor, Passed};
use super::server_clock::ServerClock;
use crate::record::RecordKey;
use crate::source::endless::Endless;
use crate::time::{Millis, Now};

/// Pages in a row that may bring the walk no further; more than a millisecond's records need by `skip`.
const MAX_PAGES_WITHOUT_PROGRESS: u32 = 64;
/// Records of newest time that are remembered as evidence, at most this often within the time of lateness.
const EVIDENCE_SHARE: Millis = 16;

/// How a listed record relates to what was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Not delivered before.
    New,
    /// Not delivered before, though it lies behind the watermark: the API showed it late.
    Late,
    /// Delivered before, or on its way.
    Repeated,
}

/// What the newest listed records prove without anybody's clock: a record that was listed at a moment lies in the past
/// ever after, and once `late` has passed since that moment, nothing new can appear before it.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    newest: VecDeque<(Millis, Millis)>,
}

impl Evidence {
    /// A record of this time was listed at this moment of the steady clock.
    pub fn note(&mut self, steady: Millis, listed: Millis, late: Millis) {
        let is_due = self
            .newest
            .back()
            .is_none_or(|(last, of)| steady - last >= late / EVIDENCE_SHARE && listed > *of);
        if is_due {
            self.newest.push_back((steady, listed));
        }
    }

    /// Up to which time a walk that begins at this moment sees everything.
    pub fn settled(&mut self, steady: Millis, late: Millis) -> Option<Millis> {
        while self.newest.get(1).is_some_and(|(noted, _)| noted + late <= steady) {
            self.newest.pop_front();
        }
        self.newest.front().filter(|(noted, _)| noted + late <= steady).map(|(_, listed)| *listed)
    }
}

/// A walk under way. The API lists in ascending order from `from` on.
#[derive(Debug)]
pub struct Walk {
    from: Millis,
    is_whole: bool,
    began: Millis,
    late: Millis,
    evident: Option<Millis>,
    watermark: Millis,
    page: BTreeSet<RecordKey>,
    last_page: BTreeSet<RecordKey>,
    outstanding: usize,
    highest: Option<Millis>,
    ascending: bool,
    cursors: BTreeSet<RecordKey>,
    n_pages_without_progress: u32,
}

impl Walk {
    /// A walk from this time on, begun at this moment of the steady clock. `late` is the longest time by which a record
    /// may appear late, `evident` what [`Evidence`] says of the moment.
    pub fn new(
        cursor: &Cursor,
        from: Millis,
        began: Millis,
        late: Millis,
        evident: Option<Millis>,
    ) -> Self {
        Self {
            from,
            is_whole: from <= cursor.settled(),
            began,
            late,
            evident,
            watermark: cursor.watermark(),
            page: BTreeSet::new(),
            last_page: BTreeSet::new(),
            outstanding: 0,
            highest: None,
            ascending: true,
            cursors: BTreeSet::new(),
            n_pages_without_progress: 0,
        }
    }

    /// Where it begins.
    pub fn from(&self) -> Millis {
        self.from
    }

    /// Whether it began early enough to see everything that may still appear.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The time of the last record listed so far.
    pub fn highest(&self) -> Option<Millis> {
        self.highest
    }

    /// Whether another walk has settled what this one is still to read.
    pub fn is_overtaken(&self, cursor: &Cursor) -> bool {
        self.highest.unwrap_or(self.from) < cursor.settled()
    }

    /// Says what to do with a listed record, and counts it as outstanding unless it is a repetition.
    pub fn admit(&mut self, cursor: &Cursor, key: RecordKey, listed: Option<Millis>) -> Admission {
        if let Some(time) = listed {
            self.ascending &= self.highest.is_none_or(|highest| time >= highest);
            if self.highest.is_none_or(|highest| time > highest) {
                self.highest = Some(time);
                self.n_pages_without_progress = 0;
            }
        }
        if cursor.has_seen(key) || self.last_page.contains(&key) || !self.page.insert(key) {
            return Admission::Repeated;
        }
        self.outstanding += 1;
        if listed.is_some_and(|time| time < self.watermark) {
            Admission::Late
        } else {
            Admission::New
        }
    }

    /// Accounts for records that were confirmed, or skipped for good.
    pub fn settle(&mut self, n_records: usize) {
        self.outstanding = self.outstanding.saturating_sub(n_records);
    }

    /// After a page that is not the last: what is proven so far. Nothing while records are outstanding, or when the
    /// server did not list in ascending order, so that a later page may hold something earlier.
    pub fn page(&mut self, clock: &ServerClock, now: Now) -> Option<Passed> {
        self.last_page = std::mem::take(&mut self.page);
        let highest = self.highest.filter(|_| self.outstanding == 0 && self.ascending)?;
        let through = highest.min(clock.limit(now).unwrap_or(highest));
        let settled = self.settles(clock, now).map(|settled| settled.min(through));
        Some(Passed { through: Some(through), settled })
    }

    /// After the last page: everything is shown and delivered up to the time at which it was asked for, or to the newest
    /// record where no clock can be trusted. Nothing while records are outstanding.
    pub fn end(&self, clock: &ServerClock, asked: Millis, now: Now) -> Option<Passed> {
        if self.outstanding > 0 {
            return None;
        }
        let limit = clock.limit(now);
        let highest = self.highest.map(|highest| highest.min(limit.unwrap_or(highest)));
        let asked_at = clock.now(now).map(|server| server - (now.steady - asked));
        Some(Passed { through: highest.max(asked_at), settled: self.settles(clock, now) })
    }

    /// The next page by the server's own cursor, `None` where it gave none.
    ///
    /// # Errors
    /// [`Endless`] when the walk would not end.
    pub fn go_on(&mut self, cursor: Option<&[u8]>) -> Result<(), Endless> {
        if cursor.is_some_and(|cursor| !self.cursors.insert(RecordKey::of(cursor))) {
            return Err(Endless::Cursor);
        }
        self.n_pages_without_progress += 1;
        if self.n_pages_without_progress > MAX_PAGES_WITHOUT_PROGRESS {
            return Err(Endless::Pages);
        }
        Ok(())
    }

    /// Up to which time whatever was listed since this walk began is all there will be.
    fn settles(&self, clock: &ServerClock, now: Now) -> Option<Millis> {
        let by_clock = clock.sure(now, self.began).map(|sure| sure - self.late);
        by_clock.max(self.evident).filter(|_| self.is_whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { steady: 500_000, wall: 1_790_000_000_000 };

    fn key(id: u64) -> RecordKey {
        RecordKey::from_bits(id)
    }

    fn walk(cursor: &Cursor) -> Walk {
        Walk::new(cursor, cursor.settled(), 499_000, 300_000, None)
    }

    /// A clock that is believed.
    fn clock() -> ServerClock {
        let mut clock = ServerClock::default();
        clock.hear(NOW.steady - 10, NOW, Some(NOW.wall));
        clock
    }

    #[test]
    fn a_page_raises_the_watermark_only_once_all_of_it_is_accounted_for() {
        let mut cursor = Cursor::starting_at(NOW.wall - 10_000_000);
        let mut walk = walk(&cursor);
        let time = NOW.wall - 9_000_000;
        assert_eq!(walk.admit(&cursor, key(1), Some(time)), Admission::New);
        assert_eq!(walk.admit(&cursor, key(2), Some(time + 5)), Admission::New);
        assert_eq!(walk.admit(&cursor, key(1), Some(time + 5)), Admission::Repeated);
        assert!(walk.page(&clock(), NOW).is_none());
        assert!(walk.end(&clock(), 499_000, NOW).is_none());
        walk.settle(2);
        cursor.advance(walk.page(&clock(), NOW).unwrap());
        assert_eq!((cursor.watermark(), cursor.settled()), (time + 5, time + 5));
        cursor.advance(walk.end(&clock(), 499_000, NOW).unwrap());
        assert_eq!(cursor.watermark(), NOW.wall - 1_000, "when it was asked for");
        assert_eq!(cursor.settled(), NOW.wall - 1_000 - 300_000, "what is late may still come");
    }

    #[test]
    fn a_page_out_of_order_proves_nothing_before_the_end() {
        let cursor = Cursor::starting_at(100);
        let mut walk = walk(&cursor);
        walk.admit(&cursor, key(1), Some(200));
        walk.admit(&cursor, key(2), Some(150));
        walk.settle(2);
        assert!(walk.page(&clock(), NOW).is_none());
        assert!(walk.end(&clock(), 499_000, NOW).is_some());
    }

    #[test]
    fn a_record_behind_the_watermark_is_late_and_one_seen_before_is_not_sent_again() {
        let cursor = Cursor::restore(0, Some(100), 500, 0, None, [(key(1), 450)]);
        let mut walk = walk(&cursor);
        assert_eq!(walk.admit(&cursor, key(1), Some(450)), Admission::Repeated);
        assert_eq!(walk.admit(&cursor, key(2), Some(450)), Admission::Late);
        assert_eq!(walk.admit(&cursor, key(3), Some(500)), Admission::New);
    }

    #[test]
    fn without_a_clock_the_newest_record_is_the_watermark_and_time_settles_it() {
        let no_clock = ServerClock::default();
        let in_1970 = |steady| Now { steady, wall: steady };
        let (late, mut evidence) = (300_000, Evidence::default());
        let mut cursor = Cursor::starting_at(1_000);
        for (number, steady) in (0..).zip((0..1_000_000).step_by(4_000)) {
            let began =
                Walk::new(&cursor, cursor.settled(), steady, late, evidence.settled(steady, late));
            let mut walk = began;
            let time = 2_000 + steady;
            walk.admit(&cursor, key(number), Some(time));
            walk.settle(1);
            cursor.skip(key(number), time);
            cursor.advance(walk.end(&no_clock, steady, in_1970(steady)).unwrap());
            evidence.note(steady, time, late);
            assert_eq!(cursor.watermark(), time);
            assert!(cursor.settled() <= (time - late).max(1_000), "{steady}");
            assert!(cursor.settled() >= (time - late - late / 8).max(1_000), "{steady}");
        }
    }

    #[test]
    fn a_record_from_the_future_carries_nothing_with_it() {
        let mut cursor = Cursor::starting_at(NOW.wall - 10_000);
        let mut walk = walk(&cursor);
        walk.admit(&cursor, key(1), Some(NOW.wall + 86_400_000));
        walk.settle(1);
        for clock in [clock(), ServerClock::default()] {
            cursor.advance(walk.page(&clock, NOW).unwrap());
            cursor.advance(walk.end(&clock, 499_000, NOW).unwrap());
            assert_eq!(cursor.watermark(), NOW.wall);
            assert_eq!(cursor.settled(), NOW.wall - 10_000);
        }
    }

    #[test]
    fn a_list_without_an_end_is_given_up() {
        let cursor = Cursor::starting_at(0);
        let mut again = walk(&cursor);
        assert_eq!(again.go_on(Some(b"a")), Ok(()));
        assert_eq!(again.go_on(Some(b"b")), Ok(()));
        assert_eq!(again.go_on(Some(b"a")), Err(Endless::Cursor));
        let mut barren = walk(&cursor);
        let last = (0..1_000_u32).find(|n| barren.go_on(Some(&n.to_be_bytes())).is_err());
        assert_eq!(last, Some(MAX_PAGES_WITHOUT_PROGRESS));
        let mut rising = walk(&cursor);
        for page in 0..1_000_u64 {
            rising.admit(&cursor, key(page), Some(i64::try_from(page).unwrap()));
            assert_eq!(rising.go_on(Some(&page.to_be_bytes())), Ok(()));
        }
    }
}
