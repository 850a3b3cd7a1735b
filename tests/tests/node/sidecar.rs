//! A forwarder in an rsyslog collector's pod, on a real kubelet with real images: whatever becomes of the forwarder, its
//! host is ready, and whatever becomes of either, nothing is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival::{self, Receiver as _};
use siem_agent_sim::defender::{DEMO_TOKEN, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::pki::Authority;
use siem_agent_sim::real_node::{self, ADDRESS};
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::scene::condition;
use siem_agent_tests::stage::{PATIENCE, Stage};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

const WRONG_TOKEN: &str =
    "d3JvbmctdG9rZW4tb2YtYXQtbGVhc3Qtc2l4dHktZm91ci1jaGFyYWN0ZXJzLXdyb25nLXRva2Vu";
/// As the example names it.
const COLLECTOR: &str = "ghcr.io/example/rsyslog:8";
/// What an idle forwarder may take in a pod.
const IDLE_BYTES: u64 = 12 << 20;
/// How long a record may be on its way through a collector on a busy machine.
const IN_ITS_HANDS: Duration = Duration::from_secs(5);

fn portal() -> Options {
    Options { rate: 10.0, history: (100, Duration::from_secs(3600)), ..Options::default() }
}

/// A stage whose operator may change workloads that allow it, and whose node has the collector's image.
async fn stage(node: &'static real_node::RealNode) -> Result<Stage> {
    static IMAGE: OnceCell<()> = OnceCell::const_new();
    IMAGE
        .get_or_try_init(async || {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("collector/build");
            let out =
                Command::new(script).arg(COLLECTOR).output().await.context("collector/build")?;
            ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            node.import(Path::new(String::from_utf8(out.stdout)?.trim())).await
        })
        .await?;
    let stage = Stage::new(node, portal()).await?;
    stage.scene.place.allow_sidecars(stage.scene.plane).await?;
    // As the chart does when the value changes.
    stage.scene.kubectl(&["rollout", "restart", "deployment/operator"], "").await?;
    let done = ["rollout", "status", "deployment/operator", "--timeout=120s"];
    stage.scene.kubectl(&done, "").await?;
    Ok(stage)
}

/// The documents of the example, for this stage: its namespace, its portal, its SIEM.
fn example(stage: &Stage, siem: &Rsyslog, authority: &Authority) -> Result<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/sidecar.yaml");
    let text = fs::read_to_string(path)?
        .replace("namespace: security", &format!("namespace: {}", stage.scene.namespace))
        .replace(
            "target=\"siem.example.com\" port=\"6514\"",
            &format!("target=\"{ADDRESS}\" port=\"{}\"", siem.port),
        );
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let agent = documents.last_mut().context("the agent")?;
    let source = &mut agent["spec"]["source"];
    source["cloudApps"] =
        json!({"url": stage.portal.url(), "requestsPerMinute": 6000, "pollInterval": "1s"});
    // A machine that runs tests lets a receiver wait for longer than the default before it reads.
    agent["spec"]["syslog"]["confirmGrace"] = json!("2s");
    let source = &mut agent["spec"]["source"];
    source["caBundleRef"] = json!({"kind": "ConfigMap", "name": "portal-ca", "key": "ca.crt"});
    documents.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "siem-ca"},
        "data": {"ca.crt": authority.certificate()},
    }));
    Ok(documents)
}

async fn apply(stage: &Stage, object: &Value) -> Result<()> {
    stage.scene.kubectl(&["apply", "-f", "-"], &object.to_string()).await.map(drop)
}

/// The one pod of the collector that is not on its way out.
async fn host_pod(stage: &Stage) -> Result<Value> {
    let mut alive = stage.scene.pods("app=collector").await?;
    alive.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    alive.pop().filter(|_| alive.is_empty()).context("one pod of the collector")
}

/// A container of it, as the kubelet shows it.
fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let of = |list: &str| pod["status"][list].as_array();
    let all = of("initContainerStatuses").into_iter().chain(of("containerStatuses")).flatten();
    all.into_iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

fn restarts(pod: &Value, name: &str) -> i64 {
    container(pod, name)["restartCount"].as_i64().unwrap_or(-1)
}

fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

/// Ends a container's process without a word.
async fn kill(stage: &Stage, name: &str) -> Result<()> {
    let pod = host_pod(stage).await?;
    let id = container(&pod, name)["containerID"].as_str().unwrap_or_default().to_owned();
    let id = id.strip_prefix("containerd://").context("the container's id")?;
    stage.node.ctr(&["tasks", "kill", "--signal", "SIGKILL", id]).await?;
    let before = restarts(&pod, name);
    eventually(PATIENCE, async || {
        let pod = host_pod(stage).await?;
        ensure!(restarts(&pod, name) > before, "{name} is not started again: {pod:#}");
        Ok(())
    })
    .await
}

async fn delivers(stage: &Stage) -> Result<Value> {
    let agent = stage.scene.until_ready_is("soc", "Delivering").await?;
    let host = condition(&agent, "WorkloadAvailable")["message"].to_string();
    ensure!(host.contains("collector"), "{host}");
    Ok(agent)
}

/// The ids that the portal listed from this long before now on.
fn listed_since(stage: &Stage, before: Duration) -> BTreeSet<String> {
    let listed = stage.portal.listed();
    let newest = listed.values().copied().max().unwrap_or_default();
    let from = newest - i64::try_from(before.as_millis()).unwrap_or(0);
    listed.into_iter().filter(|(_, time)| *time >= from).map(|((_, id), _)| id).collect()
}

/// All that the portal has made is at the SIEM, but for what the collector had in its hands when it was killed.
async fn all_arrived(
    stage: &Stage,
    in_its_hands: &BTreeSet<String>,
    lines: impl Fn() -> Result<Vec<String>>,
) -> Result<usize> {
    let until = Instant::now() + PATIENCE;
    loop {
        let counts = arrival::counts(&lines()?);
        let mut missing = arrival::missing(&stage.portal, &counts);
        if Instant::now() > until {
            // Whatever else is missing by now is lost.
            missing.retain(|id| !in_its_hands.contains(id));
        }
        let Some(first) = missing.first() else {
            return Ok(counts.values().filter(|count| **count > 1).count());
        };
        if Instant::now() > until {
            let agent = stage.scene.get("siemagent/soc").await?.unwrap_or_default();
            let listed = stage.portal.listed();
            let at = listed.iter().find(|((_, id), _)| id == first).map(|(_, time)| *time);
            let at = jiff::Timestamp::from_millisecond(at.unwrap_or_default())?;
            bail!("{} lost, such as {first} of {at}: {:#}", missing.len(), agent["status"]);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The SIEM beyond the collector, over TLS.
async fn siem(folder: &Path) -> Result<(Authority, Rsyslog)> {
    let authority = Authority::new("siem")?;
    let identity = authority.server(&["siem.example.com", &ADDRESS.to_string()])?;
    let files = authority.write(&identity, folder)?;
    let input = Input::Tls { driver: "ossl", files, mutual: false };
    Ok((authority, Rsyslog::start_at(ADDRESS, input).await?))
}

/// What the forwarder takes there is shown, as a figure of the test's output.
#[expect(clippy::print_stdout, reason = "a figure that people read")]
fn show(text: &str) {
    println!("{text}");
}

#[test]
fn a_collector_is_ready_whatever_becomes_of_its_sidecar_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = stage(node).await?;
        let folder = tempfile::tempdir()?;
        let (authority, siem) = siem(folder.path()).await?;
        // The host is there before the Secret and the agent are.
        for document in example(&stage, &siem, &authority)? {
            apply(&stage, &document).await?;
        }
        let ready = ["wait", "deployment/collector", "--for=condition=Available", "--timeout=120s"];
        stage.scene.kubectl(&ready, "").await?;
        stage.token(DEMO_TOKEN).await?;
        delivers(&stage).await?;
        let first = host_pod(&stage).await?;
        the_hosts_token_is_hidden(&stage, &first)?;
        // As docs/runbooks/README.md has it for a sidecar.
        let check = [
            "exec",
            "deployment/collector",
            "-c",
            "siem-forwarder",
            "--",
            "/siem-forwarder",
            "check",
            "--config",
            "/etc/siem-forwarder/config/config.yaml",
        ];
        let said = stage.scene.kubectl(&check, "").await?;
        ensure!(said.contains("\nok   SIEM, 127.0.0.1 port ") && !said.contains("FAIL "), "{said}");

        // Killed in turn.
        kill(&stage, "siem-forwarder").await?;
        // Between its socket and its queue rsyslog keeps records in memory, and has none confirmed at the SIEM: with plain
        // TCP on both sides nobody sends again what it held when it was killed, which `docs/sidecar.md` says.
        let mut in_its_hands = listed_since(&stage, IN_ITS_HANDS);
        kill(&stage, "rsyslog").await?;
        in_its_hands.extend(listed_since(&stage, IN_ITS_HANDS));
        delivers(&stage).await?;
        // The token dies and heals; the agent is edited. No pod is another one for that.
        let watch = Readiness::of(&stage, &first);
        stage.token(WRONG_TOKEN).await?;
        stage.scene.until_ready_is("soc", "TokenInvalid").await?;
        // Both come with the same look of the kubelet.
        stage.token(DEMO_TOKEN).await?;
        let edit = r#"{"spec": {"format": {"includeSystemName": false}, "startFrom": "24h"}}"#;
        stage.scene.kubectl(&["patch", "siemagent/soc", "--type=merge", "-p", edit], "").await?;
        delivers(&stage).await?;
        // Its configuration is taken away, and nobody puts it back for a while.
        stage.scene.kubectl(&["scale", "deployment/operator", "--replicas=0"], "").await?;
        stage
            .scene
            .kubectl(&["wait", "pod", "-l", "app=operator", "--for=delete", "--timeout=60s"], "")
            .await?;
        stage.scene.kubectl(&["delete", "configmap/soc-config"], "").await?;
        eventually(PATIENCE, async || {
            let name = first["metadata"]["name"].as_str().unwrap_or_default();
            let log = stage.scene.kubectl(&["logs", name, "-c", "siem-forwarder"], "").await?;
            ensure!(log.contains("there is no configuration"), "it has its configuration still");
            Ok(())
        })
        .await?;
        let now = host_pod(&stage).await?;
        ensure!(uid(&now) == uid(&first) && restarts(&now, "siem-forwarder") == 1, "{now:#}");
        stage.scene.kubectl(&["scale", "deployment/operator", "--replicas=1"], "").await?;
        delivers(&stage).await?;
        watch.was_always_ready().await?;
        idle_memory(&stage, &host_pod(&stage).await?)?;

        // Too little memory is a change of the pod, which is told; then it ends the forwarder and nothing else.
        let records = stage.portal.records(Stream::Activities);
        let mut record: Value = serde_json::from_str(records.first().context("a record")?)?;
        record["_id"] = json!("a-record-of-4-mb");
        record["description"] = json!("x".repeat(4_000_000));
        let limit = r#"{"spec": {"forwarder": {"resources": {"limits": {"memory": "12Mi"}}}}}"#;
        stage.scene.kubectl(&["patch", "siemagent/soc", "--type=merge", "-p", limit], "").await?;
        eventually(PATIENCE, async || {
            let pod = host_pod(&stage).await?;
            ensure!(uid(&pod) != uid(&first) && container(&pod, "rsyslog")["ready"] == true);
            Ok(())
        })
        .await?;
        let events =
            stage.scene.kubectl(&["get", "events.events.k8s.io", "-o", "json"], "").await?;
        ensure!(events.contains("the operator changes the container siem-forwarder"), "{events}");
        stage.portal.inject(Stream::Activities, &record.to_string());
        let choked = eventually(PATIENCE, async || {
            let pod = host_pod(&stage).await?;
            let forwarder = container(&pod, "siem-forwarder");
            let ended = &forwarder["lastState"]["terminated"]["reason"];
            ensure!(*ended == "OOMKilled" || *ended == "Error", "{forwarder:#}");
            Ok(pod)
        })
        .await?;
        assert_eq!(restarts(&choked, "rsyslog"), 0);
        stage.scene.until_ready_is("soc", "CrashLoopBackOff").await?;
        let enough = r#"{"spec": {"forwarder": {"resources": null}}}"#;
        stage.scene.kubectl(&["patch", "siemagent/soc", "--type=merge", "-p", enough], "").await?;
        delivers(&stage).await?;
        stage.portal.quiet();
        let n_repeated = all_arrived(&stage, &in_its_hands, || siem.lines()).await?;
        println!("repeated: {n_repeated} of {}", stage.portal.produced().len());
        Ok(())
    })
}

/// The kubelet's own folder of the volume that lies where the token would be.
fn the_hosts_token_is_hidden(stage: &Stage, pod: &Value) -> Result<()> {
    let sidecar = pod["spec"]["initContainers"].as_array().and_then(|all| all.last());
    let mounts = sidecar.context("the sidecar")?["volumeMounts"].to_string();
    ensure!(!mounts.contains("kube-api-access"), "{mounts}");
    let host = pod["spec"]["containers"][0]["volumeMounts"].to_string();
    ensure!(host.contains("kube-api-access"), "the host has its token: {host}");
    let pods = stage.node.folder().join("kubelet/pods").join(uid(pod)).join("volumes");
    let hides = pods.join("kubernetes.io~empty-dir/siem-forwarder-no-token");
    ensure!(fs::read_dir(&hides)?.next().is_none(), "{} is empty", hides.display());
    Ok(())
}

/// What the forwarder's container takes that cannot be taken back.
fn idle_memory(stage: &Stage, pod: &Value) -> Result<()> {
    fn find(folder: &Path, id: &str) -> Option<PathBuf> {
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.to_string_lossy().contains(id) && path.join("memory.stat").is_file() {
                    return Some(path);
                }
                if let Some(found) = find(&path, id) {
                    return Some(found);
                }
            }
        }
        None
    }
    let id =
        container(pod, "siem-forwarder")["containerID"].as_str().unwrap_or_default().to_owned();
    let id = id.trim_start_matches("containerd://").to_owned();
    let cgroups = stage.node.cgroups();
    let found = cgroups.iter().find_map(|cgroup| find(cgroup, &id)).context("its cgroup")?;
    let figures = fs::read_to_string(found.join("memory.stat"))?;
    let figure = |name: &str| {
        let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    // cgroup v1 calls it rss, v2 anon.
    let bytes = figure("anon").max(figure("rss"));
    show(&format!("the forwarder in its pod: {} KiB", bytes / 1024));
    ensure!(bytes > 0 && bytes <= IDLE_BYTES, "{bytes} bytes: {figures}");
    Ok(())
}

/// Whether a pod is ready, looked at again and again.
struct Readiness(tokio::task::JoinHandle<Result<()>>, Arc<AtomicUsize>);

impl Readiness {
    fn of(stage: &Stage, pod: &Value) -> Self {
        let looks = Arc::new(AtomicUsize::new(0));
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let (namespace, kubectl) = (stage.scene.namespace.clone(), stage.scene.plane.kubectl());
        let counted = Arc::clone(&looks);
        let task = tokio::spawn(async move {
            let kubectl = kubectl?;
            let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            loop {
                let get = ["get", "pod", &name, "--namespace", &namespace, "-o", path];
                let ready = kubectl.run(&get, "").await?;
                ensure!(ready == "True", "the host is not ready: {ready}");
                counted.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(500)).await;
            }
        });
        Self(task, looks)
    }

    async fn was_always_ready(self) -> Result<()> {
        let Self(task, looks) = self;
        ensure!(looks.load(Ordering::Relaxed) > 10, "it was looked at");
        task.abort();
        match task.await {
            Ok(ended) => ended,
            Err(_aborted) => Ok(()),
        }
    }
}

/// A SIEM that counts how many send to it at once.
#[derive(Clone, Default)]
struct Counting {
    lines: Arc<Mutex<Vec<String>>>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Counting {
    async fn start() -> Result<(Self, u16)> {
        let listener = TcpListener::bind((ADDRESS, 0)).await?;
        let port = listener.local_addr()?.port();
        let counting = Self::default();
        let shared = counting.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let of = shared.clone();
                let now = of.now.fetch_add(1, Ordering::SeqCst) + 1;
                of.most.fetch_max(now, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut lines = BufReader::new(stream).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        of.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                    }
                    of.now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok((counting, port))
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A StatefulSet is a host as well; then the agent takes a Deployment of its own, and comes back, while events flow.
#[test]
fn an_agent_moves_between_host_and_deployment_under_traffic_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = stage(node).await?;
        let folder = tempfile::tempdir()?;
        let (authority, siem) = siem(folder.path()).await?;
        let (counting, port) = Counting::start().await?;
        stage.token(DEMO_TOKEN).await?;
        let mut documents = example(&stage, &siem, &authority)?;
        for document in &mut documents {
            match document["kind"].as_str() {
                Some("Deployment") => {
                    document["kind"] = json!("StatefulSet");
                    document["spec"]["serviceName"] = json!("collector");
                    document["spec"].as_object_mut().context("a spec")?.remove("strategy");
                }
                Some("SiemAgent") => {
                    document["spec"]["placement"]["sidecarOf"]["kind"] = json!("StatefulSet");
                    // Straight to a SIEM that counts.
                    document["spec"]["syslog"] = json!({"host": ADDRESS.to_string(), "port": port});
                }
                _ => {}
            }
            apply(&stage, document).await?;
        }
        delivers(&stage).await?;
        let n_before = counting.lines().len();
        let remove = r#"{"spec": {"placement": null}}"#;
        stage.scene.kubectl(&["patch", "siemagent/soc", "--type=merge", "-p", remove], "").await?;
        let own = |agent: &Value| {
            let available = condition(agent, "WorkloadAvailable");
            let ready = condition(agent, "Ready");
            available["message"] == "the forwarder's pod is ready"
                && ready["status"] == "True"
                && ready["observedGeneration"] == agent["metadata"]["generation"]
        };
        stage.scene.until("siemagent/soc", own).await?;
        let host = stage.scene.get("statefulset/collector").await?.context("the host")?;
        ensure!(host["spec"]["template"]["spec"]["initContainers"].is_null(), "{host:#}");
        let back = r#"{"spec": {"placement": {"sidecarOf": {"kind": "StatefulSet", "name": "collector"}}}}"#;
        stage.scene.kubectl(&["patch", "siemagent/soc", "--type=merge", "-p", back], "").await?;
        delivers(&stage).await?;
        stage.scene.until_gone("deployment/soc-forwarder").await?;
        stage.portal.quiet();
        let n_repeated = all_arrived(&stage, &BTreeSet::new(), || Ok(counting.lines())).await?;
        println!("repeated: {n_repeated} of {}", stage.portal.produced().len());
        ensure!(counting.lines().len() > n_before, "events flowed all the while");
        assert_eq!(counting.most.load(Ordering::SeqCst), 1, "never two at once");
        // Gone, and nothing stays.
        stage.scene.kubectl(&["delete", "siemagent/soc"], "").await?;
        let clean = |host: &Value| {
            host["spec"]["template"]["spec"]["initContainers"].is_null()
                && host["metadata"]["labels"]["siemagent.dev/sidecar"].is_null()
        };
        stage.scene.until("statefulset/collector", clean).await.map(drop)
    })
}
