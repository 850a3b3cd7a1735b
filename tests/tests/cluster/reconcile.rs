//! The operator on a real API server: what it makes, puts back, leaves alone and takes away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{PATIENCE, program};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::{Operator, Place};
use siem_agent_tests::gateway::{Gateway, Manner};
use siem_agent_tests::prometheus::check_metrics;
use siem_agent_tests::scene::{Scene, condition};
use tokio::time::sleep;

async fn apply(scene: &Scene, name: &str, more: &str) -> Result<()> {
    scene
        .kubectl(&["apply", "-f", "-"], &Manifest::new(name).more(more).to_string())
        .await
        .map(drop)
}

const EVERYTHING: &str = "  forwarder:\n    persistence: {enabled: true}\n    networkPolicy: {enabled: true}\n    \
                          resources: {limits: {cpu: \"0.5\", memory: 1024Mi}}\n    \
                          tolerations: [{key: a, operator: Exists}]\n    podLabels: {team: soc}\n";
const OWNED: [&str; 5] = [
    "serviceaccount/soc-forwarder",
    "configmap/soc-config",
    "deployment/soc-forwarder",
    "persistentvolumeclaim/soc-state",
    "networkpolicy/soc-forwarder",
];

#[tokio::test]
async fn an_agent_gets_what_render_prints_and_leaves_nothing_behind() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &["--forwarder-image", "image:1"]).await?;
    apply(&scene, "soc", EVERYTHING).await?;
    let agent = scene.until_ready_is("soc", "Progressing").await?;
    assert_eq!(condition(&agent, "Reconciling")["status"], "True");
    assert_eq!(agent["status"]["state"], "Created");
    for what in OWNED {
        scene.until(what, |_| true).await?;
    }
    // Every field that render prints is there, and ours.
    let read_back = scene.kubectl(&["get", "siemagent/soc", "-o", "yaml"], "").await?;
    let rendered = std::process::Command::new(program("siem-operator")?)
        .args(["render", "--forwarder-image", "image:1", "-f", "-"])
        .args(["--operator-namespace", &scene.place.namespace])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut render| {
            use std::io::Write as _;
            render.stdin.take().map(|mut stdin| stdin.write_all(read_back.as_bytes()));
            render.wait_with_output()
        })?;
    let rendered = String::from_utf8(rendered.stdout)?;
    scene.until_quiet(Duration::from_secs(2)).await?;
    let before = versions(&scene).await?;
    let applied = scene
        .kubectl(
            &["apply", "--server-side", "--field-manager=siem-agent-operator", "-f", "-"],
            &rendered,
        )
        .await?;
    assert_eq!(applied.lines().count(), 5, "{applied}");
    assert_eq!(versions(&scene).await?, before, "the same manager applied the same");
    // Nothing is left, with nobody there who could clean up.
    operator.terminate().await?;
    scene.kubectl(&["delete", "siemagent", "soc"], "").await?;
    for what in OWNED {
        scene.until_gone(what).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_unchanged_world_is_left_alone_also_after_a_restart() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc", EVERYTHING).await?;
    apply(&scene, "plain", "").await?;
    apply(&scene, "away", "  suspend: true\n").await?;
    apply(&scene, "beside", "  forwarder: {podOverrides: {spec: {serviceAccountName: x}}}\n")
        .await?;
    scene.until_ready_is("soc", "Progressing").await?;
    scene.until_ready_is("plain", "Progressing").await?;
    scene.until_ready_is("away", "Suspended").await?;
    let beside = scene.until_ready_is("beside", "InvalidSpec").await?;
    assert_eq!(condition(&beside, "Stalled")["status"], "True");
    // Longer than the words of a progress are held back.
    scene.until_quiet(Duration::from_secs(15)).await?;
    operator.terminate().await?;

    let position = scene.plane.audit_position()?;
    let operator = Operator::start(&scene.place, &[]).await?;
    let looked = |passes: f64| async move { anyhow::Ok(passes >= 4.0) };
    eventually(PATIENCE, async || {
        let passes: f64 = operator
            .series("controller_runtime_reconcile_total{")
            .await?
            .iter()
            .map(|(_, value)| value)
            .sum();
        ensure!(looked(passes).await?, "no pass: {}", operator.log());
        Ok(())
    })
    .await?;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.writes_since(position)?, [], "{}", operator.log());
    // Touched by hand without a change of what we own.
    scene.kubectl(&["annotate", "siemagent", "--all", "example.com/touched=yes"], "").await?;
    scene
        .kubectl(
            &["annotate", "deployment,configmap,serviceaccount", "-l", "siemagent.dev/name", "a=b"],
            "",
        )
        .await?;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.writes_since(position)?, [], "{}", operator.log());
    Ok(())
}

#[tokio::test]
async fn drift_is_put_back_and_what_is_not_ours_stays() -> Result<()> {
    let scene = Scene::new().await?;
    let _operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc", EVERYTHING).await?;
    for what in OWNED {
        scene.until(what, |_| true).await?;
    }
    scene.until_quiet(Duration::from_secs(2)).await?;
    let deployment = "deployment/soc-forwarder";
    // A sidecar that some webhook added, and a user's annotation.
    let foreign = json!({
        "metadata": {"annotations": {"example.com/note": "mine"}},
        "spec": {"template": {"spec": {"containers": [{"name": "injected", "image": "mesh:1"}]}}},
    });
    scene.kubectl(&["patch", deployment, "-p", &foreign.to_string()], "").await?;
    scene.kubectl(&["scale", deployment, "--replicas=3"], "").await?;
    scene.until(deployment, |it| it["spec"]["replicas"] == 1).await?;
    scene.kubectl(&["set", "image", deployment, "forwarder=evil:1"], "").await?;
    scene
        .until(deployment, |it| {
            let containers = &it["spec"]["template"]["spec"]["containers"];
            containers.as_array().is_some_and(|containers| {
                containers.iter().all(|container| container["image"] != "evil:1")
            })
        })
        .await?;
    scene
        .kubectl(&["label", deployment, "app.kubernetes.io/managed-by-", "siemagent.dev/name-"], "")
        .await?;
    scene.until(deployment, |it| it["metadata"]["labels"]["siemagent.dev/name"] == "soc").await?;
    let after = scene.get(deployment).await?.context("the Deployment")?;
    assert_eq!(after["metadata"]["annotations"]["example.com/note"], "mine");
    let containers = after["spec"]["template"]["spec"]["containers"].as_array().cloned();
    let names: Vec<_> =
        containers.unwrap_or_default().iter().map(|it| it["name"].clone()).collect();
    ensure!(names.contains(&json!("injected")), "{names:?}");

    let config = json!({"data": {"live.yaml": "nonsense", "more": "mine"}}).to_string();
    scene.kubectl(&["patch", "configmap/soc-config", "-p", &config], "").await?;
    let config =
        scene.until("configmap/soc-config", |it| it["data"]["live.yaml"] != "nonsense").await?;
    assert_eq!(config["data"]["more"], "mine");
    let token = json!({"automountServiceAccountToken": true}).to_string();
    scene.kubectl(&["patch", "serviceaccount/soc-forwarder", "-p", &token], "").await?;
    scene
        .until("serviceaccount/soc-forwarder", |it| it["automountServiceAccountToken"] == false)
        .await?;
    let open = json!({"spec": {"egress": [{}]}}).to_string();
    let policy = "networkpolicy/soc-forwarder";
    scene.kubectl(&["patch", policy, "--type=merge", "-p", &open], "").await?;
    scene
        .until(policy, |it| it["spec"]["egress"].as_array().is_some_and(|rules| rules.len() > 1))
        .await?;
    let claim = "persistentvolumeclaim/soc-state";
    let other =
        ["label", claim, "--overwrite", "app.kubernetes.io/part-of=other", "siemagent.dev/name-"];
    scene.kubectl(&other, "").await?;
    scene
        .until(claim, |it| {
            let labels = &it["metadata"]["labels"];
            labels["app.kubernetes.io/part-of"] == "siem-agent-operator"
                && labels["siemagent.dev/name"] == "soc"
        })
        .await?;
    scene.kubectl(&["delete", policy, deployment, "configmap/soc-config"], "").await?;
    for what in OWNED {
        scene.until(what, |it| it["metadata"]["deletionTimestamp"].is_null()).await?;
    }
    // What is no longer wanted goes.
    apply(&scene, "soc", "").await?;
    scene.until_gone(policy).await?;
    scene.until_gone("persistentvolumeclaim/soc-state").await
}

/// What changes of each owned object when something of it is applied that was not so before.
async fn versions(scene: &Scene) -> Result<Vec<Value>> {
    let mut versions = Vec::new();
    for what in OWNED {
        let object = scene.get(what).await?.context(what)?;
        let metadata = &object["metadata"];
        versions.push(match object["kind"].as_str() {
            // A controller has its own to say of a claim, and most of ours can never change.
            Some("PersistentVolumeClaim") => json!([metadata["labels"], object["spec"]]),
            Some("Deployment" | "NetworkPolicy") => metadata["generation"].clone(),
            _ => metadata["resourceVersion"].clone(),
        });
    }
    Ok(versions)
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_touched() -> Result<()> {
    let scene = Scene::new().await?;
    let pod = "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: a}]}}";
    let claim = "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}";
    let foreign = [
        ("a", "v1", "ConfigMap", "a-config", "data: {config.yaml: mine}".to_owned()),
        ("b", "v1", "ServiceAccount", "b-forwarder", String::new()),
        ("c", "apps/v1", "Deployment", "c-forwarder", format!("spec: {{replicas: 0, {pod}}}")),
        ("d", "v1", "PersistentVolumeClaim", "d-state", format!("spec: {{{claim}}}")),
        (
            "e",
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "e-forwarder",
            "spec: {podSelector: {}}".to_owned(),
        ),
    ];
    for (_, version, kind, name, rest) in &foreign {
        let object =
            format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\n{rest}\n");
        scene.kubectl(&["create", "-f", "-"], &object).await?;
    }
    let _operator = Operator::start(&scene.place, &[]).await?;
    for (agent, ..) in &foreign {
        apply(&scene, agent, EVERYTHING).await?;
    }
    for (agent, _, kind, name, _) in &foreign {
        let object = scene.until_ready_is(agent, "ForeignObject").await?;
        let stalled = condition(&object, "Stalled");
        assert_eq!(stalled["status"], "True");
        let message = stalled["message"].as_str().unwrap_or_default();
        ensure!(message.contains(&format!("{kind} {name}")), "{stalled}");
        let there = scene.get(&format!("{kind}/{name}")).await?.context("somebody else's")?;
        assert_eq!(there["metadata"]["ownerReferences"], Value::Null, "{kind}");
        let managers = there["metadata"]["managedFields"].to_string();
        ensure!(!managers.contains("siem-agent-operator"), "{kind}: {managers}");
        let made = scene.get(&format!("deployment/{agent}-forwarder")).await?;
        ensure!(made.is_none() || *kind == "Deployment", "nothing is made beside it: {kind}");
    }
    Ok(())
}

#[tokio::test]
async fn rejections_by_the_server_stall_the_agent_with_the_servers_words() -> Result<()> {
    let scene = Scene::new().await?;
    let _operator = Operator::start(&scene.place, &[]).await?;
    // A quota refuses the claim: an admission plug-in that no schema can know of.
    let quota = "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {persistentvolumeclaims: \"0\"}}\n";
    scene.kubectl(&["create", "-f", "-"], quota).await?;
    scene.until("resourcequota/none", |it| it["status"]["hard"].is_object()).await?;
    apply(&scene, "soc", EVERYTHING).await?;
    let agent = scene.until_ready_is("soc", "Rejected").await?;
    let message = condition(&agent, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("soc-state") && message.contains("exceeded quota"), "{message}");
    scene.kubectl(&["delete", "resourcequota", "none"], "").await?;
    apply(&scene, "soc", "").await?;
    scene.until_ready_is("soc", "Progressing").await?;
    // A policy refuses it in the words in which the server speaks of missing rights.
    let policy = policy(&scene.namespace).to_string();
    scene.kubectl(&["create", "-f", "-"], &policy).await?;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "probe"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    eventually(PATIENCE, async || {
        ensure!(
            scene
                .kubectl(&["create", "--dry-run=server", "-f", "-"], &claim.to_string())
                .await
                .is_err(),
            "the policy does not begin"
        );
        Ok(())
    })
    .await?;
    apply(&scene, "other", EVERYTHING).await?;
    let agent = scene.until_ready_is("other", "Rejected").await;
    scene.kubectl(&["delete", "-f", "-"], &policy).await?;
    let agent = agent?;
    let message = condition(&agent, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("a tenant cannot have a volume"), "{message}");
    Ok(())
}

/// Refuses every claim of a namespace with 403.
fn policy(namespace: &str) -> Value {
    let name = format!("{namespace}-claims");
    let kind = |kind: &str| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        })
    };
    let mut policy = kind("ValidatingAdmissionPolicy");
    policy["spec"] = json!({
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["persistentvolumeclaims"],
            }],
        },
        "validations": [{
            "expression": "false", "reason": "Forbidden", "message": "a tenant cannot have a volume",
        }],
    });
    let mut binding = kind("ValidatingAdmissionPolicyBinding");
    binding["spec"] = json!({"policyName": name, "validationActions": ["Deny"]});
    json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
}

#[tokio::test]
async fn it_is_ready_when_it_has_seen_the_world_and_alive_before() -> Result<()> {
    let mut scene = Scene::new().await?;
    let gateway = Gateway::to(scene.plane, Manner::Hang).await?;
    scene.place = Place::behind(scene.plane, &scene.namespace, &gateway.url()).await?;
    let mut operator = Operator::spawn(&program("siem-operator")?, &scene.place, &[])?;
    operator.until("livez").await?;
    let ready = reqwest::get(format!("{}/readyz", operator.url())).await?.status();
    assert_eq!(ready.as_u16(), 503, "{}", operator.log());
    gateway.set_manner(Manner::Open);
    operator.until("readyz").await
}

/// Names and labels on which existing dashboards and alerts for operators written in Go stand.
const SERIES: &[(&str, &[&str])] = &[
    ("controller_runtime_reconcile_total", &["controller", "result"]),
    ("controller_runtime_reconcile_errors_total", &["controller"]),
    ("controller_runtime_reconcile_panics_total", &["controller"]),
    ("controller_runtime_reconcile_timeouts_total", &["controller"]),
    ("controller_runtime_reconcile_time_seconds_bucket", &["controller", "le"]),
    ("controller_runtime_reconcile_time_seconds_sum", &["controller"]),
    ("controller_runtime_reconcile_time_seconds_count", &["controller"]),
    ("controller_runtime_max_concurrent_reconciles", &["controller"]),
    ("controller_runtime_active_workers", &["controller"]),
    ("workqueue_depth", &["controller", "name"]),
    ("workqueue_adds_total", &["controller", "name"]),
    ("workqueue_retries_total", &["controller", "name"]),
    ("workqueue_queue_duration_seconds_bucket", &["controller", "le", "name"]),
    ("workqueue_work_duration_seconds_bucket", &["controller", "le", "name"]),
    ("workqueue_unfinished_work_seconds", &["controller", "name"]),
    ("workqueue_longest_running_processor_seconds", &["controller", "name"]),
    ("rest_client_requests_total", &["code", "host", "method"]),
    ("leader_election_master_status", &["name"]),
    ("process_cpu_seconds_total", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_virtual_memory_bytes", &[]),
    ("process_open_fds", &[]),
    ("process_max_fds", &[]),
    ("process_start_time_seconds", &[]),
    ("siemagent_condition", &["name", "namespace", "status", "type"]),
    ("siemagent_state", &["name", "namespace", "state"]),
    ("siemagent_duplicate_export", &["name", "namespace"]),
    ("siemagent_info", &["format", "image", "name", "namespace", "protocol"]),
    ("siemagent_operator_build_info", &["version"]),
    ("siemagent_operator_crd_outdated", &[]),
];

#[tokio::test]
async fn metrics_have_the_names_and_labels_that_dashboards_know() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc", "").await?;
    scene.until_ready_is("soc", "Progressing").await?;
    check_metrics(&format!("{}/metrics", operator.url())).await?;
    let text = operator.get("metrics").await?;
    for (name, labels) in SERIES {
        let is_its =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let mut lines = text.lines().filter(is_its).peekable();
        ensure!(lines.peek().is_some(), "{name} is missing: {text}");
        for line in lines {
            let inside = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
            let pairs =
                inside.map_or("", |(inside, _)| inside).split("\",").filter(|it| !it.is_empty());
            let mut names: Vec<_> = pairs.filter_map(|it| Some(it.split_once('=')?.0)).collect();
            names.sort_unstable();
            assert_eq!(names, *labels, "{line}");
        }
    }
    Ok(())
}
