//! `compare`: one window from two sources of one tenant, joined.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::forwarder::Forwarder;
use siem_agent_tests::program::{Ended, forwarder};

const SYSLOG: &str = "{host: siem.example.com}";

fn application(url: &str) -> String {
    format!(
        "auth:\n      clientCredentials:\n        tenantId: 00000000-0000-0000-0000-000000000000\n        \
         clientId: 00000000-0000-0000-0000-000000000000\n        \
         clientSecretRef: {{name: defender, key: token}}\n        authorityUrl: '{url}'"
    )
}

/// Compares what the portal says of the last day but an hour with what this Graph does.
async fn compare(defender: &Defender, graph: &str, more: &str) -> Result<Ended> {
    let url = defender.url();
    let portal =
        format!("cloudApps: {{url: '{url}', requestsPerMinute: 6000}}\n    {}", application(&url));
    let graph = format!(
        "graph: {{url: '{url}', requestsPerMinute: 6000{graph}}}\n    {}",
        application(&url)
    );
    let portal = Forwarder::with_source(&portal, DEMO_TOKEN, SYSLOG, "")?;
    let graph = Forwarder::with_source(&graph, DEMO_TOKEN, SYSLOG, more)?;
    let (one, other) = (portal.manifest(), graph.folder().join("graph.yaml"));
    fs::copy(graph.manifest(), &other)?;
    let hours_ago = |hours: i64| {
        let time = siem_agent_sim::clock::millis() - hours * 3_600_000;
        jiff::Timestamp::from_millisecond(time).map(|time| time.to_string())
    };
    let (from, to) = (hours_ago(24)?, hours_ago(1)?);
    let path = |path: &std::path::Path| path.display().to_string();
    let (one, other, secrets) = (path(&one), path(&other), path(&portal.secrets()));
    let window = ["--from", &from, "--to", &to, "--examples", "1", "--secrets", &secrets];
    let arguments = [&["compare", "--manifest", &one, "--with", &other][..], &window].concat();
    forwarder(&arguments, "").await
}

async fn tenant() -> Result<Defender> {
    let history = (1_200, Duration::from_secs(20 * 3_600));
    let (budget, graph_budget, hunting_budget) = (0, 0, 0);
    let options = Options { history, budget, graph_budget, hunting_budget, ..Options::default() };
    Defender::start(options).await
}

#[tokio::test]
async fn every_record_of_one_source_has_its_line_in_the_other_and_each_key_that_differs_is_counted()
-> Result<()> {
    let defender = tenant().await?;
    let Ended { code, out, err } = compare(&defender, "", "").await?;
    ensure!(code == Some(0), "{out}{err}");
    for stream in ["alerts", "activities"] {
        let line = out.lines().find(|line| line.starts_with(&format!("{stream}: ")));
        let line = line.unwrap_or_default();
        ensure!(line.contains("; 0 only in --manifest, 0 only in --with"), "{out}");
        ensure!(!line.contains(&format!("{stream}: 0 in both")), "{out}");
    }
    // What Graph does not know, with an example.
    ensure!(out.contains("  cn1 differs in "), "{out}");
    ensure!(!out.contains("externalId differs"), "one tenant's ids agree: {out}");
    let example = out.lines().skip_while(|line| !line.starts_with("  cn1 differs")).nth(1);
    ensure!(example.is_some_and(|line| line.starts_with("    ") && line.contains(" | ")), "{out}");
    Ok(())
}

#[tokio::test]
async fn what_only_one_source_has_is_named_and_the_exit_code_says_so() -> Result<()> {
    let defender = tenant().await?;
    let filtered = "  eventTypes:\n    alerts: {filter: {severities: [High]}}\n";
    let Ended { code, out, err } = compare(&defender, "", filtered).await?;
    ensure!(code == Some(1), "{out}{err}");
    ensure!(out.contains("  only in --manifest: ") && !out.contains("only in --with: "), "{out}");
    let Ended { code, out, err } = compare(&defender, ", tables: [CloudAppEvents]", "").await?;
    ensure!(code == Some(1) && out.contains("Log on"), "sign-ins are missing: {out}{err}");
    // A source that refuses is no difference.
    defender.forbid(Stream::Alerts, true);
    let Ended { code, err, .. } = compare(&defender, "", "").await?;
    ensure!(code == Some(1) && err.contains("alerts"), "{err}");
    let none = "  eventTypes: {alerts: {enabled: true}, activities: {enabled: false}}\n";
    let one = compare(&defender, "", none).await?;
    ensure!(one.code == Some(1), "{one:?}");
    Ok(())
}
