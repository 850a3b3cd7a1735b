//! One operator at a time: a Lease, held and taken over as client-go does it.
//!
//! A candidate never compares its wall clock with another's: it watches the record change, and may take the Lease when
//! the record has stood still for its duration on the candidate's own monotonic clock. A holder that has not renewed for
//! [`RENEW_DEADLINE`] stops writing, long before anybody else may begin; every write is fenced by [`Leadership::remaining`].

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use siem_agent_edge::clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::error_chain::chain;
use crate::lock::lock;
use crate::names::MANAGER;

/// How long the others wait for a holder that is silent.
const LEASE: Duration = Duration::from_secs(15);
/// A holder that could not renew for so long stops.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two renewals.
const RETRY: Duration = Duration::from_secs(2);
/// Between two looks of a candidate: it sees the last renewal one look late and the end another, and must lead 20 s after
/// the holder was lost.
const LOOK: Duration = Duration::from_secs(1);
/// One request.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whether this operator leads, and until when at least.
#[derive(Debug)]
pub(crate) struct Leadership {
    until: watch::Sender<Option<Instant>>,
}

/// What is known of the record.
#[derive(Debug, Default)]
struct Observed {
    lease: Option<Lease>,
    at: Option<Instant>,
}

/// A candidate for the Lease.
#[derive(Debug)]
pub(crate) struct Candidate {
    leases: Api<Lease>,
    namespace: String,
    identity: String,
    observed: Mutex<Observed>,
}

impl Leadership {
    /// Nobody leads yet.
    pub(crate) fn new() -> Self {
        Self { until: watch::Sender::new(None) }
    }

    /// How long this operator surely leads from now on; `None` when it does not.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let until = (*self.until.borrow())?;
        until.checked_duration_since(Instant::now()).filter(|remaining| !remaining.is_zero())
    }

    /// Whether this operator leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.remaining().is_some()
    }

    /// Waits until this operator leads.
    pub(crate) async fn gained(&self) {
        let mut until = self.until.subscribe();
        while !self.is_leader() {
            // The sender is our own and lives as long as we do.
            let _ = until.changed().await;
        }
    }

    /// Waits until this operator does not lead.
    pub(crate) async fn lost(&self) {
        while let Some(remaining) = self.remaining() {
            let mut until = self.until.subscribe();
            tokio::select! {
                () = sleep(remaining) => {}
                _ = until.changed() => {}
            }
        }
    }

    fn set(&self, until: Option<Instant>) {
        self.until.send_replace(until);
    }
}

impl Candidate {
    pub(crate) fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity,
            observed: Mutex::default(),
        }
    }

    /// Takes, holds and loses the Lease, for ever.
    pub(crate) async fn run(&self, leadership: &Leadership) {
        let mut was_leader = false;
        loop {
            let began = Instant::now();
            match self.take_or_renew(leadership.is_leader()).await {
                Ok(true) => leadership.set(Some(began + RENEW_DEADLINE)),
                Ok(false) => leadership.set(None),
                Err(error) => warn!(reason = chain(&error), "the lease cannot be read or written"),
            }
            let is_leader = leadership.is_leader();
            if is_leader != was_leader {
                info!(is_leader, identity = self.identity, "leadership changed");
                was_leader = is_leader;
            }
            let pause = if is_leader { RETRY } else { LOOK };
            // A little apart, so that candidates do not ask in step.
            sleep(pause.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
        }
    }

    /// Gives the Lease back, so that nobody has to wait for it to run out.
    pub(crate) async fn release(&self, leadership: &Leadership) {
        let was_leader = leadership.is_leader();
        leadership.set(None);
        let Some(mut lease) = lock(&self.observed).lease.clone().filter(|_| was_leader) else {
            return;
        };
        if let Some(spec) = &mut lease.spec
            && spec.holder_identity.as_deref() == Some(&self.identity)
        {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(micros(clock::now())));
            let parameters = PostParams::default();
            let replace = self.leases.replace(MANAGER, &parameters, &lease);
            match timeout(PATIENCE, replace).await {
                Ok(Ok(_)) => info!("the lease is released"),
                Ok(Err(_)) | Err(_) => {
                    warn!("the lease could not be released; it runs out by itself");
                }
            }
        }
    }

    /// One try. Whether this operator holds the Lease afterwards.
    async fn take_or_renew(&self, is_leader: bool) -> Result<bool, Error> {
        let known = lock(&self.observed).lease.clone().filter(|_| is_leader);
        let current = match known {
            // A holder renews what it wrote; a conflict says that somebody else has been there.
            Some(lease) => Some(lease),
            None => self.call(self.leases.get_opt(MANAGER)).await?,
        };
        let Some(current) = current else {
            let lease = self.claim(None, clock::now());
            let made = self.call(self.leases.create(&PostParams::default(), &lease)).await;
            return self.taken(made);
        };
        let now = Instant::now();
        let seen_at = lock(&self.observed).see(&current, now);
        if !may_take(&current, &self.identity, seen_at, now) {
            return Ok(false);
        }
        let lease = self.claim(Some(&current), clock::now());
        let replaced =
            self.call(self.leases.replace(MANAGER, &PostParams::default(), &lease)).await;
        self.taken(replaced)
    }

    fn taken(&self, written: Result<Lease, Error>) -> Result<bool, Error> {
        match written {
            Ok(lease) => {
                lock(&self.observed).see(&lease, Instant::now());
                Ok(true)
            }
            Err(Error::Refused(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() =>
            {
                lock(&self.observed).lease = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        timeout(PATIENCE, call).await.map_err(|_elapsed| Error::TimedOut)?.map_err(Error::Refused)
    }

    fn claim(&self, current: Option<&Lease>, now: Timestamp) -> Lease {
        let before = current.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_mine = before.holder_identity.as_deref() == Some(&self.identity);
        let now = MicroTime(micros(now));
        let transitions = before.lease_transitions.unwrap_or(0);
        Lease {
            metadata: current.map_or_else(
                || ObjectMeta {
                    name: Some(MANAGER.to_owned()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: before.acquire_time.filter(|_| is_mine).or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(if is_mine || current.is_none() {
                    transitions
                } else {
                    transitions + 1
                }),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Why the Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the API server does not answer")]
    TimedOut,
    #[error("the API server refuses")]
    Refused(#[source] kube::Error),
}

impl Observed {
    /// Takes note of a record. Since when it has stood as it is.
    fn see(&mut self, lease: &Lease, now: Instant) -> Instant {
        let same = self.lease.as_ref().is_some_and(|known| known.spec == lease.spec);
        self.lease = Some(lease.clone());
        match self.at {
            Some(at) if same => at,
            Some(_) | None => *self.at.insert(now),
        }
    }
}

/// Whether a record that has stood since `seen_at` may be overwritten.
fn may_take(lease: &Lease, identity: &str, seen_at: Instant, now: Instant) -> bool {
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    holder.is_empty()
        || holder == identity
        || now.duration_since(seen_at) > Duration::from_secs(seconds)
}

fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    #[test]
    fn a_record_is_taken_only_after_it_has_stood_still_whatever_its_clock_says() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut observed = Observed::default();
        let seen = observed.see(&lease("other", 0), start);
        assert!(!may_take(&lease("other", 0), "me", seen, after(14)));
        // Renewed with a time that lies far back: it moves all the same.
        let seen = observed.see(&lease("other", -1_000_000), after(14));
        assert!(!may_take(&lease("other", -1_000_000), "me", seen, after(28)));
        let seen = observed.see(&lease("other", -1_000_000), after(29));
        assert!(may_take(&lease("other", -1_000_000), "me", seen, after(30)));
        assert!(may_take(&lease("", 0), "me", after(30), after(30)));
        assert!(may_take(&lease("me", 0), "me", after(30), after(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_by_itself() {
        let leadership = Leadership::new();
        assert!(!leadership.is_leader());
        leadership.set(Some(Instant::now() + RENEW_DEADLINE));
        leadership.gained().await;
        sleep(Duration::from_secs(9)).await;
        assert!(leadership.remaining().unwrap() <= Duration::from_secs(1));
        leadership.lost().await;
        assert!(!leadership.is_leader());
    }
}
