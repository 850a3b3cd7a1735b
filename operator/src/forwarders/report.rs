//! What the forwarders say of themselves: each is asked on its pod's own address, when `order` says so.
//!
//! Costs no request to the API server. Addresses are reused, so a report counts only when it names the agent and the pod
//! that were meant. What a report may cost is bounded: in time, in bytes, and in bytes of all reports together.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use siem_agent_crds::checkpoint::CLOCK_TOLERANCE;
use siem_agent_crds::config::ADMIN_PORT;
use siem_agent_crds::report::{self, Report, TokenState};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::order::Target;
use super::sighting::{Failing, Sighting};
use crate::key::Key;
use crate::lock::lock;

/// A forwarder answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// A report of a day's 200,000 alerts.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most reports are shorter than this, however many are read at once.
const SHORT: usize = 64 * 1024;
/// So many may be longer at once.
const LONG_AT_ONCE: usize = 16;
/// What is kept of a text.
const LONGEST_TEXT: usize = 2_000;
/// A hundred years.
const LONGEST_LAG_SECONDS: f64 = 3_155_760_000.0;

/// The reports of all agents.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<BTreeMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    agent_uid: String,
    pod_uid: String,
    sighting: Sighting,
}

/// Why a report is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not an address.
    #[error("the pod's address `{0}` is not an IP address")]
    Address(String),
    /// No answer.
    #[error("no answer from the pod")]
    Ask(#[source] reqwest::Error),
    /// No whole answer in time.
    #[error("no answer from the pod within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// Too long for a report.
    #[error("the answer is longer than any report")]
    TooLong,
    /// Not a report.
    #[error("the answer is not a report that this version understands")]
    Malformed(#[source] serde_json::Error),
    /// A later or earlier forwarder.
    #[error("the report has version {0}, this operator reads version {version}", version = report::VERSION)]
    Version(u32),
    /// Somebody else has the address now.
    #[error("the report is another pod's or another agent's")]
    SomebodyElse,
}

impl Error {
    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Ask(_) | Self::TimedOut => "does a NetworkPolicy stand between?",
            Self::TooLong | Self::Malformed(_) | Self::Version(_) => {
                "are operator and forwarder of one release?"
            }
            Self::Address(_) | Self::SomebodyElse => "it is asked again",
        }
    }
}

impl Reports {
    /// What is known of an agent whose pod is this one; what an earlier agent of the same name said is forgotten.
    pub(crate) fn sighting(&self, key: &Key, agent_uid: &str, pod_uid: Option<&str>) -> Sighting {
        let mut entries = lock(&self.0);
        let Some(entry) = entries.get_mut(key) else { return Sighting::default() };
        if entry.agent_uid != agent_uid {
            entries.remove(key);
            return Sighting::default();
        }
        let mut sighting = entry.sighting.clone();
        if pod_uid != Some(entry.pod_uid.as_str()) {
            sighting.is_current = false;
            sighting.failing = None;
        }
        sighting
    }

    /// Forgets an agent that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        lock(&self.0).remove(key);
    }

    /// Takes note of whom these targets are: what others said before does not count as theirs.
    pub(crate) fn expect(&self, targets: &[Target]) {
        let mut entries = lock(&self.0);
        for target in targets {
            let entry = entries.entry(target.key.clone()).or_insert_with(|| Entry {
                agent_uid: target.agent_uid.clone(),
                pod_uid: target.pod_uid.clone(),
                sighting: Sighting::default(),
            });
            if entry.agent_uid != target.agent_uid {
                entry.agent_uid.clone_from(&target.agent_uid);
                entry.sighting = Sighting::default();
                entry.pod_uid.clear();
            }
            if entry.pod_uid != target.pod_uid {
                entry.pod_uid.clone_from(&target.pod_uid);
                entry.sighting.is_current = false;
                entry.sighting.failing = None;
            }
        }
    }

    /// Takes note of an answer.
    pub(crate) fn note(&self, target: &Target, answer: Result<Report, String>, now: Timestamp) {
        let mut entries = lock(&self.0);
        let Some(entry) = entries.get_mut(&target.key) else { return };
        if entry.pod_uid != target.pod_uid || entry.agent_uid != target.agent_uid {
            return;
        }
        match answer {
            Ok(mut report) => {
                // The checkpoint's keeper asks for them itself; nobody else needs them.
                report.checkpoint.positions.clear();
                shorten(&mut report);
                report.make_printable();
                believe(&mut report, now);
                let is_valid = works(&report);
                entry.sighting = Sighting {
                    valid: if is_valid { Some(now) } else { entry.sighting.valid },
                    report: Some(Arc::new(report)),
                    is_current: true,
                    last_read: Some(now),
                    failing: None,
                };
            }
            Err(reason) => {
                entry.sighting.failing.get_or_insert(Failing { since: now, reason });
            }
        }
    }
}

/// Of a forwarder's words no more is kept than anybody reads: it may be one that lies.
fn shorten(report: &mut Report) {
    let Report { program_version, config_hash, agent, source, target, token, streams, .. } = report;
    let reasons = [&mut source.reason, &mut target.reason, &mut token.reason, &mut agent.uid];
    let forbidden = streams.values_mut().map(|stream| &mut stream.forbidden);
    let named = [&mut agent.namespace, &mut agent.name, &mut agent.display_name];
    let others = [program_version, config_hash, &mut report.checkpoint.source];
    let optional = reasons.into_iter().chain(forbidden).flatten();
    for text in optional.chain(named).chain(others) {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.shrink_to_fit();
    }
}

/// Whether the token is good for something: for all streams, or for one of them.
pub(crate) fn works(report: &Report) -> bool {
    let is_forbidden = |is: bool| {
        report.streams.values().any(|stream| stream.enabled && stream.forbidden.is_some() == is)
    };
    match report.token.state {
        TokenState::Valid => true,
        TokenState::Forbidden => is_forbidden(true) && is_forbidden(false),
        TokenState::Invalid | TokenState::Missing | TokenState::Unknown => false,
    }
}

/// Times are ours: a forwarder whose clock is another one speaks of moments that are shifted by the difference, and no
/// forwarder knows of what is still to come. A lag is a number of seconds that can be.
fn believe(report: &mut Report, now: Timestamp) {
    let skew = report.now.duration_since(now);
    let tolerance = SignedDuration::try_from(CLOCK_TOLERANCE.0).unwrap_or_default();
    let Report { source, target, token, streams, .. } = report;
    let by_its_clock = [
        &mut source.since,
        &mut target.since,
        &mut token.last_check_time,
        &mut token.last_change_time,
    ];
    for time in by_its_clock.into_iter().flatten() {
        if skew.abs() > tolerance {
            *time = time.checked_sub(skew).unwrap_or(now);
        }
        *time = (*time).min(now);
    }
    for stream in streams.values_mut() {
        let times = [&mut stream.delivered_through, &mut stream.last_event_time];
        for time in times.into_iter().flatten() {
            *time = (*time).min(now);
        }
        stream.lag_seconds = stream.lag_seconds.map(|lag| lag.clamp(0.0, LONGEST_LAG_SECONDS));
    }
}

/// Asks forwarders, and believes only the one that was meant.
#[derive(Debug)]
pub(crate) struct Asker {
    client: reqwest::Client,
    long: Semaphore,
}

impl Asker {
    /// Nobody has been asked yet.
    ///
    /// # Errors
    /// When the system has no sockets for it.
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            // Plain HTTP alone, and the image has no CA roots.
            .tls_certs_only([])
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, long: Semaphore::new(LONG_AT_ONCE) })
    }

    /// Asks a forwarder.
    ///
    /// # Errors
    /// [`Error`].
    pub(crate) async fn ask(&self, target: &Target) -> Result<Report, Error> {
        timeout(PATIENCE, self.read(target)).await.unwrap_or(Err(Error::TimedOut))
    }

    async fn read(&self, target: &Target) -> Result<Report, Error> {
        let address: IpAddr =
            target.address.parse().map_err(|_no_address| Error::Address(target.address.clone()))?;
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let body = self.body(&format!("http://{host}:{ADMIN_PORT}/status")).await?;
        let report: Report = serde_json::from_slice(&body).map_err(Error::Malformed)?;
        if report.version != report::VERSION {
            return Err(Error::Version(report.version));
        }
        let is_meant = report.agent.uid.as_deref() == Some(target.agent_uid.as_str())
            && report.pod_uid.as_deref() == Some(target.pod_uid.as_str());
        if is_meant { Ok(report) } else { Err(Error::SomebodyElse) }
    }

    /// An answer's body, if it is not longer than any report.
    async fn body(&self, url: &str) -> Result<Vec<u8>, Error> {
        let failed = |error: reqwest::Error| Error::Ask(error.without_url());
        let mut answer = self
            .client
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let (mut body, mut long) = (Vec::new(), None);
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            let length = body.len() + chunk.len();
            if length > MAX_BYTES {
                return Err(Error::TooLong);
            }
            if length > SHORT && long.is_none() {
                // It is never closed.
                long = self.long.acquire().await.ok();
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::forwarders::order::tests::target;

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    /// A report of a forwarder whose clock shows this, and which says this of the SIEM and of a stream.
    fn report(now: Timestamp, since: Timestamp, through: Timestamp, lag: f64) -> Report {
        let stream = json!({
            "enabled": true, "deliveredThrough": through, "lastEventTime": through, "lagSeconds": lag,
            "forbidden": null, "deliveredTotal": u64::MAX, "rejectedTotal": 0,
        });
        let told = json!({
            "version": 1, "programVersion": "1", "podUid": "p", "configHash": "c", "startedAt": now, "now": now,
            "agent": {"namespace": "ns", "name": "a", "displayName": "a", "uid": "u"},
            "source": {"state": "Reachable", "reason": null, "since": since},
            "target": {"state": "Down", "reason": null, "since": since},
            "token": {"state": "Valid", "reason": null, "lastCheckTime": since, "lastChangeTime": since},
            "streams": {"alerts": stream}, "checkpoint": {"source": "s", "alerts": 1, "activities": 1, "alertIds": []},
        });
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn a_reports_times_and_numbers_are_such_as_can_be() {
        let seconds = SignedDuration::from_secs;
        let stream = |report: &Report| report.streams[&report::Stream::Alerts].clone();
        let past = NOW - seconds(100);
        let mut honest = report(NOW - seconds(1), past, past, 7.5);
        let before = honest.clone();
        believe(&mut honest, NOW);
        assert_eq!(honest, before);
        // A clock of an hour ahead or behind: what was 100 s ago there was 100 s ago here.
        for skew in [seconds(3600), seconds(-3600)] {
            let mut skewed = report(NOW + skew, past + skew, past, 7.5);
            believe(&mut skewed, NOW);
            assert_eq!(
                (skewed.target.since, skewed.token.last_check_time),
                (Some(past), Some(past))
            );
            assert_eq!(stream(&skewed).delivered_through, Some(past));
        }
        let mut lying = report(NOW, Timestamp::MAX, Timestamp::MAX, 1e308);
        believe(&mut lying, NOW);
        assert_eq!((lying.target.since, stream(&lying).delivered_through), (Some(NOW), Some(NOW)));
        assert_eq!(stream(&lying).lag_seconds, Some(LONGEST_LAG_SECONDS));
        let mut extreme = report(Timestamp::MIN, Timestamp::MAX, past, -5.0);
        believe(&mut extreme, NOW);
        assert_eq!((extreme.source.since, stream(&extreme).lag_seconds), (Some(NOW), Some(0.0)));
    }

    #[tokio::test]
    async fn an_answer_that_is_longer_than_any_report_is_not_read_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        let serve = async {
            for n_bytes in [MAX_BYTES, MAX_BYTES + 1] {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = client.read(&mut request).await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {n_bytes}\r\n\r\n");
                client.write_all(head.as_bytes()).await.unwrap();
                // Who has read enough closes.
                let _ = client.write_all(&vec![b' '; n_bytes]).await;
            }
        };
        let ask = async {
            // Another test of this process may have done so already.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let asker = Asker::new().unwrap();
            assert_eq!(asker.body(&url).await.unwrap().len(), MAX_BYTES);
            assert!(matches!(asker.body(&url).await, Err(Error::TooLong)));
        };
        tokio::join!(serve, ask);
    }

    #[test]
    fn what_an_earlier_pod_or_agent_said_is_not_believed() {
        let reports = Reports::default();
        let first = target("a", false);
        reports.expect(std::slice::from_ref(&first));
        let second = Target { pod_uid: "other".to_owned(), ..first.clone() };
        reports.expect(std::slice::from_ref(&second));
        reports.note(&first, Err("late".to_owned()), Timestamp::UNIX_EPOCH);
        assert_eq!(reports.sighting(&first.key, "uid-a", Some("other")).failing, None);
        reports.note(&second, Err("refused".to_owned()), Timestamp::UNIX_EPOCH);
        assert!(reports.sighting(&first.key, "uid-a", Some("other")).failing.is_some());
        assert!(reports.sighting(&first.key, "uid-b", Some("other")).failing.is_none());
    }
}
