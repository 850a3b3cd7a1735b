//! What the loop does when the source fails: reports it, logs it once as it changes, and waits as `credential` and
//! `retry` have it.

use std::time::Duration;

use siem_agent_crds::report::{SourceState, TokenState};
use siem_agent_edge::clock;
use tokio::time::sleep;
use tracing::{error, warn};

use super::Forwarder;
use super::clearance::SECRET_LOOK;
use crate::event::Stream;
use crate::retry::{self, Decision};
use crate::source::Arrived;
use crate::source::failure::{Failure, Refusal};
use crate::source::gate::Purpose;
use crate::source::query::Query;
use crate::{secret, source};

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
            Failure::Refused(Refusal::Credential) => {
                self.progress.token_refused(TokenState::Invalid, reason.clone(), now);
            }
            Failure::Refused(Refusal::Missing) => {
                let state = match error {
                    source::Error::Secret(secret::Error::Missing { .. }) => TokenState::Missing,
                    _ => TokenState::Invalid,
                };
                self.progress.token_refused(state, reason.clone(), now);
            }
            Failure::Refused(Refusal::Stream) => {
                self.progress.stream_forbidden(stream, reason.clone(), now);
            }
            Failure::Throttled { .. } => {
                self.progress.source_failed(stream, SourceState::Throttled, reason.clone(), now);
            }
            Failure::Transient if is_ours => {}
            Failure::Refused(Refusal::Question) | Failure::Transient => {
                self.progress.source_failed(stream, SourceState::Unreachable, reason.clone(), now);
            }
        }
        let decision = if is_ours {
            Decision::Retry(Duration::ZERO)
        } else {
            retry::decide(failure, n_failures, fastrand::f64())
        };
        match decision {
            Decision::Halt(refusal) => {
                let halt = self.clearance.refused(stream, refusal);
                let wait = halt.wait;
                if halt.is_first {
                    error!(%stream, reason, ?refusal, ?wait, "polling stopped: action needed");
                } else {
                    warn!(%stream, reason, ?refusal, ?wait, "the source failed");
                }
            }
            Decision::PauseAll(_) | Decision::Retry(_) => {
                self.clearance.unheard(stream);
                warn!(%stream, reason, ?decision, "the source failed");
            }
        }
        if let Decision::PauseAll(wait) = decision {
            self.clearance.pause(wait);
        }
        async move {
            match decision {
                Decision::Halt(_) => {
                    self.clearance.wait(&self.source, stream).await;
                }
                Decision::PauseAll(wait) => {
                    self.clearance.wait_paused(&self.source, stream, wait).await;
                }
                Decision::Retry(wait) => sleep(wait).await,
            }
            self.clearance.is_another(&self.source, stream)
        }
    }

    /// For ever: tries the credential where no stream does, because the target takes no records: a changed secret at once,
    /// any other now and then.
    pub(super) async fn watch_token(&self) {
        loop {
            sleep(SECRET_LOOK).await;
            if !self.sink.target().takes_records()
                && let Some(stream) = self.clearance.worth_a_try(&self.source)
            {
                self.try_changed_secret(stream).await;
            }
            if let Some(stream) = self.clearance.check_due()
                && let Err(error) = self.try_token(stream).await
            {
                // Whoever comes next waits as long as it must.
                drop(self.take_note(stream, &error, 0));
            }
        }
    }

    /// Tries until the API has said yes or no, since what fails in between says nothing of the secret, or until the
    /// streams can do so.
    async fn try_changed_secret(&self, stream: Stream) {
        let mut n_failures = 0;
        while let Err(error) = self.try_token(stream).await {
            let pause = self.take_note(stream, &error, n_failures);
            match error.failure() {
                Failure::Transient | Failure::Throttled { .. } => {
                    pause.await;
                }
                Failure::Refused(_) => return,
            }
            if self.sink.target().takes_records() {
                return;
            }
            n_failures += 1;
        }
    }

    async fn try_token(&self, stream: Stream) -> Result<(), source::Error> {
        let offer = self.clearance.enter(&self.source, stream, Purpose::Check).await;
        let query = Query::probe(stream, clock::millis(clock::now()));
        let mut page = self.source.fetch(&query, offer).await?;
        self.answered(stream);
        while let Arrived::Pieces(_) = page.next().await? {}
        self.progress.read_whole(stream, clock::now());
        Ok(())
    }
}
