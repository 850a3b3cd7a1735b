//! KWOK: pods by the hundred that need not run. They become Running and Ready in the API, and nothing is started.
//!
//! Beside [`crate::node`] in the same namespace it takes only pods that select `type: kwok`. Their addresses are
//! loopback ones on which nothing listens, so that whoever asks such a pod is refused at once.

use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::reflector::Store;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::control_plane::{ControlPlane, User};
use crate::forwarder::{LOOK, PATIENCE};
use crate::leash::{self, Leashed};
use crate::node::{ELSEWHERE, bind, follow, is_elsewhere};
use crate::programs::programs;

/// How often pending pods are looked for.
const TICK: Duration = Duration::from_millis(50);
/// Beyond the addresses of [`crate::node`].
const ADDRESSES: &str = "127.240.0.0/16";
const STAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kwok/stages.yaml");
/// The label by which one KWOK knows its node from another's.
const OWNER: &str = "siem-tests/kwok";

/// Which pending pods of the namespace it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// All: there is no other node.
    Every,
    /// Those that select `type: kwok`.
    Selecting,
}

/// A running KWOK with one node; it ends with this value.
#[derive(Debug)]
pub struct Kwok {
    process: Leashed,
    tasks: Vec<JoinHandle<()>>,
    folder: TempDir,
}

impl Drop for Kwok {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Kwok {
    /// Starts it for a namespace and waits until its node is ready.
    ///
    /// # Errors
    /// When it cannot be built or does not come up, with what it said.
    pub async fn start(plane: &ControlPlane, namespace: &str, takes: Takes) -> Result<Self> {
        let [program] = programs(["kwok"]).await?;
        let folder = tempfile::Builder::new().prefix("siem-kwok-").tempdir()?;
        leash::folder(folder.path())?;
        let client = plane.client_as(User::Kwok).await?;
        let name = format!("kwok-{namespace}");
        let nodes: Api<NodeObject> = Api::all(client.clone());
        let node = json!({"metadata": {
            "name": name,
            "labels": {ELSEWHERE.0: ELSEWHERE.1, OWNER: namespace, "kubernetes.io/hostname": name},
        }});
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        let log = File::create(folder.path().join("kwok.log"))?;
        let process = Leashed::spawn(
            Command::new(program)
                // It reads a configuration of whoever runs it otherwise.
                .env("HOME", folder.path())
                .args(["--config", STAGES, "--kubeconfig"])
                .arg(plane.kubeconfig(User::Kwok)?)
                .arg(format!("--manage-nodes-with-label-selector={OWNER}={namespace}"))
                .arg(format!("--cidr={ADDRESSES}"))
                .args(["--node-ip=127.0.0.1", "--node-lease-duration-seconds=40"])
                .current_dir(folder.path())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let mut tasks = Vec::new();
        let pods: Store<Pod> = follow(&client, namespace, &mut tasks);
        pods.wait_until_ready().await?;
        let mut kwok = Self { process, tasks, folder };
        let until = Instant::now() + PATIENCE;
        while !is_ready(&nodes.get(&name).await?) {
            if Instant::now() > until || kwok.process.ended()?.is_some() {
                bail!("KWOK's node is not ready: {}", kwok.log()?);
            }
            sleep(LOOK).await;
        }
        let api = Api::namespaced(client, namespace);
        kwok.tasks.push(tokio::spawn(bind_all(api, pods, name, takes)));
        Ok(kwok)
    }

    /// What it said.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.folder.path().join("kwok.log")).context("read KWOK's log")
    }
}

async fn bind_all(api: Api<Pod>, pods: Store<Pod>, node: String, takes: Takes) {
    let is_mine = |pod: &Arc<Pod>| {
        let spec = pod.spec.as_ref();
        spec.is_some_and(|spec| {
            spec.node_name.is_none() && (takes == Takes::Every || is_elsewhere(spec))
        })
    };
    loop {
        for pod in pods.state().into_iter().filter(is_mine) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            // Bound already: the store will know soon.
            let _ = bind(&api, name, &node).await;
        }
        sleep(TICK).await;
    }
}

fn is_ready(node: &NodeObject) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
