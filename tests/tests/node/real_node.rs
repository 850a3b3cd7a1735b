//! A real node does what the other tests take for granted, and leaves nothing behind.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::real_node::{self, ADDRESS, PAUSE};
use tokio::time::{Instant, sleep};

const UP: &str = "the node is up: ";

#[test]
fn pods_services_and_names_work_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut left = node.cgroups();
        left.push(node.folder().to_owned());
        let left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
        println!("{UP}{}", left.join(" "));
        let kubectl = node.plane().kubectl()?;
        let namespace = node.plane().namespace().await?;
        let inside = format!("--namespace={namespace}");
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        kubectl.run(&["label", "namespace", &namespace, enforce], "").await?;
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "labels": {"app": "one"}},
            "spec": {
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "one", "image": PAUSE,
                    "resources": {"limits": {"memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        let apply = ["apply", &inside, "-f", "-"];
        kubectl.run(&apply, &pod.to_string()).await?;
        let ready = ["wait", "pod/one", "--for=condition=Ready", "--timeout=60s", &inside];
        kubectl.run(&ready, "").await?;
        let address = ["get", "pod/one", "-o", "jsonpath={.status.podIP}", &inside];
        let address = kubectl.run(&address, "").await?;
        ensure!(address.starts_with("198.51.100."), "a pod has an address of its own: {address}");

        // The server's own admission judges; the kubelet has been asked by no one.
        pod["metadata"]["name"] = json!("two");
        pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
        let refused = kubectl.refused(&apply, &pod.to_string()).await?;
        ensure!(refused.contains("violates PodSecurity"), "{refused}");

        // kube-proxy leads the addresses of Services to what stands behind them.
        for service in ["10.96.0.1:443", "10.96.0.10:53"] {
            until_connected(service.parse()?).await?;
        }
        // And nothing leads out: 203.0.113.0/24 is for documentation, as the node's own address.
        let outside: SocketAddr = "203.0.113.1:80".parse()?;
        ensure!(TcpStream::connect_timeout(&outside, Duration::from_secs(10)).is_err());
        ensure!(ADDRESS.is_documentation());
        Ok(())
    })
}

async fn until_connected(service: SocketAddr) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = TcpStream::connect_timeout(&service, Duration::from_secs(1)) {
        ensure!(Instant::now() < until, "{service}: {error}");
        sleep(LOOK).await;
    }
    Ok(())
}

/// Kills a process that has a node in the midst of its test.
#[test]
fn nothing_outlives_its_process_on_a_real_node() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "real_node::pods_services_and_names_work_on_a_real_node", "--nocapture"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("read what it prints")?).lines();
    let left = lines.find_map(|line| line.ok()?.split_once(UP).map(|(_, left)| left.to_owned()));
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL)?;
    let said = child.wait_with_output()?;
    let Some(left) = left else { bail!("{}", String::from_utf8_lossy(&said.stderr)) };
    ensure!(left.contains("/cgroup/") && left.contains("siem-real-node-"), "{left}");
    let is_there = || left.split(' ').any(|path| Path::new(path).exists());
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if !is_there() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    bail!("still there: {left}")
}
