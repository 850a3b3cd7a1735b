//! Hunting has a budget that the tenant's agents share, and the administrator says who may claim it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::arrival::quick;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::operator::{ACCOUNT, Operator, Place};
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::scene::{Scene, condition};

use super::{TENANT, agent, apply, graph};
use crate::operator_live::stage::{Stage, until_all_arrived};

/// Graph without a limit of the agent's own.
fn unlimited(defender: &Defender) -> Value {
    let mut graph = graph(defender);
    if let Some(graph) = graph.as_object_mut() {
        graph.remove("requestsPerMinute");
    }
    json!({"graph": graph})
}

/// A number that the forwarder re-reads live.
async fn live(scene: &Scene, name: &str, of: &str) -> Result<Option<u32>> {
    let config = scene.get(&format!("configmap/{name}-config")).await?.unwrap_or_default();
    let live = config["data"]["live.yaml"].as_str().unwrap_or_default();
    let number = live.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(": "));
    Ok(number.map(str::parse).transpose()?)
}

async fn until_hunting(scene: &Scene, name: &str, expected: Option<u32>) -> Result<()> {
    eventually(PATIENCE, async || {
        let found = live(scene, name, "huntingPerMinute").await?;
        ensure!(found == expected, "{name} has {found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_agents_of_a_graph_tenant_share_its_hunting_queries() -> Result<()> {
    let stage = Stage::new().await?;
    let defender = Defender::start(quick(0.0, 20)).await?;
    let receivers = [Rsyslog::start(Input::Tcp).await?, Rsyslog::start(Input::Tcp).await?];
    stage.token(DEMO_TOKEN).await?;
    for (name, receiver) in ["one", "two"].into_iter().zip(&receivers) {
        apply(&stage, &agent(name, &unlimited(&defender), &defender, receiver.port)).await?;
    }
    for (name, receiver) in ["one", "two"].into_iter().zip(&receivers) {
        let agent = stage.scene.until_ready_is(name, "Delivering").await?;
        let said = condition(&agent, "Ready")["message"].as_str().unwrap_or_default().to_owned();
        let shared = format!(
            "the tenant's hunting queries are shared with 1 other agent, in the namespace {}",
            stage.scene.namespace
        );
        ensure!(said.contains(&shared), "{said}");
        until_hunting(&stage.scene, name, Some(15)).await?;
        until_all_arrived(&defender, &[receiver]).await?;
    }
    // The other, and whose alerts come from there alone, ask none of it.
    let suspend = |suspend: bool| json!({"spec": {"suspend": suspend}}).to_string();
    let patch = async |name: &str, patch: &str| {
        stage.scene.kubectl(&["patch", "siemagent", name, "--type=merge", "-p", patch], "").await
    };
    patch("two", &suspend(true)).await?;
    stage.scene.until_ready_is("two", "Suspended").await?;
    until_hunting(&stage.scene, "one", Some(30)).await?;
    patch("two", &suspend(false)).await?;
    until_hunting(&stage.scene, "one", Some(15)).await?;
    let alerts_alone = json!({"spec": {"eventTypes": {"activities": {"enabled": false}}}});
    patch("two", &alerts_alone.to_string()).await?;
    stage.scene.until_ready_is("two", "Delivering").await?;
    until_hunting(&stage.scene, "two", None).await?;
    until_hunting(&stage.scene, "one", Some(30)).await?;
    defender.produce(20);
    until_all_arrived(&defender, &[&receivers[0]]).await.map(drop)
}

#[tokio::test]
async fn the_administrator_says_which_namespaces_may_export_a_graph_tenant() -> Result<()> {
    let (own, other) = (Scene::new().await?, Scene::new().await?);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "of-the-other"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": own.namespace}],
    });
    other.kubectl(&["apply", "-f", "-"], &binding.to_string()).await?;
    let both = vec![own.namespace.clone(), other.namespace.clone()];
    let place = Place::of_account(own.plane, &own.namespace, ACCOUNT, both).await?;
    let tenant = json!({
        "tenantId": TENANT.to_lowercase(), "requestsPerMinute": 40, "namespaces": [own.namespace],
    });
    let _operator = Operator::start(&place, &["--tenant", &tenant.to_string()]).await?;
    let defender = Defender::start(quick(0.0, 0)).await?;
    let manifest = agent("soc", &unlimited(&defender), &defender, 9).to_string();
    for scene in [&own, &other] {
        scene.kubectl(&["apply", "-f", "-"], &manifest).await?;
    }
    let refused = other.until_ready_is("soc", "SourceNotAllowed").await?;
    let said = condition(&refused, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
    for word in ["spec.source.auth.clientCredentials.tenantId", &other.namespace, "tenants"] {
        ensure!(said.contains(word), "{word}: {said}");
    }
    until_hunting(&own, "soc", Some(40)).await?;
    // The portal of the same tenant is another API, which nobody has fenced off.
    let portal = json!({"spec": {"source": {"graph": null, "cloudApps": {"url": defender.url()}}}});
    let patch = ["patch", "siemagent/soc", "--type=merge", "-p", &portal.to_string()];
    other.kubectl(&patch, "").await?;
    other
        .until("siemagent/soc", |agent| {
            condition(agent, "Ready")["observedGeneration"] == agent["metadata"]["generation"]
                && condition(agent, "Stalled").is_null()
        })
        .await?;
    until_hunting(&other, "soc", None).await
}
