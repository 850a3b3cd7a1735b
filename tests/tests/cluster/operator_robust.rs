//! What may happen to an operator: it is killed, paused, cut off, meets another one, or a CRD that is not its own.

mod openshift;
mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use siem_agent_sim::control_plane::{ControlPlane, Request};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::{ACCOUNT, Operator, Place};
use siem_agent_tests::cut::Wire;
use siem_agent_tests::gateway::{Gateway, Manner};
use siem_agent_tests::scene::{Scene, condition};
use tokio::time::{Instant, sleep, sleep_until};

/// A lease of 15 s, looked at every second, and time to begin on a slow machine.
const TAKEOVER: Duration = Duration::from_secs(40);
/// Less than any lease: nobody has waited for one.
const AT_ONCE: Duration = Duration::from_secs(12);
const MORE: &str = "  forwarder: {persistence: {enabled: true}, networkPolicy: {enabled: true}}\n";

fn manifest(name: &str, more: &str) -> String {
    Manifest::new(name).more(more).to_string()
}

async fn apply(scene: &Scene, name: &str, more: &str) -> Result<()> {
    scene.kubectl(&["apply", "-f", "-"], &manifest(name, more)).await.map(drop)
}

/// A change by hand that somebody has to put back: the sign that somebody writes.
async fn disturb(scene: &Scene) -> Result<()> {
    let patch = json!({"data": {"live.yaml": "nonsense"}}).to_string();
    scene.kubectl(&["patch", "configmap/soc-config", "-p", &patch], "").await.map(drop)
}

async fn until_put_back(scene: &Scene, patience: Duration) -> Result<Duration> {
    let began = Instant::now();
    while scene.until("configmap/soc-config", |_| true).await?["data"]["live.yaml"] == "nonsense" {
        ensure!(began.elapsed() < patience, "nobody has put it back within {patience:?}");
        sleep(LOOK).await;
    }
    Ok(began.elapsed())
}

/// Which operator sent a request: the last word of its name for itself.
fn sender(request: &Request) -> &str {
    request.agent.rsplit(' ').next().unwrap_or_default()
}

/// No operator writes between two writes of another one.
fn one_writer_at_a_time(writes: &[Request]) -> Result<()> {
    let mut writes: Vec<_> = writes.iter().collect();
    writes.sort_by(|one, other| one.received.cmp(&other.received));
    let mut turns: Vec<&str> = writes.iter().map(|write| sender(write)).collect();
    turns.dedup();
    let distinct: BTreeSet<_> = turns.iter().collect();
    ensure!(turns.len() == distinct.len(), "writers took turns: {turns:?}: {writes:#?}");
    Ok(())
}

/// How long nobody held the Lease, each time that it changed hands: from one's last word to the other's first.
fn takeovers(requests: &[Request], user: &str) -> Result<Vec<jiff::SignedDuration>> {
    let is_ours = |request: &&Request| {
        request.resource == "leases"
            && request.writes()
            && request.code < 300
            && request.user == user
    };
    let mut words = Vec::new();
    for request in requests.iter().filter(is_ours) {
        words.push((request.received.parse::<jiff::Timestamp>()?, sender(request)));
    }
    words.sort();
    let pairs = words.windows(2).filter(|pair| pair[0].1 != pair[1].1);
    Ok(pairs.map(|pair| pair[1].0.duration_since(pair[0].0)).collect())
}

/// Twenty seconds after the holder is lost, whose last word is 2.2 s old by then at the most.
fn each_within_twenty_seconds(scene: &Scene, position: u64, n: usize) -> Result<()> {
    let takeovers = takeovers(&scene.plane.requests_since(position)?, &scene.place.user())?;
    ensure!(takeovers.len() == n, "{takeovers:?}");
    ensure!(takeovers.iter().all(|took| took.as_secs() < 22), "{takeovers:?}");
    Ok(())
}

#[tokio::test]
async fn a_killed_holder_is_replaced_and_a_paused_one_writes_no_more() -> Result<()> {
    let scene = Scene::new().await?;
    let position = scene.plane.audit_position()?;
    let first = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc", "").await?;
    scene.until_ready_is("soc", "Progressing").await?;
    scene.until("configmap/soc-config", |_| true).await?;
    let second = Operator::start(&scene.place, &[]).await?;
    let leads = async |operator: &Operator| -> Result<bool> {
        let series = operator.series("leader_election_master_status{").await?;
        Ok(series.iter().any(|(_, value)| *value > 0.5))
    };
    ensure!(leads(&first).await? && !leads(&second).await?);
    ensure!(second.series("siemagent_info").await?.is_empty(), "agents' series are the leader's");

    // Paused past its lease; what it had in hand when it wakes up is not written.
    first.signal(Signal::SIGSTOP)?;
    disturb(&scene).await?;
    let took = until_put_back(&scene, TAKEOVER).await?;
    println!("takeover from a paused holder: {took:?}");
    first.signal(Signal::SIGCONT)?;
    for _ in 0..3 {
        disturb(&scene).await?;
        until_put_back(&scene, AT_ONCE).await?;
        sleep(Duration::from_millis(500)).await;
    }
    ensure!(!leads(&first).await? && leads(&second).await?);
    one_writer_at_a_time(&scene.writes_since(position)?)?;

    // Killed.
    drop(second);
    disturb(&scene).await?;
    let took = until_put_back(&scene, TAKEOVER).await?;
    println!("takeover from a killed holder: {took:?}");
    each_within_twenty_seconds(&scene, position, 2)?;

    // Ended in order: the lease is released, and nobody waits for it.
    let third = Operator::start(&scene.place, &[]).await?;
    let log = first.terminate().await?;
    ensure!(log.contains("the lease is released"), "{log}");
    disturb(&scene).await?;
    let took = until_put_back(&scene, AT_ONCE).await?;
    println!("takeover from one that has ended in order: {took:?}");
    drop(third);
    Ok(())
}

#[tokio::test]
async fn a_holder_that_is_cut_off_stops_and_comes_back() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let wire = Wire::to(plane.port()).await?;
    let mut scene = Scene::new().await?;
    let direct = scene.place.clone();
    let position = scene.plane.audit_position()?;
    let url = format!("https://127.0.0.1:{}", wire.port);
    scene.place = Place::behind(plane, &scene.namespace, &url).await?;
    let first = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc", "").await?;
    scene.until_ready_is("soc", "Progressing").await?;
    scene.until("configmap/soc-config", |_| true).await?;
    let second = Operator::start(&direct, &[]).await?;
    // What is on the wire when it is cut arrives when it is mended: nobody can call it back. The
    // status is written once more when the rollout's grace of 10 s is over.
    scene.until_quiet(Duration::from_secs(12)).await?;

    wire.cut();
    let cut = Instant::now();
    disturb(&scene).await?;
    let took = until_put_back(&scene, TAKEOVER).await?;
    println!("takeover from one that is cut off: {took:?}");
    sleep_until(cut + Duration::from_secs(30)).await;
    wire.mend();
    for _ in 0..5 {
        disturb(&scene).await?;
        until_put_back(&scene, AT_ONCE).await?;
        sleep(Duration::from_secs(1)).await;
    }
    one_writer_at_a_time(&scene.writes_since(position)?)?;
    each_within_twenty_seconds(&scene, position, 1)?;
    // The one that was cut off still is there, and takes over when it has to.
    second.terminate().await?;
    disturb(&scene).await?;
    until_put_back(&scene, TAKEOVER).await?;
    drop(first);
    Ok(())
}

/// Five objects and a status.
const N_LEAST: usize = 6;
/// Objects that do not need each other are written at once.
const N_AT_ONCE: usize = 4;

/// Everything that an agent owns and its conditions, without what differs from one world to the next.
async fn end_state(scene: &Scene) -> Result<Value> {
    let what = "serviceaccount/soc-forwarder configmap/soc-config deployment/soc-forwarder \
                persistentvolumeclaim/soc-state networkpolicy/soc-forwarder siemagent/soc";
    let agent = scene.get("siemagent/soc").await?.context("the agent")?["metadata"].take();
    let deployment = scene.get("deployment/soc-forwarder").await?.context("the Deployment")?;
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    let its_own = [
        &agent["uid"],
        &agent["creationTimestamp"],
        &annotations["siemagent.dev/config-hash"],
        &agent["namespace"],
    ];
    let mut state = BTreeMap::new();
    for what in what.split(' ') {
        let mut object = scene.get(what).await?.with_context(|| format!("{what} is missing"))?;
        let metadata = object["metadata"].take();
        object["metadata"] = json!({
            "labels": metadata["labels"], "owner": metadata["ownerReferences"][0]["name"],
        });
        if what == "siemagent/soc" {
            let ready = condition(&object, "Ready");
            object = json!({"reason": ready["reason"], "state": object["status"]["state"]});
        } else {
            object["status"].take();
            object["secrets"].take();
        }
        let mut text = object.to_string();
        for own in its_own.iter().filter_map(|own| own.as_str()) {
            text = text.replace(own, "ITS-OWN");
        }
        state.insert(what, text);
    }
    Ok(json!(state))
}

#[tokio::test]
async fn killed_after_every_write_it_comes_to_the_same_end() -> Result<()> {
    let undisturbed = Scene::new().await?;
    let _operator = Operator::start(&undisturbed.place, &[]).await?;
    let position = undisturbed.plane.audit_position()?;
    apply(&undisturbed, "soc", MORE).await?;
    undisturbed.until_ready_is("soc", "Progressing").await?;
    undisturbed.until_quiet(Duration::from_secs(3)).await?;
    let n_writes = undisturbed.writes_since(position)?.len();
    ensure!(n_writes >= N_LEAST, "five objects and a status: {n_writes}");
    let expected = end_state(&undisturbed).await?;
    let killed = (1..=n_writes).map(async |n| {
        let mut scene = Scene::new().await?;
        // The n-th write is the last that reaches the server, but for those that are under way beside it, and the operator
        // never has its answer.
        let gateway = Gateway::to(scene.plane, Manner::CutAfterWrite(n)).await?;
        let direct = scene.place.clone();
        scene.place = Place::behind(scene.plane, &scene.namespace, &gateway.url()).await?;
        let operator = Operator::start(&scene.place, &[]).await?;
        let position = scene.plane.audit_position()?;
        apply(&scene, "soc", MORE).await?;
        let until = Instant::now() + PATIENCE;
        while gateway.n_writes() < n {
            // A status may be told in one write or in two; five objects and a status there always are.
            let is_over = n > N_LEAST && scene.until_quiet(Duration::from_secs(3)).await.is_ok();
            ensure!(Instant::now() < until, "no {n} writes");
            if is_over {
                break;
            }
            sleep(LOOK).await;
        }
        // The gateway knows of an answer by its head; the server may write it down a moment later.
        let mut n_written = scene.writes_since(position)?.len();
        while n_written < n && gateway.n_writes() >= n {
            ensure!(Instant::now() < until, "{n_written} writes, not {n}");
            sleep(LOOK).await;
            n_written = scene.writes_since(position)?.len();
        }
        let is_cut = (n..n + N_AT_ONCE).contains(&n_written);
        ensure!(is_cut || (n > N_LEAST && n_written < n), "{n_written} writes, not {n}");
        operator.signal(Signal::SIGKILL)?;
        drop(operator);
        let _operator = Operator::start(&direct, &[]).await?;
        scene.until("deployment/soc-forwarder", |_| true).await?;
        scene.until_ready_is("soc", "Progressing").await?;
        scene.until_quiet(Duration::from_secs(3)).await?;
        assert_eq!(end_state(&scene).await?, expected, "killed after write {n}");
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(killed).await?;
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_refuses_or_hangs_is_waited_for() -> Result<()> {
    let cases = [Manner::Answer(429), Manner::Answer(503), Manner::Hang].map(async |manner| {
        let mut scene = Scene::new().await?;
        let gateway = Gateway::to(scene.plane, Manner::Open).await?;
        scene.place = Place::behind(scene.plane, &scene.namespace, &gateway.url()).await?;
        let mut operator = Operator::start(&scene.place, &[]).await?;
        apply(&scene, "soc", "").await?;
        scene.until_ready_is("soc", "Progressing").await?;
        scene.until_quiet(Duration::from_secs(3)).await?;
        // The open watches show the change; longer than a request's time-out, and long enough to lose the lease.
        gateway.set_manner(manner);
        disturb(&scene).await?;
        sleep(Duration::from_secs(12)).await;
        ensure!(gateway.n_spoilt() > 1, "{manner:?} was not met");
        ensure!(!operator.has_ended()?, "{manner:?}: {}", operator.log());
        operator.get("livez").await?;
        gateway.set_manner(Manner::Open);
        until_put_back(&scene, Duration::from_secs(30)).await?;
        if let Manner::Answer(code) = manner {
            let refused = format!("rest_client_requests_total{{code=\"{code}\"");
            let series = operator.series(&refused).await?;
            ensure!(series.iter().any(|(_, n)| *n > 0.5), "{refused}: {series:?}");
        }
        ensure!(!operator.log().contains("panic"), "{}", operator.log());
        anyhow::Ok(())
    });
    futures_util::future::try_join_all(cases).await.map(drop)
}

/// How today's servers make an object is written down nowhere; one that is stricter costs a look and another try.
#[tokio::test]
async fn an_api_server_that_makes_nothing_of_a_version_is_asked_first() -> Result<()> {
    let mut scene = Scene::new().await?;
    let gateway = Gateway::to(scene.plane, Manner::MakeNothingOfAVersion).await?;
    scene.place = Place::behind(scene.plane, &scene.namespace, &gateway.url()).await?;
    let _operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc", MORE).await?;
    for object in [
        "deployment/soc-forwarder",
        "networkpolicy/soc-forwarder",
        "persistentvolumeclaim/soc-state",
    ] {
        scene.until(object, |_| true).await?;
    }
    scene.until_ready_is("soc", "Progressing").await?;
    assert_eq!(gateway.n_spoilt(), 5, "one refusal an object");
    Ok(())
}

#[tokio::test]
async fn a_write_that_comes_too_late_is_refused_and_decided_anew() -> Result<()> {
    let mut scene = Scene::new().await?;
    let gateway = Gateway::to(scene.plane, Manner::Open).await?;
    scene.place = Place::behind(scene.plane, &scene.namespace, &gateway.url()).await?;
    let _operator = Operator::start(&scene.place, &[]).await?;
    apply(&scene, "soc", "").await?;
    scene.until_ready_is("soc", "Progressing").await?;
    scene.until_quiet(Duration::from_secs(3)).await?;
    let position = scene.plane.audit_position()?;
    gateway.set_manner(Manner::HoldWrites);
    let before = gateway.n_spoilt();
    disturb(&scene).await?;
    let until = Instant::now() + PATIENCE;
    while gateway.n_spoilt() == before {
        ensure!(Instant::now() < until, "nobody puts it back");
        sleep(Duration::from_millis(5)).await;
    }
    // Somebody else is quicker.
    scene.kubectl(&["label", "configmap/soc-config", "example.com/quicker=yes"], "").await?;
    gateway.set_manner(Manner::Open);
    until_put_back(&scene, PATIENCE).await?;
    let writes = scene.writes_since(position)?;
    let codes: Vec<_> =
        writes.iter().filter(|write| write.name == "soc-config").map(|write| write.code).collect();
    assert_eq!((codes.first(), codes.last()), (Some(&409), Some(&200)), "{writes:?}");
    let config = scene.get("configmap/soc-config").await?.context("the ConfigMap")?;
    assert_eq!(config["metadata"]["labels"]["example.com/quicker"], "yes");
    Ok(())
}

#[tokio::test]
async fn another_release_is_tried_on_one_agent_first() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &["--forwarder-image", "release:1"]).await?;
    for n in 0..12 {
        apply(&scene, &format!("a{n}"), "").await?;
    }
    apply(&scene, "pinned", "  forwarder: {image: \"pinned:1\"}\n").await?;
    for n in 0..12 {
        scene.until_ready_is(&format!("a{n}"), "Progressing").await?;
    }
    scene.until_quiet(Duration::from_secs(3)).await?;
    operator.terminate().await?;
    let _operator = Operator::start(&scene.place, &["--forwarder-image", "release:2"]).await?;
    scene.until_quiet(Duration::from_secs(8)).await?;
    let deployments = scene.get("deployments").await?.context("list")?;
    let images: Vec<_> = deployments["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|deployment| deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone())
        .collect();
    let n_of = |image: &str| images.iter().filter(|it| **it == image).count();
    // No pod ever runs here, so the first roll-out does not end.
    assert_eq!((n_of("release:2"), n_of("release:1"), n_of("pinned:1")), (1, 11, 1));
    let agents = scene.get("siemagents").await?.context("list")?;
    let queued = agents["items"].as_array().into_iter().flatten();
    let queued =
        queued.filter(|agent| condition(agent, "Reconciling")["reason"] == "RolloutQueued");
    assert_eq!(queued.count(), 11);
    Ok(())
}
