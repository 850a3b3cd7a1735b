//! Pods that lie to the operator: whatever one says costs only its own agent, and nothing of it gets further.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};
use siem_agent_crds::checkpoint::Checkpoint;
use siem_agent_crds::position::Position;
use siem_agent_crds::report::Stream;
use siem_agent_sim::clock;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::fleet::manifest;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::{ACCOUNT, Operator, Place};
use siem_agent_tests::scene::{Scene, condition};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const SOURCE: &str = "https://contoso.us2.portal.cloudappsecurity.com";

/// What answers on port 9464 of a pod's address; it ends with this value.
struct Forwarder {
    address: Ipv4Addr,
    n_asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forwarder {
    async fn start(
        answer: impl Fn() -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Result<Self> {
        // An address of its own: others on this machine may do the same.
        let mut seed = std::process::id();
        let (address, listener) = loop {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [_, b, c, d] = seed.to_be_bytes();
            let address = Ipv4Addr::new(127, b.clamp(1, 199), c, d.clamp(1, 254));
            if let Ok(listener) = TcpListener::bind((address, 9464)).await {
                break (address, listener);
            }
        };
        let n_asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&n_asked);
        let routes = axum::Router::new().fallback(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::ready(answer())
        });
        let task = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, n_asked, task })
    }

    fn n_asked(&self) -> usize {
        self.n_asked.load(Ordering::Relaxed)
    }
}

fn text(body: impl Into<Body>) -> Response<Body> {
    Response::new(body.into())
}

async fn apply(scene: &Scene, name: &str) -> Result<()> {
    let manifest = Manifest::new(name).url(SOURCE).syslog(format!("{{host: {name}.example.com}}"));
    let text = manifest.to_string();
    scene.kubectl(&["apply", "-f", "-"], &text).await.map(drop)
}

/// The pod of an agent's Deployment; nothing runs it.
async fn pod(scene: &Scene, name: &str) -> Result<Value> {
    let of = format!("siemagent.dev/name={name}");
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(pod) = scene.pods(&of).await?.first() {
            return Ok(pod.clone());
        }
        ensure!(Instant::now() < until, "{name} gets no pod");
        sleep(LOOK).await;
    }
}

/// Says of a pod that it is ready at this address, as a kubelet would.
async fn ready(scene: &Scene, pod: &str, address: Ipv4Addr) -> Result<()> {
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{
            "name": "forwarder", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
            "state": {"running": {}},
        }],
    }});
    let patch = format!("--patch={status}");
    let arguments = ["patch", "pod", pod, "--subresource=status", "--type=merge", &patch];
    scene.kubectl(&arguments, "").await.map(drop)
}

/// What an honest forwarder of this agent would say: all is well.
async fn honest(scene: &Scene, name: &str, pod: &Value) -> Result<Value> {
    let agent = scene.get(&format!("siemagent/{name}")).await?.context("the agent")?;
    let now = jiff::Timestamp::from_millisecond(clock::millis())?.to_string();
    let stream = json!({
        "enabled": true, "deliveredThrough": now, "lastEventTime": now, "lagSeconds": 1.0, "forbidden": null,
        "deliveredTotal": 5, "rejectedTotal": 0,
    });
    Ok(json!({
        "version": 1, "programVersion": "1", "podUid": pod["metadata"]["uid"],
        "agent": {"namespace": scene.namespace, "name": name, "displayName": name, "uid": agent["metadata"]["uid"]},
        "configHash": pod["metadata"]["annotations"]["siemagent.dev/config-hash"],
        "startedAt": now, "now": now,
        "source": {"state": "Reachable", "reason": null, "since": now},
        "target": {"state": "Up", "reason": null, "since": now},
        "token": {"state": "Valid", "reason": null, "lastCheckTime": now, "lastChangeTime": now},
        "streams": {"alerts": stream, "activities": stream},
        "checkpoint": {"version": 2, "source": SOURCE, "positions": {
            "alerts": {"through": clock::millis()}, "activities": {"through": clock::millis()},
        }},
    }))
}

#[tokio::test]
async fn a_lie_costs_only_the_agent_of_the_liar() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    // Whoever follows a redirection would end there.
    let elsewhere = Forwarder::start(|| text("{}")).await?;
    let to = format!("http://{}:9464/status", elsewhere.address);
    let lies = [
        "another-agent",
        "another-pod",
        "another-version",
        "no-json",
        "nested",
        "long",
        "endless",
        "redirected",
        "failing",
    ];
    let mut forwarders = Vec::new();
    for name in ["honest"].into_iter().chain(lies) {
        apply(&scene, name).await?;
        let pod = pod(&scene, name).await?;
        let mut report = honest(&scene, name, &pod).await?;
        match name {
            "another-agent" => report["agent"]["uid"] = json!("somebody-else"),
            "another-pod" => report["podUid"] = json!("somebody-else"),
            "another-version" => report["version"] = json!(2),
            _ => {}
        }
        let (report, to) = (report.to_string(), to.clone());
        let forwarder = Forwarder::start(move || match name {
            "no-json" => text("<html>no</html>"),
            "nested" => text("[".repeat(1_000_000)),
            "long" => text(report.replace(
                "\"programVersion\":\"1\"",
                &format!("\"programVersion\":\"{}\"", "x".repeat(6_000_000)),
            )),
            "endless" => text(Body::from_stream(futures_util::stream::unfold((), async |()| {
                sleep(Duration::from_millis(100)).await;
                Some((Ok::<_, std::io::Error>(" "), ()))
            }))),
            "redirected" => Response::builder()
                .status(302)
                .header("location", &to)
                .body(Body::empty())
                .unwrap_or_default(),
            "failing" => Response::builder().status(500).body(Body::empty()).unwrap_or_default(),
            _ => text(report.clone()),
        })
        .await?;
        ready(&scene, pod["metadata"]["name"].as_str().unwrap_or_default(), forwarder.address)
            .await?;
        forwarders.push(forwarder);
    }
    scene.until_ready_is("honest", "Delivering").await?;
    for name in lies {
        let agent = eventually(2 * PATIENCE, async || {
            let agent = scene.get(&format!("siemagent/{name}")).await?.context("the agent")?;
            ensure!(
                condition(&agent, "Ready")["reason"] == "ReportUnavailable",
                "{name} is believed: {:#}",
                agent["status"]
            );
            Ok(agent)
        })
        .await?;
        assert_eq!(condition(&agent, "TokenValid")["status"], "Unknown", "{name}");
        assert_eq!(agent["status"]["token"]["state"], "Unknown", "{name}");
    }
    let honest = scene.get("siemagent/honest").await?.context("the agent")?;
    assert_eq!(condition(&honest, "Ready")["reason"], "Delivering");
    assert_eq!(elsewhere.n_asked(), 0, "a redirection was followed");
    let delivered = operator.series("siemagent_records_delivered_total{").await?;
    ensure!(
        delivered.iter().all(|(series, _)| series.contains("name=\"honest\"")),
        "{delivered:?}"
    );
    let resident = operator.resident_bytes()?;
    ensure!(resident < 128 * 1024 * 1024, "{resident} bytes");
    Ok(())
}

#[tokio::test]
async fn extreme_values_are_cut_down_to_what_people_can_read() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc").await?;
    let pod = pod(&scene, "soc").await?;
    let mut report = honest(&scene, "soc", &pod).await?;
    let words = "\u{1b}[2J\u{0}\r\n<b>".repeat(50_000);
    report["token"] =
        json!({"state": "Invalid", "reason": words, "lastCheckTime": null, "lastChangeTime": null});
    report["streams"]["alerts"]["forbidden"] = json!(words);
    for stream in ["alerts", "activities"] {
        report["streams"][stream]["deliveredTotal"] = json!(u64::MAX);
        report["streams"][stream]["lagSeconds"] = json!(1e308);
        report["streams"][stream]["lastEventTime"] = json!("9999-12-30T00:00:00Z");
    }
    let good = json!({"version": 1, "ids": ["0011223344556677"]});
    report["checkpoint"]["positions"]["alerts"]["position"] = good.clone();
    report["checkpoint"]["positions"]["activities"]["position"] = json!({"é": words});
    let shown = report.to_string();
    let forwarder = Forwarder::start(move || text(shown.clone())).await?;
    ready(&scene, pod["metadata"]["name"].as_str().unwrap_or_default(), forwarder.address).await?;
    let agent = scene.until_ready_is("soc", "TokenInvalid").await?;
    let status = agent["status"].to_string();
    ensure!(status.len() < 10_000, "{} bytes", status.len());
    for condition in agent["status"]["conditions"].as_array().into_iter().flatten() {
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(!message.contains(char::is_control), "{message:?}");
    }
    let reason = agent["status"]["token"]["reason"].as_str().unwrap_or_default().to_owned();
    ensure!(!reason.contains(char::is_control), "{reason:?}");
    // What it says of its place is kept, without what is not printable.
    let kept = scene.until("configmap/soc-checkpoint", |_| true).await?;
    let now = jiff::Timestamp::from_millisecond(clock::millis())?;
    let uid = agent["metadata"]["uid"].as_str().unwrap_or_default();
    let kept = kept["data"]["checkpoint.json"].as_str().unwrap_or_default();
    let kept = Checkpoint::read(kept, uid, now)?.positions;
    assert_eq!(kept[&Stream::Alerts].position.text(), good.to_string());
    assert_eq!(kept[&Stream::Activities].position, Position::default());
    // It is asked on and on.
    let asked = forwarder.n_asked();
    eventually(PATIENCE, async || {
        ensure!(forwarder.n_asked() >= asked + 2, "it is not asked any more: {}", operator.log());
        Ok(())
    })
    .await?;
    ensure!(!operator.log().contains("panic"), "{}", operator.log());
    Ok(())
}

#[tokio::test]
async fn a_pod_with_a_forged_label_is_nobodys() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc").await?;
    let real = pod(&scene, "soc").await?;
    let forger = Forwarder::start(|| text("{}")).await?;
    let owner = json!([{
        "apiVersion": "v1", "kind": "ServiceAccount", "name": "default", "controller": true,
        "uid": scene.get("serviceaccount/default").await?.context("an account")?["metadata"]["uid"],
    }]);
    for (name, owner) in [("forged", Value::Null), ("forged-owned", owner)] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {
                "siemagent.dev/name": "soc", "app.kubernetes.io/managed-by": "siem-agent-operator",
            }, "ownerReferences": owner},
            "spec": {"containers": [{"name": "forwarder", "image": "i"}]},
        });
        scene.kubectl(&["create", "-f", "-"], &pod.to_string()).await?;
        ready(&scene, name, forger.address).await?;
    }
    // Looked at again and again, and still it is the real one's turn.
    sleep(Duration::from_secs(6)).await;
    assert_eq!(forger.n_asked(), 0, "{}", operator.log());
    let report = honest(&scene, "soc", &real).await?.to_string();
    let forwarder = Forwarder::start(move || text(report.clone())).await?;
    ready(&scene, real["metadata"]["name"].as_str().unwrap_or_default(), forwarder.address).await?;
    scene.until_ready_is("soc", "Delivering").await?;
    assert_eq!(forger.n_asked(), 0);
    Ok(())
}

#[tokio::test]
async fn a_pod_of_somebody_elses_replica_set_is_nobodys() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc").await?;
    let real = pod(&scene, "soc").await?;
    // Names, labels and account are the agent's; the ReplicaSet is not its Deployment's.
    let labels = json!({
        "siemagent.dev/name": "soc", "app.kubernetes.io/managed-by": "siem-agent-operator", "of": "the-forger",
    });
    let spec = json!({
        "replicas": 1, "selector": {"matchLabels": {"of": "the-forger"}},
        "template": {"metadata": {"labels": labels}, "spec": {
            "serviceAccountName": "soc-forwarder", "containers": [{"name": "forwarder", "image": "i"}],
        }},
    });
    let mut forgers = Vec::new();
    for (kind, name) in [("ReplicaSet", "soc-forwarder-5b9d"), ("Deployment", "soc-forwarder-too")]
    {
        let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": labels}});
        object["spec"] = spec.clone();
        object["spec"]["selector"]["matchLabels"]["kind"] = json!(kind);
        object["spec"]["template"]["metadata"]["labels"]["kind"] = json!(kind);
        scene.kubectl(&["create", "-f", "-"], &object.to_string()).await?;
        let of = format!("kind={kind}");
        let until = Instant::now() + PATIENCE;
        let forged = loop {
            if let Some(pod) = scene.pods(&of).await?.first() {
                break pod.clone();
            }
            ensure!(Instant::now() < until, "{name} gets no pod");
            sleep(LOOK).await;
        };
        let mut report = honest(&scene, "soc", &forged).await?;
        report["configHash"] = real["metadata"]["annotations"]["siemagent.dev/config-hash"].clone();
        let report = report.to_string();
        let forger = Forwarder::start(move || text(report.clone())).await?;
        ready(&scene, forged["metadata"]["name"].as_str().unwrap_or_default(), forger.address)
            .await?;
        forgers.push(forger);
    }
    // Looked at again and again, and still it is the real one's turn.
    sleep(Duration::from_secs(6)).await;
    ensure!(forgers.iter().all(|forger| forger.n_asked() == 0), "{}", operator.log());
    let agent = scene.get("siemagent/soc").await?.context("the agent")?;
    assert_ne!(condition(&agent, "Ready")["status"], "True");
    assert_eq!(scene.get("configmap/soc-checkpoint").await?, None);
    // The real one speaks; what it says of its place is never kept ahead of this clock.
    let mut report = honest(&scene, "soc", &real).await?;
    let before = clock::millis();
    report["checkpoint"]["positions"]["alerts"]["through"] = json!(before + 200_000);
    report["streams"]["alerts"]["deliveredThrough"] = Value::Null;
    let report = report.to_string();
    let forwarder = Forwarder::start(move || text(report.clone())).await?;
    ready(&scene, real["metadata"]["name"].as_str().unwrap_or_default(), forwarder.address).await?;
    scene.until_ready_is("soc", "Delivering").await?;
    let kept = scene.until("configmap/soc-checkpoint", |_| true).await?;
    let kept: Checkpoint =
        serde_json::from_str(kept["data"]["checkpoint.json"].as_str().unwrap_or_default())?;
    let alerts = kept.through(Stream::Alerts).context("a watermark")?;
    ensure!(alerts >= before && alerts <= clock::millis(), "{alerts}");
    ensure!(forgers.iter().all(|forger| forger.n_asked() == 0), "{}", operator.log());
    Ok(())
}

async fn share(scene: &Scene, name: &str) -> Result<Option<u32>> {
    let config = scene.get(&format!("configmap/{name}-config")).await?.unwrap_or_default();
    let live = config["data"]["live.yaml"].as_str().unwrap_or_default();
    let share = live.lines().find_map(|line| line.strip_prefix("requestsPerMinute: "));
    Ok(share.map(str::parse).transpose()?)
}

async fn until_share(scene: &Scene, name: &str, expected: u32) -> Result<()> {
    eventually(PATIENCE, async || {
        ensure!(
            share(scene, name).await? == Some(expected),
            "{name} has {:?}",
            share(scene, name).await?
        );
        Ok(())
    })
    .await
}

/// Has an agent's pod answer like this from now on.
async fn speak(scene: &Scene, name: &str, token: &str) -> Result<Forwarder> {
    let pod = pod(scene, name).await?;
    let mut report = honest(scene, name, &pod).await?;
    report["token"]["state"] = json!(token);
    let report = report.to_string();
    let forwarder = Forwarder::start(move || text(report.clone())).await?;
    ready(scene, pod["metadata"]["name"].as_str().unwrap_or_default(), forwarder.address).await?;
    Ok(forwarder)
}

#[tokio::test]
async fn nobody_takes_a_tenants_requests_from_another_namespace_without_its_token() -> Result<()> {
    let (victim, foe) = (Scene::new().await?, Scene::new().await?);
    let binding = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: of-the-other}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {ACCOUNT}}}\n\
         subjects: [{{kind: ServiceAccount, name: {ACCOUNT}, namespace: {}}}]\n",
        victim.namespace
    );
    foe.kubectl(&["apply", "-f", "-"], &binding).await?;
    let both = vec![victim.namespace.clone(), foe.namespace.clone()];
    let place = Place::of_account(victim.plane, &victim.namespace, ACCOUNT, both).await?;
    let operator = Operator::start(&place, &[]).await?;
    apply(&victim, "soc").await?;
    let _honest = speak(&victim, "soc", "Valid").await?;
    victim.until_ready_is("soc", "Delivering").await?;
    until_share(&victim, "soc", 30).await?;
    // Three agents without a token, that want as little as can be.
    for name in ["one", "two", "three"] {
        let manifest = Manifest::new(name)
            .url_and_secret(&format!("{SOURCE}/"), "none")
            .cloud_apps("requestsPerMinute: 1")
            .syslog(format!("{{host: {name}.example.com}}"));
        foe.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await?;
    }
    // While they are new they count as one, and ask for so little that the rest is left; the victim's status names with whom it shares.
    let shared = format!("shared with 3 other agents, in the namespace {}", foe.namespace);
    victim
        .until("siemagent/soc", |agent| {
            condition(agent, "Ready")["message"].as_str().is_some_and(|text| text.contains(&shared))
        })
        .await?;
    let during = share(&victim, "soc").await?.context("a share")?;
    ensure!((15..=30).contains(&during), "{during}");
    // As soon as their tokens are refused they are nobody.
    let mut refused = Vec::new();
    for name in ["one", "two", "three"] {
        refused.push(speak(&foe, name, "Invalid").await?);
    }
    victim
        .until("siemagent/soc", |agent| {
            condition(agent, "Ready")["message"] == "events are delivered as they appear"
        })
        .await?;
    until_share(&victim, "soc", 30).await?;
    operator.terminate().await?;
    // Where the administrator says who may, the others are stopped and say why.
    let tenant = json!({"url": SOURCE, "requestsPerMinute": 50, "namespaces": [victim.namespace]});
    let _operator = Operator::start(&place, &["--tenant", &tenant.to_string()]).await?;
    for name in ["one", "two", "three"] {
        let agent = foe.until_ready_is(name, "SourceNotAllowed").await?;
        let words = condition(&agent, "Stalled")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(words.contains(&foe.namespace) && words.contains("tenants"), "{words}");
        foe.until(&format!("deployment/{name}-forwarder"), |it| it["spec"]["replicas"] == 0)
            .await?;
    }
    until_share(&victim, "soc", 50).await?;
    let agent = victim.get("siemagent/soc").await?.context("the agent")?;
    assert_eq!(condition(&agent, "Ready")["reason"], "Delivering");
    Ok(())
}

#[tokio::test]
async fn one_users_largest_agents_do_not_end_the_operator() -> Result<()> {
    const N_AGENTS: usize = 12;
    let scene = Scene::new().await?;
    // As large as the server takes, of parts as small as can be: no rule of its sees into them.
    for n in 0..N_AGENTS {
        let mut agent = manifest(&format!("large-{n}"), SOURCE, json!({}));
        agent["spec"]["eventTypes"] =
            json!({"alerts": {"filter": {"raw": {"x": {"eq": vec![1; 600_000]}}}}});
        scene.kubectl(&["create", "-f", "-"], &agent.to_string()).await?;
    }
    // Small, and nested deeper than any reader of JSON follows.
    let deep = (0..1_000).fold(json!({}), |inner, _| json!({"a": inner}));
    let mut agent = manifest("deep", SOURCE, json!({}));
    agent["spec"]["eventTypes"] = json!({"alerts": {"filter": {"raw": {"x": deep}}}});
    scene.kubectl(&["create", "-f", "-"], &agent.to_string()).await?;
    apply(&scene, "soc").await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    scene.until("deployment/soc-forwarder", |_| true).await?;
    let large = (0..N_AGENTS).map(|n| (format!("large-{n}"), "filter.raw: takes 1200"));
    let deep = ("deep".to_owned(), "filter.raw: is nested deeper than 16 levels");
    for (name, expected) in large.chain([deep]) {
        // Who reads JSON with a bound of its depth does not read the deep one.
        let get = [
            "get",
            "siemagent",
            &name,
            "-o",
            "jsonpath={.status.conditions[?(@.type==\"Ready\")].message}",
        ];
        eventually(2 * PATIENCE, async || {
            let words = scene.kubectl(&get, "").await?;
            ensure!(words.contains(expected), "{name} is not refused: {words} {}", operator.log());
            Ok(())
        })
        .await?;
    }
    let peak = operator.peak_bytes()?;
    ensure!(peak < 256 * 1024 * 1024, "{peak} bytes");
    Ok(())
}
