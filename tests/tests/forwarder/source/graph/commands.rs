//! `check` and `replay` where the source is Graph.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::clock;
use siem_agent_tests::program::{Ended, forwarder};

use super::{prepare, tenant};
use crate::source::world::World;

/// A command with the manifest and the secrets of a world.
async fn run(world: &World, command: &str, more: &[&str]) -> Result<Ended> {
    let manifest = world.forwarder.manifest();
    let secrets = world.forwarder.secrets();
    let path = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
    let (manifest, secrets) = (path(&manifest)?, path(&secrets)?);
    let arguments = [command, "--manifest", &manifest, "--secrets", &secrets];
    forwarder(&[&arguments, more].concat(), "").await
}

#[tokio::test]
async fn check_reads_each_list_and_names_a_missing_permission() -> Result<()> {
    let world = prepare(tenant(200, 100)).await?;
    let Ended { code, out, err } = run(&world, "check", &[]).await?;
    ensure!(code == Some(0), "{out}{err}");
    for begins in [
        "ok   Graph, alerts: ",
        "ok   Graph, CloudAppEvents, activities: ",
        "ok   Graph, IdentityLogonEvents, activities: ",
    ] {
        ensure!(out.lines().any(|line| line.starts_with(begins)), "{begins}: {out}");
    }
    for (stream, permission, n_failed) in [
        (Stream::Activities, "ThreatHunting.Read.All", 2),
        (Stream::Alerts, "SecurityAlert.Read.All", 1),
    ] {
        world.defender.forbid(stream, true);
        let Ended { code, out, err } = run(&world, "check", &[]).await?;
        ensure!(code == Some(1), "{out}{err}");
        let failed: Vec<_> = out.lines().filter(|line| line.starts_with("FAIL")).collect();
        let advice =
            format!("Add the permission {permission} (application) and grant admin consent");
        ensure!(failed.len() == n_failed, "{out}");
        ensure!(failed.iter().all(|line| line.contains(&advice)), "{out}");
        world.defender.forbid(stream, false);
    }
    world.mount("defender", "clientSecret", "not-the-secret")?;
    let Ended { code, out, err } = run(&world, "check", &[]).await?;
    ensure!(code == Some(1) && out.contains("AADSTS7000215"), "{out}{err}");
    ensure!(!out.contains("not-the-secret") && !err.contains("not-the-secret"), "{out}{err}");
    Ok(())
}

/// The ids of a stream of which the time under this name lies in the window.
fn within(
    world: &World,
    stream: Stream,
    (time, id): (&str, &str),
    (from, to): (Timestamp, Timestamp),
) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    for record in world.defender.graph_records(stream) {
        let json: Value = serde_json::from_str(&record)?;
        let at: Timestamp = json[time].as_str().context("a time")?.parse()?;
        if (from..=to).contains(&at) {
            ids.insert(json[id].as_str().context("an id")?.to_owned());
        }
    }
    Ok(ids)
}

#[tokio::test]
async fn replay_delivers_each_id_of_the_window_once() -> Result<()> {
    let world = prepare(tenant(3_000, 4_000)).await?;
    // Between two records: they are listed at whole tenths of a second.
    let now = Timestamp::from_millisecond(clock::millis() / 100 * 100 + 50)?;
    let (from, to) = (now - 40.minutes(), now - 20.minutes());
    let texts = (from.to_string(), to.to_string());
    let window = ["--from", &texts.0, "--to", &texts.1];
    let alerts =
        within(&world, Stream::Alerts, ("createdDateTime", "providerAlertId"), (from, to))?;
    let rows = within(&world, Stream::Activities, ("Timestamp", "ReportId"), (from, to))?;
    ensure!(alerts.len() > 1_000 && rows.len() > 500, "{} and {}", alerts.len(), rows.len());
    let Ended { code, out, err } = run(&world, "replay", &window).await?;
    ensure!(code == Some(0), "{out}{err}");
    let arrived = world.receiver.ids();
    ensure!(arrived.values().all(|count| *count == 1), "each of them once");
    let arrived: BTreeSet<String> = arrived.into_keys().collect();
    let expected: BTreeSet<String> = alerts.union(&rows).cloned().collect();
    let strange: Vec<_> = arrived.symmetric_difference(&expected).take(3).collect();
    ensure!(strange.is_empty(), "{} of {}: {strange:?}", arrived.len(), expected.len());
    for (stream, n_records) in [("alerts", alerts.len()), ("activities", rows.len())] {
        let line = format!("{stream}: {n_records} records delivered, 0 cannot be mapped");
        ensure!(out.lines().any(|it| it == line), "{line}: {out}");
    }
    // One stream alone, past faults that pass.
    world.fault("503@stream=graph-hunting");
    world.fault("cut:9000@stream=graph-hunting");
    let more = [window.as_slice(), &["--stream", "activities"]].concat();
    let Ended { code, out, err } = run(&world, "replay", &more).await?;
    ensure!(code == Some(0), "{out}{err}");
    let again = world.receiver.ids();
    ensure!(rows.iter().all(|id| again.get(id) == Some(&2)), "each of them once more");
    ensure!(alerts.iter().all(|id| again.get(id) == Some(&1)), "and no alert");
    Ok(())
}
