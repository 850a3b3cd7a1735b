//! Two versions of the API at once, as in the months in which a cluster goes from one to the next.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_crds::schema;
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::Operator;
use siem_agent_tests::scene::Scene;
use tokio::time::sleep;

/// The CRD with a second version of the same schema; `stored` is the one that is stored.
fn with_two_versions(stored: &str) -> Result<Value> {
    let mut crd: Value = serde_saphyr::from_str(&schema::yaml())?;
    let versions = crd["spec"]["versions"].as_array_mut().context("versions")?;
    let mut next = versions[0].clone();
    next["name"] = json!("v1beta1");
    versions.push(next);
    for version in versions {
        version["storage"] = json!(version["name"] == stored);
    }
    crd["spec"]["conversion"] = json!({"strategy": "None"});
    Ok(crd)
}

#[tokio::test]
async fn agents_of_either_version_are_served_while_both_are() -> Result<()> {
    // It changes the CRD for the whole cluster.
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start().await?));
    plane.install_crd().await?;
    let kubectl = plane.kubectl()?;
    let scene = Scene::on(plane, PATIENCE).await?;
    let operator = Operator::start(&scene.place, &["--forwarder-image", "image:1"]).await?;
    let apply = async |name: &str, version: &str, more: &str| {
        let manifest = Manifest::new(name).more(more).to_string().replace("v1alpha1", version);
        scene.kubectl(&["apply", "--server-side", "-f", "-"], &manifest).await
    };
    apply("old", "v1alpha1", "").await?;
    scene.until("deployment/old-forwarder", |_| true).await?;
    for stored in ["v1alpha1", "v1beta1"] {
        let crd = with_two_versions(stored)?.to_string();
        kubectl.run(&["apply", "--server-side", "--force-conflicts", "--filename=-"], &crd).await?;
        // The new version is served a moment later.
        siem_agent_sim::eventually::eventually(PATIENCE, async || {
            apply("new", "v1beta1", "").await.map(drop)
        })
        .await?;
        scene.until("deployment/new-forwarder", |_| true).await?;
        // An edit by the one version of what was written by the other.
        let hours = if stored == "v1beta1" { "2h" } else { "1h" };
        let more = format!("  startFrom: {hours}\n");
        let force = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let edited = Manifest::new("old").more(&more).to_string().replace("v1alpha1", "v1beta1");
        scene.kubectl(&force, &edited).await?;
        scene
            .until("configmap/old-config", |it| {
                it["data"]["config.yaml"]
                    .as_str()
                    .is_some_and(|text| text.contains(&format!("startFrom: {hours}")))
            })
            .await?;
        scene.until_quiet(Duration::from_secs(15)).await?;
        let position = plane.audit_position()?;
        scene
            .kubectl(&["annotate", "siemagent", "--all", "--overwrite", &format!("a={stored}")], "")
            .await?;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(scene.writes_since(position)?, [], "{}", operator.log());
    }
    ensure!(!operator.log().contains("older than this operator"), "{}", operator.log());
    Ok(())
}
