//! The owner keeps owning: `kubectl apply` of both kinds, `helm upgrade`, a sync that forces. Each keeps the sidecar and
//! loses nothing of its own; what somebody else applies of the sidecar's own is named.

use std::fs;

use siem_agent_sim::control_plane::User;
use siem_agent_sim::helm::Helm;

use super::*;

/// The value of the host's own variable.
fn version(host: &Value) -> &Value {
    let containers = host["spec"]["template"]["spec"]["containers"].as_array();
    containers.and_then(|all| all.first()).map_or(&Value::Null, |one| &one["env"][0]["value"])
}

/// Of the second version of it there is the sidecar as it was, and all that its owner wrote.
async fn both(scene: &Scene, sidecar_before: &Value) -> Result<()> {
    let host = scene.until(HOST, |host| *version(host) == "2").await?;
    assert_eq!(sidecar(&host), Some(sidecar_before));
    let volumes = host["spec"]["template"]["spec"]["volumes"].to_string();
    ensure!(
        volumes.contains("\"queue\"") && volumes.contains("siem-forwarder-config"),
        "{volumes}"
    );
    ensure!(
        manager(&host, "siem-agent-operator/soc").is_some(),
        "it is owned by its manager still"
    );
    // And the operator has nothing to put back.
    let position = scene.plane.audit_position()?;
    scene.until_quiet(Duration::from_secs(3)).await?;
    ensure!(changed(scene, position)?.is_empty());
    Ok(())
}

fn second(mut host: Value) -> Value {
    host["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("2");
    host
}

#[tokio::test]
async fn every_way_in_which_an_owner_writes_keeps_the_sidecar() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    let placed = sidecar_of("Deployment", "collector");
    let ways: [&[&str]; 3] = [
        &["apply", "-f", "-"],
        &["apply", "--server-side", "-f", "-"],
        // As Argo CD's and Flux' server-side syncs do.
        &[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=argocd-controller",
            "-f",
            "-",
        ],
    ];
    for way in ways {
        let first = host("Deployment", "collector");
        scene.kubectl(way, &first.to_string()).await?;
        agent(&scene, "soc", &placed).await?;
        let injected = scene.until(HOST, has_sidecar).await?;
        let before = sidecar(&injected).context("the sidecar")?.clone();
        scene.kubectl(way, &second(first).to_string()).await?;
        both(&scene, &before).await.with_context(|| way.join(" "))?;
        scene.kubectl(&["delete", HOST, "siemagent/soc"], "").await?;
        scene.until_gone("configmap/soc-config").await?;
    }
    operator.terminate().await.map(drop)
}

#[tokio::test]
async fn a_helm_upgrade_of_the_hosts_chart_keeps_the_sidecar() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    let helm = Helm::new(Some(&scene.plane.kubeconfig(User::Admin)?)).await?;
    let chart = helm.folder().join("collector");
    fs::create_dir_all(chart.join("templates"))?;
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: collector\nversion: 1.0.0\n")?;
    let host = host("Deployment", "collector").to_string();
    let template = host.replace(r#""value":"1""#, r#""value":"{{ .Values.version }}""#);
    fs::write(chart.join("templates/collector.yaml"), template)?;
    let path = chart.display().to_string();
    let release = |verb: &str, version: &str| {
        let set = format!("version={version}");
        let inside = format!("--namespace={}", scene.namespace);
        [verb, "collector", &path, &inside, "--set-string", &set].map(str::to_owned)
    };
    helm.run(&release("install", "1")).await?;
    agent(&scene, "soc", &sidecar_of("Deployment", "collector")).await?;
    let injected = scene.until(HOST, has_sidecar).await?;
    let before = sidecar(&injected).context("the sidecar")?.clone();
    helm.run(&release("upgrade", "2")).await?;
    both(&scene, &before).await?;
    // And takes it along when it goes.
    let inside = format!("--namespace={}", scene.namespace);
    helm.run(&["uninstall", "collector", &inside]).await?;
    until_stalled(&scene, "SidecarHostMissing").await?;
    operator.terminate().await.map(drop)
}

#[tokio::test]
async fn an_edit_of_the_sidecar_is_put_back_and_another_applier_of_it_is_named() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    apply(&scene, &host("Deployment", "collector")).await?;
    agent(&scene, "soc", &sidecar_of("Deployment", "collector")).await?;
    let of = |image: &'static str| {
        move |host: &Value| sidecar(host).is_some_and(|sidecar| sidecar["image"] == image)
    };
    scene.until(HOST, of("image:1")).await?;
    let edit = r#"{"spec": {"template": {"spec": {"initContainers": [{"name": "siem-forwarder", "image": "edited:1"}]}}}}"#;
    scene.kubectl(&["patch", HOST, "-p", edit], "").await?;
    scene.until(HOST, of("image:1")).await?;
    let mut theirs = host("Deployment", "collector");
    theirs["spec"]["template"]["spec"]["initContainers"] =
        json!([{"name": "siem-forwarder", "image": "theirs:1"}]);
    let force =
        ["apply", "--server-side", "--force-conflicts", "--field-manager=theirs", "-f", "-"];
    scene.kubectl(&force, &theirs.to_string()).await?;
    let text = until_stalled(&scene, "SidecarNameClash").await?;
    ensure!(text.contains("a container siem-forwarder") && text.contains("theirs"), "{text}");
    let host = scene.get(HOST).await?.context("the host")?;
    ensure!(of("theirs:1")(&host), "no fight over it: {host:#}");
    operator.terminate().await.map(drop)
}

/// A controller that writes its workload whole and knows of no container of others'.
#[tokio::test]
async fn an_owner_that_takes_it_out_again_and_again_is_left_in_peace() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    apply(&scene, &host("Deployment", "collector")).await?;
    agent(&scene, "soc", &sidecar_of("Deployment", "collector")).await?;
    let take_out = async || {
        scene.until(HOST, has_sidecar).await?;
        let edit = r#"[{"op": "remove", "path": "/spec/template/spec/initContainers"}]"#;
        scene.kubectl(&["patch", HOST, "--type=json", "-p", edit], "").await
    };
    for _ in 0..3 {
        take_out().await?;
    }
    // Three times it was put back.
    scene.until(HOST, has_sidecar).await?;
    until_stalled(&scene, "SidecarContested").await?;
    let position = scene.plane.audit_position()?;
    take_out().await?;
    scene.until_quiet(Duration::from_secs(3)).await?;
    assert_eq!(changed(&scene, position)?, []);
    let host = scene.get(HOST).await?.context("the host")?;
    ensure!(!has_sidecar(&host), "no fight over it: {host:#}");
    operator.terminate().await.map(drop)
}

/// As a copy of the host carries it, or a manifest in Git that was exported with it.
#[tokio::test]
async fn a_workload_that_only_carries_the_label_changes_nothing() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    let idle = |name: &str| {
        let mut host = host("Deployment", name);
        host["spec"]["replicas"] = json!(0);
        host
    };
    apply(&scene, &idle("collector")).await?;
    agent(&scene, "soc", &sidecar_of("Deployment", "collector")).await?;
    scene.until_ready_is("soc", "SidecarHostScaledToZero").await?;
    scene.until_quiet(Duration::from_secs(3)).await?;
    let position = scene.plane.audit_position()?;
    let mut stray = idle("stray");
    stray["metadata"]["labels"] = json!({LABEL: "soc"});
    apply(&scene, &stray).await?;
    // More than one pass.
    for touched in ["once", "twice"] {
        let touch = format!("example.com/touched={touched}");
        scene.kubectl(&["annotate", "--overwrite", "siemagent/soc", &touch], "").await?;
        scene.until_quiet(Duration::from_secs(3)).await?;
    }
    assert_eq!(changed(&scene, position)?, [], "{}", operator.log());
    operator.terminate().await.map(drop)
}
