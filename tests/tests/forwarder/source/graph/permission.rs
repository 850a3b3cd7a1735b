//! What the application may not do, and what the tenant has used up: said in Graph's own words, by the stream alone that
//! it concerns.

use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::Options;
use siem_agent_sim::eventually::eventually;

use super::{each_once, flows, n_delivered, prepare, tenant};

#[tokio::test]
async fn a_spent_cpu_quota_is_said_in_graphs_words_while_alerts_flow_and_heals() -> Result<()> {
    let options = Options { rate: 20.0, alert_rate: Some(10.0), ..tenant(500, 100) };
    let mut world = prepare(options).await?;
    world.defender.spend_cpu_quota(true);
    world.forwarder.start().await?;
    let status =
        world.until("throttled", |status| status["source"]["state"] == "Throttled").await?;
    let reason = status["source"]["reason"].as_str().unwrap();
    ensure!(reason.contains("You have exceeded the CPU quota of this tenant"), "{reason}");
    ensure!(status["token"]["state"] == "Valid", "{status}");
    flows(&world, Stream::Alerts).await?;
    flows(&world, Stream::Alerts).await?;
    ensure!(n_delivered(&world, Stream::Activities) == 0, "nothing comes from hunting");
    let n_queries = world.asked("graph-hunting").len();
    ensure!(n_queries <= 4, "{n_queries} queries though the quota is spent");
    world.defender.spend_cpu_quota(false);
    world.defender.quiet();
    each_once(&world).await?;
    world.until("reachable", |status| status["source"]["state"] == "Reachable").await?;
    Ok(())
}

async fn names_and_heals(forbidden: Stream, other: Stream, permission: &str) -> Result<()> {
    let options = Options { rate: 20.0, alert_rate: Some(10.0), ..tenant(300, 100) };
    let mut world = prepare(options).await?;
    world.defender.forbid(forbidden, true);
    world.forwarder.start().await?;
    let status = world.until("forbidden", |status| status["token"]["state"] == "Forbidden").await?;
    let reason = status["token"]["reason"].as_str().unwrap();
    let advice = format!("Add the permission {permission} (application) and grant admin consent");
    let begins = format!("the token may not read {forbidden}: ");
    ensure!(reason.starts_with(&begins) && reason.contains(&advice), "{reason}");
    ensure!(status["streams"][other.as_str()]["forbidden"].is_null(), "{status}");
    flows(&world, other).await?;
    ensure!(n_delivered(&world, forbidden) == 0, "nothing comes of what is forbidden");
    world.defender.forbid(forbidden, false);
    world.defender.quiet();
    // It is tried again by itself, after a minute and a half at most.
    eventually(Duration::from_secs(150), async || {
        ensure!(n_delivered(&world, forbidden) > 0, "{}", world.forwarder.log()?);
        Ok(())
    })
    .await?;
    each_once(&world).await?;
    world.until("valid", |status| status["token"]["state"] == "Valid").await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_permission_names_itself_and_its_stream_while_the_other_flows() -> Result<()> {
    let (alerts, activities) = (Stream::Alerts, Stream::Activities);
    tokio::try_join!(
        names_and_heals(activities, alerts, "ThreatHunting.Read.All"),
        names_and_heals(alerts, activities, "SecurityAlert.Read.All"),
    )?;
    Ok(())
}
