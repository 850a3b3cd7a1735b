//! The forwarder dies at any moment, at every exact place, and with its state: nothing is lost.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use siem_agent_crds::checkpoint::{self as kept, Checkpoint};
use siem_agent_crds::report::{Report, Stream};
use siem_agent_sim::arrival::{all_arrived, quick};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, LOOK, PATIENCE};
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use tokio::time::{Instant, sleep};

async fn over_tcp(defender: &Defender) -> Result<(Rsyslog, Forwarder)> {
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port);
    let forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    Ok((rsyslog, forwarder))
}

#[tokio::test]
async fn a_forwarder_killed_every_second_for_half_a_minute_loses_nothing() -> Result<()> {
    let mut defender = Defender::start(quick(200.0, 5_000)).await?;
    let (rsyslog, mut forwarder) = over_tcp(&defender).await?;
    for _ in 0..30 {
        forwarder.start().await?;
        // The length of each life is what the test is about.
        sleep(Duration::from_secs(1)).await;
        forwarder.kill()?;
    }
    forwarder.start().await?;
    defender.quiet();
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    Ok(())
}

/// Lets the forwarder die at a failpoint again and again, each time a little later, then lets it live.
async fn dies_at(failpoint: &str) -> Result<()> {
    let mut defender = Defender::start(quick(100.0, 2_000)).await?;
    let (rsyslog, mut forwarder) = over_tcp(&defender).await?;
    for n_passed in [0, 1, 2, 5, 9] {
        forwarder.set_failpoints(Some(&format!("{failpoint}={n_passed}*off->return")));
        let died = forwarder.start().await.is_err();
        // A save that took long lets the next one wait twenty times as long.
        eventually(5 * PATIENCE, async || {
            ensure!(
                died || forwarder.ended()?.is_some(),
                "it does not die at {failpoint}; `cargo test --workspace --no-run` builds it with failpoints: {}",
                forwarder.log()?
            );
            Ok(())
        })
        .await?;
        let status = forwarder.ended()?.context("it has died")?;
        ensure!(!status.success(), "dying is no success: {status}");
    }
    forwarder.set_failpoints(None);
    forwarder.start().await?;
    defender.quiet();
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    Ok(())
}

#[tokio::test]
async fn dying_between_confirmation_and_save_loses_nothing() -> Result<()> {
    dies_at("after_confirmation").await
}

#[tokio::test]
async fn dying_before_the_rename_loses_nothing() -> Result<()> {
    dies_at("before_rename").await
}

#[tokio::test]
async fn dying_between_two_bytes_of_the_state_file_loses_nothing() -> Result<()> {
    dies_at("between_bytes").await
}

/// A full or vanished disk stops no delivery: it is told, counted, and made good when it can be.
#[tokio::test]
async fn a_checkpoint_that_cannot_be_saved_is_counted_until_it_can() -> Result<()> {
    let defender = Defender::start(quick(0.0, 200)).await?;
    let (rsyslog, mut forwarder) = over_tcp(&defender).await?;
    forwarder.start().await?;
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    let failures = "siem_forwarder_checkpoint_save_failures_total";
    ensure!(forwarder.metric(failures).await? < 1.0, "nothing has failed");
    let (state, away) = (forwarder.state(), forwarder.state().with_extension("away"));
    fs::rename(&state, &away)?;
    let until = Instant::now() + PATIENCE;
    while forwarder.metric(failures).await? < 1.0 {
        ensure!(Instant::now() < until, "a failed save is not counted: {}", forwarder.log()?);
        defender.produce(10);
        sleep(LOOK).await;
    }
    ensure!(forwarder.log()?.contains("cannot save the checkpoint"), "{}", forwarder.log()?);
    fs::rename(&away, &state)?;
    defender.produce(10);
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    ensure!(forwarder.terminate().await?.success());
    forwarder.start().await?;
    defender.produce(10);
    let counts = all_arrived(&defender, &rsyslog, &forwarder).await?;
    ensure!(counts.values().all(|count| *count == 1), "the last save holds everything");
    Ok(())
}

/// What the operator keeps of a report.
fn kept_of(told: Report) -> Checkpoint {
    Checkpoint {
        version: kept::VERSION,
        agent_uid: "uid-1".to_owned(),
        source: told.checkpoint.source,
        exported: told.streams.keys().copied().collect(),
        positions: told.checkpoint.positions,
    }
}

#[tokio::test]
async fn a_forwarder_without_a_file_goes_on_at_what_the_operator_keeps() -> Result<()> {
    let defender = Defender::start(quick(0.0, 1_000)).await?;
    let (rsyslog, mut forwarder) = over_tcp(&defender).await?;
    let folder = forwarder.run_by_config("uid-1")?;
    forwarder.start().await?;
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    let told = eventually(PATIENCE, async || {
        let report: Report = serde_json::from_str(&forwarder.get("status").await?)?;
        let n_alerts = defender.produced().iter().filter(|(of, _)| *of == Stream::Alerts).count();
        let caught_up = |report: &Report| {
            report.streams.values().all(|stream| stream.lag_seconds.is_some_and(|lag| lag < 10.0))
        };
        let alerts = report.checkpoint.positions.get(&Stream::Alerts);
        let n_kept = alerts.map_or(0, |at| at.position.ids().len());
        ensure!(
            n_kept == n_alerts && caught_up(&report),
            "the report says what is delivered: {report:?}"
        );
        Ok(report)
    })
    .await?;
    forwarder.kill()?;
    fs::remove_dir_all(forwarder.state())?;
    fs::write(folder.join(kept::KEY), kept_of(told).write()?)?;
    defender.produce(50);
    forwarder.start().await?;
    let counts = all_arrived(&defender, &rsyslog, &forwarder).await?;
    // An hour of history, half a minute of overlap.
    let n_repeated = counts.values().filter(|count| **count > 1).count();
    ensure!(n_repeated < 50, "{n_repeated} repeated, though the overlap holds a few only");
    Ok(())
}

#[tokio::test]
async fn what_lies_beyond_the_retention_is_told_once() -> Result<()> {
    const DAY_MS: i64 = 24 * 3_600_000;
    let defender = Defender::start(quick(0.0, 100)).await?;
    let (rsyslog, mut forwarder) = over_tcp(&defender).await?;
    let folder = forwarder.run_by_config("uid-1")?;
    forwarder.start().await?;
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    let told: Report = serde_json::from_str(&forwarder.get("status").await?)?;
    forwarder.kill()?;
    fs::remove_dir_all(forwarder.state())?;
    let mut kept = kept_of(told);
    let long_ago = siem_agent_sim::clock::millis() - 200 * DAY_MS;
    kept.positions.entry(Stream::Activities).and_modify(|at| at.through = long_ago);
    fs::write(folder.join(kept::KEY), kept.write()?)?;
    forwarder.start().await?;
    // Several polls, of which the first one meets it.
    let n_asked = defender.requests().len();
    eventually(PATIENCE, async || {
        ensure!(
            defender.requests().len() >= n_asked + 8,
            "it stopped asking: {}",
            forwarder.log()?
        );
        Ok(())
    })
    .await?;
    let days = forwarder.metric("siem_forwarder_gap_seconds_total").await? / 86_400.0;
    ensure!((19.9..20.1).contains(&days), "{days} days of a gap");
    let log = forwarder.log()?;
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("events lost")).collect();
    let [line] = lines[..] else { anyhow::bail!("told once: {log}") };
    ensure!(line.contains("WARN") && line.contains("activities"), "{line}");
    ensure!(line.contains("retention"), "{line}");
    Ok(())
}
