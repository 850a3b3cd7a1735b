//! The scrape configuration as it ships, with an account that may do what the file says it must, and nothing else.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::alert_rules::document;
use siem_agent_sim::control_plane::ControlPlane;

const ACCOUNT: &str = "prometheus";

/// The jobs of `deploy/prometheus/scrape.yaml` for a Prometheus outside the cluster: in all namespaces, or in one only.
///
/// # Errors
/// When the API server does not take the rights, or the file is not as expected.
pub async fn scrape_configs(
    plane: &ControlPlane,
    home: &str,
    namespace: Option<&str>,
) -> Result<Value> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": ACCOUNT},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
    });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": home}});
    let mut binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": home}],
    });
    if let Some(namespace) = namespace {
        binding["kind"] = json!("RoleBinding");
        binding["metadata"]["namespace"] = json!(namespace);
    }
    let all = json!({"apiVersion": "v1", "kind": "List", "items": [role, account, binding]});
    plane.kubectl()?.run(&["apply", "-f", "-"], &all.to_string()).await?;
    let token = plane.service_account_token(home, ACCOUNT).await?;
    let kubeconfig = plane.kubeconfig_with(&format!("{ACCOUNT}-{home}"), &plane.url(), &token)?;
    with(document("deploy/prometheus/scrape.yaml")?, &kubeconfig, namespace)
}

/// In a cluster both are known from the pod's own account.
fn with(mut file: Value, kubeconfig: &Path, namespace: Option<&str>) -> Result<Value> {
    let jobs = file["scrape_configs"].as_array_mut().context("read the jobs")?;
    for discovery in jobs.iter_mut().map(|job| &mut job["kubernetes_sd_configs"][0]) {
        discovery["kubeconfig_file"] = json!(kubeconfig);
        if let Some(namespace) = namespace {
            discovery["namespaces"] = json!({"names": [namespace]});
        }
    }
    Ok(file["scrape_configs"].take())
}
