//! What the forwarders say of themselves: each is asked on its pod's own address, in turn, a few at a time.
//!
//! Costs no request to the API server. Addresses are reused, so a report counts only when it names the agent and the pod
//! that were meant. A ready agent is asked every 15 s, at a time of its own within them; any other one every 5 s.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use siem_agent_crds::report::{self, Report};
use tokio::time::Instant;

use crate::budget::Key;
use crate::digest;

/// How often a ready agent is asked.
const INTERVAL: Duration = Duration::from_secs(15);
/// How often one is that is not ready.
const INTERVAL_OF_TROUBLE: Duration = Duration::from_secs(5);
/// A forwarder answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// A report of a day's 200,000 alerts.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// What is kept of a text.
const LONGEST_TEXT: usize = 2_000;
/// The forwarder's admin port.
const PORT: u16 = 9464;

/// What is known from an agent's reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sighting {
    /// The last one that was believed, without the digests of alerts.
    pub(crate) report: Option<Arc<Report>>,
    /// Whether it is of the pod that runs just now.
    pub(crate) is_current: bool,
    /// When it was read.
    pub(crate) last_read: Option<Timestamp>,
    /// Why none can be read.
    pub(crate) failing: Option<Failing>,
}

/// Since when and why no report can be read from the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) since: Timestamp,
    pub(crate) reason: String,
}

impl Sighting {
    /// The report, if it is of the pod that runs just now.
    pub(crate) fn current(&self) -> Option<&Report> {
        self.report.as_deref().filter(|_| self.is_current)
    }
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) key: Key,
    pub(crate) agent_uid: String,
    pub(crate) pod_uid: String,
    pub(crate) address: String,
    /// Whether all is well, so that there is no hurry.
    pub(crate) is_ready: bool,
}

/// The reports of all agents.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<BTreeMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    agent_uid: String,
    pod_uid: String,
    sighting: Sighting,
    due: Option<Instant>,
    was_ready: bool,
}

/// Why a report is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address is none.
    #[error("the pod's address `{0}` is none")]
    Address(String),
    /// No answer.
    #[error("no answer from the pod")]
    Ask(#[source] reqwest::Error),
    /// Too long for a report.
    #[error("the answer is longer than any report")]
    TooLong,
    /// Not a report.
    #[error("the answer is no report that this version understands")]
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
            Self::Ask(_) => "does a NetworkPolicy stand between?",
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
        let mut entries = self.lock();
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
        self.lock().remove(key);
    }

    /// Those of the targets that are due; each is next due an interval later.
    pub(crate) fn take_due(&self, targets: Vec<Target>, now: Instant) -> Vec<Target> {
        let mut entries = self.lock();
        targets
            .into_iter()
            .filter(|target| {
                let entry = entries.entry(target.key.clone()).or_insert_with(|| Entry {
                    agent_uid: target.agent_uid.clone(),
                    pod_uid: String::new(),
                    sighting: Sighting::default(),
                    due: None,
                    was_ready: false,
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
                    entry.due = None;
                }
                let is_due = entry.due.is_none_or(|due| due <= now);
                if is_due {
                    entry.due = Some(now + wait(target, entry.was_ready));
                    entry.was_ready = target.is_ready;
                }
                is_due
            })
            .collect()
    }

    /// Takes note of an answer.
    pub(crate) fn note(&self, target: &Target, answer: Result<Report, String>, now: Timestamp) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&target.key) else { return };
        if entry.pod_uid != target.pod_uid || entry.agent_uid != target.agent_uid {
            return;
        }
        match answer {
            Ok(mut report) => {
                // The checkpoint's keeper has had them; nobody else needs them.
                report.checkpoint.alert_ids = Vec::new();
                shorten(&mut report);
                entry.sighting = Sighting {
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

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().expect("nothing panics while the lock is held")
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

/// The first wait of a ready agent is a part of the interval that its name decides, so that the rest are spread.
fn wait(target: &Target, was_ready: bool) -> Duration {
    if !target.is_ready {
        return INTERVAL_OF_TROUBLE;
    }
    if was_ready {
        return INTERVAL;
    }
    let digest = digest::hex(&target.agent_uid);
    let part = u32::from_str_radix(digest.get(..4).unwrap_or_default(), 16).unwrap_or(0);
    INTERVAL.mul_f64(f64::from(part) / 65_536.0) + Duration::from_secs(1)
}

/// Asks a forwarder, and believes it only if it is the one that was meant.
///
/// # Errors
/// [`Error`].
pub(crate) async fn ask(client: &reqwest::Client, target: &Target) -> Result<Report, Error> {
    let address: IpAddr =
        target.address.parse().map_err(|_no_address| Error::Address(target.address.clone()))?;
    let host = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let failed = |error: reqwest::Error| Error::Ask(error.without_url());
    let mut answer = client
        .get(format!("http://{host}:{PORT}/status"))
        .timeout(PATIENCE)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(Error::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    let report: Report = serde_json::from_slice(&body).map_err(Error::Malformed)?;
    if report.version != report::VERSION {
        return Err(Error::Version(report.version));
    }
    let is_meant = report.agent.uid.as_deref() == Some(target.agent_uid.as_str())
        && report.pod_uid.as_deref() == Some(target.pod_uid.as_str());
    if is_meant { Ok(report) } else { Err(Error::SomebodyElse) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, is_ready: bool) -> Target {
        Target {
            key: ("ns".to_owned(), name.to_owned()),
            agent_uid: format!("uid-{name}"),
            pod_uid: "pod".to_owned(),
            address: "127.0.0.1".to_owned(),
            is_ready,
        }
    }

    #[test]
    fn ready_agents_are_asked_at_times_of_their_own() {
        let reports = Reports::default();
        let targets: Vec<_> = (0..300).map(|n| target(&format!("a{n}"), true)).collect();
        let start = Instant::now();
        assert_eq!(reports.take_due(targets.clone(), start).len(), 300);
        let mut n_asked = Vec::new();
        for second in 1..=31 {
            let now = start + Duration::from_secs(second);
            n_asked.push(reports.take_due(targets.clone(), now).len());
        }
        assert!(n_asked.iter().all(|n| *n < 45), "{n_asked:?}");
        assert!(n_asked[16..].iter().sum::<usize>() >= 299, "{n_asked:?}");
    }

    #[test]
    fn another_pod_is_asked_at_once_and_its_forerunner_is_not_believed() {
        let reports = Reports::default();
        let first = target("a", false);
        let now = Instant::now();
        assert_eq!(reports.take_due(vec![first.clone()], now).len(), 1);
        assert_eq!(reports.take_due(vec![first.clone()], now).len(), 0);
        let second = Target { pod_uid: "other".to_owned(), ..first.clone() };
        assert_eq!(reports.take_due(vec![second.clone()], now).len(), 1);
        reports.note(&first, Err("late".to_owned()), Timestamp::UNIX_EPOCH);
        assert_eq!(reports.sighting(&first.key, "uid-a", Some("other")).failing, None);
        reports.note(&second, Err("refused".to_owned()), Timestamp::UNIX_EPOCH);
        assert!(reports.sighting(&first.key, "uid-a", Some("other")).failing.is_some());
        assert!(reports.sighting(&first.key, "uid-b", Some("other")).failing.is_none());
    }
}
