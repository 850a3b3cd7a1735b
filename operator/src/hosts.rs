//! The workloads that host sidecars, as they were last looked at, with their pods and what was written of them. No
//! requests, and no decisions.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use siem_agent_crds::siem_agent::SidecarOf;
use tokio::time::Instant;

use crate::host::{Host, HostPod};
use crate::key::Key;
use crate::lock::lock;
use crate::observed_object::Written;
use crate::workload::PodSight;

/// How long the pods of a host that does not run are taken to be as they were: not all that happens to a pod changes its
/// workload.
const FRESH: Duration = Duration::from_secs(5);
/// What was written of a host is put back this often at most, within this.
const PUT_BACK_AT_MOST: usize = 3;
const PUT_BACK_WITHIN: Duration = Duration::from_secs(10 * 60);

/// What is known of each agent's host.
#[derive(Debug, Default)]
pub(crate) struct Hosts(Mutex<BTreeMap<Key, Known>>);

/// One host.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) host: Host,
    pub(crate) written: Option<Written>,
    pub(crate) pods: Vec<HostPod>,
    /// The host's resourceVersion when its pods were listed, and when that was.
    pub(crate) listed: Option<(String, Instant)>,
    /// When what was written of it was put back.
    pub(crate) put_back: Vec<Instant>,
    /// Whether the sidecar is in it, or has been.
    pub(crate) had_part: bool,
}

impl Known {
    /// Whether this workload, of this UID and resourceVersion, is as it was looked at.
    pub(crate) fn is_current(&self, of: &SidecarOf, uid: &str, version: &str) -> bool {
        let number = |version: &str| version.parse::<u64>().unwrap_or(0);
        self.host.of == *of
            && self.host.live.uid == uid
            && number(version) <= number(&self.host.live.resource_version)
    }

    /// Whether the pods of this host are as they were listed.
    pub(crate) fn are_pods_fresh(&self, host: &Host) -> bool {
        // That a pod which is leaving has ended changes nothing of its workload.
        let is_there = |pod: &HostPod| pod.has_sidecar && pod.sight.is_ready && !pod.is_leaving;
        let runs = || self.pods.first().is_some_and(is_there);
        let has_none = || host.replicas == 0 && self.pods.is_empty();
        self.listed.as_ref().is_some_and(|(version, at)| {
            let is_same = *version == host.live.resource_version;
            is_same && (at.elapsed() < FRESH || runs() || has_none())
        })
    }

    /// Whether somebody changes back what is written.
    pub(crate) fn is_contested(&self) -> bool {
        let recent = self.put_back.iter().filter(|at| at.elapsed() < PUT_BACK_WITHIN);
        recent.count() >= PUT_BACK_AT_MOST
    }

    /// The newest pod with the sidecar; one on its way out while there is no other, because it exports to its end.
    fn newest(&self) -> Option<PodSight> {
        let with_sidecar = || self.pods.iter().filter(|pod| pod.has_sidecar);
        let pod = with_sidecar().find(|pod| !pod.is_leaving).or_else(|| with_sidecar().next())?;
        Some(pod.sight.clone())
    }
}

impl Hosts {
    /// What is known of an agent's host.
    pub(crate) fn known(&self, key: &Key) -> Option<Known> {
        lock(&self.0).get(key).cloned()
    }

    /// Whether anything is known of it.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        lock(&self.0).contains_key(key)
    }

    /// The host and its pods, of an agent whose sidecar is in one.
    pub(crate) fn with_sidecar(&self, key: &Key) -> Option<(Host, Vec<HostPod>)> {
        let known = self.known(key).filter(|known| known.host.has_sidecar)?;
        Some((known.host, known.pods))
    }

    /// The newest pod of each host with the sidecar in it, by agent.
    pub(crate) fn pods(&self) -> Vec<(Key, PodSight)> {
        let inner = lock(&self.0);
        inner.iter().filter_map(|(key, known)| Some((key.clone(), known.newest()?))).collect()
    }

    /// The newest pod with an agent's sidecar in it.
    pub(crate) fn pod(&self, key: &Key) -> Option<PodSight> {
        lock(&self.0).get(key)?.newest()
    }

    /// Takes note of how a host was found.
    pub(crate) fn keep(&self, key: &Key, known: Known) {
        lock(&self.0).insert(key.clone(), known);
    }

    /// Takes note of the pods of a host that the sidecar is leaving.
    pub(crate) fn keep_pods(&self, key: &Key, host: &Host, pods: &[HostPod]) {
        if let Some(known) =
            lock(&self.0).get_mut(key).filter(|known| known.host.live.uid == host.live.uid)
        {
            known.host = host.clone();
            known.pods = pods.to_vec();
        }
    }

    /// Takes note that nothing of a host's is left that has the sidecar.
    pub(crate) fn has_left(&self, key: &Key) {
        if let Some(known) = lock(&self.0).get_mut(key) {
            known.host.has_sidecar = false;
            known.host.live.digest = None;
            known.pods.clear();
        }
    }

    /// Takes note of what an apply has made of a host.
    pub(crate) fn note(&self, key: &Key, desired: &str, host: Host, is_put_back: bool) {
        let mut inner = lock(&self.0);
        let Some(known) = inner.get_mut(key).filter(|known| known.host.of == host.of) else {
            return;
        };
        if is_put_back {
            known.put_back.retain(|at| at.elapsed() < PUT_BACK_WITHIN);
            known.put_back.push(Instant::now());
        }
        let (desired, live) = (desired.to_owned(), host.live.clone());
        known.written = Some(Written { desired, live, is_fresh: true });
        known.had_part |= host.has_part();
        known.host = host;
    }

    /// Forgets an agent that is gone, or is in no host.
    pub(crate) fn forget(&self, key: &Key) {
        lock(&self.0).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use siem_agent_crds::siem_agent::HostKind;
    use tokio::time::advance;

    use super::*;

    fn host(version: &str) -> Host {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "sc4s", "namespace": "ns", "uid": "h", "resourceVersion": version},
            "spec": {"replicas": 1},
        });
        let of = SidecarOf { kind: HostKind::Deployment, name: "sc4s".to_owned() };
        Host::of(&serde_json::from_value(object).unwrap(), of, "soc")
    }

    fn pod(uid: &str, is_leaving: bool) -> HostPod {
        let sight = PodSight {
            uid: uid.to_owned(),
            address: None,
            is_ready: true,
            trouble: None,
            created: None,
            release: None,
            ended: None,
        };
        HostPod { sight, has_sidecar: true, is_leaving }
    }

    fn known(pods: Vec<HostPod>) -> Known {
        Known {
            host: host("7"),
            written: None,
            pods,
            listed: Some(("7".to_owned(), Instant::now())),
            put_back: Vec::new(),
            had_part: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_back_again_and_again_is_contested_for_ten_minutes() {
        let (hosts, key) = (Hosts::default(), Key::new("ns", "soc"));
        hosts.keep(&key, known(Vec::new()));
        for n in 1..=3 {
            assert!(!hosts.known(&key).unwrap().is_contested(), "{n}");
            hosts.note(&key, "digest", host("8"), true);
            hosts.note(&key, "digest", host("9"), false);
        }
        assert!(hosts.known(&key).unwrap().is_contested());
        advance(PUT_BACK_WITHIN).await;
        assert!(!hosts.known(&key).unwrap().is_contested());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_looked_at_again_only_when_it_has_changed() {
        let known = known(vec![pod("p", false)]);
        let of = known.host.of.clone();
        assert!(known.is_current(&of, "h", "7") && known.is_current(&of, "h", "6"));
        assert!(!known.is_current(&of, "h", "8") && !known.is_current(&of, "another", "7"));
        assert!(known.are_pods_fresh(&host("7")) && !known.are_pods_fresh(&host("8")));
        let mut starting = known.clone();
        starting.pods[0].sight.is_ready = false;
        advance(FRESH).await;
        assert!(known.are_pods_fresh(&host("7")), "it runs");
        assert!(
            !starting.are_pods_fresh(&host("7")),
            "not all that happens to a pod changes its host"
        );
        let mut leaving = known.clone();
        leaving.pods[0].is_leaving = true;
        assert!(!leaving.are_pods_fresh(&host("7")), "nor that a pod has ended");
    }

    #[tokio::test]
    async fn a_pod_on_its_way_out_speaks_while_there_is_no_other() {
        let newest = |pods: Vec<HostPod>| known(pods).newest().map(|pod| pod.uid);
        let both = vec![pod("new", false), pod("old", true)];
        assert_eq!(newest(both).as_deref(), Some("new"));
        assert_eq!(newest(vec![pod("old", true)]).as_deref(), Some("old"));
        let without = HostPod { has_sidecar: false, ..pod("new", false) };
        assert_eq!(newest(vec![without, pod("old", true)]).as_deref(), Some("old"));
        assert_eq!(newest(Vec::new()), None);
    }
}
