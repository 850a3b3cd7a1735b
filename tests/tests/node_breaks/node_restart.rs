//! A node's kubelet and containerd are started again, and its machine loses its power, while events flow: 0 lost.
//!
//! A binary of its own: what shares a node with this would not live through it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use siem_agent_sim::arrival::Receiver as _;
use siem_agent_sim::defender::{self, DEMO_TOKEN};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, program};
use siem_agent_sim::node::{Image, Node, Options};
use siem_agent_sim::real_node::{self, RealNode, Service};
use siem_agent_tests::stage::{PATIENCE as LONG, Stage};
use tokio::time::{Instant, sleep};

const AUDIENCE: &str = "api://AzureADTokenExchange";

#[test]
fn restarts_lose_nothing_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let history = (100, Duration::from_secs(3600));
        let mut stage =
            Stage::new(node, defender::Options { rate: 10.0, history, ..Default::default() })
                .await?;
        stage.token(DEMO_TOKEN).await?;
        stage.apply("soc", "").await?;
        stage.federate("federated", AUDIENCE).await?;
        stage.apply_by_identity("federated", AUDIENCE).await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        stage.scene.until_ready_is("federated", "Delivering").await?;
        let before = stage.pod("soc").await?;
        let federated = stage.pod("federated").await?;
        let token = fs::read_to_string(stage.identity(&federated)?)?;

        for service in [Service::Kubelet, Service::Containerd] {
            node.end(service, Signal::SIGKILL)?;
            // Nobody looks after the pod, and it goes on.
            until_more_arrives(&stage, "soc").await?;
            node.start_again(service).await?;
            until_more_arrives(&stage, "soc").await?;
        }
        // A kubelet that has begun anew has a token of its own for the pod, and the forwarder exchanges that one.
        eventually(LONG, async || {
            ensure!(
                fs::read_to_string(stage.identity(&federated)?)? != token,
                "the token is not renewed"
            );
            Ok(())
        })
        .await?;
        stage.portal.revoke();
        let n_issued = stage.portal.access_tokens().len();
        until_more_arrives(&stage, "federated").await?;
        ensure!(stage.portal.access_tokens().len() > n_issued, "it was exchanged");
        assert_eq!(n_restarts(&stage.pod("federated").await?), Some(0));
        stage.scene.kubectl(&["delete", "siemagent/federated"], "").await?;
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
        until_more_arrives(&stage, "soc").await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        stage.portal.quiet();
        let n_repeated = stage.until_all_arrived("soc").await?;
        println!("restarts: {n_repeated} of {} repeated", stage.portal.produced().len());
        stage.scene.kubectl(&["delete", "siemagent/soc"], "").await?;
        println!("{}", lose_the_machine(&mut stage, node).await?);
        Ok(())
    })
}

/// The machine goes: a pod on another node, here a stand-in, exports within a minute and a half. Gives what it took.
async fn lose_the_machine(stage: &mut Stage, node: &RealNode) -> Result<String> {
    stage.apply_by_address("lost").await?;
    stage.scene.until_ready_is("lost", "Delivering").await?;
    stage.scene.until("configmap/lost-checkpoint", |_| true).await?;
    let before = stage.pod("lost").await?;
    assert_eq!(before["spec"]["nodeName"], real_node::NAME);
    let forwarder = Image {
        program: program("siem-forwarder")?,
        arguments: vec!["--listen=$(POD_IP):9464".to_owned()],
    };
    let images = [(stage.images.forwarder_name.clone(), forwarder)].into();
    let options = Options { images, ..Options::default() };
    let other = Node::start(node.plane(), &stage.scene.namespace, options).await?;
    stage.portal.produce(100);
    let n_before = stage.until_all_arrived("lost").await?;

    node.halt();
    let lost = Instant::now();
    stage.portal.produce(100);
    let after = stage.until_another_pod("lost", &before).await?;
    assert_eq!(after["spec"]["nodeName"], other.name());
    let replaced = lost.elapsed();
    let n_repeated = stage.until_all_arrived("lost").await? - n_before;
    let exported = lost.elapsed();
    let said = format!(
        "lost machine: another pod is ready after {replaced:.0?}; what was made meanwhile has arrived after {exported:.0?}; \
         {n_repeated} of {} repeated",
        stage.portal.produced().len()
    );
    // The node's silence is believed after 50 s, which is the cluster's to say, and then 30 s of ours.
    ensure!(exported < Duration::from_secs(50 + 30 + 40), "{exported:?}");
    let name = before["metadata"]["name"].as_str().context("a pod has a name")?;
    let gone = stage.scene.until(&format!("pod/{name}"), |_| true).await?;
    ensure!(gone["metadata"]["deletionTimestamp"].is_string(), "it waits for its node to end it");

    // It comes back, and ends what it had: one pod is left.
    node.boot().await?;
    stage.scene.until_gone(&format!("pod/{name}")).await?;
    let left = stage.pod("lost").await?;
    assert_eq!(left["metadata"]["uid"], after["metadata"]["uid"]);
    Ok(said)
}

fn n_restarts(pod: &Value) -> Option<u64> {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64()
}

async fn until_more_arrives(stage: &Stage, name: &str) -> Result<()> {
    let receiver = stage.receiver(name).context("the agent's receiver")?;
    let n_lines = receiver.lines()?.len();
    let until = Instant::now() + 2 * PATIENCE;
    while receiver.lines()?.len() <= n_lines {
        ensure!(Instant::now() < until, "nothing arrives any more");
        sleep(LOOK).await;
    }
    Ok(())
}
