//! The stand-in for a node: what it promises those who use it, on a real control plane.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use siem_agent_crds::config::{Config, Paths};
use siem_agent_crds::manifest;
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options as Portal};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, program};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::node::{Image, Node, Options};
use tokio::time::{Instant, sleep};

const MOUNT_DELAY: Duration = Duration::from_secs(1);

struct Scene {
    namespace: String,
    client: Client,
    node: Node,
}

impl Scene {
    async fn start() -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        let namespace = plane.namespace().await?;
        let client = plane.client().await?;
        let shell = Image { program: PathBuf::from("/bin/sh"), arguments: Vec::new() };
        let forwarder = Image {
            program: program("siem-forwarder")?,
            arguments: vec!["--listen=$(POD_IP):9464".to_owned()],
        };
        let images = [("shell".to_owned(), shell), ("forwarder".to_owned(), forwarder)].into();
        let options = Options { images, mount_delay: MOUNT_DELAY, ..Options::default() };
        let node = Node::start(plane, &namespace, options).await?;
        Ok(Self { namespace, client, node })
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn make(&self, objects: &[Value]) -> Result<()> {
        let kubectl = ControlPlane::shared().await?.kubectl()?;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let inside = format!("--namespace={}", self.namespace);
        kubectl.run(&["apply", "--filename=-", &inside], &list).await?;
        Ok(())
    }

    async fn pod(&self, name: &str, spec: Value) -> Result<()> {
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    async fn read(&self, name: &str) -> Result<Value> {
        Ok(serde_json::to_value(self.pods().get(name).await?)?)
    }

    /// Waits until the pod's value at a pointer is this, and gives the pod.
    async fn until(&self, name: &str, pointer: &str, expected: &Value) -> Result<Value> {
        self.until_it(name, pointer, &format!("is {expected}"), |value| value == expected).await
    }

    async fn until_it(
        &self,
        name: &str,
        pointer: &str,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let pod = self.read(name).await?;
            if pod.pointer(pointer).is_some_and(&is) {
                return Ok(pod);
            }
            if Instant::now() > until {
                let status = pod.get("status").unwrap_or(&Value::Null);
                bail!("it is not so that {pointer} {what}: {status}");
            }
            sleep(LOOK).await;
        }
    }

    async fn until_gone(&self, name: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(self.pods().get_opt(name).await?.is_none(), "{name} is not gone");
            Ok(())
        })
        .await
    }

    async fn until_logged(&self, pod: &str, container: &str, text: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(
                self.node.log(pod, container).unwrap_or_default().contains(text),
                "{container} does not say {text}: {:?}",
                self.node.log(pod, container)
            );
            Ok(())
        })
        .await
    }
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "shell", "command": ["/bin/sh", "-c", script]})
}

const FIRST: &str = "/status/containerStatuses/0";

#[tokio::test]
async fn a_deployment_of_the_forwarder_runs_and_follows_its_secret() -> Result<()> {
    let scene = Scene::start().await?;
    let portal = Defender::start(Portal { rate: 0.0, budget: 0, ..Portal::default() }).await?;
    let manifest = Manifest::new("soc")
        .url(&portal.url())
        .cloud_apps("requestsPerMinute: 6000, pollInterval: 1s")
        .syslog("{host: 127.0.0.1, port: 9, protocol: UDP}")
        .to_string();
    // As the operator would write it.
    let paths = Paths {
        secrets: "/etc/secrets".into(),
        config_maps: "/etc/config-maps".into(),
        state: "/var/lib/state".into(),
        checkpoint: None,
        live: None,
        identity: None,
    };
    let config = serde_json::to_string(&Config::for_agent(&manifest::read(&manifest)?, paths))?;
    let labels = json!({"app": "forwarder"});
    let probe = json!({"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 2});
    scene
        .make(&[
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"config.json": config}}),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "forwarder"},
                "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                    "automountServiceAccountToken": false,
                    "containers": [{
                        "name": "forwarder", "image": "forwarder",
                        "args": ["run", "--config=/etc/forwarder/config.json"],
                        "ports": [{"name": "http", "containerPort": 9464}],
                        "securityContext": {"readOnlyRootFilesystem": true},
                        "startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe,
                        "volumeMounts": [
                            {"name": "config", "mountPath": "/etc/forwarder", "readOnly": true},
                            {"name": "token", "mountPath": "/etc/secrets/defender", "readOnly": true},
                            {"name": "state", "mountPath": "/var/lib/state"},
                        ],
                    }],
                    "volumes": [
                        {"name": "config", "configMap": {"name": "config"}},
                        {"name": "token", "secret": {"secretName": "defender", "optional": true}},
                        {"name": "state", "emptyDir": {}},
                    ],
                }}},
            }),
        ])
        .await?;
    let kubectl = ControlPlane::shared().await?.kubectl()?;
    let inside = format!("--namespace={}", scene.namespace);
    let wait =
        ["wait", "deployment/forwarder", "--for=condition=Available", "--timeout=60s", &inside];
    let waited = kubectl.run(&wait, "").await;
    let pods = scene.pods().list(&kube::api::ListParams::default()).await?.items;
    let [pod] = &pods[..] else { bail!("{} pods", pods.len()) };
    let name = pod.metadata.name.clone().context("a name")?;
    waited.with_context(|| format!("it said {:?}", scene.node.log(&name, "forwarder")))?;
    let pod = scene.read(&name).await?;
    let address =
        pod.pointer("/status/podIP").and_then(Value::as_str).context("an address")?.to_owned();

    let url = format!("http://{address}:9464/status");
    let token_state = async || -> Result<String> {
        let report: Value = serde_json::from_str(&reqwest::get(&url).await?.text().await?)?;
        Ok(report.pointer("/token/state").and_then(Value::as_str).unwrap_or_default().to_owned())
    };
    let until_token_is = async |expected: &str| -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(
                token_state().await? == expected,
                "{}: {:?}",
                expected,
                scene.node.log(&name, "forwarder")
            );
            Ok(())
        })
        .await
    };
    until_token_is("Missing").await?;
    let made = Instant::now();
    let secret = |token: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "defender"}, "stringData": {"token": token}});
    scene.make(&[secret(DEMO_TOKEN)]).await?;
    until_token_is("Valid").await?;
    ensure!(made.elapsed() >= MOUNT_DELAY, "it came after {:?}", made.elapsed());
    scene.make(&[secret("wrong")]).await?;
    until_token_is("Invalid").await?;

    let pod = scene.read(&name).await?;
    assert_eq!(
        pod.pointer(&format!("{FIRST}/restartCount")),
        Some(&json!(0)),
        "nothing restarted it"
    );
    assert_eq!(pod.pointer("/spec/nodeName"), Some(&json!(scene.node.name())));
    kubectl.run(&["delete", "deployment", "forwarder", &inside], "").await?;
    scene.until_gone(&name).await?;
    ensure!(scene.node.pid(&name, "forwarder").is_none());
    Ok(())
}

#[tokio::test]
async fn a_required_mount_keeps_the_pod_waiting_until_it_is_there() -> Result<()> {
    let scene = Scene::start().await?;
    let mut container =
        shell("reads", "cat /secret/token; ls -a /secret; touch /secret/x; sleep 600");
    container["volumeMounts"] =
        json!([{"name": "secret", "mountPath": "/secret", "readOnly": true}]);
    let volumes = json!([{"name": "secret", "secret": {"secretName": "absent", "items": [{"key": "key", "path": "token"}]}}]);
    scene.pod("waits", json!({"containers": [container], "volumes": volumes})).await?;
    let waiting = format!("{FIRST}/state/waiting/reason");
    let pod = scene.until("waits", &waiting, &json!("ContainerCreating")).await?;
    let said = pod.pointer(&format!("{FIRST}/state/waiting/message")).and_then(Value::as_str);
    ensure!(said.is_some_and(|said| said.contains("secret \"absent\" not found")), "{said:?}");
    assert_eq!(pod.pointer("/status/phase"), Some(&json!("Pending")));

    let secret = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "absent"}, "stringData": data});
    scene.make(&[secret(json!({"other": "x"}))]).await?;
    let message = format!("{FIRST}/state/waiting/message");
    let expected =
        "MountVolume.SetUp failed for volume \"secret\" : references non-existent secret key: key";
    scene.until("waits", &message, &json!(expected)).await?;
    scene.make(&[secret(json!({"key": "value of the key\n"}))]).await?;
    scene.until("waits", &format!("{FIRST}/ready"), &json!(true)).await?;
    scene.until_logged("waits", "reads", "value of the key").await?;
    scene.until_logged("waits", "reads", "..data").await?;
    scene.until_logged("waits", "reads", "Read-only file system").await?;
    Ok(())
}

#[tokio::test]
async fn what_cannot_run_is_said_in_the_kubelets_words() -> Result<()> {
    let scene = Scene::start().await?;
    let one = |container: Value| json!({"containers": [container]});
    scene.pod("unknown", one(json!({"name": "a", "image": "unknown:1"}))).await?;
    let waiting = format!("{FIRST}/state/waiting/reason");
    // It stands for a second only.
    scene.until("unknown", &waiting, &json!("ErrImagePull")).await?;
    scene.pod("crashes", one(shell("a", "exit 3"))).await?;
    let mut unset = shell("a", "sleep 600");
    unset["env"] =
        json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x"}}}]);
    scene.pod("unset", one(unset)).await?;
    let mut unfit = one(shell("a", "sleep 600"));
    unfit["nodeSelector"] = json!({"disk": "none"});
    scene.pod("unfit", unfit).await?;
    let mut unwell = shell("a", "exec sleep 600");
    unwell["livenessProbe"] =
        json!({"httpGet": {"port": 9464}, "periodSeconds": 1, "failureThreshold": 1});
    scene.pod("unwell", one(unwell)).await?;
    let mut once = one(shell("a", "exit 0"));
    once["restartPolicy"] = json!("Never");
    scene.pod("once", once).await?;

    scene.until("unknown", &waiting, &json!("ImagePullBackOff")).await?;
    let pod = scene.until("crashes", &waiting, &json!("CrashLoopBackOff")).await?;
    let last = pod.pointer(&format!("{FIRST}/lastState/terminated")).context("a last state")?;
    assert_eq!(
        (last.get("exitCode"), last.get("reason")),
        (Some(&json!(3)), Some(&json!("Error")))
    );
    let again_and_again = |count: &Value| count.as_u64() >= Some(3);
    let restarts = format!("{FIRST}/restartCount");
    scene.until_it("crashes", &restarts, "is at least 3", again_and_again).await?;
    let pod = scene.until("unset", &waiting, &json!("CreateContainerConfigError")).await?;
    let said = pod.pointer(&format!("{FIRST}/state/waiting/message"));
    assert_eq!(said, Some(&json!("secret \"none\" not found")));
    let pod = scene.until("unfit", "/status/conditions/0/reason", &json!("Unschedulable")).await?;
    ensure!(pod.pointer("/spec/nodeName").is_none());
    let code = format!("{FIRST}/lastState/terminated/exitCode");
    scene.until("unwell", &code, &json!(143)).await?;
    scene.until("once", "/status/phase", &json!("Succeeded")).await?;

    // What was wrong may be put right.
    let shell = Image {
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".to_owned(), "sleep 600".to_owned()],
    };
    scene.node.add_image("unknown:1", shell);
    scene.until("unknown", &format!("{FIRST}/ready"), &json!(true)).await?;
    Ok(())
}

#[tokio::test]
async fn sidecars_start_before_and_end_after_the_containers() -> Result<()> {
    let scene = Scene::start().await?;
    scene
        .make(&[json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kept"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        })])
        .await?;
    // A container that runs need not have said so yet: each waits for the words of the one that must run before it.
    let after = |words: &str| format!("until grep -q '{words}' /kept/order; do sleep 0.1; done; ");
    let says = |name: &str, before: &str| {
        let script = format!(
            "trap 'echo {name} ended >>/kept/order; exit 0' TERM; {before}echo {name} began >>/kept/order; while true; do sleep 0.1; done"
        );
        let mut container = shell(name, &script);
        container["volumeMounts"] = json!([{"name": "kept", "mountPath": "/kept"}]);
        container
    };
    let mut init = shell("init", &format!("{}echo init >>/kept/order", after("first began")));
    init["volumeMounts"] = json!([{"name": "kept", "mountPath": "/kept"}]);
    let [mut first, mut second] = [says("first", ""), says("second", "")];
    first["restartPolicy"] = json!("Always");
    second["restartPolicy"] = json!("Always");
    let volumes = json!([{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}]);
    let spec = json!({"initContainers": [first, init, second], "containers": [says("main", &after("second began"))], "volumes": volumes});
    scene.pod("many", spec).await?;
    let pod = scene.until("many", &format!("{FIRST}/ready"), &json!(true)).await?;
    let started = pod.pointer("/status/initContainerStatuses/0/started");
    assert_eq!(started, Some(&json!(true)));
    scene.until("many", "/status/conditions/2/status", &json!("True")).await?;
    let order = || std::fs::read_to_string(scene.node.claim("kept").join("order"));
    eventually(PATIENCE, async || {
        ensure!(order()?.contains("main began"), "{}", order()?);
        Ok(())
    })
    .await?;
    scene.pods().delete("many", &DeleteParams::default()).await?;
    scene.until_gone("many").await?;
    let order: Vec<String> = order()?.lines().map(str::to_owned).collect();
    assert_eq!(
        order,
        [
            "first began",
            "init",
            "second began",
            "main began",
            "main ended",
            "second ended",
            "first ended"
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_halted_node_comes_back_with_its_pods_and_their_folders() -> Result<()> {
    let mut scene = Scene::start().await?;
    let mut container =
        shell("a", "echo run >>/state/runs; echo \"$POD_IP\"; ls /; exec sleep 600");
    container["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    container["env"] =
        json!([{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
    let spec = json!({"containers": [container], "volumes": [{"name": "state", "emptyDir": {}}]});
    scene.pod("survives", spec.clone()).await?;
    let pod = scene.until("survives", &format!("{FIRST}/ready"), &json!(true)).await?;
    let uid = pod.pointer("/metadata/uid").and_then(Value::as_str).context("a uid")?.to_owned();
    let address =
        pod.pointer("/status/podIP").and_then(Value::as_str).context("an address")?.to_owned();
    let pid = scene.node.pid("survives", "a").context("it runs")?;
    scene.until_logged("survives", "a", &address).await?;
    ensure!(
        !scene.node.log("survives", "a")?.contains("home"),
        "the machine's folders are not seen"
    );

    scene.node.halt().await?;
    let stat = PathBuf::from(format!("/proc/{pid}"));
    eventually(PATIENCE, async || {
        ensure!(!stat.exists(), "the process still runs");
        Ok(())
    })
    .await?;
    scene.node.resume()?;
    scene.until("survives", &format!("{FIRST}/restartCount"), &json!(1)).await?;
    let runs = scene.node.volume(&uid, "state").join("runs");
    eventually(PATIENCE, async || {
        ensure!(
            std::fs::read_to_string(&runs)? == "run\nrun\n",
            "{}",
            std::fs::read_to_string(&runs)?
        );
        Ok(())
    })
    .await?;

    // The lowest address is given again: another pod may get it.
    let now = DeleteParams::default().grace_period(0);
    scene.pods().delete("survives", &now).map(|deleted| deleted.map(|_| ())).await?;
    scene.until_gone("survives").await?;
    eventually(PATIENCE, async || {
        ensure!(!runs.exists(), "the pod's folder is not removed");
        Ok(())
    })
    .await?;
    scene.pod("follows", spec).await?;
    scene.until("follows", "/status/podIP", &json!(address)).await?;
    Ok(())
}
