//! Who may have a connection while there are more clients than places. Pure.
//!
//! A connection waits for its request, has an answer that the peer takes, and waits for the peer to close. When all places
//! are taken, the newest connection gets that of the one which waits longest, among those of the address that holds the
//! most places: a flood from one address displaces itself. The place of an address that holds fewer than the newest one's
//! is never taken; an answer younger than a second gives way to an address that holds fewer alone. Where no place can be
//! taken, the newest is refused.
//!
//! A probe or a scrape sends its request at once and takes its answer at once, so it ends long before it is displaced.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// A connection has so long for its whole request.
pub(crate) const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// The peer has so long to take the whole answer and to close.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// An answer has so long before its place may be taken.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// A shorter answer is the kernel's at once: it is neither counted nor refused.
const SHORT: usize = 64 * 1024;

/// No place can be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// The connections. `H` is what ends one of them.
#[derive(Debug)]
pub(crate) struct Places<H> {
    n_places: usize,
    n_bytes: usize,
    next: u64,
    taken: BTreeMap<u64, Taken<H>>,
}

#[derive(Debug)]
struct Taken<H> {
    address: IpAddr,
    /// When it came, or when its answer began.
    since: Instant,
    phase: Phase,
    handle: H,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The whole request.
    Request,
    /// The peer, which takes the answer.
    Answer { n_bytes: usize },
    /// The peer, which has what we had and closes.
    Close,
}

impl<H> Taken<H> {
    /// The bytes that are held for it.
    fn n_bytes(&self) -> usize {
        match self.phase {
            Phase::Answer { n_bytes } if n_bytes > SHORT => n_bytes,
            Phase::Answer { .. } | Phase::Request | Phase::Close => 0,
        }
    }

    fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Answer { .. })
    }

    fn is_undisturbed(&self, now: Instant) -> bool {
        self.is_answered() && now.saturating_duration_since(self.since) < UNDISTURBED
    }
}

impl<H> Places<H> {
    /// So many places, and so many bytes of answers at once.
    pub(crate) fn new(n_places: usize, n_bytes: usize) -> Self {
        Self { n_places, n_bytes, next: 0, taken: BTreeMap::new() }
    }

    /// A place for a new connection, and the one that is displaced for it.
    pub(crate) fn enter(
        &mut self,
        peer: IpAddr,
        handle: H,
        now: Instant,
    ) -> Result<(u64, Option<H>), Full> {
        let address = neighbourhood(peer);
        let mut displaced = None;
        if self.taken.len() >= self.n_places {
            let id = self.displaceable(address, self.n_of(address) + 1, None, now).ok_or(Full)?;
            displaced = self.leave(id);
        }
        let id = self.next;
        self.next += 1;
        self.taken.insert(id, Taken { address, since: now, phase: Phase::Request, handle });
        Ok((id, displaced))
    }

    /// The request has come, and its answer has so many bytes; those that are displaced for it.
    pub(crate) fn answer(&mut self, id: u64, n_bytes: usize, now: Instant) -> Result<Vec<H>, Full> {
        let mut displaced = Vec::new();
        let address = self.taken.get(&id).ok_or(Full)?.address;
        while self.is_too_much_beside(id, n_bytes) {
            let other =
                self.displaceable(address, self.n_of(address), Some(id), now).ok_or(Full)?;
            displaced.extend(self.leave(other));
        }
        if let Some(own) = self.taken.get_mut(&id) {
            own.since = now;
            own.phase = Phase::Answer { n_bytes };
        }
        Ok(displaced)
    }

    /// The answer is in the kernel's hands.
    pub(crate) fn close(&mut self, id: u64) {
        if let Some(own) = self.taken.get_mut(&id) {
            own.phase = Phase::Close;
        }
    }

    /// The connection has ended.
    pub(crate) fn leave(&mut self, id: u64) -> Option<H> {
        self.taken.remove(&id).map(|taken| taken.handle)
    }

    /// When the connection is given up; `None` when it has no place any more.
    pub(crate) fn deadline(&self, id: u64) -> Option<Instant> {
        let taken = self.taken.get(&id)?;
        let patience = match taken.phase {
            Phase::Request => REQUEST_PATIENCE,
            Phase::Answer { .. } | Phase::Close => ANSWER_PATIENCE,
        };
        Some(taken.since + patience)
    }

    fn n_of(&self, address: IpAddr) -> usize {
        self.taken.values().filter(|taken| taken.address == address).count()
    }

    /// One answer alone may be of any length.
    fn is_too_much_beside(&self, id: u64, n_bytes: usize) -> bool {
        let others = self.taken.iter().filter(|(other, _)| **other != id);
        let n_others = others.map(|(_, taken)| taken.n_bytes()).fold(0, usize::saturating_add);
        n_bytes > SHORT && n_others > 0 && n_others.saturating_add(n_bytes) > self.n_bytes
    }

    /// Whose place may be taken by an address that has `n_own` places, its newest included. For room for the answer of
    /// `answering` only other answers count.
    fn displaceable(
        &self,
        address: IpAddr,
        n_own: usize,
        answering: Option<u64>,
        now: Instant,
    ) -> Option<u64> {
        let candidates = self.taken.iter().filter_map(|(id, taken)| {
            let n_held = self.n_of(taken.address);
            let n_counted =
                if taken.address == address && answering.is_none() { n_held + 1 } else { n_held };
            let is_wanted = answering.is_none_or(|own| own != *id && taken.n_bytes() > 0);
            let gives_way = n_counted > n_own || !taken.is_undisturbed(now);
            (is_wanted && n_counted >= n_own && gives_way).then_some((
                n_counted,
                !taken.is_answered(),
                Reverse((taken.since, *id)),
            ))
        });
        candidates.max().map(|(_, _, Reverse((_, id)))| id)
    }
}

/// What counts as one address: of IPv6 the network, because a machine has all of it.
fn neighbourhood(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";

    struct Stage {
        places: Places<&'static str>,
        start: Instant,
    }

    impl Stage {
        fn new(n_places: usize, n_bytes: usize) -> Self {
            Self {
                places: Places::new(n_places, n_bytes),
                start: tokio::time::Instant::now().into_std(),
            }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn enter(
            &mut self,
            address: &str,
            name: &'static str,
            millis: u64,
        ) -> Result<(u64, Option<&'static str>), Full> {
            let now = self.at(millis);
            self.places.enter(address.parse().unwrap(), name, now)
        }
    }

    #[test]
    fn the_newest_displaces_the_one_that_waits_longest() {
        let mut stage = Stage::new(2, 100);
        assert_eq!(stage.enter(A, "one", 0), Ok((0, None)));
        assert_eq!(stage.enter(A, "two", 1), Ok((1, None)));
        assert_eq!(stage.enter(A, "probe", 2), Ok((2, Some("one"))));
        assert_eq!(stage.enter(A, "three", 3), Ok((3, Some("two"))));
    }

    #[test]
    fn a_flood_from_one_address_displaces_itself_alone() {
        let mut stage = Stage::new(4, 100);
        stage.enter(B, "scraper", 0).unwrap();
        for (name, at) in [("a", 1), ("b", 2), ("c", 3)] {
            stage.enter(A, name, at).unwrap();
        }
        for at in 4..100 {
            let (_, displaced) = stage.enter(A, "more", at).unwrap();
            assert_ne!(displaced, Some("scraper"));
        }
        // Another address with less takes from it, however young its connections are.
        let (_, displaced) = stage.enter(B, "probe", 100).unwrap();
        assert_eq!(displaced, Some("more"));
    }

    #[test]
    fn an_answer_has_a_second_and_where_all_have_one_the_newest_is_refused() {
        let mut stage = Stage::new(2, 100);
        for name in ["one", "two"] {
            let (id, _) = stage.enter(A, name, 0).unwrap();
            stage.places.answer(id, 10, stage.at(0)).unwrap();
        }
        assert_eq!(stage.enter(A, "new", 999), Err(Full));
        assert_eq!(stage.enter(A, "new", 1_000), Ok((2, Some("one"))));
    }

    #[test]
    fn an_address_that_holds_more_gives_way_at_once() {
        let mut stage = Stage::new(3, 100);
        for name in ["one", "two", "three"] {
            let (id, _) = stage.enter(A, name, 0).unwrap();
            stage.places.answer(id, 10, stage.at(0)).unwrap();
        }
        assert_eq!(stage.enter(B, "probe", 1), Ok((3, Some("one"))));
        // B would hold as much as A then; its own that waits gives way to it.
        assert_eq!(stage.enter(B, "scrape", 1), Ok((4, Some("probe"))));
    }

    #[test]
    fn one_that_has_its_answer_and_does_not_close_is_displaced_at_once() {
        let mut stage = Stage::new(1, 100);
        let (id, _) = stage.enter(A, "deaf", 0).unwrap();
        stage.places.answer(id, 10, stage.at(0)).unwrap();
        stage.places.close(id);
        assert_eq!(stage.places.deadline(id), Some(stage.at(0) + ANSWER_PATIENCE));
        assert_eq!(stage.enter(A, "probe", 1), Ok((1, Some("deaf"))));
    }

    #[test]
    fn one_that_waits_is_displaced_before_one_that_reads() {
        let mut stage = Stage::new(2, 100);
        let (id, _) = stage.enter(A, "reads", 0).unwrap();
        stage.places.answer(id, 10, stage.at(0)).unwrap();
        stage.enter(A, "waits", 4_000).unwrap();
        assert_eq!(stage.enter(A, "new", 4_500), Ok((2, Some("waits"))));
    }

    #[test]
    fn an_address_never_displaces_one_that_holds_less() {
        let mut stage = Stage::new(3, 100);
        stage.enter(B, "scraper", 0).unwrap();
        for name in ["a", "b"] {
            let (id, _) = stage.enter(A, name, 1).unwrap();
            stage.places.answer(id, 1, stage.at(1)).unwrap();
        }
        assert_eq!(stage.enter(A, "c", 2), Err(Full));
    }

    #[test]
    fn answers_have_so_many_bytes_together() {
        const MIB: usize = 1024 * 1024;
        let mut stage = Stage::new(8, 10 * MIB);
        let (first, _) = stage.enter(A, "first", 0).unwrap();
        let (second, _) = stage.enter(A, "second", 0).unwrap();
        let (third, _) = stage.enter(B, "third", 0).unwrap();
        // One alone may be longer than all together.
        assert_eq!(stage.places.answer(first, 50 * MIB, stage.at(0)), Ok(vec![]));
        assert_eq!(stage.places.answer(second, MIB, stage.at(999)), Err(Full));
        assert_eq!(stage.places.answer(third, 6 * MIB, stage.at(1_000)), Ok(vec!["first"]));
        assert_eq!(stage.places.answer(second, 4 * MIB, stage.at(1_000)), Ok(vec![]));
        assert_eq!(stage.places.answer(first, 1, stage.at(1_000)), Err(Full));
        // A probe's answer is never too much.
        let (probe, _) = stage.enter(A, "probe", 1_000).unwrap();
        assert_eq!(stage.places.answer(probe, SHORT, stage.at(1_000)), Ok(vec![]));
        assert_eq!(stage.places.answer(probe, SHORT + 1, stage.at(1_000)), Err(Full));
    }

    #[test]
    fn a_connection_has_a_time_for_its_request_and_one_for_its_answer() {
        let mut stage = Stage::new(2, 100);
        let (id, _) = stage.enter(A, "one", 0).unwrap();
        assert_eq!(stage.places.deadline(id), Some(stage.at(0) + REQUEST_PATIENCE));
        stage.places.answer(id, 10, stage.at(3_000)).unwrap();
        assert_eq!(stage.places.deadline(id), Some(stage.at(3_000) + ANSWER_PATIENCE));
        assert_eq!(stage.places.leave(id), Some("one"));
        assert_eq!(stage.places.deadline(id), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| neighbourhood(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of(A));
        assert_ne!(of(A), of(B));
    }
}
