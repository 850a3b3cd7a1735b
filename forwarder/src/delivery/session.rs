//! One connection to a receiver that confirms only as its kernel does: which batch is written next, what an event on the
//! connection proves, and when it ends. Pure.
//!
//! The driver does the I/O: it reports what it read, what it wrote and what the kernel says, and does what comes back.
//! Times count from the moment at which the connection was opened. The rules:
//!
//! - A batch is confirmed once the peer's kernel has acknowledged its last byte, and the connection was then established
//!   and silent for the grace. A peer that may still refuse our certificate has a longer grace for the first one.
//! - A syslog receiver only listens: whatever is read ends the connection, and confirms nothing.
//! - A receiver that takes nothing is waited out; it is reported as stalled once.
//! - Changed certificates end the connection when all that was written is confirmed. What is not written goes over the
//!   next one.

use std::time::Duration;

use super::health::{Health, Look, Verdict};
use super::in_flight::InFlight;

/// What one connection has to hold to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// How long a connection must stay healthy after an acknowledgement.
    pub(super) grace: Duration,
    /// The same before the first confirmation, and how long until an idle connection counts as good.
    pub(super) first_grace: Duration,
    /// A mutation for the tests: confirm what is written, as other senders do, and lose records.
    pub(super) confirms_when_written: bool,
}

/// What the driver does next, before it waits for an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'b, T> {
    /// Write this batch whole.
    Write {
        /// The oldest batch that this connection has not carried.
        batch: &'b T,
        /// Whether an earlier connection may have carried it.
        is_again: bool,
    },
    /// Close the connection in order: nothing on it is unconfirmed.
    Close(Closing),
    /// Wait.
    Wait,
}

/// Why a connection is closed in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Our certificates changed.
    Rotated,
    /// The program stops, or nobody needs the sink any more.
    Finished,
}

/// What an event means, in the order in which the driver acts on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Action<T> {
    /// Batches that are delivered, the oldest first.
    pub(super) confirmed: Vec<T>,
    /// What has changed for whoever watches the target.
    pub(super) report: Option<Report>,
    /// The connection is over, and whatever is unconfirmed is sent again on the next one.
    pub(super) broken: Option<Cause>,
}

/// What is reported about the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// It keeps the connection, and confirms what it is sent.
    Up,
    /// It keeps the connection and takes nothing.
    Stalled,
    /// It takes records again.
    Recovered,
}

/// Why a connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The peer closed it.
    Closed,
    /// The peer sent data: it is another kind of server (HTTP, SMTP, Redis).
    Talks,
    /// The peer has taken nothing for ten minutes.
    Stalled,
    /// The peer's kernel does not answer.
    Gone,
}

/// How far the connection's end is; it only ever goes down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// Nothing more is written on this connection.
    Rotating,
    /// Nothing more is handed over.
    Last,
    /// What is not written stays unsent.
    Stopping,
    Broken,
}

/// One connection. `T` is a batch, which it never looks into.
#[derive(Debug)]
pub(super) struct SessionState<'a, T> {
    rules: Rules,
    in_flight: &'a mut InFlight<T>,
    health: Health,
    phase: Phase,
    is_writing: bool,
    has_confirmed: bool,
    reported: Option<Report>,
}

impl<T> Action<T> {
    pub(super) fn none() -> Self {
        Self { confirmed: Vec::new(), report: None, broken: None }
    }
}

impl<'a, T> SessionState<'a, T> {
    /// A connection that was just opened and has carried nothing.
    pub(super) fn new(rules: Rules, in_flight: &'a mut InFlight<T>) -> Self {
        Self {
            rules,
            in_flight,
            health: Health::default(),
            phase: Phase::Open,
            is_writing: false,
            has_confirmed: false,
            reported: None,
        }
    }

    /// What to do before waiting.
    pub(super) fn next(&mut self) -> Next<'_, T> {
        if self.phase == Phase::Stopping {
            self.in_flight.drop_unwritten();
        }
        if self.is_writing || self.phase == Phase::Broken {
            return Next::Wait;
        }
        if self.phase >= Phase::Last && self.in_flight.is_empty() {
            return Next::Close(Closing::Finished);
        }
        if self.phase == Phase::Rotating {
            let is_done = !self.in_flight.awaits_confirmation();
            return if is_done { Next::Close(Closing::Rotated) } else { Next::Wait };
        }
        match self.in_flight.start_write() {
            Some((batch, is_again)) => {
                self.is_writing = true;
                Next::Write { batch, is_again }
            }
            None => Next::Wait,
        }
    }

    /// Whether the driver has to look at the connection every now and then.
    pub(super) fn needs_ticks(&self) -> bool {
        self.reported.is_none() || self.in_flight.awaits_confirmation()
    }

    /// Whether batches may still be handed over.
    pub(super) fn takes_batches(&self) -> bool {
        self.phase < Phase::Last
    }

    /// Whether changed certificates would end the connection.
    pub(super) fn may_rotate(&self) -> bool {
        self.phase < Phase::Rotating
    }

    /// Whether the program has not asked for the end yet.
    pub(super) fn may_stop(&self) -> bool {
        self.phase < Phase::Stopping
    }

    /// Whether the connection has confirmed anything.
    pub(super) fn has_confirmed(&self) -> bool {
        self.has_confirmed
    }

    /// A batch was handed over.
    pub(super) fn on_batch(&mut self, batch: T) -> Action<T> {
        self.in_flight.push(batch);
        Action::none()
    }

    /// No more batches come.
    pub(super) fn on_last_batch(&mut self) -> Action<T> {
        self.enter(Phase::Last)
    }

    /// Our certificates changed.
    pub(super) fn on_new_certificates(&mut self) -> Action<T> {
        self.enter(Phase::Rotating)
    }

    /// The program stops.
    pub(super) fn on_stop(&mut self) -> Action<T> {
        self.enter(Phase::Stopping)
    }

    /// So many bytes were read; none is the peer's end.
    pub(super) fn on_read(&mut self, n_bytes: usize) -> Action<T> {
        self.on_break(if n_bytes == 0 { Cause::Closed } else { Cause::Talks })
    }

    /// The batch is written whole; the connection has carried `offset` bytes in all.
    pub(super) fn on_written(&mut self, offset: u64, now: Duration) -> Action<T> {
        self.is_writing = false;
        self.in_flight.finish_write(offset);
        let mut action = Action::none();
        if self.rules.confirms_when_written {
            self.in_flight.acknowledge(u64::MAX, now);
            action.confirmed = self.in_flight.confirm(Duration::ZERO, now);
            self.has_confirmed |= !action.confirmed.is_empty();
        }
        action
    }

    /// The connection as the kernel sees it.
    pub(super) fn on_tick(&mut self, look: &Look, now: Duration) -> Action<T> {
        let mut action = Action::none();
        if self.phase == Phase::Broken {
            return action;
        }
        let Rules { grace, first_grace, confirms_when_written: _ } = self.rules;
        self.in_flight.acknowledge(look.bytes_acked, now);
        if look.established {
            let grace = if self.has_confirmed { grace } else { first_grace };
            action.confirmed = self.in_flight.confirm(grace, now);
            self.has_confirmed |= !action.confirmed.is_empty();
        }
        match self.health.judge(look, self.in_flight.awaits_acknowledgement(), now) {
            Verdict::Well => {
                let is_proven = self.has_confirmed || !self.in_flight.awaits_confirmation();
                action.report = match self.reported {
                    None if now >= first_grace && is_proven => Some(Report::Up),
                    Some(Report::Stalled) => Some(Report::Recovered),
                    None | Some(Report::Up | Report::Recovered) => None,
                };
            }
            Verdict::Stalled => {
                action.report =
                    Some(Report::Stalled).filter(|stalled| self.reported != Some(*stalled));
            }
            Verdict::GivenUp => action.broken = self.on_break(Cause::Stalled).broken,
            Verdict::Gone => action.broken = self.on_break(Cause::Gone).broken,
        }
        self.reported = action.report.or(self.reported);
        action
    }

    fn on_break(&mut self, cause: Cause) -> Action<T> {
        self.phase = Phase::Broken;
        Action { broken: Some(cause), ..Action::none() }
    }

    fn enter(&mut self, phase: Phase) -> Action<T> {
        self.phase = self.phase.max(phase);
        Action::none()
    }
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(250);
    const LONG: Duration = Duration::from_secs(2);

    fn rules() -> Rules {
        Rules { grace: GRACE, first_grace: GRACE, confirms_when_written: false }
    }

    fn look(bytes_acked: u64) -> Look {
        let silent_for = Duration::ZERO;
        Look { bytes_acked, established: true, unanswered: false, silent_for }
    }

    fn with(batches: &[u64]) -> InFlight<u64> {
        let mut in_flight = InFlight::new();
        batches.iter().for_each(|batch| in_flight.push(*batch));
        in_flight
    }

    /// Writes all that may be written, each batch as many bytes as its number.
    fn write(state: &mut SessionState<'_, u64>, now: Duration) -> u64 {
        let mut offset = 0;
        while let Next::Write { batch, .. } = state.next() {
            offset += *batch;
            assert_eq!(state.on_written(offset, now), Action::none());
        }
        offset
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_idle_connection_is_reported_after_the_grace_and_needs_no_more_looks() {
        let mut in_flight = with(&[]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        assert_eq!(state.on_tick(&look(0), Duration::ZERO).report, None);
        assert!(state.needs_ticks());
        assert_eq!(state.on_tick(&look(0), GRACE).report, Some(Report::Up));
        assert!(!state.needs_ticks());
        state.on_batch(9);
        write(&mut state, GRACE);
        assert!(state.needs_ticks(), "a confirmation is awaited");
    }

    #[test]
    fn the_first_confirmation_waits_for_a_late_refusal_and_the_others_do_not() {
        let mut in_flight = with(&[5]);
        let rules = Rules { first_grace: LONG, ..rules() };
        let mut state = SessionState::new(rules, &mut in_flight);
        write(&mut state, Duration::ZERO);
        assert_eq!(state.on_tick(&look(5), Duration::ZERO), Action::none());
        assert_eq!(state.on_tick(&look(5), GRACE), Action::none(), "not proven, not reported");
        let first = state.on_tick(&look(5), LONG);
        assert_eq!((first.confirmed, first.report), (vec![5], Some(Report::Up)));
        state.on_batch(7);
        assert_eq!(state.next(), Next::Write { batch: &7, is_again: false });
        state.on_written(12, LONG);
        assert_eq!(state.on_tick(&look(12), LONG), Action::none());
        assert_eq!(state.on_tick(&look(12), LONG + GRACE).confirmed, [7]);
    }

    #[test]
    fn a_connection_that_is_not_established_confirms_nothing() {
        let mut in_flight = with(&[5]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        write(&mut state, Duration::ZERO);
        let closing = Look { established: false, ..look(5) };
        for second in 0..4 {
            assert!(state.on_tick(&closing, seconds(second)).confirmed.is_empty());
        }
    }

    #[test]
    fn whatever_the_peer_sends_breaks_the_connection_and_confirms_nothing() {
        for (n_bytes, cause) in [(0, Cause::Closed), (1, Cause::Talks)] {
            let mut in_flight = with(&[5]);
            let mut state = SessionState::new(rules(), &mut in_flight);
            write(&mut state, Duration::ZERO);
            state.on_tick(&look(5), Duration::ZERO);
            assert_eq!(state.on_read(n_bytes).broken, Some(cause));
            assert_eq!(state.on_tick(&look(5), LONG), Action::none());
            assert_eq!(state.next(), Next::Wait);
            assert!(!in_flight.is_empty());
        }
    }

    #[test]
    fn a_closed_window_is_reported_once_and_waited_out_for_ten_minutes() {
        let mut in_flight = with(&[5]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        write(&mut state, Duration::ZERO);
        let mut reports = Vec::new();
        for second in 0..600 {
            let action = state.on_tick(&look(3), seconds(second));
            assert_eq!((action.broken, action.confirmed.len()), (None, 0), "{second}");
            reports.extend(action.report.map(|report| (second, report)));
        }
        assert_eq!(reports, [(5, Report::Stalled)]);
        assert_eq!(state.on_tick(&look(3), seconds(600)).broken, Some(Cause::Stalled));
    }

    #[test]
    fn a_receiver_that_takes_records_again_is_reported_once() {
        let mut in_flight = with(&[5]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        write(&mut state, Duration::ZERO);
        let report = |acked, second, state: &mut SessionState<'_, u64>| {
            state.on_tick(&look(acked), seconds(second)).report
        };
        assert_eq!(report(3, 0, &mut state), None);
        assert_eq!(report(3, 6, &mut state), Some(Report::Stalled));
        assert_eq!(report(4, 7, &mut state), Some(Report::Recovered));
        assert_eq!(report(4, 8, &mut state), None);
        assert_eq!(report(4, 13, &mut state), Some(Report::Stalled), "again");
    }

    #[test]
    fn a_peer_whose_kernel_answers_nothing_is_gone() {
        let mut in_flight = with(&[5]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        write(&mut state, Duration::ZERO);
        let silent = |second| Look { unanswered: true, silent_for: seconds(second), ..look(0) };
        let broken = (0..60).find_map(|second| {
            let broken = state.on_tick(&silent(second), seconds(second)).broken;
            broken.map(|cause| (second, cause))
        });
        assert_eq!(broken, Some((20, Cause::Gone)));
    }

    /// The manifest may ask for a minute.
    #[test]
    fn a_long_grace_over_what_is_acknowledged_is_no_stall() {
        let mut in_flight = with(&[5]);
        let rules = Rules { grace: seconds(60), first_grace: seconds(60), ..rules() };
        let mut state = SessionState::new(rules, &mut in_flight);
        write(&mut state, Duration::ZERO);
        for second in 0..60 {
            assert_eq!(state.on_tick(&look(5), seconds(second)), Action::none(), "{second}");
        }
        assert_eq!(state.on_tick(&look(5), seconds(60)).confirmed, [5]);
    }

    #[test]
    fn a_rotation_waits_for_what_is_written_and_leaves_the_rest_to_the_next_connection() {
        let mut in_flight = with(&[5]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        write(&mut state, Duration::ZERO);
        state.on_new_certificates();
        assert!(!state.may_rotate() && state.takes_batches());
        state.on_batch(7);
        assert_eq!(state.next(), Next::Wait, "the first is not confirmed");
        state.on_tick(&look(5), Duration::ZERO);
        assert_eq!(state.on_tick(&look(5), GRACE).confirmed, [5]);
        assert_eq!(state.next(), Next::Close(Closing::Rotated));
        let mut next = SessionState::new(rules(), &mut in_flight);
        assert_eq!(next.next(), Next::Write { batch: &7, is_again: false });
    }

    #[test]
    fn a_stop_confirms_what_is_written_and_lets_go_of_the_rest() {
        let mut in_flight = with(&[5, 7]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        assert_eq!(state.next(), Next::Write { batch: &5, is_again: false });
        state.on_stop();
        assert!(!state.takes_batches() && !state.may_stop());
        assert_eq!(state.next(), Next::Wait, "the first is being written");
        state.on_written(5, Duration::ZERO);
        assert_eq!(state.next(), Next::Wait, "and is not confirmed");
        state.on_tick(&look(5), Duration::ZERO);
        assert_eq!(state.on_tick(&look(5), GRACE).confirmed, [5]);
        assert_eq!(state.next(), Next::Close(Closing::Finished));
    }

    #[test]
    fn the_last_batches_are_written_and_confirmed_before_the_end() {
        let mut in_flight = with(&[5, 7]);
        let mut state = SessionState::new(rules(), &mut in_flight);
        state.on_new_certificates();
        state.on_last_batch();
        assert_eq!(write(&mut state, Duration::ZERO), 12);
        state.on_tick(&look(12), Duration::ZERO);
        assert_eq!(state.on_tick(&look(12), GRACE).confirmed, [5, 7]);
        assert_eq!(state.next(), Next::Close(Closing::Finished));
    }
}
