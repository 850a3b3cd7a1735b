//! The laws of confirmation, held to thousands of generated histories of connections.
//!
//! A model of the receiver keeps, apart from the state machine, what its kernel has acknowledged and when; it says of each
//! confirmation whether the rules allow it. A state machine that confirms what it wrote must fail here.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;

const RULES: Rules = Rules {
    grace: Duration::from_millis(250),
    first_grace: Duration::from_secs(2),
    confirms_when_written: false,
};

/// What happens next.
#[derive(Debug, Clone)]
enum Event {
    /// A batch of so many bytes is handed over.
    Batch(u64),
    /// The batch in progress is written, with so many bytes of TLS around it.
    Written(u64),
    /// Time passes, and the kernel is looked at: it has acknowledged this share of what the connection carries.
    Tick {
        milliseconds: u64,
        percent: u64,
        established: bool,
    },
    /// The peer sends so much, or closes.
    Read(usize),
    Certificates,
}

fn event() -> impl Strategy<Value = Event> {
    let tick = (1_u64..900, 0_u64..=100, prop::bool::weighted(0.95)).prop_map(
        |(milliseconds, percent, established)| Event::Tick { milliseconds, percent, established },
    );
    prop_oneof![
        6 => (1_u64..100).prop_map(Event::Batch),
        6 => (0_u64..30).prop_map(Event::Written),
        12 => tick,
        1 => (0_usize..3).prop_map(Event::Read),
        1 => Just(Event::Certificates),
    ]
}

/// What a batch is here: its number, and how many bytes it has.
type Batch = (u64, u64);

/// One connection as the receiver has it.
#[derive(Debug, Default)]
struct Connection {
    now: Duration,
    /// Bytes of whole batches.
    carried: u64,
    writing: Option<Batch>,
    /// What was written and is unconfirmed: the batch, its end, and when its end was first seen acknowledged.
    written: Vec<(u64, u64, Option<Duration>)>,
    acked: u64,
    has_confirmed: bool,
    has_heard: bool,
    stalls: u32,
}

impl Connection {
    /// What may be acknowledged: bytes in progress may have arrived already.
    fn reachable(&self) -> u64 {
        self.carried + self.writing.map_or(0, |(_, n_bytes)| n_bytes)
    }

    fn look(&mut self, percent: u64, established: bool) -> Look {
        self.acked = self.acked.max(self.reachable() * percent / 100);
        let (acked, now) = (self.acked, self.now);
        for (_, end, since) in &mut self.written {
            if *end <= acked {
                since.get_or_insert(now);
            }
        }
        Look { bytes_acked: acked, established, unanswered: false, silent_for: Duration::ZERO }
    }

    /// Whether the rules allow these confirmations.
    fn allows(&mut self, confirmed: &[Batch], established: bool) -> TestCaseResult {
        for (number, _) in confirmed {
            prop_assert!(established && !self.has_heard, "the connection is not well");
            prop_assert!(!self.written.is_empty(), "{number} was not written whole");
            let (oldest, _, since) = self.written.remove(0);
            prop_assert_eq!(oldest, *number, "confirmed out of order");
            let Some(since) = since else {
                return Err(TestCaseError::fail("its last byte is not acknowledged"));
            };
            let grace = if self.has_confirmed { RULES.grace } else { RULES.first_grace };
            prop_assert!(self.now - since >= grace, "before the grace is over");
        }
        self.has_confirmed |= !confirmed.is_empty();
        Ok(())
    }
}

/// A state machine of these rules lives through a history of connections.
fn history(rules: Rules, events: Vec<Event>) -> TestCaseResult {
    let mut in_flight = InFlight::new();
    let (mut n_batches, mut confirmed) = (0, Vec::new());
    // In the end the receiver takes everything.
    let tick = Event::Tick { milliseconds: 300, percent: 100, established: true };
    let calm = std::iter::repeat_n([Event::Written(0), tick], 800).flatten();
    let mut events = events.into_iter().chain(calm).peekable();
    while events.peek().is_some() {
        let mut state = SessionState::new(rules, &mut in_flight);
        let mut connection = Connection::default();
        let broken = loop {
            match state.next() {
                Next::Write { batch, .. } => connection.writing = Some(*batch),
                Next::Close(closing) => {
                    prop_assert_eq!(closing, Closing::Rotated);
                    prop_assert!(connection.written.is_empty() && connection.writing.is_none());
                    break false;
                }
                Next::Wait => {}
            }
            let Some(event) = events.next() else { break true };
            let action = match event {
                Event::Batch(n_bytes) => {
                    n_batches += 1;
                    state.on_batch((n_batches, n_bytes))
                }
                Event::Written(around) => {
                    let Some((number, n_bytes)) = connection.writing.take() else { continue };
                    connection.carried += n_bytes + around;
                    connection.written.push((number, connection.carried, None));
                    let action = state.on_written(connection.carried, connection.now);
                    connection.allows(&action.confirmed, true)?;
                    action
                }
                Event::Tick { milliseconds, percent, established } => {
                    connection.now += Duration::from_millis(milliseconds);
                    let look = connection.look(percent, established);
                    let action = state.on_tick(&look, connection.now);
                    connection.allows(&action.confirmed, established)?;
                    action
                }
                Event::Read(n_bytes) => {
                    connection.has_heard = true;
                    state.on_read(n_bytes)
                }
                Event::Certificates => state.on_new_certificates(),
            };
            confirmed.extend(action.confirmed.iter().map(|(number, _)| *number));
            match action.report {
                Some(Report::Stalled) => connection.stalls += 1,
                Some(Report::Up | Report::Recovered) => connection.stalls = 0,
                None => {}
            }
            prop_assert!(connection.stalls <= 1, "one stall is reported twice");
            prop_assert_eq!(connection.has_heard, action.broken.is_some());
            if action.broken.is_some() {
                let late = state.on_tick(&connection.look(100, true), connection.now * 100);
                prop_assert!(late.confirmed.is_empty(), "confirmed after the end");
                break true;
            }
        };
        if broken {
            in_flight.rewind();
        }
    }
    prop_assert_eq!(confirmed, (1..=n_batches).collect::<Vec<_>>(), "each once, and in order");
    Ok(())
}

proptest! {
    #[test]
    fn nothing_is_confirmed_that_the_receiver_does_not_have(events in vec(event(), 0..200)) {
        history(RULES, events)?;
    }
}

#[test]
fn a_state_machine_that_confirms_what_it_wrote_breaks_the_law() {
    let events = vec![Event::Batch(10), Event::Written(0)];
    assert!(history(RULES, events.clone()).is_ok());
    let mutated = Rules { confirms_when_written: true, ..RULES };
    history(mutated, events).unwrap_err();
}
