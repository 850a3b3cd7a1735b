//! What only a real kubelet shows of the operator: from `kubectl apply` to lines at rsyslog, Secrets at the kubelet's pace,
//! and pods that do not run, each cause by its name. Nothing is ever lost.
//!
//! All of it under restricted pod security, enforced; the node's pace is a kubelet's default, so that a Secret takes its
//! minute.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Options};
use siem_agent_sim::real_node;
use siem_agent_tests::scene::condition;
use siem_agent_tests::stage::Stage;

const WRONG_TOKEN: &str =
    "d3JvbmctdG9rZW4tb2YtYXQtbGVhc3Qtc2l4dHktZm91ci1jaGFyYWN0ZXJzLXdyb25nLXRva2Vu";

fn portal(rate: f64) -> Options {
    Options { rate, history: (100, Duration::from_secs(3600)), ..Options::default() }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

#[test]
fn from_apply_to_rsyslog_through_deletion_and_eviction_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = Stage::new(node, portal(10.0)).await?;
        stage.token(DEMO_TOKEN).await?;
        stage.apply("soc", "").await?;
        let wait = ["wait", "siemagent/soc", "--for=condition=Ready", "--timeout=120s"];
        stage.scene.kubectl(&wait, "").await?;
        let agent = stage.scene.until_ready_is("soc", "Delivering").await?;
        assert_eq!(agent["status"]["state"], "Connected");
        assert_eq!(agent["status"]["image"], json!(stage.images.forwarder_name));

        checked_inside(&stage).await?;

        // Evicted as for a drain, in order; then deleted at once, without a word.
        let first = stage.pod("soc").await?;
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name(&first), "namespace": stage.scene.namespace},
        });
        let (inside, pod) = (&stage.scene.namespace, name(&first));
        let path = format!("/api/v1/namespaces/{inside}/pods/{pod}/eviction");
        stage.scene.kubectl(&["create", "--raw", &path, "-f", "-"], &eviction.to_string()).await?;
        let second = stage.until_another_pod("soc", &first).await?;
        let kill = ["delete", "pod", name(&second), "--grace-period=0", "--force"];
        stage.scene.kubectl(&kill, "").await?;
        stage.until_another_pod("soc", &second).await?;
        stage.portal.quiet();
        let n_repeated = stage.until_all_arrived("soc").await?;
        println!("repeated: {n_repeated} of {}", stage.portal.produced().len());
        stage.scene.until_ready_is("soc", "Delivering").await?;
        stage.scene.kubectl(&["delete", "siemagent", "soc"], "").await?;
        stage.scene.until_gone("deployment/soc-forwarder").await
    })
}

/// The commands of docs/runbooks/README.md in the agent's own pod, whose root is read-only, beside its forwarder.
async fn checked_inside(stage: &Stage) -> Result<()> {
    let before = stage.pod("soc").await?;
    let inside = ["exec", "deployment/soc-forwarder", "-c", "forwarder", "--", "/siem-forwarder"];
    let config = "--config=/etc/siem-forwarder/config/config.yaml";
    let said = stage.scene.kubectl(&[&inside[..], &["check", config]].concat(), "").await?;
    let agent = format!("ok   config: is valid; the agent is {}/soc\n", stage.scene.namespace);
    ensure!(said.contains(&agent) && !said.contains("FAIL "), "{said}");
    ensure!(said.contains("\nok   API, activities: ") && said.contains("\nok   SIEM, "), "{said}");
    ensure!(!said.contains(DEMO_TOKEN), "{said}");
    // A window without a record, so that nothing is repeated.
    let window = ["--from=2020-01-01T00:00:00Z", "--to=2020-01-01T01:00:00Z"];
    let replay = [&inside[..], &["replay", config], &window[..]].concat();
    let said = stage.scene.kubectl(&replay, "").await?;
    ensure!(said.contains("activities: 0 records delivered"), "{said}");
    is_the_same(&before, &stage.pod("soc").await?)
}

/// Reason and note of each Event about something, in their order.
async fn told(stage: &Stage, about: &str) -> Result<Vec<(String, String)>> {
    let events = stage.scene.kubectl(&["get", "events.events.k8s.io", "-o", "json"], "").await?;
    let events: Value = serde_json::from_str(&events)?;
    let mut events = events["items"].as_array().cloned().unwrap_or_default();
    events.retain(|event| event["regarding"]["name"] == about);
    events.sort_by_key(|event| event["eventTime"].to_string());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(events.iter().map(|event| (text(&event["reason"]), text(&event["note"]))).collect())
}

/// The kubelet itself ends the pod for good, because its state is larger than it may be. It measures once a minute.
#[test]
fn what_a_kubelet_evicts_is_replaced_and_told_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = Stage::new(node, portal(10.0)).await?;
        stage.token(DEMO_TOKEN).await?;
        stage.apply("soc", "").await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        let first = stage.pod("soc").await?;
        let volumes = node.folder().join("kubelet/pods").join(uid(&first)).join("volumes");
        fs::write(volumes.join("kubernetes.io~empty-dir/state/too-much"), vec![1; 80 << 20])?;
        stage.until_another_pod("soc", &first).await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        stage.portal.quiet();
        let n_repeated = stage.until_all_arrived("soc").await?;
        println!("repeated: {n_repeated} of {}", stage.portal.produced().len());
        let of_pod = told(&stage, name(&first)).await?;
        ensure!(
            of_pod.iter().any(|(reason, _)| reason == "Evicted"),
            "the kubelet did it: {of_pod:?}"
        );
        let of_agent = told(&stage, "soc").await?;
        let ended =
            of_agent.iter().position(|(_, note)| note.contains("a new pod is being started"));
        let since = of_agent.get(ended.context("the end is told")?..).unwrap_or_default();
        ensure!(since.iter().all(|(_, note)| note != "the pod is starting"), "and kept: {since:?}");
        Ok(())
    })
}

#[test]
fn a_late_secret_is_used_without_a_restart_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = Stage::new(node, portal(1.0)).await?;
        stage.apply("soc", "").await?;
        let agent = stage.scene.until_ready_is("soc", "SecretMissing").await?;
        assert_eq!(condition(&agent, "TokenValid")["reason"], "Missing");
        let pod = stage.pod("soc").await?;
        stage.token(DEMO_TOKEN).await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        is_the_same(&pod, &stage.pod("soc").await?)?;
        stage.portal.quiet();
        stage.until_all_arrived("soc").await.map(drop)
    })
}

#[test]
fn a_rotated_secret_is_used_without_a_restart_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = Stage::new(node, portal(1.0)).await?;
        stage.token(WRONG_TOKEN).await?;
        stage.apply("soc", "").await?;
        let agent = stage.scene.until_ready_is("soc", "TokenInvalid").await?;
        let said = condition(&agent, "TokenValid")["message"].clone();
        ensure!(said.as_str().is_some_and(|said| said.contains("Invalid token")), "{said}");
        let pod = stage.pod("soc").await?;
        stage.token(DEMO_TOKEN).await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        is_the_same(&pod, &stage.pod("soc").await?)?;
        stage.portal.quiet();
        stage.until_all_arrived("soc").await.map(drop)
    })
}

fn is_the_same(before: &Value, after: &Value) -> Result<()> {
    ensure!(uid(before) == uid(after), "no pod was replaced");
    let restarts = &after["status"]["containerStatuses"][0]["restartCount"];
    ensure!(*restarts == 0, "no container was started again: {restarts}");
    Ok(())
}

#[test]
fn what_keeps_a_pod_down_is_named_and_mends_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = Stage::new(node, portal(1.0)).await?;
        stage.token(DEMO_TOKEN).await?;
        // A page that no forwarder reads in 5 MiB.
        let records = stage.portal.records(Stream::Activities);
        let mut record: Value = serde_json::from_str(records.first().context("a record")?)?;
        record["_id"] = json!("a-record-of-3-mib");
        record["description"] = json!("x".repeat(3 << 20));
        stage.portal.inject(Stream::Activities, &record.to_string());
        let operators = format!("image: \"{}\"", stage.images.operator_name);
        // What is set below `forwarder`, the reason that is to be read from it, and what the message holds one of:
        // containerd may hear of the end before it hears why.
        let troubles = [
            (
                "pulling",
                "image: registry.example.com/siem-forwarder:0",
                "ImagePullBackOff",
                &["registry.example.com"][..],
            ),
            ("crashing", operators.as_str(), "CrashLoopBackOff", &["exit code 2"]),
            (
                "choking",
                "resources: {limits: {memory: 5Mi}}",
                "CrashLoopBackOff",
                // Where runc itself is ended before the program begins, in runc's words, of which some do not name the cause.
                &["OOMKilled", "OOM-killed", "exit code 137", "a memory limit that is too small"],
            ),
            (
                "homeless",
                "nodeSelector: {kubernetes.io/hostname: nowhere}",
                "Unschedulable",
                &["0/1 nodes"],
            ),
        ];
        for (name, more, ..) in troubles {
            stage.apply(name, &format!("  forwarder: {{{more}}}\n")).await?;
        }
        let named = troubles.map(async |(name, _, reason, words)| {
            let agent = stage.scene.until_ready_is(name, reason).await?;
            let message = condition(&agent, "Ready")["message"].to_string();
            println!("{name}: {reason}: {message}");
            ensure!(words.iter().any(|word| message.contains(word)), "{name}: {message}");
            assert_eq!(condition(&agent, "WorkloadAvailable")["reason"], reason);
            anyhow::Ok(())
        });
        try_join_all(named).await?;
        for (name, ..) in troubles {
            stage.apply(name, "").await?;
        }
        try_join_all(
            troubles.map(async |(name, ..)| stage.scene.until_ready_is(name, "Delivering").await),
        )
        .await?;
        stage.portal.quiet();
        try_join_all(troubles.map(async |(name, ..)| stage.until_all_arrived(name).await)).await?;
        Ok(())
    })
}
