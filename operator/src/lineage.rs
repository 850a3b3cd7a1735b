//! Whose forwarder a pod is: the chain of its controllers, each found by name and recognised by UID. Pure.
//!
//! Names and labels are chosen by whoever makes an object; a UID is given by the API server, and an object is never made
//! with somebody else's. The chain is pod, ReplicaSet, the agent's own Deployment, the agent that exists now; and the pod
//! runs as the ServiceAccount that the operator made for this agent.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::key::Key;
use crate::names::Owned;
use crate::partial::Pod;

/// What the chain needs of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    uid: String,
    controller: Option<Controller>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Controller {
    group: String,
    kind: String,
    name: String,
    uid: String,
}

/// What the chain needs of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descent {
    controller: Option<Controller>,
    account: Option<String>,
    /// On its way out.
    is_leaving: bool,
}

/// Where the members of a chain are looked up, by namespace and name.
pub(crate) trait Kin {
    /// A ReplicaSet.
    fn replica_set(&self, namespace: &str, name: &str) -> Option<Member>;
    /// A Deployment.
    fn deployment(&self, namespace: &str, name: &str) -> Option<Member>;
    /// A SiemAgent that is not being deleted.
    fn agent(&self, namespace: &str, name: &str) -> Option<Member>;
}

impl Member {
    /// What the chain needs of these metadata.
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        Some(Self { uid: metadata.uid.clone()?, controller: Controller::in_(metadata) })
    }
}

impl Descent {
    /// What the chain needs of this pod.
    pub(crate) fn of(pod: &Pod) -> Self {
        Self {
            controller: Controller::in_(&pod.metadata),
            account: pod.spec.service_account_name.clone(),
            is_leaving: pod.metadata.deletion_timestamp.is_some(),
        }
    }

    /// Whether it runs as this account.
    pub(crate) fn runs_as(&self, account: &str) -> bool {
        self.account.as_deref() == Some(account)
    }
}

/// What a controller is, if it is of this kind and really there: under its name lies an object with its UID.
fn controlled_by<'a>(
    controller: Option<&'a Controller>,
    group: &str,
    kind: &str,
    find: impl FnOnce(&str) -> Option<Member>,
) -> Option<(&'a str, Member)> {
    let Controller { name, uid, .. } =
        controller.filter(|controller| controller.is_of(group, kind))?;
    let found = find(name)?;
    (found.uid == *uid).then_some((name, found))
}

impl Controller {
    fn in_(metadata: &ObjectMeta) -> Option<Self> {
        let mut owners = metadata.owner_references.iter().flatten();
        owners.find(|owner| owner.controller == Some(true)).map(Self::of)
    }

    fn of(reference: &OwnerReference) -> Self {
        let OwnerReference { api_version, kind, name, uid, .. } = reference;
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self { group: group.to_owned(), kind: kind.clone(), name: name.clone(), uid: uid.clone() }
    }

    fn is_of(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

/// The agent whose forwarder a pod is; nobody's once it is being deleted.
pub(crate) fn forwarder_of(namespace: &str, pod: &Descent, kin: &impl Kin) -> Option<Key> {
    if pod.is_leaving {
        return None;
    }
    let controller = pod.controller.as_ref();
    let (_, replica_set) =
        controlled_by(controller, "apps", "ReplicaSet", |name| kin.replica_set(namespace, name))?;
    let controller = replica_set.controller.as_ref();
    let (deployment_name, deployment) =
        controlled_by(controller, "apps", "Deployment", |name| kin.deployment(namespace, name))?;
    let controller = deployment.controller.as_ref();
    let (agent, _) =
        controlled_by(controller, "siemagent.dev", "SiemAgent", |name| kin.agent(namespace, name))?;
    let is_its_own = deployment_name == Owned::Deployment.name(agent)
        && pod.runs_as(&Owned::ServiceAccount.name(agent));
    is_its_own.then(|| Key::new(namespace, agent))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[derive(Default, Clone)]
    struct Cluster(BTreeMap<(&'static str, String), Member>);

    impl Cluster {
        fn add(&mut self, kind: &'static str, name: &str, metadata: Value) {
            let metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
            self.0.insert((kind, format!("ns/{name}")), Member::of(&metadata).unwrap());
        }

        fn find(&self, kind: &'static str, namespace: &str, name: &str) -> Option<Member> {
            self.0.get(&(kind, format!("{namespace}/{name}"))).cloned()
        }
    }

    impl Kin for Cluster {
        fn replica_set(&self, namespace: &str, name: &str) -> Option<Member> {
            self.find("ReplicaSet", namespace, name)
        }

        fn deployment(&self, namespace: &str, name: &str) -> Option<Member> {
            self.find("Deployment", namespace, name)
        }

        fn agent(&self, namespace: &str, name: &str) -> Option<Member> {
            self.find("SiemAgent", namespace, name)
        }
    }

    fn owner(api: &str, kind: &str, name: &str, uid: &str) -> Value {
        json!([{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true}])
    }

    fn metadata(uid: &str, owner: Value) -> Value {
        json!({"namespace": "ns", "uid": uid, "ownerReferences": owner})
    }

    /// An agent `soc` with all that its forwarder needs, as a cluster shows it.
    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        cluster.add("SiemAgent", "soc", metadata("agent", Value::Null));
        let of_agent = owner("siemagent.dev/v1alpha1", "SiemAgent", "soc", "agent");
        cluster.add("Deployment", "soc-forwarder", metadata("deployment", of_agent));
        let of_deployment = owner("apps/v1", "Deployment", "soc-forwarder", "deployment");
        cluster.add("ReplicaSet", "soc-forwarder-1", metadata("set", of_deployment));
        cluster
    }

    fn pod(owner: Value, account: &str) -> Pod {
        let mut metadata = metadata("pod", owner);
        metadata["labels"] = json!({"siemagent.dev/name": "soc"});
        serde_json::from_value(json!({
            "metadata": metadata, "spec": {"serviceAccountName": account}, "status": {},
        }))
        .unwrap()
    }

    fn of(pod: &Pod, cluster: &Cluster) -> Option<Key> {
        forwarder_of(pod.metadata.namespace.as_deref()?, &Descent::of(pod), cluster)
    }

    fn of_set(name: &str, uid: &str) -> Value {
        owner("apps/v1", "ReplicaSet", name, uid)
    }

    #[test]
    fn a_pod_of_the_agents_own_deployment_speaks_for_it() {
        let pod = pod(of_set("soc-forwarder-1", "set"), "soc-forwarder");
        assert_eq!(of(&pod, &cluster()), Some(Key::new("ns", "soc")));
    }

    #[test]
    fn a_pod_with_a_link_that_is_not_the_agents_speaks_for_nobody() {
        let of_set_1 = || of_set("soc-forwarder-1", "set");
        let honest = || pod(of_set_1(), "soc-forwarder");
        let nobodys = |pod: &Pod, cluster: &Cluster, what: &str| {
            assert_eq!(of(pod, cluster), None, "{what}");
        };
        let pods = [
            ("no owner", pod(Value::Null, "soc-forwarder")),
            ("a set that nobody knows", pod(of_set("soc-forwarder-2", "set"), "soc-forwarder")),
            ("another set's UID", pod(of_set("soc-forwarder-1", "other"), "soc-forwarder")),
            ("another kind of that name", {
                pod(owner("apps/v1", "StatefulSet", "soc-forwarder-1", "set"), "soc-forwarder")
            }),
            ("another group of that kind", {
                pod(owner("evil.dev/v1", "ReplicaSet", "soc-forwarder-1", "set"), "soc-forwarder")
            }),
            ("another account", pod(of_set_1(), "default")),
            ("no account", pod(of_set_1(), "")),
            ("on its way out", {
                let mut pod = honest();
                pod.metadata.deletion_timestamp =
                    serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
                pod
            }),
            ("another namespace", {
                let mut pod = honest();
                pod.metadata.namespace = Some("other".to_owned());
                pod
            }),
            ("an owner that is not its controller", {
                let mut pod = honest();
                pod.metadata.owner_references.as_mut().unwrap()[0].controller = None;
                pod
            }),
        ];
        for (what, pod) in &pods {
            nobodys(pod, &cluster(), what);
        }
        // Somebody else's set under a fitting name: by itself, of another Deployment, of one that is gone, of a Deployment
        // that only names the agent, of an earlier agent of the same name.
        let deployment = |uid| owner("apps/v1", "Deployment", "soc-forwarder", uid);
        let agents = |uid| owner("siemagent.dev/v1alpha1", "SiemAgent", "soc", uid);
        let changes: [(&'static str, &'static str, Value); 6] = [
            ("ReplicaSet", "soc-forwarder-1", metadata("set", Value::Null)),
            ("ReplicaSet", "soc-forwarder-1", metadata("set", deployment("gone"))),
            ("ReplicaSet", "soc-forwarder-1", metadata("another", deployment("deployment"))),
            ("Deployment", "soc-forwarder", metadata("deployment", Value::Null)),
            ("Deployment", "soc-forwarder", metadata("deployment", agents("earlier"))),
            ("SiemAgent", "soc", metadata("made-again", Value::Null)),
        ];
        for (kind, name, metadata) in changes {
            let mut changed = cluster();
            let what = format!("{kind} {metadata}");
            changed.add(kind, name, metadata);
            nobodys(&honest(), &changed, &what);
        }
        // A Deployment of another name that says it is the agent's.
        let mut changed = cluster();
        changed.add("Deployment", "other", metadata("other", agents("agent")));
        let of_other = owner("apps/v1", "Deployment", "other", "other");
        changed.add("ReplicaSet", "soc-forwarder-1", metadata("set", of_other));
        nobodys(&honest(), &changed, "a Deployment of another name");
    }
}
