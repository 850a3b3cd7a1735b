//! Microsoft Graph as a source, with kubectl, real forwarders in pods and a real rsyslogd: beside the portal, in its place
//! and back, and whose requests are whose.

mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use siem_agent_crds::checkpoint::Checkpoint;
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival::{self, Receiver as _, quick};
use siem_agent_sim::clock;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Endpoint, Fault, FaultKind, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::scene::condition;

use crate::operator_live::stage::{Stage, until_all_arrived};

const AGENT: &str = "siemagent/soc";
/// As the manifest spells it; positions name it in lower case.
const TENANT: &str = "Contoso.com";
const GRAPH: &str = "graph:contoso.com";
/// A row may show up this much later than those that were ingested after it, which is far more than the portal's overlap.
const OUT_OF_ORDER: Duration = Duration::from_secs(90);

/// `spec.source.cloudApps`.
fn portal(defender: &Defender) -> Value {
    json!({"url": defender.url(), "requestsPerMinute": 6000, "pollInterval": "1s", "overlap": "30s"})
}

/// `spec.source.graph`.
fn graph(defender: &Defender) -> Value {
    json!({"url": defender.url(), "requestsPerMinute": 6000, "pollInterval": "1s", "overlap": "2m"})
}

/// `spec.source.auth`: one application for every source.
fn application(defender: &Defender) -> Value {
    json!({"clientCredentials": {
        "tenantId": TENANT, "clientId": "00000000-0000-0000-0000-000000000000",
        "clientSecretRef": {"name": "defender", "key": "token"}, "authorityUrl": defender.url(),
    }})
}

/// An agent with these APIs, each as `cloudApps: {…}`.
fn agent(name: &str, apis: &Value, defender: &Defender, port: u16) -> Manifest {
    let mut source = apis.clone();
    source["auth"] = application(defender);
    let fields = source.to_string();
    let fields = fields.trim_start_matches('{').strip_suffix('}').unwrap_or_default();
    Manifest::new(name).source(fields).to("127.0.0.1", port)
}

async fn apply(stage: &Stage, manifest: &Manifest) -> Result<()> {
    stage.scene.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await.map(drop)
}

/// Gives the agent one API in place of all others, as a user does.
async fn switch(stage: &Stage, cloud_apps: Value, graph: Value) -> Result<()> {
    let patch = json!({"spec": {"source": {"cloudApps": cloud_apps, "graph": graph}}}).to_string();
    stage.scene.kubectl(&["patch", AGENT, "--type=merge", "-p", &patch], "").await.map(drop)
}

/// The status of a stream.
fn stream(agent: &Value, stream: Stream) -> Value {
    let streams = agent["status"]["streams"].as_array().cloned().unwrap_or_default();
    streams.into_iter().find(|it| it["name"] == stream.as_str()).unwrap_or_default()
}

fn sources(agent: &Value) -> [Value; 2] {
    [Stream::Alerts, Stream::Activities].map(|it| stream(agent, it)["source"].clone())
}

/// The ids of a stream that have been made.
fn ids(defender: &Defender, of: Stream) -> BTreeSet<String> {
    defender.produced().into_iter().filter(|(it, _)| *it == of).map(|(_, id)| id).collect()
}

async fn until_arrived(receiver: &Rsyslog, ids: &BTreeSet<String>) -> Result<()> {
    eventually(PATIENCE, async || {
        let arrived = arrival::counts(&receiver.lines()?);
        let missing = ids.iter().find(|id| !arrived.contains_key(*id));
        ensure!(missing.is_none(), "{missing:?} is not there");
        Ok(())
    })
    .await
}

/// Waits, longer than a forwarder does between two tries, until it is ready with its present spec.
async fn until_ready(stage: &Stage) -> Result<Value> {
    eventually(3 * PATIENCE, async || {
        let agent = stage.scene.get(AGENT).await?.context("the agent")?;
        let ready = condition(&agent, "Ready");
        let is_present = ready["observedGeneration"] == agent["metadata"]["generation"];
        ensure!(ready["status"] == "True" && is_present, "{:#}", agent["status"]);
        Ok(agent)
    })
    .await
}

#[tokio::test]
async fn of_two_sources_the_one_that_dies_is_named_and_the_other_delivers_on() -> Result<()> {
    let stage = Stage::new().await?;
    let defender = Defender::start(quick(0.0, 100)).await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    let both = json!({"cloudApps": portal(&defender), "graph": graph(&defender)});
    apply(&stage, &agent("soc", &both, &defender, rsyslog.port)).await?;
    let agent = stage.scene.until_ready_is("soc", "Delivering").await?;
    assert_eq!(sources(&agent), ["Graph", "CloudApps"]);
    assert_eq!(agent["status"]["token"]["state"], "Valid");
    until_all_arrived(&defender, &[&rsyslog]).await?;
    let asked: BTreeSet<_> = defender.requests().iter().map(|request| request.what).collect();
    assert_eq!(asked, ["activities", "graph-alerts", "token"].into(), "each API for its stream");

    for (endpoint, name, dead, lives) in [
        (Endpoint::GraphAlerts, "Graph", Stream::Alerts, Stream::Activities),
        (Endpoint::Records(Stream::Activities), "CloudApps", Stream::Activities, Stream::Alerts),
    ] {
        let before = ids(&defender, dead);
        let endpoint = Some(endpoint);
        let dies = Fault { n_requests: None, endpoint, ..Fault::once(FaultKind::Status(503)) };
        defender.fault(dies);
        defender.produce(60);
        until_arrived(&rsyslog, &ids(&defender, lives)).await?;
        let agent = eventually(3 * PATIENCE, async || {
            let agent = stage.scene.get(AGENT).await?.context("the agent")?;
            let ready = condition(&agent, "Ready");
            ensure!(ready["reason"] == "SourceUnreachable", "{:#}", agent["status"]);
            ensure!(stream(&agent, dead)["lag"] != "<1m", "{:#}", agent["status"]);
            Ok(agent)
        })
        .await?;
        let said = condition(&agent, "Ready")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(said.starts_with(&format!("{name}: ")) && said.contains("503"), "{said}");
        assert_eq!(stream(&agent, lives)["lag"], "<1m", "{:#}", agent["status"]);
        assert_eq!(condition(&agent, "TokenValid")["status"], "True", "as last seen");
        // Still: what is made an outage later is delivered by the one that lives.
        defender.produce(60);
        until_arrived(&rsyslog, &ids(&defender, lives)).await?;
        let arrived = arrival::counts(&rsyslog.lines()?);
        let n_held = ids(&defender, dead).iter().filter(|id| !arrived.contains_key(*id)).count();
        assert_eq!(n_held, ids(&defender, dead).len() - before.len(), "{name} gives nothing");
        defender.clear_faults();
        let agent = until_ready(&stage).await?;
        assert_eq!(sources(&agent), ["Graph", "CloudApps"]);
        let arrived = until_all_arrived(&defender, &[&rsyslog]).await?;
        ensure!(arrived.values().all(|count| *count == 1), "an outage repeats nothing");
    }
    Ok(())
}

/// The sources that the checkpoint's positions name, once the operator has kept what was delivered by this time.
async fn until_kept(stage: &Stage, at: i64, expected: &str) -> Result<Checkpoint> {
    eventually(3 * PATIENCE, async || {
        let agent = stage.scene.get(AGENT).await?.context("the agent")?;
        let kept = stage.scene.get("configmap/soc-checkpoint").await?.context("a checkpoint")?;
        let text = kept["data"]["checkpoint.json"].as_str().unwrap_or_default();
        let uid = agent["metadata"]["uid"].as_str().unwrap_or_default();
        let kept = Checkpoint::read(text, uid, Timestamp::from_millisecond(clock::millis())?)?;
        for stream in [Stream::Alerts, Stream::Activities] {
            ensure!(kept.source_of(stream) == Some(expected), "{kept:?}");
            ensure!(kept.through(stream) >= Some(at), "{kept:?}");
        }
        Ok(kept)
    })
    .await
}

/// Waits until everything up to this time, in milliseconds, is delivered; the status says so by buckets alone.
async fn until_through(stage: &Stage, at: i64) -> Result<()> {
    let name = "siemagent_delivered_through_timestamp_seconds{";
    let at = Duration::from_millis(u64::try_from(at)?).as_secs_f64();
    eventually(2 * PATIENCE, async || {
        let series = stage.operator.series(name).await?;
        ensure!(series.len() == 2 && series.iter().all(|(_, it)| *it >= at), "{series:?}");
        Ok(())
    })
    .await
}

/// A tenant under traffic, with alerts and activities that are older than any overlap.
async fn busy() -> Result<(Defender, BTreeSet<String>)> {
    let options = Options { out_of_order: OUT_OF_ORDER, alert_rate: Some(0.5), ..quick(5.0, 0) };
    let defender = Defender::start(options).await?;
    for stream in [Stream::Alerts, Stream::Activities] {
        defender.produce_at(stream, 40, Duration::from_secs(3 * 3_600));
    }
    let old = defender.produced().into_iter().map(|(_, id)| id).collect();
    Ok((defender, old))
}

/// Nothing is lost, and these are there once.
async fn all_arrived(
    defender: &Defender,
    receiver: &Rsyslog,
    once: &BTreeSet<String>,
) -> Result<BTreeMap<String, usize>> {
    let counts = until_all_arrived(defender, &[receiver]).await?;
    let repeated: Vec<_> = once.iter().filter(|id| counts.get(*id) != Some(&1)).collect();
    ensure!(
        repeated.is_empty(),
        "{} of {} came again, such as {repeated:?}",
        repeated.len(),
        once.len()
    );
    Ok(counts)
}

#[tokio::test]
async fn a_source_is_switched_under_traffic_and_back_without_a_loss() -> Result<()> {
    let stage = Stage::new().await?;
    let (mut defender, old) = busy().await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    // Its own state is exact, and outlives the pod.
    let portal_alone = json!({"cloudApps": portal(&defender)});
    let manifest = agent("soc", &portal_alone, &defender, rsyslog.port)
        .more("  forwarder: {persistence: {enabled: true}}\n");
    apply(&stage, &manifest).await?;
    let agent = stage.scene.until_ready_is("soc", "Delivering").await?;
    assert_eq!(sources(&agent), ["CloudApps", "CloudApps"]);
    until_arrived(&rsyslog, &old).await?;

    switch(&stage, Value::Null, graph(&defender)).await?;
    assert_eq!(sources(&until_ready(&stage).await?), ["Graph", "Graph"]);
    until_kept(&stage, clock::millis(), GRAPH).await?;
    // Some of these are not to be found by Graph yet when the portal, where they have been all along, takes over.
    defender.produce(600);
    until_through(&stage, clock::millis() + 35_000).await?;
    switch(&stage, portal(&defender), Value::Null).await?;
    assert_eq!(sources(&until_ready(&stage).await?), ["CloudApps", "CloudApps"]);
    until_kept(&stage, clock::millis(), &defender.url()).await?;

    defender.quiet();
    let mut once = old;
    once.extend(ids(&defender, Stream::Alerts));
    let counts = all_arrived(&defender, &rsyslog, &once).await?;
    let n_repeated = counts.values().filter(|count| **count > 1).count();
    println!("{n_repeated} of {} activities came again", counts.len());
    Ok(())
}

#[tokio::test]
async fn a_switch_that_loses_the_pod_resumes_where_the_operator_kept_it() -> Result<()> {
    let stage = Stage::new().await?;
    let (mut defender, mut once) = busy().await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    let portal_alone = json!({"cloudApps": portal(&defender)});
    apply(&stage, &agent("soc", &portal_alone, &defender, rsyslog.port)).await?;
    stage.scene.until_ready_is("soc", "Delivering").await?;
    let urls = [defender.url(), GRAPH.to_owned()];
    for (before, after) in [(0, 1), (1, 0)] {
        // What is kept may be a minute behind: later alerts come again, earlier ones do not.
        let known = ids(&defender, Stream::Alerts);
        until_arrived(&rsyslog, &known).await?;
        let so_far = arrival::counts(&rsyslog.lines()?);
        once.extend(known.into_iter().filter(|id| so_far.get(id) == Some(&1)));
        until_kept(&stage, clock::millis() + 1_000, &urls[before]).await?;
        let pod = stage.pod().await?;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let apis = [(portal(&defender), Value::Null), (Value::Null, graph(&defender))];
        let (cloud_apps, graph) = apis[after].clone();
        switch(&stage, cloud_apps, graph).await?;
        let now = ["delete", "pod", name, "--grace-period=0", "--force", "--ignore-not-found"];
        stage.scene.kubectl(&now, "").await?;
        defender.produce(50);
        let agent = until_ready(&stage).await?;
        let expected = ["CloudApps", "Graph"][after];
        assert_eq!(sources(&agent), [expected, expected]);
        stage.another_pod(&pod).await?;
    }
    until_kept(&stage, clock::millis(), &urls[0]).await?;
    defender.quiet();
    all_arrived(&defender, &rsyslog, &once).await.map(drop)
}
