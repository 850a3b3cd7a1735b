//! The names and labels of what an agent owns. Pure; the only place where a name is put together.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use kube::api::ApiResource;
use siem_agent_crds::SiemAgent;
use siem_agent_crds::siem_agent::HostKind;

/// Who applies: the field manager, the reporter of Events, the leader's Lease, and `app.kubernetes.io/managed-by`.
pub(crate) const MANAGER: &str = "siem-agent-operator";
/// Carries the agent's name on everything that the agent owns.
pub(crate) const AGENT_LABEL: &str = "siemagent.dev/name";
/// The watch of owned objects selects by it.
pub(crate) const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// On the pod template: another configuration is another pod.
pub(crate) const CONFIG_HASH_ANNOTATION: &str = "siemagent.dev/config-hash";
/// On a Deployment: the release that it was brought to, and whether that is on trial there; on its pods: the release.
pub(crate) const RELEASE_LABEL: &str = "siemagent.dev/release";
/// The forwarder's container.
pub(crate) const CONTAINER: &str = "forwarder";
/// On a workload that hosts a forwarder: the agent whose sidecar is there, or has been and whose pod has not ended yet.
pub(crate) const SIDECAR_LABEL: &str = "siemagent.dev/sidecar";
/// The forwarder's container in another workload's pod, and what the names of its volumes there begin with.
pub(crate) const SIDECAR: &str = "siem-forwarder";

/// An object that an agent may own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owned {
    /// `<name>-forwarder`: without rights and without a token.
    ServiceAccount,
    /// `<name>-config`: the configuration and the live file.
    Config,
    /// `<name>-state`: where persistence is asked for.
    Claim,
    /// `<name>-forwarder`: where it is asked for.
    NetworkPolicy,
    /// `<name>-forwarder`.
    Deployment,
    /// `<name>-checkpoint`.
    Checkpoint,
}

impl Owned {
    /// All of them, in the order in which they are applied: the Deployment after what its pod needs.
    pub(crate) const ALL: [Self; 6] = [
        Self::ServiceAccount,
        Self::Config,
        Self::Claim,
        Self::NetworkPolicy,
        Self::Deployment,
        Self::Checkpoint,
    ];

    /// The object's kind.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Config | Self::Checkpoint => "ConfigMap",
            Self::Claim => "PersistentVolumeClaim",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Deployment => "Deployment",
        }
    }

    /// Where the API has objects of the kind.
    pub(crate) fn resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Config | Self::Checkpoint => ApiResource::erase::<ConfigMap>(&()),
            Self::Claim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
        }
    }

    /// The object's name.
    pub(crate) fn name(self, agent: &str) -> String {
        match self {
            Self::ServiceAccount | Self::NetworkPolicy | Self::Deployment => {
                format!("{agent}-forwarder")
            }
            Self::Config => format!("{agent}-config"),
            Self::Claim => format!("{agent}-state"),
            Self::Checkpoint => format!("{agent}-checkpoint"),
        }
    }
}

/// Who applies one agent's sidecar: a field manager of its own, so that what it owns in the host can be taken back.
pub(crate) fn sidecar_manager(agent: &str) -> String {
    format!("{MANAGER}/{agent}")
}

/// Where the API has workloads of a kind that may host a sidecar.
pub(crate) fn host_resource(kind: HostKind) -> ApiResource {
    match kind {
        HostKind::Deployment => ApiResource::erase::<Deployment>(&()),
        HostKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
    }
}

/// The labels by which a Deployment finds its pods; they can never change.
pub(crate) fn selector(agent: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/instance".to_owned(), agent.to_owned()),
        ("app.kubernetes.io/name".to_owned(), "siem-forwarder".to_owned()),
        (AGENT_LABEL.to_owned(), agent.to_owned()),
    ])
}

/// The labels of everything that an agent owns.
pub(crate) fn labels(agent: &str) -> BTreeMap<String, String> {
    let mut labels = selector(agent);
    labels.insert("app.kubernetes.io/component".to_owned(), CONTAINER.to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), MANAGER.to_owned());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGER.to_owned());
    labels
}

/// The metadata of an owned object. Without a `uid`, as in a manifest that was never applied, it has no owner: a
/// reference to an owner that does not exist would let the garbage collector take the object at once.
pub(crate) fn metadata(agent: &SiemAgent, object: Owned) -> ObjectMeta {
    let name = agent.metadata.name.as_deref().unwrap_or_default();
    ObjectMeta {
        name: Some(object.name(name)),
        namespace: Some(namespace(agent)),
        labels: Some(labels(name)),
        owner_references: owner(agent).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// The agent's namespace; `default` where a manifest names none.
pub(crate) fn namespace(agent: &SiemAgent) -> String {
    agent.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned())
}

fn owner(agent: &SiemAgent) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: SiemAgent::api_version(&()).into_owned(),
        kind: SiemAgent::kind(&()).into_owned(),
        name: agent.metadata.name.clone()?,
        uid: agent.metadata.uid.clone()?,
        controller: Some(true),
        // To set it one needs a right on the agent's finalizers, and nobody has to wait for these objects to go.
        block_owner_deletion: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_longest_agent_fits_a_label() {
        for object in Owned::ALL {
            assert!(object.name(&"a".repeat(50)).len() <= 63);
        }
    }
}
