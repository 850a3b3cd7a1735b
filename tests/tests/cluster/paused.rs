//! What a user keeps the operator from: everything, by the pause, and parts of the pod, by overrides.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::Operator;
use siem_agent_tests::scene::{Scene, condition};
use tokio::time::sleep;

const AGENT: &str = "siemagent/soc";
const DEPLOYMENT: &str = "deployment/soc-forwarder";

async fn apply(scene: &Scene, more: &str) -> Result<()> {
    let manifest = Manifest::new("soc").more(more).to_string();
    scene.kubectl(&["apply", "-f", "-"], &manifest).await.map(drop)
}

async fn pause(scene: &Scene, value: &str) -> Result<()> {
    let annotation = format!("siemagent.dev/paused{value}");
    scene.kubectl(&["annotate", "--overwrite", AGENT, &annotation], "").await.map(drop)
}

#[tokio::test]
async fn a_paused_agent_is_left_alone_until_the_pause_is_over() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &["--forwarder-image", "image:1"]).await?;
    apply(&scene, "").await?;
    scene.until_ready_is("soc", "Progressing").await?;
    scene.until_quiet(Duration::from_secs(15)).await?;
    let before =
        scene.get(AGENT).await?.context("the agent")?["status"]["observedGeneration"].clone();
    pause(&scene, "=true").await?;
    let agent = scene.until(AGENT, |it| condition(it, "Paused")["status"] == "True").await?;
    assert_eq!(condition(&agent, "Paused")["reason"], "Paused");

    // Drift stays, what is taken away stays away, and another spec is not applied; a restart changes nothing of that.
    let position = scene.plane.audit_position()?;
    scene.kubectl(&["scale", DEPLOYMENT, "--replicas=3"], "").await?;
    scene.kubectl(&["delete", "serviceaccount/soc-forwarder"], "").await?;
    apply(&scene, "  startFrom: 1h\n").await?;
    let waits = |agent: &Value| {
        let message = condition(agent, "Paused")["message"].as_str().unwrap_or_default().to_owned();
        ["ServiceAccount soc-forwarder", "ConfigMap soc-config", "Deployment soc-forwarder"]
            .iter()
            .all(|object| message.contains(object))
    };
    let agent = scene.until(AGENT, waits).await?;
    assert_eq!(agent["status"]["observedGeneration"], before, "the new spec is not observed");
    operator.terminate().await?;
    let _operator = Operator::start(&scene.place, &["--forwarder-image", "image:2"]).await?;
    sleep(Duration::from_secs(4)).await;
    let writes = scene.writes_since(position)?;
    ensure!(
        writes.iter().all(|write| write.resource == "siemagents" || write.resource == "events"),
        "{writes:?}"
    );
    assert_eq!(scene.get(DEPLOYMENT).await?.context("the Deployment")?["spec"]["replicas"], 3);
    ensure!(scene.get("serviceaccount/soc-forwarder").await?.is_none());

    // Only "true" pauses, and what waited is done.
    pause(&scene, "=false").await?;
    scene.until("serviceaccount/soc-forwarder", |_| true).await?;
    scene.until(DEPLOYMENT, |it| it["spec"]["replicas"] == 1).await?;
    let is_over = |agent: &Value| {
        condition(agent, "Paused").is_null()
            && agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
    };
    scene.until(AGENT, is_over).await?;
    Ok(())
}

#[tokio::test]
async fn overrides_are_applied_kept_and_held_to_their_place() -> Result<()> {
    let scene = Scene::new().await?;
    let _operator = Operator::start(&scene.place, &["--forwarder-image", "image:1"]).await?;
    let overrides = json!({"forwarder": {"podOverrides": {
        "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["192.0.2.53"]},
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "containers": [{
                "name": "forwarder", "env": [{"name": "TZ", "value": "UTC"}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}], "securityContext": {"runAsUser": 1000},
            }],
        },
    }}});
    let lines = |spec: &Value| format!("  forwarder: {}\n", spec["forwarder"]);
    apply(&scene, &lines(&overrides)).await?;
    let is_patched = |deployment: &Value| {
        let template = &deployment["spec"]["template"];
        let container = &template["spec"]["containers"][0];
        template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
            && template["spec"]["dnsConfig"]["nameservers"] == json!(["192.0.2.53"])
            && container["securityContext"]["runAsUser"] == 1000
            && container["securityContext"]["readOnlyRootFilesystem"] == true
            && container["env"]
                .as_array()
                .is_some_and(|env| env.iter().any(|of| of["name"] == "TZ"))
            && container["env"]
                .as_array()
                .is_some_and(|env| env.iter().any(|of| of["name"] == "POD_UID"))
    };
    scene.until(DEPLOYMENT, is_patched).await?;
    scene.until_quiet(Duration::from_secs(15)).await?;
    // It is looked at again and nothing is written; what somebody else makes of it is put back.
    let position = scene.plane.audit_position()?;
    scene.kubectl(&["annotate", AGENT, "example.com/touched=yes"], "").await?;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.writes_since(position)?, []);
    let drift =
        json!({"spec": {"template": {"spec": {"dnsConfig": {"nameservers": ["192.0.2.1"]}}}}});
    scene.kubectl(&["patch", DEPLOYMENT, "-p", &drift.to_string()], "").await?;
    scene.until(DEPLOYMENT, is_patched).await?;

    // What the operator needs itself: refused by its path, and the Deployment stays as it was.
    let mut command = overrides.clone();
    command["forwarder"]["podOverrides"]["spec"]["containers"][0]["command"] = json!(["sh"]);
    apply(&scene, &lines(&command)).await?;
    let agent = scene.until_ready_is("soc", "InvalidSpec").await?;
    let message = condition(&agent, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(
        message.contains("spec.forwarder.podOverrides.spec.containers[forwarder].command"),
        "{message}"
    );
    ensure!(is_patched(&scene.get(DEPLOYMENT).await?.context("the Deployment")?));
    // What no pod has: in the server's words.
    apply(&scene, &lines(&json!({"forwarder": {"podOverrides": {"spec": {"dnsPolici": "None"}}}})))
        .await?;
    let agent = scene.until_ready_is("soc", "Rejected").await?;
    let message = condition(&agent, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("dnsPolici"), "{message}");
    // And without them it is the operator's own again.
    apply(&scene, "").await?;
    scene.until(DEPLOYMENT, |it| it["spec"]["template"]["spec"]["dnsConfig"].is_null()).await?;
    Ok(())
}
