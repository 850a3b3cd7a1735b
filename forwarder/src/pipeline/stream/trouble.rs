//! What the loop does when the source fails: reports it, logs it once as it changes, and waits as `credential` and
//! `on_failure` have it.

use siem_agent_crds::report::{SourceState, TokenState};
use siem_agent_edge::clock;
use tokio::time::sleep;
use tracing::{error, warn};

use super::Forwarder;
use crate::event::Stream;
use crate::pipeline::clearance::SECRET_LOOK;
use crate::pipeline::on_failure::{self, Decision};
use crate::source::failure::{Failure, Refusal};
use crate::source::purpose::Purpose;
use crate::source::{Failed, Source};

impl<S: Source> Forwarder<S> {
    /// Reports what failed and gives the wait before the next try, which says whether there is another secret by then.
    pub(super) fn take_note(
        &self,
        stream: Stream,
        failed: Failed,
        n_failures: u32,
    ) -> impl Future<Output = bool> + '_ {
        let now = clock::now();
        let Failed { failure, reason, code } = failed;
        if let Some(code) = code {
            self.progress.metrics.requested(stream, &code);
        }
        let (progress, words) = (&self.progress, reason.clone());
        match failure {
            Failure::Refused(Refusal::Credential | Refusal::Unusable) => {
                progress.token_refused(stream, TokenState::Invalid, words, now);
            }
            Failure::Refused(Refusal::Missing) => {
                progress.token_refused(stream, TokenState::Missing, words, now);
            }
            Failure::Refused(Refusal::Stream) => progress.stream_forbidden(stream, words, now),
            Failure::Throttled { .. } => {
                progress.source_failed(stream, SourceState::Throttled, words, now);
            }
            Failure::Again => {}
            Failure::Refused(Refusal::Question) | Failure::Transient => {
                progress.source_failed(stream, SourceState::Unreachable, words, now);
            }
        }
        let decision = on_failure::decide(failure, n_failures, fastrand::f64());
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
            self.clearance.pause(stream, wait);
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
        // After a check that was refused, no stream may be awake to notice another secret.
        let mut was_refused = false;
        loop {
            sleep(SECRET_LOOK).await;
            if (was_refused || !self.sink.target().takes_records())
                && let Some(stream) = self.clearance.worth_a_try(&self.source)
            {
                was_refused = false;
                self.try_changed_secret(stream).await;
            }
            if let Some(stream) = self.clearance.check_due()
                && let Err(failed) = self.try_token(stream).await
            {
                was_refused = matches!(failed.failure, Failure::Refused(_));
                // Whoever comes next waits as long as it must.
                drop(self.take_note(stream, failed, 0));
            }
        }
    }

    /// Tries until the API has said yes or no, since what fails in between says nothing of the secret, or until the
    /// streams can do so.
    async fn try_changed_secret(&self, stream: Stream) {
        let mut n_failures = 0;
        while let Err(failed) = self.try_token(stream).await {
            let failure = failed.failure;
            let pause = self.take_note(stream, failed, n_failures);
            match failure {
                Failure::Transient | Failure::Throttled { .. } | Failure::Again => {
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

    async fn try_token(&self, stream: Stream) -> Result<(), Failed> {
        let offer = self.clearance.enter(&self.source, stream, Purpose::Check).await;
        self.source.check(stream, offer).await?;
        self.answered(stream);
        self.progress.read_whole(stream, clock::now());
        Ok(())
    }
}
