//! What the status tells of a token's fate, and of agents that share a tenant.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::operator::Operator;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::scene::condition;

use super::stage::{Stage, portal, until_all_arrived};

const ANOTHER: &str =
    "YW5vdGhlci10b2tlbi1vZi10aGUtc2ltdWxhdG9yLXRoYXQtaXMtbG9uZy1lbm91Z2gtZm9yLWl0";

#[tokio::test]
async fn a_tokens_fate_is_told_live_and_without_a_restart() -> Result<()> {
    let stage = Stage::new().await?;
    let defender = Defender::start(portal(20)).await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.apply("soc", &defender.url(), rsyslog.port, "").await?;
    let expect = async |ready: &str, token: &str, valid: Option<f64>| -> Result<Value> {
        let agent = stage.scene.until_ready_is("soc", ready).await?;
        assert_eq!(agent["status"]["token"]["state"], token);
        stage
            .until_metric("siemagent_token_valid{", |series| {
                series.first().map(|(_, value)| *value) == valid
            })
            .await?;
        Ok(agent)
    };
    let agent = expect("SecretMissing", "Missing", Some(0.0)).await?;
    assert_eq!(condition(&agent, "Delivering")["status"], "Unknown");
    let pod = stage.pod().await?["metadata"]["uid"].clone();
    stage.token(DEMO_TOKEN).await?;
    expect("Delivering", "Valid", Some(1.0)).await?;
    until_all_arrived(&defender, &[&rsyslog]).await?;

    stage
        .token("d3JvbmctdG9rZW4tb2YtYXQtbGVhc3Qtc2l4dHktZm91ci1jaGFyYWN0ZXJzLXdyb25nLXRva2Vu")
        .await?;
    let agent = expect("TokenInvalid", "Invalid", Some(0.0)).await?;
    let said = condition(&agent, "TokenValid")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(said.contains("Invalid token"), "the API's own words: {said}");
    assert_eq!(agent["status"]["state"], "Connected", "as last seen");
    stage.token(DEMO_TOKEN).await?;
    expect("Delivering", "Valid", Some(1.0)).await?;

    // One stream of two: at once, by name, and the other flows on.
    let names = |agent: &Value, stream: &str| -> Result<()> {
        let words = format!("the token may not read {stream}: ");
        for kind in ["Ready", "TokenValid", "Delivering"] {
            let condition = condition(agent, kind);
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(condition["status"] == "False" && message.starts_with(&words), "{condition:#}");
        }
        let streams = agent["status"]["streams"].as_array().context("the streams")?;
        let stopped: Vec<_> = streams.iter().filter(|of| !of["reason"].is_null()).collect();
        assert_eq!(streams.len(), 2);
        ensure!(stopped.len() == 1 && stopped[0]["name"] == stream, "{streams:#?}");
        assert_eq!(stopped[0]["reason"], "StreamForbidden");
        Ok(())
    };
    defender.forbid(Stream::Alerts, true);
    names(&expect("StreamForbidden", "Forbidden", Some(0.0)).await?, "alerts")?;
    let delivered = async || -> Result<f64> {
        let series = stage.operator.series("siemagent_records_delivered_total{").await?;
        let activities = series.iter().find(|(of, _)| of.contains("activities"));
        activities.map(|(_, n)| *n).context("count the delivered activities")
    };
    let before = delivered().await?;
    defender.produce_at(Stream::Activities, 10, Duration::ZERO);
    eventually(PATIENCE, async || {
        ensure!(
            delivered().await? >= before + 9.5,
            "activities flow on: {} after {before}",
            delivered().await?
        );
        Ok(())
    })
    .await?;
    defender.forbid(Stream::Activities, true);
    let agent = expect("TokenForbidden", "Forbidden", Some(0.0)).await?;
    let said = condition(&agent, "TokenValid")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(said.contains("not permitted"), "the API's own words: {said}");
    assert_eq!(agent["status"]["state"], "Connected", "as last seen");
    // The one that stopped first is mended first; a changed secret is tried at once.
    defender.forbid(Stream::Alerts, false);
    defender.set_token(ANOTHER);
    stage.token(ANOTHER).await?;
    names(&expect("StreamForbidden", "Forbidden", Some(0.0)).await?, "activities")?;
    defender.forbid(Stream::Activities, false);
    // A stream that was forbidden is asked again once a minute.
    eventually(2 * PATIENCE, async || {
        ensure!(
            condition(&stage.scene.until("siemagent/soc", |_| true).await?, "Ready")["status"]
                == "True",
            "not ready again"
        );
        Ok(())
    })
    .await?;
    assert_eq!(stage.pod().await?["metadata"]["uid"], pod, "no pod was replaced");
    let restarts = stage.pod().await?["status"]["containerStatuses"][0]["restartCount"].clone();
    assert_eq!(restarts, 0);
    // One Event for each transition, and no more; it follows the status.
    stage.scene.until_quiet(Duration::from_secs(2)).await?;
    let events = stage.events("soc").await?;
    let n_of = |expected: &str| events.iter().filter(|(reason, _)| reason == expected).count();
    let reasons =
        ["SecretMissing", "TokenInvalid", "StreamForbidden", "TokenForbidden", "Delivering"];
    assert_eq!(reasons.map(n_of), [1, 1, 2, 1, 3], "{events:?}");
    for (reason, words) in [("TokenInvalid", "Invalid token"), ("TokenForbidden", "not permitted")]
    {
        let says = |(of, note): &(String, String)| of == reason && note.contains(words);
        ensure!(events.iter().any(says), "each with the API's own words: {events:?}");
    }
    Ok(())
}

#[tokio::test]
async fn agents_of_one_tenant_share_its_requests_without_a_restart() -> Result<()> {
    let mut stage = Stage::new().await?;
    let defender = Defender::start(portal(5)).await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    stage.apply("one", &defender.url(), rsyslog.port, "").await?;
    stage.scene.until_ready_is("one", "Delivering").await?;
    let pod = stage.pod().await?;
    let budget = async || -> Result<String> {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        let text = reqwest::get(format!("http://{address}:9464/metrics")).await?.text().await?;
        let name = "siem_forwarder_source_budget_requests_per_minute{stream=\"activities\"} ";
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.strip_prefix(name)).context("read the budget")?;
        Ok(value.to_owned())
    };
    let until_budget = async |expected: &str| -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(budget().await? == expected, "{} is not {expected}", budget().await?);
            Ok(())
        })
        .await
    };
    until_budget("6000.0").await?;
    let tight = "  eventTypes: {alerts: {enabled: false}}\n";
    stage.apply("two", &format!("{}/", defender.url()), rsyslog.port, tight).await?;
    until_budget("3000.0").await?;
    let agent = stage.scene.until_ready_is("two", "Delivering").await?;
    let message = condition(&agent, "Ready")["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("warning:") && message.contains("/one"), "twins: {message}");
    let are_twins = |expected: bool| {
        move |series: &[(String, f64)]| {
            series.len() == 2 && series.iter().all(|(_, value)| (*value > 0.5) == expected)
        }
    };
    stage.until_metric("siemagent_duplicate_export{", are_twins(true)).await?;
    let duplicates = async |stage: &Stage| -> Result<Vec<String>> {
        let events = [stage.events("one").await?, stage.events("two").await?].concat();
        let told = events.into_iter().filter(|(reason, _)| reason == "DuplicateExport");
        Ok(told.map(|(_, note)| note).collect())
    };
    eventually(PATIENCE, async || {
        ensure!(
            duplicates(&stage).await?.len() == 2,
            "one Event each: {:?}",
            duplicates(&stage).await?
        );
        Ok(())
    })
    .await?;
    // Another operator finds out the same, and tells nobody again.
    let more = ["--forwarder-image", "forwarder:1"];
    let other = Operator::start(&stage.scene.place, &more).await?;
    std::mem::replace(&mut stage.operator, other).terminate().await?;
    stage.until_metric("siemagent_duplicate_export{", are_twins(true)).await?;
    stage.scene.until_quiet(Duration::from_secs(3)).await?;
    assert_eq!(duplicates(&stage).await?.len(), 2);
    stage.apply("two", &defender.url(), rsyslog.port, "  suspend: true\n").await?;
    until_budget("6000.0").await?;
    stage.until_metric("siemagent_duplicate_export{", are_twins(false)).await?;
    let after = stage.pod().await?;
    assert_eq!(after["metadata"]["uid"], pod["metadata"]["uid"], "no pod was replaced");
    drop(stage.node);
    Ok(())
}
