//! A node's kubelet and containerd are started again, and its machine loses its power, while events flow: 0 lost.
//!
//! A binary of its own: what shares a node with this would not live through it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use siem_agent_tests::arrival::Receiver as _;
use siem_agent_tests::defender::{DEMO_TOKEN, Options};
use siem_agent_tests::forwarder::{LOOK, PATIENCE};
use siem_agent_tests::real_node::stage::Stage;
use siem_agent_tests::real_node::{self, Service};
use tokio::time::{Instant, sleep};

#[test]
fn restarts_lose_nothing_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let history = (100, Duration::from_secs(3600));
        let mut stage =
            Stage::new(node, Options { rate: 10.0, history, ..Options::default() }).await?;
        stage.token(DEMO_TOKEN).await?;
        stage.apply("soc", "").await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        let before = stage.pod("soc").await?;

        for service in [Service::Kubelet, Service::Containerd] {
            node.end(service, Signal::SIGKILL)?;
            // Nobody looks after the pod, and it goes on.
            until_more_arrives(&stage).await?;
            node.start_again(service).await?;
            until_more_arrives(&stage).await?;
        }
        let after = stage.pod("soc").await?;
        ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "the pod has survived");
        ensure!(n_restarts(&after) == Some(0), "and so has its container: {:#}", after["status"]);
        // A kubelet that has come back hears of what changes.
        stage.apply("soc", "  format: {dialect: Strict}\n").await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;

        let before = stage.pod("soc").await?;
        node.halt();
        stage.portal.produce(50);
        node.boot().await?;
        // Until the kubelet has looked, the API server shows the pod as it was.
        let name = before["metadata"]["name"].as_str().context("a pod has a name")?;
        let has_restarted = |pod: &Value| n_restarts(pod) > n_restarts(&before);
        let after = stage.scene.until(&format!("pod/{name}"), has_restarted).await?;
        ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "the pod is the machine's");
        until_more_arrives(&stage).await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        stage.portal.quiet();
        let n_repeated = stage.until_all_arrived("soc").await?;
        println!("repeated: {n_repeated} of {}", stage.portal.produced().len());
        Ok(())
    })
}

fn n_restarts(pod: &Value) -> Option<u64> {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64()
}

async fn until_more_arrives(stage: &Stage) -> Result<()> {
    let receiver = stage.receiver("soc").context("the agent's receiver")?;
    let n_lines = receiver.lines()?.len();
    let until = Instant::now() + 2 * PATIENCE;
    while receiver.lines()?.len() <= n_lines {
        ensure!(Instant::now() < until, "nothing arrives any more");
        sleep(LOOK).await;
    }
    Ok(())
}
