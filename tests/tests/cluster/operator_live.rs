//! The whole: a SiemAgent is applied with kubectl, a real forwarder runs in a pod, a real rsyslogd receives.

mod agents;
mod rollout;
pub(crate) mod stage;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use siem_agent_crds::checkpoint::Checkpoint;
use siem_agent_crds::position::Position;
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival::{Receiver as _, counts};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Fault, FaultKind};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::node::Options;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::scene::condition;
use tokio::time::{Instant, sleep};

use stage::{Stage, portal, until_all_arrived};

#[tokio::test]
async fn kubectl_apply_is_all_it_takes() -> Result<()> {
    let stage = Stage::new().await?;
    let defender = Defender::start(portal(200)).await?;
    let first = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    stage.apply("soc", &defender.url(), first.port, "").await?;
    let wait = ["wait", "siemagent/soc", "--for=condition=Ready", "--timeout=60s"];
    stage.scene.kubectl(&wait, "").await?;
    until_all_arrived(&defender, &[&first]).await?;
    let agent = stage.scene.until_ready_is("soc", "Delivering").await?;
    assert_eq!(agent["status"]["state"], "Connected");
    assert_eq!(agent["status"]["token"]["state"], "Valid");
    assert_eq!(agent["status"]["lag"], "<1m");
    assert_eq!(agent["status"]["image"], "forwarder:1");
    ensure!(agent["status"]["streams"][0]["deliveredThrough"].is_string(), "{agent:#}");
    assert_eq!(condition(&agent, "Reconciling"), Value::Null);
    stage
        .until_metric("siemagent_token_valid{", |series| series.len() == 1 && series[0].1 > 0.5)
        .await?;
    stage.until_metric("siemagent_records_delivered_total{", |series| series.len() == 2).await?;
    stage
        .until_metric("siemagent_delivery_lag_seconds{", |series| {
            series.len() == 2 && series.iter().all(|(_, lag)| *lag < 60.0)
        })
        .await?;

    // The checkpoint is kept, within its schedule, and is what a forwarder will believe.
    let checkpoint = stage.until_kept(&defender).await?;
    let uid = agent["metadata"]["uid"].as_str().unwrap_or_default();
    let text = checkpoint["data"]["checkpoint.json"].as_str().unwrap_or_default();
    let now = jiff::Timestamp::from_millisecond(siem_agent_sim::clock::millis())?;
    let kept = Checkpoint::read(text, uid, now)?;
    let ids = |kept: &Checkpoint| kept.positions[&Stream::Alerts].position.ids();
    ensure!(kept.positions.len() == 2 && !ids(&kept).is_empty());

    // Put back when somebody else has written into it, also where he would have been believed.
    let place = "configmap/soc-checkpoint";
    let mut forged = kept.clone();
    if let Some(alerts) = forged.positions.get_mut(&Stream::Alerts) {
        alerts.through += 1_000;
        alerts.position = Position::with_ids(vec!["f".repeat(16)]);
    }
    let forged = json!({"data": {"checkpoint.json": forged.write()?, "more": "mine"}}).to_string();
    stage.scene.kubectl(&["patch", place, "-p", &forged], "").await?;
    eventually(2 * PATIENCE, async || {
        let there = stage.scene.until(place, |_| true).await?;
        assert_eq!(there["data"]["more"], "mine");
        let text = there["data"]["checkpoint.json"].as_str().unwrap_or_default();
        let now = jiff::Timestamp::from_millisecond(siem_agent_sim::clock::millis())?;
        let read = Checkpoint::read(text, uid, now)?;
        ensure!(ids(&read) == ids(&kept), "{there:#}");
        Ok(())
    })
    .await?;

    // Idle: nothing is written though the forwarder goes on asking.
    stage.scene.until_quiet(Duration::from_secs(3)).await?;
    let position = stage.scene.plane.audit_position()?;
    let version = |agent: &Value| agent["metadata"]["resourceVersion"].clone();
    let before = version(&stage.scene.until("siemagent/soc", |_| true).await?);
    defender.produce(20);
    until_all_arrived(&defender, &[&first]).await?;
    sleep(Duration::from_secs(17)).await;
    let writes = stage.scene.writes_since(position)?;
    ensure!(writes.iter().all(|write| write.name == "soc-checkpoint"), "{writes:?}");
    assert_eq!(version(&stage.scene.until("siemagent/soc", |_| true).await?), before);

    // Another receiver: nothing is lost between them.
    let second = Rsyslog::start_at(Ipv4Addr::new(127, 0, 0, 2), Input::Tcp).await?;
    let target = ("127.0.0.2", second.port);
    defender.produce(30);
    let strict = "  format: {dialect: Strict}\n";
    stage.apply_to("soc", &defender.url(), target, strict).await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    defender.produce(30);
    until_all_arrived(&defender, &[&first, &second]).await?;
    let n_with_empty = |lines: &[String]| {
        let is_empty = |word: &str| word.ends_with('=') && !word.ends_with("\\=");
        lines.iter().filter(|line| line.split(' ').any(is_empty)).count()
    };
    ensure!(n_with_empty(&first.lines()?) > 0, "the agent's dialect has empty values");
    let strict = second.lines()?;
    ensure!(!strict.is_empty() && n_with_empty(&strict) == 0, "the strict one has none");

    // Suspended and resumed: it goes on where it stopped.
    stage.apply_to("soc", &defender.url(), target, "  suspend: true\n").await?;
    let agent = stage.scene.until_ready_is("soc", "Suspended").await?;
    assert_eq!(agent["status"]["state"], "Suspended");
    stage.until_metric("siemagent_delivery_lag_seconds{", <[_]>::is_empty).await?;
    defender.produce(10);
    stage.apply_to("soc", &defender.url(), target, "").await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    until_all_arrived(&defender, &[&first, &second]).await?;

    // Another filter: what it lets through arrives, and nothing else.
    let filter = "  eventTypes: {activities: {filter: {services: [11161]}}, alerts: {filter: {severities: [High]}}}\n";
    stage.apply_to("soc", &defender.url(), target, filter).await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    let before = defender.produced();
    defender.produce(200);
    let wanted = wanted(&defender)?;
    let (passes, stays): (Vec<_>, Vec<_>) = defender
        .produced()
        .into_iter()
        .filter(|record| !before.contains(record))
        .map(|(_, id)| id)
        .partition(|id| wanted.contains(id));
    ensure!(!passes.is_empty() && !stays.is_empty(), "the filter tells them apart");
    let arrived = eventually(PATIENCE, async || {
        let arrived = counts(&second.lines()?);
        ensure!(passes.iter().all(|id| arrived.contains_key(id)), "not all of {passes:?}");
        Ok(arrived)
    })
    .await?;
    ensure!(!stays.iter().any(|id| arrived.contains_key(id)), "what is filtered stays");

    stage.scene.kubectl(&["delete", "siemagent", "soc"], "").await?;
    for what in ["deployment/soc-forwarder", "configmap/soc-checkpoint", "configmap/soc-config"] {
        stage.scene.until_gone(what).await?;
    }
    stage
        .until_metric("siemagent_", |series| {
            // What is about the operator itself has no label of an agent.
            series.iter().all(|(name, _)| !name.contains(r#"name="soc""#))
        })
        .await
}

/// The ids of what the filter lets through.
fn wanted(defender: &Defender) -> Result<BTreeSet<String>> {
    let mut wanted = BTreeSet::new();
    for (stream, field, value) in
        [(Stream::Activities, "appId", 11161), (Stream::Alerts, "severityValue", 2)]
    {
        for record in defender.records(stream) {
            let record: Value = serde_json::from_str(&record)?;
            let number = record[field].as_i64().or_else(|| record[field].as_str()?.parse().ok());
            if number == Some(value)
                && let Some(id) = record["_id"].as_str()
            {
                wanted.insert(id.to_owned());
            }
        }
    }
    Ok(wanted)
}

#[tokio::test]
async fn a_pod_that_has_an_ipv6_address_alone_is_probed_and_asked_for_its_report() -> Result<()> {
    let stage = Stage::with(Options { is_ipv6: true, ..Options::default() }).await?;
    let defender = Defender::start(portal(20)).await?;
    let siem = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    stage.apply("soc", &defender.url(), siem.port, "").await?;
    let agent = stage.scene.until_ready_is("soc", "Delivering").await?;
    assert_eq!(stage.pod().await?["status"]["podIP"], "::1");
    assert_eq!(agent["status"]["token"]["state"], "Valid", "its own report says so");
    until_all_arrived(&defender, &[&siem]).await.map(drop)
}

/// The pod's folder of the forwarder's own state.
fn state_of(stage: &Stage, pod: &Value) -> PathBuf {
    stage.node.volume(pod["metadata"]["uid"].as_str().unwrap_or_default(), "state")
}

#[tokio::test]
async fn losing_a_pod_a_node_or_a_place_loses_no_event() -> Result<()> {
    let mut stage = Stage::new().await?;
    // Old enough that no overlap reaches them.
    let defender = Defender::start(portal(0)).await?;
    defender.produce_at(Stream::Activities, 100, Duration::from_secs(1_800));
    defender.produce_at(Stream::Alerts, 10, Duration::from_secs(1_800));
    let old: Vec<_> = defender.produced().into_iter().map(|(_, id)| id).collect();
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    stage.apply("soc", &defender.url(), rsyslog.port, "").await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    until_all_arrived(&defender, &[&rsyslog]).await?;
    stage.until_kept(&defender).await?;
    let place = "configmap/soc-checkpoint";
    let until_well = async |stage: &Stage, what: &str| -> Result<()> {
        defender.produce(10);
        stage.scene.until_ready_is("soc", "Delivering").await?;
        let counts =
            until_all_arrived(&defender, &[&rsyslog]).await.with_context(|| what.to_owned())?;
        let repeated = old.iter().filter(|id| counts.get(*id) != Some(&1)).count();
        ensure!(repeated == 0, "{what}: {repeated} came again from beyond the overlap");
        Ok(())
    };

    let pod = stage.pod().await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    stage.scene.kubectl(&["delete", "pod", &name], "").await?;
    stage.another_pod(&pod).await?;
    until_well(&stage, "a deleted pod").await?;

    stage.node.halt().await?;
    defender.produce(10);
    stage.node.resume()?;
    until_well(&stage, "a node that lost its power").await?;

    let pod = stage.pod().await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    for entry in std::fs::read_dir(state_of(&stage, &pod))? {
        std::fs::remove_file(entry?.path())?;
    }
    let pid = stage.node.pid(name, "forwarder").context("the forwarder runs")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    until_well(&stage, "a lost state").await?;

    let before = stage.scene.until(place, |_| true).await?["metadata"]["uid"].clone();
    stage.scene.kubectl(&["delete", place], "").await?;
    defender.produce(10);
    eventually(2 * PATIENCE, async || {
        ensure!(
            stage.scene.get(place).await?.is_some_and(|it| it["metadata"]["uid"] != before),
            "the checkpoint is not kept again"
        );
        Ok(())
    })
    .await?;
    until_well(&stage, "a deleted checkpoint").await?;

    // With neither it begins where it once began: all of it again, and nothing lost.
    let pod = stage.pod().await?;
    stage.operator.signal(Signal::SIGSTOP)?;
    stage.scene.kubectl(&["delete", place], "").await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    stage.scene.kubectl(&["delete", "pod", name], "").await?;
    defender.produce(10);
    let counts = until_all_arrived(&defender, &[&rsyslog]).await?;
    eventually(PATIENCE, async || {
        ensure!(counts_again(&rsyslog, &old)?, "not everything came again: {counts:?}");
        Ok(())
    })
    .await?;
    stage.operator.signal(Signal::SIGCONT)
}

/// Whether each of these ids has come twice at least.
fn counts_again(rsyslog: &Rsyslog, ids: &[String]) -> Result<bool> {
    let counts = counts(&rsyslog.lines()?);
    Ok(ids.iter().all(|id| counts.get(id).is_some_and(|count| *count >= 2)))
}

#[tokio::test]
async fn outages_and_broken_pods_are_named_and_mend_by_themselves() -> Result<()> {
    let stage = Stage::new().await?;
    let defender = Defender::start(portal(20)).await?;
    let mut rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    stage.apply("soc", &defender.url(), rsyslog.port, "").await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    until_all_arrived(&defender, &[&rsyslog]).await?;

    rsyslog.end(Signal::SIGKILL)?;
    defender.produce(10);
    let agent = eventually(2 * PATIENCE, async || {
        let agent = stage.scene.until("siemagent/soc", |_| true).await?;
        ensure!(
            condition(&agent, "Ready")["reason"] == "TargetUnreachable",
            "{:#}",
            agent["status"]
        );
        Ok(agent)
    })
    .await?;
    assert_eq!(condition(&agent, "Delivering")["status"], "False");
    assert_eq!(condition(&agent, "TokenValid")["status"], "True");
    assert_eq!(agent["status"]["state"], "Connected");
    stage
        .until_metric("siemagent_delivery_lag_seconds{", |series| {
            series.iter().any(|(_, lag)| *lag > 60.0)
        })
        .await?;
    stage.scene.until("siemagent/soc", |it| it["status"]["lag"] == "<5m").await?;
    rsyslog.again().await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    until_all_arrived(&defender, &[&rsyslog]).await?;

    let missing = "  forwarder: {image: nowhere:1}\n";
    stage.apply("soc", &defender.url(), rsyslog.port, missing).await?;
    let agent = stage.scene.until_ready_is("soc", "ImagePullBackOff").await?;
    assert_eq!(condition(&agent, "WorkloadAvailable")["reason"], "ImagePullBackOff");
    let broken = "  forwarder: {image: \"broken:1\"}\n";
    stage.apply("soc", &defender.url(), rsyslog.port, broken).await?;
    stage.scene.until_ready_is("soc", "CrashLoopBackOff").await?;
    let nowhere = "  forwarder: {nodeSelector: {kubernetes.io/hostname: nowhere}}\n";
    stage.apply("soc", &defender.url(), rsyslog.port, nowhere).await?;
    stage.scene.until_ready_is("soc", "Unschedulable").await?;
    stage.apply("soc", &defender.url(), rsyslog.port, "").await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    defender.produce(10);
    until_all_arrived(&defender, &[&rsyslog]).await?;
    Ok(())
}

#[tokio::test]
async fn a_portal_that_fails_is_named_and_comes_back() -> Result<()> {
    let stage = Stage::new().await?;
    let defender = Defender::start(portal(20)).await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    stage.apply("soc", &defender.url(), rsyslog.port, "").await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    until_all_arrived(&defender, &[&rsyslog]).await?;
    for (fault, reason) in [
        (FaultKind::Cut(0), "SourceUnreachable"),
        (FaultKind::Throttle(Some("5".to_owned())), "SourceThrottled"),
    ] {
        defender.fault(Fault { n_requests: None, ..Fault::once(fault) });
        defender.produce(10);
        let agent = eventually(3 * PATIENCE, async || {
            let agent = stage.scene.until("siemagent/soc", |_| true).await?;
            ensure!(condition(&agent, "Ready")["reason"] == reason, "{:#}", agent["status"]);
            Ok(agent)
        })
        .await?;
        assert_eq!(condition(&agent, "Delivering")["status"], "False");
        assert_eq!(condition(&agent, "TokenValid")["status"], "True", "as last seen");
        assert_eq!(agent["status"]["state"], "Connected");
        let is_late = |series: &[(String, f64)]| series.iter().any(|(_, lag)| *lag > 60.0);
        stage.until_metric("siemagent_delivery_lag_seconds{", is_late).await?;
        stage.scene.until("siemagent/soc", |it| it["status"]["lag"] == "<5m").await?;
        defender.clear_faults();
        // The forwarder waits longer and longer between its tries.
        let until = Instant::now() + 3 * PATIENCE;
        while stage.scene.until_ready_is("soc", "Delivering").await.is_err() {
            ensure!(Instant::now() < until, "{reason} stays");
        }
        until_all_arrived(&defender, &[&rsyslog]).await?;
    }
    Ok(())
}
