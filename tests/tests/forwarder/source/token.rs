//! Tokens that die and are replaced, and rights that one stream lacks.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::DEMO_TOKEN;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{PATIENCE, free_port};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::world::{Manifest, World, tenant};

const ANOTHER: &str =
    "YW5vdGhlci10b2tlbi1vZi10aGUtc2ltdWxhdG9yLXRoYXQtaXMtbG9uZy1lbm91Z2gtZm9yLWl0";

/// The one test that has to wait for more than a minute.
#[tokio::test]
async fn a_dead_token_is_tried_once_a_minute_and_not_more() -> Result<()> {
    let world = World::start(tenant(50, 50), &Manifest::default()).await?;
    world.all_delivered().await?;
    world.defender.set_token(ANOTHER);
    world
        .until("a refused token is reported", |status| status["token"]["state"] == "Invalid")
        .await?;
    let dead = |world: &World| -> Vec<i64> {
        let requests = world.defender.requests();
        requests.iter().filter(|request| request.status == 401).map(|request| request.at).collect()
    };
    let first = *dead(&world).first().context("it was refused")?;
    // What both streams had under way in the same moment is one try.
    let later = |world: &World| {
        dead(world).into_iter().filter(|at| *at > first + 2_000).collect::<Vec<_>>()
    };
    eventually(Duration::from_secs(90), async || {
        ensure!(
            !later(&world).is_empty(),
            "a dead token is tried again: {}",
            world.forwarder.log()?
        );
        Ok(())
    })
    .await?;
    // The other stream would follow at once.
    sleep(Duration::from_secs(3)).await;
    let tries = dead(&world);
    let again = later(&world);
    ensure!(tries.len() - again.len() <= 2, "the tries at first: {tries:?}");
    ensure!(again.len() == 1, "one try for both streams, not {again:?}");
    ensure!(again[0] - first >= 60_000, "after {} ms", again[0] - first);
    ensure!(world.token_valid().await? == Some(0.0));
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["reason"] == "Invalid token", "in the API's own words: {status}");
    world.defender.produce(20);
    world.forwarder.set_token(ANOTHER)?;
    world
        .delivered_within(Duration::from_secs(20))
        .await
        .context("a changed file is tried at once")?;
    ensure!(world.token_valid().await? == Some(1.0));
    Ok(())
}

/// A refusal in the middle of a walk; a changed file ends it, and nothing of the walk is lost.
async fn refused_in_the_middle(fault: &str, state: &str) -> Result<()> {
    let mut world = World::prepare(tenant(100, 450), &Manifest::default()).await?;
    world.fault(fault);
    world.forwarder.start().await?;
    let told = world
        .until(fault, |status| match state {
            "Invalid" => status["token"]["state"] == "Invalid",
            _ => status["streams"]["alerts"]["forbidden"].is_string(),
        })
        .await?;
    let n_asked = world.asked("alerts").len();
    ensure!(told["streams"]["alerts"]["deliveredTotal"].as_u64() < Some(450), "{told}");
    sleep(Duration::from_secs(3)).await;
    ensure!(world.asked("alerts").len() == n_asked, "{fault}: the stream stands");
    world.defender.set_token(ANOTHER);
    world.forwarder.set_token(ANOTHER)?;
    world.delivered_within(Duration::from_secs(20)).await.with_context(|| fault.to_owned())?;
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["state"] == "Valid", "{status}");
    ensure!(status["streams"]["alerts"]["forbidden"].is_null(), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_refusal_in_mid_page_is_healed_by_a_changed_file() -> Result<()> {
    tokio::try_join!(
        refused_in_the_middle("401@stream=alerts,page=continued", "Invalid"),
        refused_in_the_middle("403@stream=alerts,page=continued,after=1", "Forbidden"),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_forbidden_stream_stands_and_the_other_goes_on() -> Result<()> {
    let mut world = World::prepare(tenant(100, 100), &Manifest::default()).await?;
    world.defender.forbid(Stream::Activities, true);
    world.forwarder.start().await?;
    let status = world
        .until("it is told", |status| status["streams"]["activities"]["forbidden"].is_string())
        .await?;
    ensure!(
        status["streams"]["activities"]["forbidden"].as_str().unwrap().contains("not permitted")
    );
    world.until_asked("alerts", 5).await?;
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["state"] == "Forbidden", "the worst of both: {status}");
    let reason = status["token"]["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.starts_with("the token may not read activities: "),
        "the stream by name: {status}"
    );
    ensure!(status["streams"]["alerts"]["deliveredTotal"] == 100, "{status}");
    ensure!(world.asked("activities").len() == 1, "{:?}", world.asked("activities"));
    ensure!(world.token_valid().await? == Some(0.0));
    world.defender.forbid(Stream::Alerts, true);
    let status = world
        .until("no stream may be read", |status| {
            status["streams"]["alerts"]["forbidden"].is_string()
        })
        .await?;
    ensure!(status["token"]["state"] == "Forbidden", "{status}");
    let reason = status["token"]["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains("alerts and activities: ") && reason.contains("not permitted"),
        "{status}"
    );
    ensure!(world.token_valid().await? == Some(0.0));
    // The one heals before the other.
    world.defender.forbid(Stream::Activities, false);
    world.defender.set_token(ANOTHER);
    world.forwarder.set_token(ANOTHER)?;
    let status = world
        .until("one stream is read again", |status| {
            status["streams"]["activities"]["forbidden"].is_null()
                && status["streams"]["activities"]["deliveredTotal"] == 100
        })
        .await?;
    ensure!(status["token"]["state"] == "Forbidden", "{status}");
    ensure!(
        status["token"]["reason"].as_str().unwrap_or_default().contains("read alerts: "),
        "{status}"
    );
    world.defender.forbid(Stream::Alerts, false);
    world.defender.set_token(DEMO_TOKEN);
    world.forwarder.set_token(DEMO_TOKEN)?;
    world.delivered_within(Duration::from_secs(20)).await?;
    world.until("all is well", |status| status["token"]["state"] == "Valid").await?;
    ensure!(world.token_valid().await? == Some(1.0));
    Ok(())
}

/// A SIEM that is away, or has come back since the token was refused: the changed file is tried all the same.
async fn is_tried_without_a_target(
    told: &str,
    comes_back: bool,
    refuse: impl Fn(&World, bool),
) -> Result<()> {
    let mut world = World::prepare(tenant(20, 20), &Manifest::default()).await?;
    let manifest = Manifest::default().text(&world.defender, &world.receiver);
    let (there, nobody) = (format!("port: {}", world.receiver.port()), free_port()?);
    std::fs::write(
        world.forwarder.manifest(),
        manifest.replace(&there, &format!("port: {nobody}")),
    )?;
    refuse(&world, true);
    world.forwarder.start().await?;
    // The first try may be the one a minute after the start.
    eventually(2 * PATIENCE, async || {
        let status = world.forwarder.status().await?;
        let alerts = &status["streams"]["alerts"];
        let refused = status["token"]["state"] == told || alerts["forbidden"].is_string();
        ensure!(
            refused && status["target"]["state"] == "Down",
            "{told}: {status}\n{}",
            world.forwarder.log()?
        );
        Ok(())
    })
    .await?;
    let mut back = JoinSet::new();
    if comes_back {
        let listener = TcpListener::bind(("127.0.0.1", nobody)).await?;
        back.spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        });
        world.until("the SIEM is back", |status| status["target"]["state"] == "Up").await?;
    }
    refuse(&world, false);
    world.defender.set_token(ANOTHER);
    let until = Instant::now() + Duration::from_secs(20);
    world.forwarder.set_token(ANOTHER)?;
    let status = world
        .until(told, |status| {
            let streams = ["alerts", "activities"].map(|stream| &status["streams"][stream]);
            status["token"]["state"] == "Valid"
                && streams.iter().all(|stream| stream["forbidden"].is_null())
        })
        .await?;
    ensure!(Instant::now() < until, "{told}: a changed file is tried at once: {status}");
    ensure!(!world.defender.has_faults(), "{told}: what fails in between is tried again");
    let is_back = status["target"]["state"] == "Up";
    ensure!(is_back == comes_back && world.receiver.frames().is_empty(), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_changed_file_is_tried_at_once_though_the_siem_is_away() -> Result<()> {
    tokio::try_join!(
        is_tried_without_a_target("Invalid", false, |world, refused| {
            if refused {
                world.defender.set_token(ANOTHER);
            } else {
                // What fails for another reason is no answer yet.
                world.fault("500x2");
            }
        }),
        is_tried_without_a_target("Invalid", true, |world, refused| {
            if refused {
                world.defender.set_token(ANOTHER);
            }
        }),
        is_tried_without_a_target("Forbidden", false, |world, forbidden| {
            for stream in [Stream::Alerts, Stream::Activities] {
                world.defender.forbid(stream, forbidden);
            }
        }),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_data_centre_is_not_a_bad_token() -> Result<()> {
    let mut world = World::prepare(tenant(50, 50), &Manifest::default()).await?;
    world.fault("jwksx*");
    world.forwarder.start().await?;
    let status =
        world.until("it is told", |status| status["source"]["state"] == "Unreachable").await?;
    ensure!(status["source"]["reason"].as_str().unwrap().contains("data centre"), "{status}");
    ensure!(status["token"]["state"] == "Unknown", "{status}");
    ensure!(world.token_valid().await?.is_none(), "no sample while unknown");
    world.until_asked("alerts", 3).await.context("it goes on asking")?;
    world.defender.clear_faults();
    world.all_delivered().await
}

#[tokio::test]
async fn a_token_that_is_gone_is_told_and_asks_nothing() -> Result<()> {
    let world = World::start(tenant(50, 50), &Manifest::default()).await?;
    world.all_delivered().await?;
    let file = world.forwarder.secrets().join("defender/token");
    std::fs::remove_file(&file)?;
    let status = world.until("it is told", |status| status["token"]["state"] == "Missing").await?;
    ensure!(status["token"]["reason"].as_str().unwrap().contains("defender/token"), "{status}");
    let n_asked = world.defender.requests().len();
    sleep(Duration::from_secs(3)).await;
    ensure!(world.defender.requests().len() == n_asked, "no request without a token");
    world.mount("defender", "token", "two\nlines")?;
    eventually(PATIENCE, async || {
        ensure!(
            world.forwarder.status().await?["token"]["reason"]
                .as_str()
                .unwrap_or_default()
                .contains("line break"),
            "a token of two lines is reported"
        );
        Ok(())
    })
    .await?;
    ensure!(world.defender.requests().len() == n_asked, "no request with half a token");
    world.defender.produce(10);
    world.forwarder.set_token(&format!("{DEMO_TOKEN}\n"))?;
    world.delivered_within(Duration::from_secs(20)).await
}
