//! Who may ask the API, and when: one budget for all streams, and the pauses that the server asks for. It knows of no
//! token.
//!
//! The API lets through a fixed number of requests a minute for the whole tenant and answers 429 to the rest. So the
//! budget is kept on our side: never more than it in any minute, and spread, so that no request waits long for the
//! next. Alerts come first; a stream that was just served yields to one that waits, so neither starves the other.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::event::Stream;
use crate::source::purpose::Purpose;

/// The server counts by its own clock; half a second keeps us inside its minute whatever the network does.
const MINUTE: Duration = Duration::from_millis(60_500);
/// So many requests may follow each other at once after a quiet time.
const BURST: u32 = 3;
/// Whoever has waited this long is served as a poll would be, so that a backlog never starves a look far back.
const PATIENCE: Duration = Duration::from_secs(30);

/// The gate that every request to the API passes.
#[derive(Debug)]
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner {
    per_minute: u32,
    sent: VecDeque<Instant>,
    paused_until: Option<Instant>,
    waiting: Vec<Waiting>,
    last_served: Option<Stream>,
    n_waits: u64,
}

#[derive(Debug)]
struct Waiting {
    purpose: Purpose,
    stream: Stream,
    number: u64,
    since: Instant,
}

impl Gate {
    /// A gate that lets `per_minute` requests through, at least one.
    pub fn new(per_minute: u32) -> Self {
        let inner = Inner {
            per_minute: per_minute.max(1),
            sent: VecDeque::new(),
            paused_until: None,
            waiting: Vec::new(),
            last_served: None,
            n_waits: 0,
        };
        Self { inner: Mutex::new(inner), changed: Notify::new() }
    }

    /// Changes the budget for all that follows.
    pub fn set_per_minute(&self, per_minute: u32) {
        self.lock().per_minute = per_minute.max(1);
        self.changed.notify_waiters();
    }

    /// The budget.
    pub fn per_minute(&self) -> u32 {
        self.lock().per_minute
    }

    /// No request of any stream for this long.
    pub fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        inner.paused_until = Some(inner.paused_until.map_or(until, |there| there.max(until)));
    }

    /// Another secret may be another client to the server: the pause that it asked for is over.
    pub fn end_pause(&self) {
        self.lock().paused_until = None;
        self.changed.notify_waiters();
    }

    /// Waits until a request of this stream may go out, and counts it.
    pub async fn enter(&self, stream: Stream, purpose: Purpose) {
        let asked = Instant::now();
        let ticket = self.queue(stream, purpose);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let wake = match self.try_enter(&ticket) {
                Ok(()) => break,
                Err(wake) => wake,
            };
            match wake {
                Some(instant) => tokio::select! {
                    () = sleep_until(instant) => {}
                    () = &mut changed => {}
                },
                None => changed.await,
            }
        }
        debug!(%stream, ?purpose, waited = ?asked.elapsed(), "request let through");
    }

    fn queue(&self, stream: Stream, purpose: Purpose) -> Ticket<'_> {
        let mut inner = self.lock();
        inner.n_waits += 1;
        let number = inner.n_waits;
        inner.waiting.push(Waiting { purpose, stream, number, since: Instant::now() });
        Ticket { gate: self, number }
    }

    /// `Err` says when to look again; `None` means when something changes.
    fn try_enter(&self, ticket: &Ticket<'_>) -> Result<(), Option<Instant>> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.forget_old(now);
        let ready = inner.ready_at(now);
        if ready > now {
            return Err(Some(ready));
        }
        if inner.first_in_line(now) != Some(ticket.number) {
            return Err(None);
        }
        inner.sent.push_back(now);
        inner.last_served = inner.stream_of(ticket.number);
        drop(inner);
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while the lock is held")
    }
}

impl Inner {
    fn forget_old(&mut self, now: Instant) {
        while self.sent.front().is_some_and(|sent| now.duration_since(*sent) >= MINUTE) {
            self.sent.pop_front();
        }
    }

    fn stream_of(&self, number: u64) -> Option<Stream> {
        self.waiting.iter().find(|waiting| waiting.number == number).map(|waiting| waiting.stream)
    }

    /// When the budget lets the next request through.
    fn ready_at(&self, now: Instant) -> Instant {
        let budget = self.per_minute as usize;
        let minute = self.sent.len().checked_sub(budget).and_then(|oldest| self.sent.get(oldest));
        let minute = minute.map_or(now, |sent| *sent + MINUTE);
        // Spread: the request `BURST` before this one must lie as many intervals back.
        let burst = BURST.min(self.per_minute) as usize;
        let interval = MINUTE / self.per_minute;
        let spread = self.sent.len().checked_sub(burst).and_then(|index| self.sent.get(index));
        let spread = spread.map_or(now, |sent| *sent + interval * BURST.min(self.per_minute));
        minute.max(spread).max(self.paused_until.unwrap_or(now))
    }

    /// Whose turn it is.
    fn first_in_line(&self, now: Instant) -> Option<u64> {
        self.waiting
            .iter()
            .min_by_key(|waiting| {
                let just_served = self.last_served == Some(waiting.stream);
                let patient = now.duration_since(waiting.since) < PATIENCE;
                let purpose = if patient { waiting.purpose } else { Purpose::Poll };
                (purpose, just_served, waiting.stream, waiting.number)
            })
            .map(|waiting| waiting.number)
    }
}

/// A place in the queue; it is given up when the wait is abandoned.
#[derive(Debug)]
struct Ticket<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.gate.lock().waiting.retain(|waiting| waiting.number != self.number);
        self.gate.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn times(gate: &Gate, stream: Stream, n_requests: usize) -> Vec<Duration> {
        let start = Instant::now();
        let mut times = Vec::new();
        for _ in 0..n_requests {
            gate.enter(stream, Purpose::Poll).await;
            times.push(start.elapsed());
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_ever_sees_more_than_the_budget_and_nearly_all_of_it_is_used() {
        for budget in [1, 2, 3, 7, 30, 600] {
            let gate = Gate::new(budget);
            let times = times(&gate, Stream::Activities, budget as usize * 5).await;
            for (index, first) in times.iter().enumerate() {
                let n_within = times[index..]
                    .iter()
                    .filter(|time| **time - *first < Duration::from_secs(60))
                    .count();
                assert!(
                    n_within <= budget as usize,
                    "{n_within} requests within a minute, budget {budget}"
                );
            }
            let used = times.len() as f64
                / (times.last().unwrap().as_secs_f64() / 60.0 * f64::from(budget));
            assert!(used > 0.95, "budget {budget}: {used} used");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_stream_starves_the_other() {
        let gate = Gate::new(30);
        let (alerts, activities) =
            tokio::join!(times(&gate, Stream::Alerts, 30), times(&gate, Stream::Activities, 30));
        assert!(alerts[0] <= activities[0], "alerts come first");
        let apart = alerts[29].abs_diff(activities[29]);
        // The burst may go to whoever comes first.
        assert!(apart <= Duration::from_secs(7), "{apart:?} apart after thirty requests each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_far_back_is_not_starved_by_a_backlog() {
        let gate = Gate::new(30);
        let start = Instant::now();
        tokio::select! {
            () = async { gate.enter(Stream::Alerts, Purpose::Rescan).await } => {}
            _ = times(&gate, Stream::Activities, 1_000) => {}
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_until_it_is_over_or_ended() {
        let gate = Gate::new(600);
        let start = Instant::now();
        gate.pause(Duration::from_secs(30));
        gate.enter(Stream::Activities, Purpose::Poll).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        gate.pause(Duration::from_secs(30));
        tokio::join!(gate.enter(Stream::Alerts, Purpose::Poll), async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            gate.end_pause();
        });
        assert!((40..42).contains(&start.elapsed().as_secs()));
    }
}
