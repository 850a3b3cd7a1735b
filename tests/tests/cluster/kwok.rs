//! KWOK beside the stand-in: pods by the hundred, without a process each.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::kwok::{Kwok, Takes};
use siem_agent_sim::node::{Image, Node, Options};

const N_PODS: usize = 50;

#[tokio::test]
async fn fifty_pods_run_that_do_not_exist_beside_one_that_does() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let namespace = plane.namespace().await?;
    let kwok = Kwok::start(plane, &namespace, Takes::Selecting).await?;
    let shell = Image { program: PathBuf::from("/bin/sh"), arguments: Vec::new() };
    let options = Options { images: [("shell".to_owned(), shell)].into(), ..Options::default() };
    let node = Node::start(plane, &namespace, options).await?;
    let kubectl = plane.kubectl()?;
    let inside = format!("--namespace={namespace}");
    let deployment = |name: &str, n: usize, mut pod: Value, image: &str| {
        pod["containers"] =
            json!([{"name": "a", "image": image, "command": ["/bin/sh", "-c", "exec sleep 600"]}]);
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": n, "selector": {"matchLabels": {"app": name}}, "template": {
                "metadata": {"labels": {"app": name}}, "spec": pod,
            }},
        })
        .to_string()
    };
    let many = deployment("many", N_PODS, json!({"nodeSelector": {"type": "kwok"}}), "none");
    let one = deployment("one", 1, json!({}), "shell");
    for manifest in [many, one] {
        kubectl.run(&["apply", "--filename=-", &inside], &manifest).await?;
    }
    for name in ["many", "one"] {
        let what = format!("deployment/{name}");
        let waited = ["rollout", "status", &what, "--timeout=60s", &inside];
        kubectl.run(&waited, "").await.with_context(|| format!("{:?}", kwok.log()))?;
    }
    let pods: Api<Pod> = Api::namespaced(plane.client().await?, &namespace);
    let many = pods.list(&ListParams::default().labels("app=many")).await?;
    assert_eq!(many.items.len(), N_PODS);
    let http = reqwest::Client::builder().no_proxy().build()?;
    for pod in many {
        let status = pod.status.context("a status")?;
        assert_eq!(status.phase.as_deref(), Some("Running"));
        let address = status.pod_ip.unwrap_or_default();
        ensure!(address.starts_with("127.240."), "{address}");
        let asked = http.get(format!("http://{address}:9464/status")).send().await;
        ensure!(asked.is_err_and(|error| error.is_connect()), "nothing listens there");
    }
    let one = pods.list(&ListParams::default().labels("app=one")).await?.items;
    let name = one.first().and_then(|pod| pod.metadata.name.as_deref()).context("a pod")?;
    ensure!(node.pid(name, "a").is_some());
    kubectl.run(&["delete", "deployment", "many", "one", &inside], "").await?;
    let gone = ["wait", "pods", "--all", "--for=delete", "--timeout=60s", &inside];
    kubectl.run(&gone, "").await?;
    Ok(())
}
