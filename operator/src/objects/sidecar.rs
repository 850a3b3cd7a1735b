//! An agent's part of the workload that hosts its sidecar: one native sidecar with its volumes, and nothing else. Pure.
//!
//! It is applied under a field manager of the agent's own. What is not in it any more is taken back by the server, so an
//! empty part removes the sidecar.

use serde_json::{Map, Value, json};
use siem_agent_crds::siem_agent::SidecarOf;

use super::container::{self, Pod};
use super::validated::Validated;
use super::{Error, encoded};
use crate::drift;
use crate::names::{self, Owned, RELEASE_LABEL, SIDECAR_LABEL};

/// What is applied to a host.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) object: Value,
    pub(crate) digest: String,
}

impl Part {
    fn new(namespace: &str, of: &SidecarOf, labels: Map<String, Value>, template: Value) -> Self {
        let mut object = json!({
            "apiVersion": "apps/v1",
            "kind": of.kind.as_str(),
            "metadata": {"name": of.name, "namespace": namespace},
        });
        if !labels.is_empty() {
            object["metadata"]["labels"] = labels.into();
        }
        if !template.is_null() {
            object["spec"] = json!({"template": {"spec": template}});
        }
        let digest = drift::of_desired(&object);
        Self { object, digest }
    }

    /// The label alone: the sidecar is taken out of the pods to come, and the one that has it is remembered.
    pub(crate) fn leaving(namespace: &str, of: &SidecarOf, agent: &str) -> Self {
        Self::new(namespace, of, label(agent), Value::Null)
    }

    /// Nothing of ours is left.
    pub(crate) fn nothing(namespace: &str, of: &SidecarOf) -> Self {
        Self::new(namespace, of, Map::new(), Value::Null)
    }
}

fn label(agent: &str) -> Map<String, Value> {
    Map::from_iter([(SIDECAR_LABEL.to_owned(), agent.into())])
}

/// The sidecar in this workload.
pub(super) fn sidecar(validated: &Validated<'_>, of: &SidecarOf) -> Result<Part, Error> {
    let agent = validated.agent.metadata.name.as_deref().unwrap_or_default();
    let pod = Pod::Hosts(of, validated.host);
    let mut labels = label(agent);
    if let Some(mark) = &validated.mark {
        labels.insert(RELEASE_LABEL.to_owned(), mark.to_string().into());
    }
    let container = encoded(Owned::Deployment, &container::container(validated, pod))?;
    let volumes = encoded(Owned::Deployment, &container::volumes(validated, pod))?;
    let mut template = json!({"initContainers": [container], "volumes": volumes});
    if let Some(secrets) = container::pull_secrets(validated) {
        template["imagePullSecrets"] = encoded(Owned::Deployment, &secrets)?;
    }
    Ok(Part::new(&names::namespace(validated.agent), of, labels, template))
}
