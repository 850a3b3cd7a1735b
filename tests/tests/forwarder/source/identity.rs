//! Client credentials: access tokens are kept, renewed before they expire, and once when one is refused.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::defender::{DEMO_TOKEN, Options};
use tokio::time::sleep;

use super::world::{Manifest, World, tenant};

const TENANT: &str = "00000000-0000-0000-0000-000000000000";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

/// A world whose forwarder authenticates as an application.
async fn application(options: Options, secret: &str) -> Result<World> {
    begin(World::prepare(options, &Manifest::default()).await?, secret).await
}

async fn begin(mut world: World, secret: &str) -> Result<World> {
    let url = world.defender.url();
    let auth = format!(
        "{{clientCredentials: {{tenantId: {TENANT}, clientId: {CLIENT}, clientSecretRef: {{name: defender}}, authorityUrl: \"{url}\"}}}}"
    );
    let manifest = Manifest { auth, ..Manifest::default() };
    std::fs::write(world.forwarder.manifest(), manifest.text(&world.defender, &world.receiver))?;
    world.mount("defender", "clientSecret", secret)?;
    world.forwarder.start().await?;
    Ok(world)
}

#[tokio::test]
async fn one_access_token_serves_many_requests() -> Result<()> {
    let world = application(tenant(100, 250), DEMO_TOKEN).await?;
    world.all_delivered().await?;
    world.until_asked("activities", 6).await?;
    ensure!(world.defender.access_tokens().len() == 1, "it is kept");
    let asked = world.defender.requests();
    let first = asked.iter().find(|request| request.what == "token").context("it asked for one")?;
    ensure!(first.question["scope"] == "05a65629-4c1b-48c1-a78b-804c4abdd4af/.default");
    ensure!(first.question["client_id"] == CLIENT);
    Ok(())
}

#[tokio::test]
async fn an_access_token_is_renewed_before_it_expires() -> Result<()> {
    let options = Options { access_life: Duration::from_secs(30), ..tenant(50, 50) };
    let world = application(options, DEMO_TOKEN).await?;
    world.until_asked("token", 2).await?;
    world.all_delivered().await?;
    let requests = world.defender.requests();
    ensure!(requests.iter().all(|request| request.status == 200), "none was refused: {requests:?}");
    Ok(())
}

async fn renews_once() -> Result<()> {
    let world = application(tenant(100, 100), DEMO_TOKEN).await?;
    world.all_delivered().await?;
    world.defender.revoke();
    world.defender.produce(100);
    world.delivered_within(Duration::from_secs(20)).await.context("it goes on at once")?;
    world.until_asked("alerts", world.asked("alerts").len() + 2).await?;
    world.until_asked("activities", world.asked("activities").len() + 2).await?;
    let n_issued = world.defender.access_tokens().len();
    ensure!(n_issued == 2, "{n_issued} access tokens, one of them a renewal");
    let log = world.forwarder.log()?;
    ensure!(!log.contains("ERROR"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_refused_access_token_is_renewed_once_and_nobody_is_alarmed() -> Result<()> {
    tokio::try_join!(renews_once(), renews_once(), renews_once())?;
    Ok(())
}

#[tokio::test]
async fn a_fresh_access_token_that_is_refused_too_is_a_bad_one() -> Result<()> {
    let world = application(tenant(10, 10), DEMO_TOKEN).await?;
    world.all_delivered().await?;
    world.fault("401:No such rightx*@stream=alerts");
    world.fault("401:No such rightx*@stream=activities");
    let status = world.until("it is told", |status| status["token"]["state"] == "Invalid").await?;
    ensure!(status["token"]["reason"] == "No such right", "{status}");
    sleep(Duration::from_secs(3)).await;
    let n_issued = world.defender.access_tokens().len();
    ensure!(n_issued == 2, "{n_issued} access tokens, one of them a renewal");
    Ok(())
}

#[tokio::test]
async fn a_wrong_client_secret_is_told_in_the_providers_words_and_a_right_one_tried_at_once()
-> Result<()> {
    let world = application(tenant(50, 50), "not-the-secret").await?;
    let status = world.until("it is told", |status| status["token"]["state"] == "Invalid").await?;
    let reason = status["token"]["reason"].as_str().unwrap();
    ensure!(reason.starts_with("invalid_client: AADSTS7000215: Invalid client secret"), "{reason}");
    ensure!(!reason.contains("not-the-secret") && !reason.contains("Timestamp"), "{reason}");
    ensure!(
        world.asked("alerts").is_empty() && world.asked("token").len() <= 2,
        "{:?}",
        world.asked("token")
    );
    world.mount("defender", "clientSecret", DEMO_TOKEN)?;
    world.delivered_within(Duration::from_secs(20)).await?;
    ensure!(world.token_valid().await? == Some(1.0));
    Ok(())
}

async fn waits_for_the_provider(fault: &str) -> Result<()> {
    let world = World::prepare(tenant(20, 20), &Manifest::default()).await?;
    world.fault(fault);
    let world = begin(world, DEMO_TOKEN).await?;
    let status = world.until(fault, |status| status["source"]["state"] != "Unknown").await?;
    ensure!(status["token"]["state"] != "Invalid", "{fault}: {status}");
    world.all_delivered().await
}

#[tokio::test]
async fn a_provider_in_trouble_is_not_a_bad_token() -> Result<()> {
    tokio::try_join!(
        waits_for_the_provider("503x3@stream=token"),
        waits_for_the_provider("html@stream=token"),
        waits_for_the_provider("429:1@stream=token"),
    )?;
    Ok(())
}
