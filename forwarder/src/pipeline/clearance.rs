//! Lets requests out: when the credential may be tried, as `credential` has it, and when the budget has room.
//!
//! It reads the secret and the clock for the machine, and decides nothing itself.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::credential::{Credential, Halt};
use crate::event::Stream;
use crate::source::failure::Refusal;
use crate::source::http::gate::Gate;
use crate::source::purpose::Purpose;
use crate::source::{Offer, Source};
use crate::time::{Millis, millis};

/// How often whoever waits because of the credential looks whether the secret has changed.
pub(super) const SECRET_LOOK: Duration = Duration::from_secs(1);

/// The budget of each stream: at the portal's API one of both.
#[derive(Debug, Clone)]
pub struct Gates {
    /// Of alerts.
    pub alerts: Arc<Gate>,
    /// Of activities.
    pub activities: Arc<Gate>,
}

impl Gates {
    /// The budget of a stream.
    pub fn of(&self, stream: Stream) -> Arc<Gate> {
        Arc::clone(match stream {
            Stream::Alerts => &self.alerts,
            Stream::Activities => &self.activities,
        })
    }
}

/// What every request passes.
#[derive(Debug)]
pub struct Clearance {
    gates: Gates,
    credential: Mutex<Credential>,
    changed: Notify,
    began: Instant,
}

impl Clearance {
    /// Nothing is known of the credential yet.
    pub fn new(gates: Gates, streams: impl IntoIterator<Item = Stream>) -> Self {
        let credential = Mutex::new(Credential::new(streams, 0));
        Self { gates, credential, changed: Notify::new(), began: Instant::now() }
    }

    /// Waits until a request of this stream may go out, and counts it. It must be sent with the offer that this gives, and
    /// what comes of it be said.
    pub(super) async fn enter(
        &self,
        source: &impl Source,
        stream: Stream,
        purpose: Purpose,
    ) -> Offer {
        loop {
            let offer = self.wait(source, stream).await;
            self.lock().reserved(stream, offer.id());
            self.gates.of(stream).enter(stream, purpose).await;
            // In the meantime it may have died, or be another one.
            let (offer, now) = (source.offer(), self.now());
            let mut credential = self.lock();
            if credential.next_try(stream, offer.id(), now) <= now {
                credential.offered(stream, offer.id(), now);
                return offer;
            }
            credential.released(stream);
        }
    }

    /// Waits until the credential may be tried for this stream: its time has come, or the secret is another one.
    pub(super) async fn wait(&self, source: &impl Source, stream: Stream) -> Offer {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (offer, now) = (source.offer(), self.now());
            let next = self.lock().next_try(stream, offer.id(), now);
            let Some(wait @ 1..) = u64::try_from(next - now).ok() else { return offer };
            // What wakes it is looked at above.
            let _ = timeout(SECRET_LOOK.min(Duration::from_millis(wait)), changed).await;
        }
    }

    /// Waits as long as the server asked for, unless the secret changes: another one may be another client to the server.
    pub(super) async fn wait_paused(&self, source: &impl Source, stream: Stream, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.is_another(source, stream) {
                self.gates.of(stream).end_pause();
                return;
            }
            sleep(SECRET_LOOK.min(until - Instant::now())).await;
        }
    }

    /// The source asked for this pause of everything that this stream's budget is spent on.
    pub(super) fn pause(&self, stream: Stream, wait: Duration) {
        self.gates.of(stream).pause(wait);
    }

    /// Whether the secret is another one than this stream has tried, and worth a try at once.
    pub(super) fn is_another(&self, source: &impl Source, stream: Stream) -> bool {
        self.lock().is_another(stream, source.offer().id())
    }

    /// Who should try the secret though no stream is read, because it is another one than was refused.
    pub(super) fn worth_a_try(&self, source: &impl Source) -> Option<Stream> {
        self.lock().worth_a_try(source.offer().id())
    }

    /// Who should try the credential because nobody has for long.
    pub(super) fn check_due(&self) -> Option<Stream> {
        self.lock().check_due(self.now())
    }

    /// The source took what the stream offered.
    pub(super) fn accepted(&self, stream: Stream) {
        self.lock().accepted(stream, self.now());
        self.changed.notify_waiters();
    }

    /// What the stream offered was refused, or the stream was.
    pub(super) fn refused(&self, stream: Stream, refusal: Refusal) -> Halt {
        let halt = self.lock().refused(stream, refusal, self.now(), fastrand::f64());
        self.changed.notify_waiters();
        halt
    }

    /// The source failed otherwise.
    pub(super) fn unheard(&self, stream: Stream) {
        self.lock().unheard(stream);
        self.changed.notify_waiters();
    }

    fn now(&self) -> Millis {
        millis(self.began.elapsed())
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    fn lock(&self) -> MutexGuard<'_, Credential> {
        self.credential.lock().expect("nothing panics while the lock is held")
    }
}
