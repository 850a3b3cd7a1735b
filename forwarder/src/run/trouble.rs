//! What the loop does when the source fails: tells it, logs it once as it changes, and waits as `retry` decides.

use std::time::Duration;

use siem_agent_crds::report::{SourceState, TokenState};
use siem_agent_edge::clock;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::Forwarder;
use crate::event::Stream;
use crate::retry::{self, Decision, Failure};
use crate::source::Arrived;
use crate::source::gate::Purpose;
use crate::source::query::Query;
use crate::{secret, source};

/// While nothing is fetched because the target is away, the token is still tried this often.
const TOKEN_CHECK: Duration = Duration::from_secs(10 * 60);
/// What is given the one stream to learn whether a token lives again, before the next one tries.
const AFTER_THE_OTHER: Duration = Duration::from_secs(40);
/// How often whoever was refused looks whether the secret has changed.
const SECRET_LOOK: Duration = Duration::from_secs(1);

impl Forwarder {
    /// Reports what failed and gives the wait before the next try, which says whether there is another secret by then.
    pub(super) fn take_note(
        &self,
        stream: Stream,
        error: &source::Error,
        n_failures: u32,
    ) -> impl Future<Output = bool> + '_ {
        let now = clock::now();
        let reason = self.source.words(error);
        if let Some(code) = error.code() {
            self.progress.metrics.requested(stream, &code);
        }
        let failure = error.failure();
        // Neither is the source's fault: a fresh access token is asked for, or the target holds the page up.
        let is_ours =
            matches!(error, source::Error::AccessTokenRefused { .. } | source::Error::Abandoned);
        match failure {
            Failure::Unauthorized => {
                self.progress.token_refused(TokenState::Invalid, reason.clone(), now);
            }
            Failure::SecretMissing => {
                let state = match error {
                    source::Error::Secret(secret::Error::Missing { .. }) => TokenState::Missing,
                    _ => TokenState::Invalid,
                };
                self.progress.token_refused(state, reason.clone(), now);
            }
            Failure::Forbidden => self.progress.stream_forbidden(stream, reason.clone(), now),
            Failure::Throttled { .. } => {
                self.progress.source_failed(stream, SourceState::Throttled, reason.clone(), now);
            }
            Failure::Transient if is_ours => {}
            Failure::Refused | Failure::Transient => {
                self.progress.source_failed(stream, SourceState::Unreachable, reason.clone(), now);
            }
        }
        let decision = if is_ours {
            Decision::Retry(Duration::ZERO)
        } else {
            retry::decide(failure, n_failures, fastrand::f64())
        };
        match decision {
            Decision::HaltAll(_) | Decision::HaltStream(_) if n_failures == 0 => {
                error!(%stream, reason, ?decision, "polling stopped: action needed");
            }
            _ => warn!(%stream, reason, ?decision, "the source failed"),
        }
        match decision {
            Decision::HaltAll(wait) => {
                // One stream tries for both: where it is let in, the others are resumed at once.
                for (turn, (stream, _)) in (0..).zip(&self.plan.streams) {
                    self.gate.halt(*stream, wait + AFTER_THE_OTHER * turn);
                }
            }
            Decision::HaltStream(wait) => self.gate.halt(stream, wait),
            Decision::PauseAll(wait) => self.gate.pause(wait),
            Decision::Retry(_) => {}
        }
        async move {
            match decision {
                Decision::HaltAll(_) | Decision::HaltStream(_) => {
                    self.wait_while_halted(stream).await;
                }
                Decision::PauseAll(wait) => self.wait_while_paused(stream, wait).await,
                Decision::Retry(wait) => sleep(wait).await,
            }
            self.source.secret_changed(stream)
        }
    }

    /// Waits while the stream is halted: until its time is up, or the secret is another one, which is tried at once.
    async fn wait_while_halted(&self, stream: Stream) {
        while self.gate.is_halted(stream) {
            if self.source.secret_changed(stream) {
                self.gate.resume();
                return;
            }
            sleep(SECRET_LOOK).await;
        }
    }

    /// Waits as long as the server asked for, unless the secret changes.
    async fn wait_while_paused(&self, stream: Stream, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.source.secret_changed(stream) {
                self.gate.end_pause();
                return;
            }
            sleep(SECRET_LOOK.min(until - Instant::now())).await;
        }
    }

    /// For ever: tries the token where no stream does, because the target takes no records: a changed secret at once, any
    /// other now and then.
    pub(super) async fn watch_token(&self) {
        let Some((first, _)) = self.plan.streams.first() else {
            return std::future::pending().await;
        };
        let mut next_check = Instant::now() + TOKEN_CHECK / 10;
        // A stream that meets a halt of ours waits at the gate, and looks at no secret.
        let mut has_halted = false;
        loop {
            sleep(SECRET_LOOK).await;
            has_halted &= self.plan.streams.iter().any(|(stream, _)| self.gate.is_halted(*stream));
            if has_halted || !self.sink.target().takes_records() {
                let mut refused = self.progress.refused_streams().into_iter();
                if let Some(stream) = refused.find(|stream| self.source.secret_changed(*stream)) {
                    self.try_changed_secret(stream).await;
                    has_halted = true;
                }
            }
            // To wait for the end of a halt would hold up the look at the secret.
            if Instant::now() < next_check || self.gate.is_halted(*first) {
                continue;
            }
            next_check = Instant::now() + TOKEN_CHECK / 10;
            let age =
                self.progress.last_token_check().map(|last| clock::now().duration_since(last));
            if age.is_some_and(|age| Duration::try_from(age).unwrap_or_default() < TOKEN_CHECK) {
                continue;
            }
            if let Err(error) = self.try_token(*first).await {
                // A halt holds back whoever comes next.
                drop(self.take_note(*first, &error, 0));
                has_halted = true;
            }
        }
    }

    /// Tries until the API has said yes or no, since what fails in between says nothing of the secret, or until the
    /// streams can do so.
    async fn try_changed_secret(&self, stream: Stream) {
        self.gate.resume();
        let mut n_failures = 0;
        while let Err(error) = self.try_token(stream).await {
            let pause = self.take_note(stream, &error, n_failures);
            match error.failure() {
                Failure::Transient | Failure::Throttled { .. } => {
                    pause.await;
                }
                Failure::Unauthorized
                | Failure::Forbidden
                | Failure::Refused
                | Failure::SecretMissing => return,
            }
            if self.sink.target().takes_records() {
                return;
            }
            n_failures += 1;
        }
    }

    async fn try_token(&self, stream: Stream) -> Result<(), source::Error> {
        self.gate.enter(stream, Purpose::Check).await;
        let query = Query::probe(stream, clock::millis(clock::now()));
        let mut page = self.source.fetch(&query).await?;
        self.answered(stream);
        while let Arrived::Pieces(_) = page.next().await? {}
        self.progress.read_whole(stream, clock::now());
        Ok(())
    }
}
