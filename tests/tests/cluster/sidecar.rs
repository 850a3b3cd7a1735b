//! A forwarder in another workload's pod, on a real API server with real controllers: what is changed of the workload, by
//! whom it stays owned, every reason not to touch it, and that nothing stays behind. What needs a kubelet is in `node`.

mod owners;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::control_plane::Request;
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::Operator;
use siem_agent_tests::scene::{Scene, condition};
use tokio::time::sleep;

const IMAGE: [&str; 2] = ["--forwarder-image", "image:1"];
const ALLOW: &str = "siemagent.dev/allow-sidecar";
const LABEL: &str = "siemagent.dev/sidecar";
const HOST: &str = "deployment/collector";

/// A scene whose operator may change workloads that allow it.
async fn scene() -> Result<Scene> {
    let scene = Scene::new().await?;
    scene.place.allow_sidecars(scene.plane).await?;
    Ok(scene)
}

/// A workload as its owner writes it, which allows the agent `soc`.
fn host(kind: &str, name: &str) -> Value {
    let labels = json!({"app": name});
    let strategy = if kind == "Deployment" { "strategy" } else { "updateStrategy" };
    let how = if kind == "Deployment" { "Recreate" } else { "RollingUpdate" };
    json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {ALLOW: "soc"}},
        "spec": {
            "replicas": 1, strategy: {"type": how}, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "rsyslog", "image": "rsyslog:1", "env": [{"name": "VERSION", "value": "1"}]}],
                    "volumes": [{"name": "queue", "emptyDir": {}}],
                },
            },
        },
    })
}

async fn apply(scene: &Scene, object: &Value) -> Result<()> {
    scene.kubectl(&["apply", "-f", "-"], &object.to_string()).await.map(drop)
}

fn sidecar_of(kind: &str, name: &str) -> String {
    format!("  placement: {{sidecarOf: {{kind: {kind}, name: {name}}}}}\n")
}

async fn agent(scene: &Scene, name: &str, more: &str) -> Result<()> {
    let manifest = Manifest::new(name).more(more).to_string();
    scene.kubectl(&["apply", "-f", "-"], &manifest).await.map(drop)
}

fn sidecar(host: &Value) -> Option<&Value> {
    let containers = host["spec"]["template"]["spec"]["initContainers"].as_array()?;
    containers.iter().find(|container| container["name"] == "siem-forwarder")
}

fn has_sidecar(host: &Value) -> bool {
    sidecar(host).is_some()
}

fn is_clean(host: &Value) -> bool {
    let volumes = host["spec"]["template"]["spec"]["volumes"].to_string();
    !has_sidecar(host)
        && !volumes.contains("siem-forwarder")
        && host["metadata"]["labels"][LABEL].is_null()
        && manager(host, "siem-agent-operator/soc").is_none()
}

/// What a field manager has of an object.
fn manager<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    entries.iter().find(|entry| entry["manager"] == name).map(|entry| &entry["fieldsV1"])
}

/// What the operator has changed of workloads since a position.
fn changed(scene: &Scene, position: u64) -> Result<Vec<Request>> {
    let writes = scene.writes_since(position)?.into_iter();
    Ok(writes.filter(|write| write.group == "apps").collect())
}

async fn until_stalled(scene: &Scene, reason: &str) -> Result<String> {
    let agent = scene.until_ready_is("soc", reason).await?;
    let stalled = condition(&agent, "Stalled");
    ensure!(stalled["reason"] == reason && stalled["status"] == "True", "{stalled}");
    Ok(stalled["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_workload_that_allows_it_gets_one_container_with_its_volumes_and_nothing_else()
-> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    for (kind, what) in [("Deployment", HOST), ("StatefulSet", "statefulset/collector")] {
        apply(&scene, &host(kind, "collector")).await?;
        let before = scene.get(what).await?.context("the host")?;
        agent(&scene, "soc", &sidecar_of(kind, "collector")).await?;
        let after = scene.until(what, has_sidecar).await?;
        let fields = manager(&after, "siem-agent-operator/soc").context("a manager of its own")?;
        let paths = |of: &Value| -> Vec<String> {
            of.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(paths(fields), ["f:metadata", "f:spec"]);
        assert_eq!(paths(&fields["f:metadata"]), ["f:labels"]);
        assert_eq!(paths(&fields["f:spec"]), ["f:template"]);
        assert_eq!(paths(&fields["f:spec"]["f:template"]), ["f:spec"]);
        let template = &fields["f:spec"]["f:template"]["f:spec"];
        assert_eq!(paths(template), ["f:initContainers", "f:volumes"]);
        assert_eq!(paths(&template["f:initContainers"]), [r#"k:{"name":"siem-forwarder"}"#]);
        // What was there is there, as it was.
        let spec = |host: &Value| host["spec"]["template"]["spec"].clone();
        assert_eq!(spec(&before)["containers"], spec(&after)["containers"]);
        assert_eq!(spec(&before)["volumes"][0], spec(&after)["volumes"][0]);
        ensure!(scene.get("deployment/soc-forwarder").await?.is_none());
        let told = scene.until("siemagent/soc", |agent| {
            let available = condition(agent, "WorkloadAvailable");
            available["message"]
                .as_str()
                .is_some_and(|text| text.contains(&format!("{kind} collector")))
        });
        told.await?;
        // The annotation is taken away, and with it the sidecar, to the last trace.
        scene.kubectl(&["annotate", what, &format!("{ALLOW}-")], "").await?;
        until_stalled(&scene, "SidecarNotAllowed").await?;
        scene.until(what, is_clean).await?;
        scene.kubectl(&["delete", "siemagent/soc", what], "").await?;
        scene.until_gone("configmap/soc-config").await?;
    }
    let events = scene.kubectl(&["get", "events.events.k8s.io", "-o", "json"], "").await?;
    let events: Value = serde_json::from_str(&events)?;
    let of = |kind: &str| {
        let events = events["items"].as_array().into_iter().flatten();
        let of_kind = events.filter(|event| {
            event["reason"] == "SidecarHostRestart" && event["regarding"]["kind"] == kind
        });
        of_kind.map(|event| event["note"].to_string()).collect::<Vec<_>>()
    };
    for kind in ["SiemAgent", "Deployment", "StatefulSet"] {
        let notes = of(kind);
        let of = |word: &str| notes.iter().any(|note| note.contains(word));
        ensure!(of("the operator adds") && of("the operator removes"), "{kind}: {notes:?}");
    }
    operator.terminate().await.map(drop)
}

#[tokio::test]
async fn whoever_does_not_allow_it_is_not_touched_and_each_reason_is_told() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    agent(&scene, "soc", &sidecar_of("Deployment", "collector")).await?;
    let text = until_stalled(&scene, "SidecarHostMissing").await?;
    ensure!(text.contains("there is no Deployment collector"), "{text}");
    let position = scene.plane.audit_position()?;
    let with = |change: &dyn Fn(&mut Value)| {
        let mut host = host("Deployment", "collector");
        change(&mut host);
        host
    };
    let template = |host: &mut Value, field: &str, value: Value| {
        host["spec"]["template"]["spec"][field] = value;
    };
    let named = json!([{"name": "siem-forwarder", "image": "mine:1"}]);
    let rows: [(&str, &str, Value); 7] = [
        (
            "SidecarNotAllowed",
            "does not allow the sidecar",
            with(&|host| host["metadata"]["annotations"] = json!({})),
        ),
        (
            "SidecarNotAllowed",
            "allows only the sidecar of the agent other",
            with(&|host| host["metadata"]["annotations"] = json!({ALLOW: "other"})),
        ),
        ("SidecarHostScaled", "has 3 replicas", with(&|host| host["spec"]["replicas"] = json!(3))),
        (
            "SidecarHostStrategy",
            "maxSurge 25%",
            with(&|host| host["spec"]["strategy"] = json!({"type": "RollingUpdate"})),
        ),
        (
            "SidecarNameClash",
            "a container siem-forwarder",
            with(&|host| template(host, "initContainers", named.clone())),
        ),
        (
            "SidecarNameClash",
            "a volume siem-forwarder-state",
            with(&|host| {
                template(
                    host,
                    "volumes",
                    json!([{"name": "siem-forwarder-state", "emptyDir": {}}]),
                );
            }),
        ),
        (
            "SidecarHostTaken",
            "of the SiemAgent another",
            with(&|host| host["metadata"]["labels"] = json!({LABEL: "another"})),
        ),
    ];
    for (reason, words, host) in rows {
        apply(&scene, &host).await?;
        let before = scene.get(HOST).await?.context("the host")?["metadata"]["generation"].clone();
        let agent = scene
            .until("siemagent/soc", |agent| {
                let stalled = condition(agent, "Stalled");
                let text = stalled["message"].as_str().unwrap_or_default();
                stalled["reason"] == reason && text.contains(words)
            })
            .await?;
        assert_eq!(condition(&agent, "Ready")["reason"], reason);
        assert_eq!(scene.get(HOST).await?.context("the host")?["metadata"]["generation"], before);
        scene.kubectl(&["delete", HOST], "").await?;
        until_stalled(&scene, "SidecarHostMissing").await?;
    }
    // A label by itself is nobody's sidecar: it is not swept either.
    ensure!(changed(&scene, position)?.is_empty(), "{:?}", changed(&scene, position)?);
    // All is well: it is injected, and another agent that names the same workload has no chance.
    apply(&scene, &host("Deployment", "collector")).await?;
    scene.until(HOST, has_sidecar).await?;
    agent(&scene, "late", &sidecar_of("Deployment", "collector")).await?;
    scene.until_ready_is("late", "SidecarNotAllowed").await?;
    operator.terminate().await.map(drop)
}

/// Who may write SiemAgents and not Deployments gets no container into one.
#[tokio::test]
async fn a_user_without_rights_on_workloads_gets_nothing_into_one() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    let verbs = "--verb=get,create,patch,update,delete";
    let role = ["create", "role", "writer", verbs, "--resource=siemagents.siemagent.dev"];
    scene.kubectl(&role, "").await?;
    let bind = ["create", "rolebinding", "writer", "--role=writer", "--user=mallory"];
    scene.kubectl(&bind, "").await?;
    let mut closed = host("Deployment", "collector");
    closed["metadata"]["annotations"] = json!({});
    apply(&scene, &closed).await?;
    let generation = scene.get(HOST).await?.context("the host")?["metadata"]["generation"].clone();
    let manifest = Manifest::new("soc").more(&sidecar_of("Deployment", "collector")).to_string();
    scene.kubectl(&["create", "--as=mallory", "-f", "-"], &manifest).await?;
    let consent = ["annotate", "--as=mallory", HOST, &format!("{ALLOW}=soc")];
    let refused = scene.kubectl(&consent, "").await.map_err(|error| error.to_string());
    ensure!(refused.is_err_and(|text| text.contains("cannot")), "mallory may not allow it");
    until_stalled(&scene, "SidecarNotAllowed").await?;
    let after = scene.get(HOST).await?.context("the host")?;
    ensure!(after["metadata"]["generation"] == generation && !has_sidecar(&after), "{after:#}");
    operator.terminate().await.map(drop)
}

#[tokio::test]
async fn a_host_that_changes_under_its_sidecar_has_a_reason_of_its_own_and_is_not_started_anew()
-> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    apply(&scene, &host("Deployment", "collector")).await?;
    agent(&scene, "soc", &sidecar_of("Deployment", "collector")).await?;
    scene.until(HOST, has_sidecar).await?;
    let idles = |is: bool| {
        move |config: &Value| {
            let text = config["data"]["config.yaml"].as_str().unwrap_or_default();
            text.contains("suspend: true") == is
        }
    };
    scene.until("configmap/soc-config", idles(false)).await?;
    for (reason, patch, back) in [
        ("SidecarHostScaled", json!({"replicas": 2}), json!({"replicas": 1})),
        (
            "SidecarHostStrategy",
            json!({"strategy": {"type": "RollingUpdate"}}),
            json!({"strategy": {"type": "Recreate", "rollingUpdate": null}}),
        ),
    ] {
        let patched = async |spec: &Value| {
            let patch = json!({"spec": spec}).to_string();
            scene.kubectl(&["patch", HOST, "--type=merge", "-p", &patch], "").await
        };
        let template = scene.get(HOST).await?.context("the host")?["spec"]["template"].clone();
        patched(&patch).await?;
        until_stalled(&scene, reason).await?;
        scene.until("configmap/soc-config", idles(true)).await?;
        patched(&back).await?;
        scene.until("configmap/soc-config", idles(false)).await?;
        assert_eq!(scene.get(HOST).await?.context("the host")?["spec"]["template"], template);
    }
    // Without a replica there is no pod, which is no fault of the spec.
    scene.kubectl(&["scale", HOST, "--replicas=0"], "").await?;
    scene.until_ready_is("soc", "SidecarHostScaledToZero").await?;
    // It is gone; another one of its name comes, which allows nothing, and then does.
    scene.kubectl(&["delete", HOST], "").await?;
    until_stalled(&scene, "SidecarHostMissing").await?;
    let mut another = host("Deployment", "collector");
    another["metadata"]["annotations"] = json!({});
    apply(&scene, &another).await?;
    until_stalled(&scene, "SidecarHostReplaced").await?;
    ensure!(!has_sidecar(&scene.get(HOST).await?.context("the host")?));
    scene.kubectl(&["annotate", HOST, &format!("{ALLOW}=soc")], "").await?;
    scene.until(HOST, has_sidecar).await?;
    operator.terminate().await.map(drop)
}

#[tokio::test]
async fn an_edit_of_the_agent_changes_no_host_and_another_image_does_and_says_so() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    apply(&scene, &host("Deployment", "collector")).await?;
    let placed = sidecar_of("Deployment", "collector");
    agent(&scene, "soc", &placed).await?;
    let before = scene.until(HOST, has_sidecar).await?;
    scene.until_quiet(Duration::from_secs(3)).await?;
    let edits = [
        "  startFrom: 1h\n",
        "  suspend: true\n",
        "  format: {dialect: Strict}\n  eventTypes: {alerts: {enabled: false}}\n",
        "  forwarder: {logLevel: debug}\n",
    ];
    for edit in edits {
        let told = scene.get("configmap/soc-config").await?.context("the configuration")?;
        agent(&scene, "soc", &format!("{placed}{edit}")).await?;
        scene
            .until("configmap/soc-config", |config| config["data"] != told["data"])
            .await
            .with_context(|| edit.to_owned())?;
    }
    scene.until_quiet(Duration::from_secs(3)).await?;
    let generation = |host: &Value| host["metadata"]["generation"].clone();
    let after = scene.get(HOST).await?.context("the host")?;
    assert_eq!(generation(&before), generation(&after), "{after:#}");
    agent(&scene, "soc", &format!("{placed}  forwarder: {{image: 'image:2'}}\n")).await?;
    scene
        .until(HOST, |host| sidecar(host).is_some_and(|sidecar| sidecar["image"] == "image:2"))
        .await?;
    let events = scene.kubectl(&["get", "events.events.k8s.io", "-o", "json"], "").await?;
    ensure!(events.contains("the operator changes the container siem-forwarder"), "{events}");
    operator.terminate().await.map(drop)
}

#[tokio::test]
async fn what_an_agent_leaves_is_swept_also_after_a_time_without_an_operator() -> Result<()> {
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    for name in ["one", "two", "three"] {
        let mut host = host("Deployment", name);
        host["metadata"]["annotations"] = json!({ALLOW: name});
        apply(&scene, &host).await?;
        agent(&scene, name, &sidecar_of("Deployment", name)).await?;
        scene.until(&format!("deployment/{name}"), has_sidecar).await?;
    }
    let gone = |name: &str| {
        let manager_name = format!("siem-agent-operator/{name}");
        move |host: &Value| {
            !has_sidecar(host)
                && host["metadata"]["labels"][LABEL].is_null()
                && manager(host, &manager_name).is_none()
        }
    };
    scene.kubectl(&["delete", "siemagent/one"], "").await?;
    scene.until("deployment/one", gone("one")).await?;
    // While nobody looks one is deleted, and one takes a Deployment of its own.
    operator.terminate().await?;
    scene.kubectl(&["delete", "siemagent/two"], "").await?;
    agent(&scene, "three", "").await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    scene.until("deployment/two", gone("two")).await?;
    scene.until("deployment/three", gone("three")).await?;
    scene.until("deployment/three-forwarder", |_| true).await?;
    // And back, which takes its own Deployment away before the host gets the sidecar.
    agent(&scene, "three", &sidecar_of("Deployment", "three")).await?;
    scene.until("deployment/three", has_sidecar).await?;
    scene.until_gone("deployment/three-forwarder").await?;
    // To another host, as it would be where its owner gives it another name.
    let mut other = host("StatefulSet", "other");
    other["metadata"]["annotations"] = json!({ALLOW: "three"});
    apply(&scene, &other).await?;
    agent(&scene, "three", &sidecar_of("StatefulSet", "other")).await?;
    scene.until("statefulset/other", has_sidecar).await?;
    scene.until("deployment/three", gone("three")).await?;
    operator.terminate().await.map(drop)
}

#[tokio::test]
async fn without_its_rights_the_operator_says_which_value_grants_them() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    apply(&scene, &host("Deployment", "collector")).await?;
    agent(&scene, "soc", &sidecar_of("Deployment", "collector")).await?;
    let text = until_stalled(&scene, "SidecarNotEnabled").await?;
    ensure!(text.contains("`sidecars.enabled`"), "{text}");
    ensure!(!has_sidecar(&scene.get(HOST).await?.context("the host")?));
    operator.terminate().await?;
    // It is started anew by the chart when the value changes.
    scene.place.allow_sidecars(scene.plane).await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    scene.until(HOST, has_sidecar).await?;
    operator.terminate().await.map(drop)
}

/// The agents and hosts of an unchanged world cost no write, and no list, whether the operator is new or not.
#[tokio::test]
async fn a_hundred_sidecars_are_left_alone_once_they_are_there() -> Result<()> {
    const N: usize = 100;
    let scene = scene().await?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    let mut all = Vec::new();
    for n in 0..N {
        let mut host = host("Deployment", &format!("host-{n}"));
        host["metadata"]["annotations"] = json!({ALLOW: format!("a{n}")});
        // No pods: it is the operator that is looked at.
        host["spec"]["replicas"] = json!(0);
        let agent = json!({
            "apiVersion": "siemagent.dev/v1alpha1", "kind": "SiemAgent", "metadata": {"name": format!("a{n}")},
            "spec": {
                "source": {"cloudApps": {"url": format!("https://t{n}.example.com")}, "auth": {"tokenSecretRef": {"name": "t"}}},
                "syslog": {"host": "127.0.0.1"},
                "placement": {"sidecarOf": {"kind": "Deployment", "name": format!("host-{n}")}},
            },
        });
        all.push(host);
        all.push(agent);
    }
    apply(&scene, &json!({"apiVersion": "v1", "kind": "List", "items": all})).await?;
    for n in [0, N / 2, N - 1] {
        scene.until_ready_is(&format!("a{n}"), "SidecarHostScaledToZero").await?;
    }
    scene.until_quiet(Duration::from_secs(15)).await?;
    let there = scene.kubectl(&["get", "deployments", "-l", LABEL, "-o", "name"], "").await?;
    assert_eq!(there.lines().count(), N);
    operator.terminate().await?;
    let position = scene.plane.audit_position()?;
    let operator = Operator::start(&scene.place, &IMAGE).await?;
    let passes = async || {
        let all = operator.series("controller_runtime_reconcile_total{").await?;
        anyhow::Ok(all.iter().map(|(_, value)| value).sum::<f64>())
    };
    siem_agent_sim::eventually::eventually(Duration::from_secs(60), async || {
        ensure!(passes().await? >= 100.0, "no pass: {}", operator.log());
        Ok(())
    })
    .await?;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.writes_since(position)?, [], "{}", operator.log());
    // A second pass over them all asks for nothing either.
    let position = scene.plane.audit_position()?;
    let first = passes().await?;
    scene.kubectl(&["annotate", "siemagent", "--all", "example.com/touched=yes"], "").await?;
    siem_agent_sim::eventually::eventually(Duration::from_secs(60), async || {
        ensure!(passes().await? >= first + 100.0, "no second pass");
        Ok(())
    })
    .await?;
    let user = scene.place.user();
    let asked: Vec<_> = scene
        .plane
        .requests_since(position)?
        .into_iter()
        .filter(|asked| asked.user == user && asked.verb != "watch" && asked.resource != "leases")
        .collect();
    assert_eq!(asked, []);
    operator.terminate().await.map(drop)
}
