//! How a forwarder that was brought to a release fares there. Pure.
//!
//! Only a pod that was made by the release counts, and only the report that this very pod gives.

use jiff::{SignedDuration, Timestamp};
use siem_agent_crds::report::{Report, SourceState, TargetState};
use siem_agent_crds::siem_agent::TokenState;

use super::{Progress, Trial};
use crate::workload::{PodSight, Workload};

/// A trouble that is over sooner is none: an image that a registry did not give at once, a node that has to be made.
const GRACE: SignedDuration = SignedDuration::from_secs(10);
/// A forwarder is up, and Ready if it was, within this.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// One that did not run before holds up the others no longer than this.
const PATIENCE_OF_DOWN: SignedDuration = SignedDuration::from_mins(1);

/// What an agent shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evidence<'a> {
    /// The release that it was brought to, and what it has to show there.
    pub(crate) release: &'a str,
    pub(crate) trial: Trial,
    pub(crate) workload: &'a Workload,
    /// The newest pod.
    pub(crate) pod: Option<&'a PodSight>,
    /// That pod's own report.
    pub(crate) report: Option<&'a Report>,
}

pub(crate) fn progress(evidence: &Evidence<'_>, now: Timestamp) -> Progress {
    let Evidence { release, trial, workload, pod, report } = *evidence;
    if trial == Trial::Passed {
        return Progress::Up;
    }
    if pod.is_some_and(|pod| pod.release.as_deref() != Some(release)) {
        return Progress::Coming;
    }
    let age = pod.and_then(|pod| pod.created).map(|created| now.duration_since(created));
    if let Workload::Failing { reason, .. } = workload
        && age.is_none_or(|age| age >= GRACE)
    {
        return Progress::Failing(reason.clone());
    }
    let missing = match (workload, report) {
        (Workload::Running, Some(report)) if trial == Trial::OfReady => trouble(report),
        (Workload::Running, Some(_)) => None,
        (Workload::Running, None) => Some("its report cannot be read"),
        (Workload::Progressing(_) | Workload::Failing { .. }, _) => Some("its pod is not ready"),
    };
    let Some(missing) = missing else { return Progress::Up };
    let patience = if trial == Trial::OfDown { PATIENCE_OF_DOWN } else { PATIENCE };
    if age.is_some_and(|age| age >= patience) {
        return Progress::Failing(missing.to_owned());
    }
    Progress::Coming
}

/// What keeps a forwarder from being Ready by its own report.
fn trouble(report: &Report) -> Option<&'static str> {
    if report.token.state != TokenState::Valid {
        Some("it was Ready, and its token is not valid")
    } else if !matches!(report.target.state, TargetState::Up | TargetState::Datagram) {
        Some("it was Ready, and its SIEM is not reached")
    } else if report.source.state != SourceState::Reachable {
        Some("it was Ready, and its portal is not reached")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn pod(release: &str, age: i64) -> PodSight {
        PodSight {
            uid: "pod".to_owned(),
            address: None,
            is_ready: true,
            trouble: None,
            created: Some(NOW - SignedDuration::from_secs(age)),
            release: Some(release.to_owned()),
            ended: None,
        }
    }

    fn report(token: &str, target: &str, source: &str) -> Report {
        let report = json!({
            "version": 1, "programVersion": "0", "agent": {"namespace": "ns", "name": "soc", "displayName": ""},
            "configHash": "", "startedAt": NOW, "now": NOW, "source": {"state": source},
            "target": {"state": target}, "token": {"state": token}, "streams": {}, "checkpoint": {"source": "", "alertIds": []},
        });
        serde_json::from_value(report).unwrap()
    }

    type Case<'a> = (Trial, &'a Workload, (&'a str, i64), Option<&'a Report>, &'a str);

    #[test]
    fn a_forwarder_has_come_up_by_its_own_report_and_no_other() {
        let well = report("Valid", "Up", "Reachable");
        let running = Workload::Running;
        let starting = Workload::Progressing("the pod is starting");
        let failing = Workload::Failing {
            reason: "ImagePullBackOff".to_owned(),
            message: "the image 2 cannot be pulled".to_owned(),
        };
        let of = |trial, workload, (release, age), report| {
            let pod = pod(release, age);
            let evidence = Evidence { release: "2", trial, workload, pod: Some(&pod), report };
            match progress(&evidence, NOW) {
                Progress::Up => "up".to_owned(),
                Progress::Coming => "coming".to_owned(),
                Progress::Failing(why) => why,
            }
        };
        let dead = report("Invalid", "Up", "Reachable");
        let away = report("Valid", "Down", "Reachable");
        let dark = report("Valid", "Datagram", "Unreachable");
        let datagrams = report("Valid", "Datagram", "Reachable");
        let cases: [Case<'_>; 19] = [
            (Trial::OfReady, &running, ("2", 3), Some(&well), "up"),
            (Trial::OfReady, &running, ("2", 3), Some(&datagrams), "up"),
            // The pod before it, whatever that says.
            (Trial::OfReady, &running, ("1", 900), Some(&well), "coming"),
            (Trial::OfReady, &failing, ("1", 900), None, "coming"),
            (Trial::OfReady, &running, ("2", 3), None, "coming"),
            (Trial::OfReady, &running, ("2", 300), None, "its report cannot be read"),
            (Trial::OfReady, &starting, ("2", 299), None, "coming"),
            (Trial::OfReady, &starting, ("2", 300), None, "its pod is not ready"),
            (Trial::OfReady, &failing, ("2", 9), None, "coming"),
            (Trial::OfReady, &failing, ("2", 10), None, "ImagePullBackOff"),
            (Trial::OfRunning, &failing, ("2", 10), None, "ImagePullBackOff"),
            // Trouble on the way counts where there was none before.
            (Trial::OfReady, &running, ("2", 3), Some(&dead), "coming"),
            (
                Trial::OfReady,
                &running,
                ("2", 300),
                Some(&dead),
                "it was Ready, and its token is not valid",
            ),
            (
                Trial::OfReady,
                &running,
                ("2", 300),
                Some(&away),
                "it was Ready, and its SIEM is not reached",
            ),
            (
                Trial::OfReady,
                &running,
                ("2", 300),
                Some(&dark),
                "it was Ready, and its portal is not reached",
            ),
            (Trial::OfRunning, &running, ("2", 3), Some(&dead), "up"),
            (Trial::OfDown, &running, ("2", 3), Some(&away), "up"),
            (Trial::OfDown, &starting, ("2", 60), None, "its pod is not ready"),
            (Trial::Passed, &failing, ("2", 600), None, "up"),
        ];
        for (at, (trial, workload, pod, report, expected)) in cases.into_iter().enumerate() {
            assert_eq!(of(trial, workload, pod, report), expected, "case {at}");
        }
        // A quota lets no pod be made.
        let refused =
            Workload::Failing { reason: "FailedCreate".to_owned(), message: String::new() };
        let trial = Trial::OfReady;
        let evidence =
            Evidence { release: "2", trial, workload: &refused, pod: None, report: None };
        assert_eq!(progress(&evidence, NOW), Progress::Failing("FailedCreate".to_owned()));
    }
}
