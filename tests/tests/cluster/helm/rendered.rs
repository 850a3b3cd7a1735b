//! Words to look at what a release is made of.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// The objects of one `helm template`.
#[derive(Debug)]
pub(crate) struct Rendered(pub(crate) Vec<Value>);

impl Rendered {
    pub(crate) fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    pub(crate) fn one(&self, kind: &str) -> Result<&Value> {
        let all = self.of_kind(kind);
        ensure!(all.len() == 1, "{} objects of kind {kind}", all.len());
        Ok(all[0])
    }

    /// The pods of the Deployment and of the test, as pods of `namespace`.
    pub(crate) fn pods(&self, namespace: &str) -> Result<Vec<Value>> {
        let mut pods = Vec::new();
        let deployment = self.one("Deployment")?;
        let template = &deployment["spec"]["template"];
        for (name, metadata, spec) in std::iter::once((
            "operator",
            &template["metadata"],
            &template["spec"],
        ))
        .chain(self.of_kind("Pod").into_iter().map(|pod| ("check", &pod["metadata"], &pod["spec"])))
        {
            let mut spec = spec.clone();
            // Its own account is not there in a dry run.
            spec["serviceAccountName"] = "default".into();
            pods.push(serde_json::json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": metadata["labels"], "annotations": metadata["annotations"]},
                "spec": spec,
            }));
        }
        Ok(pods)
    }

    /// The arguments of the operator.
    pub(crate) fn arguments(&self) -> Result<Vec<String>> {
        let container = &self.one("Deployment")?["spec"]["template"]["spec"]["containers"][0];
        Ok(serde_json::from_value(container["args"].clone())?)
    }
}

/// The rules that the operator needs, from `operator/rbac.yaml`: those of its agents, and those of its Lease.
pub(crate) fn needed_rules() -> Result<[Value; 2]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/rbac.yaml");
    let roles = siem_agent_sim::helm::objects(&fs::read_to_string(path)?)?;
    let of = |kind: &str| {
        let role = roles.iter().find(|role| role["kind"] == kind);
        role.map(|role| role["rules"].clone()).with_context(|| format!("a {kind}"))
    };
    Ok([of("ClusterRole")?, of("Role")?])
}

/// What `operator/rbac-sidecars.yaml` adds: to follow workloads, and to change them.
pub(crate) fn sidecar_rules() -> Result<[Value; 2]> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/rbac-sidecars.yaml");
    let roles = siem_agent_sim::helm::objects(&fs::read_to_string(path)?)?;
    let [sidecars, hosts] = roles.as_slice() else { anyhow::bail!("{} roles", roles.len()) };
    Ok([sidecars["rules"].clone(), hosts["rules"].clone()])
}
