//! OpenShift, as far as an API server without it can be made to look like one: its group, and its refusal of a group.

use anyhow::{Result, ensure};
use serde_json::json;
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::operator::{Operator, Place};
use tokio::time::{Instant, sleep};

use super::manifest;

#[tokio::test]
async fn a_volume_asks_for_no_group_where_the_api_server_is_openshifts() -> Result<()> {
    // The list of an API server's groups is for all that use it.
    let plane = ControlPlane::start().await?;
    let namespace = plane.namespace().await?;
    let place = Place::new(&plane, &namespace).await?;
    let kubectl = plane.kubectl()?;
    let inside = format!("--namespace={namespace}");
    let persistent = manifest("soc", "  forwarder: {persistence: {enabled: true}}\n");
    let until_group_is = async |expected: &str| -> Result<()> {
        let group = "jsonpath={.spec.template.spec.securityContext.fsGroup}";
        let get = ["get", "deployment/soc-forwarder", "--ignore-not-found", "-o", group, &inside];
        let exists =
            ["get", "deployment/soc-forwarder", "--ignore-not-found", "-o", "name", &inside];
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = kubectl.run(&get, "").await?;
            if seen == expected && !kubectl.run(&exists, "").await?.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < until, "fsGroup is `{seen}`, not `{expected}`");
            sleep(LOOK).await;
        }
    };
    let operator = Operator::start(&place, &[]).await?;
    kubectl.run(&["apply", "-f", "-", &inside], &persistent).await?;
    until_group_is("65532").await?;
    operator.terminate().await?;

    // As restricted-v2 does, in the words that an API server without it has.
    let refuses = json!([
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "restricted"},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]},
                ]},
                "validations": [{"expression": "!has(object.spec.template.spec.securityContext.fsGroup)", "message": "65532 is not an allowed group"}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "restricted"},
            "spec": {"policyName": "restricted", "validationActions": ["Deny"]},
        },
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": refuses}).to_string();
    kubectl.run(&["apply", "-f", "-"], &list).await?;
    let patch = r#"{"spec": {"revisionHistoryLimit": 3}}"#;
    let tries = ["patch", "deployment/soc-forwarder", "--dry-run=server", "-p", patch, &inside];
    eventually(PATIENCE, async || {
        ensure!(!kubectl.say(&tries, "").await?.ok, "the policy is not in force");
        Ok(())
    })
    .await?;
    // A release that the API server refuses leaves the agent as it is, and says so.
    let operator = Operator::start(&place, &["--forwarder-image", "other:1"]).await?;
    let message = r#"jsonpath={.status.conditions[?(@.reason=="RolloutHalted")].message}"#;
    eventually(PATIENCE, async || {
        let said = kubectl.run(&["get", "siemagent/soc", "-o", message, &inside], "").await?;
        ensure!(
            said.contains("65532 is not an allowed group"),
            "it says `{said}`: {}",
            operator.log()
        );
        Ok(())
    })
    .await?;
    operator.terminate().await?;

    let constraints = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "securitycontextconstraints.security.openshift.io"},
        "spec": {
            "group": "security.openshift.io", "scope": "Cluster",
            "names": {"kind": "SecurityContextConstraints", "plural": "securitycontextconstraints", "singular": "securitycontextconstraints"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    kubectl.run(&["apply", "-f", "-"], &constraints.to_string()).await?;
    let crd = "crd/securitycontextconstraints.security.openshift.io";
    kubectl.run(&["wait", crd, "--for=condition=Established", "--timeout=60s"], "").await?;
    eventually(PATIENCE, async || {
        ensure!(
            kubectl.run(&["api-versions"], "").await?.contains("security.openshift.io/"),
            "the API server does not list the group"
        );
        Ok(())
    })
    .await?;
    let _operator = Operator::start(&place, &[]).await?;
    until_group_is("").await
}
