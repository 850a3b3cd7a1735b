//! What the API lists: late records, equal times across the edge of a page, a wrong clock, and filters.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{Hostility, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use tokio::time::{Instant, sleep};

use super::world::{Manifest, World, tenant};

#[tokio::test]
async fn late_records_arrive_once_and_are_counted() -> Result<()> {
    let options = Options {
        rate: 60.0,
        alert_rate: Some(20.0),
        late: Duration::from_secs(8),
        ..tenant(50, 50)
    };
    let mut world = World::start(options, &Manifest::default()).await?;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        sleep(Duration::from_millis(200)).await;
    }
    world.defender.quiet();
    world.all_delivered().await?;
    let ids = world.receiver.ids();
    ensure!(ids.values().all(|count| *count == 1), "each arrives once");
    for stream in ["activities", "alerts"] {
        let late = world
            .forwarder
            .metric(&format!("siem_forwarder_records_late_total{{stream=\"{stream}\"}}"))
            .await?;
        let n_all = ids.len() as f64;
        ensure!(late >= 1.0 && late < n_all / 2.0, "{late} late {stream} of {n_all}");
    }
    ensure!(world.forwarder.terminate().await?.success());
    Ok(())
}

#[tokio::test]
async fn equal_times_across_the_edge_of_a_page_lose_and_repeat_nothing() -> Result<()> {
    let mut world = World::prepare(tenant(40, 40), &Manifest::default()).await?;
    let ago = Duration::from_secs(600);
    world.defender.produce_at(Stream::Alerts, 330, ago);
    world.defender.produce_at(Stream::Activities, 5_300, ago);
    world.defender.produce_at(Stream::Alerts, 150, Duration::from_secs(5));
    world.forwarder.start().await?;
    world.all_delivered().await?;
    world.until_asked("alerts", world.asked("alerts").len() + 8).await?;
    ensure!(world.receiver.ids().values().all(|count| *count == 1), "each arrives once");
    let repeated = "siem_forwarder_records_repeated_total{stream=\"alerts\"}";
    let n_repeated = world.forwarder.metric(repeated).await?;
    ensure!(n_repeated >= 150.0, "{n_repeated} alerts were shown again");
    Ok(())
}

/// The server's clock is so far ahead.
async fn wrong_clock(skew: SignedDuration) -> Result<()> {
    let options = Options { skew, rate: 20.0, ..tenant(200, 40) };
    let manifest = Manifest::default().spec("startFrom: 2h");
    let mut world = World::start(options, &manifest).await?;
    world.until_asked("activities", 6).await?;
    world.defender.quiet();
    // Three answers that agree, over five seconds, outweigh our clock.
    eventually(PATIENCE, async || {
        let told = world.forwarder.metric("siem_forwarder_clock_skew_seconds").await?;
        ensure!((told - skew.as_secs() as f64).abs() < 5.0, "{told} s: {}", world.forwarder.log()?);
        Ok(())
    })
    .await?;
    world.all_delivered().await?;
    let log = world.forwarder.log()?;
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("clock")).count();
    ensure!(warned == 1, "{warned} warnings: {log}");
    world
        .until("the server's clock is the clock", |status| {
            let lag = status["streams"]["activities"]["lagSeconds"].as_f64();
            lag.is_some_and(|lag| (0.0..30.0).contains(&lag))
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_clock_is_told_and_loses_nothing() -> Result<()> {
    tokio::try_join!(
        wrong_clock(SignedDuration::from_hours(5)),
        wrong_clock(SignedDuration::from_hours(-5)),
        wrong_clock(SignedDuration::from_mins(-3)),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_right_clock_warns_of_nothing() -> Result<()> {
    let world = World::start(tenant(20, 20), &Manifest::default()).await?;
    world.all_delivered().await?;
    world.until_asked("alerts", 3).await?;
    ensure!(!world.forwarder.log()?.contains("clock"), "{}", world.forwarder.log()?);
    Ok(())
}

#[tokio::test]
async fn every_filter_of_the_manifest_reaches_the_api_and_sifts() -> Result<()> {
    let filter = "eventTypes: {alerts: {filter: {severities: [Medium, High], services: [11161, 20893, 10489], \
        policies: [62b1b0c0aa11bb22cc33dd55, 5f759b4d106abbe4a504ea5d, 600fe2f4d1a76b7b9c3bd7a1], raw: {alertOpen: {eq: true}}}}, \
        activities: {filter: {services: [11161, 20893, 20892, 15600, 28375, 12260], users: [USERS], \
        eventTypes: [EVENT_CATEGORY_LOGIN, EVENT_CATEGORY_DOWNLOAD_FILE, EVENT_CATEGORY_RUN_COMMAND, EVENT_CATEGORY_UPLOAD_FILE], \
        ipCategories: [Corporate, Administrative, Risky, VPN, CloudProvider], countries: [NL, DE, US, GB], policies: [], \
        raw: {ip.address: {isset: [true]}, service: {neq: [12260]}}}}}";
    let users: Vec<String> =
        (4..68).filter(|n| n % 25 > 3).map(|n| format!("user{n}@contoso.com")).collect();
    let manifest = Manifest::default().spec(filter.replace("USERS", &users.join(", ")));
    let options = Options { hostile: Hostility::None, ..tenant(9_000, 1_500) };
    let world = World::start(options, &manifest).await?;
    world.until_asked("alerts", 3).await?;
    world.until_asked("activities", 3).await?;

    let requests = world.defender.requests();
    let asked = |what: &str| {
        requests.iter().find(|request| request.what == what).unwrap().question["filters"].clone()
    };
    let mut activities = asked("activities");
    ensure!(activities["created"]["gte"].is_i64(), "{activities}");
    activities.as_object_mut().unwrap().remove("created");
    let expected = json!({
        "service": {"eq": [11161, 20893, 20892, 15600, 28375, 12260], "neq": [12260]},
        "user.username": {"eq": users},
        "activity.eventType": {"eq": ["EVENT_CATEGORY_LOGIN", "EVENT_CATEGORY_DOWNLOAD_FILE", "EVENT_CATEGORY_RUN_COMMAND", "EVENT_CATEGORY_UPLOAD_FILE"]},
        "ip.category": {"eq": [1, 2, 3, 4, 5]},
        "location.country": {"eq": ["NL", "DE", "US", "GB"]},
        "ip.address": {"isset": [true]},
    });
    ensure!(activities == expected, "{activities}");
    let mut alerts = asked("alerts");
    ensure!(alerts["date"]["gte"].is_i64(), "{alerts}");
    alerts.as_object_mut().unwrap().remove("date");
    let expected = json!({
        "severity": {"eq": [1, 2]}, "entity.service": {"eq": [11161, 20893, 10489]},
        "entity.policy": {"eq": ["62b1b0c0aa11bb22cc33dd55", "5f759b4d106abbe4a504ea5d", "600fe2f4d1a76b7b9c3bd7a1"]},
        "alertOpen": {"eq": true},
    });
    ensure!(alerts == expected, "{alerts}");
    ensure!(requests.iter().all(|request| request.status == 200), "the API takes them");

    let number =
        |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(-1);
    let wanted = |stream: Stream, holds: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let records = world.defender.records(stream);
        let records = records.iter().map(|json| serde_json::from_str::<Value>(json).unwrap());
        records.filter(holds).map(|record| record["_id"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = wanted(Stream::Activities, &|record| {
        [11161, 20893, 20892, 15600, 28375].contains(&number(&record["appId"]))
            && users.iter().any(|user| record["user"]["userName"] == user.as_str())
            && ["LOGIN", "DOWNLOAD_FILE", "RUN_COMMAND", "UPLOAD_FILE"]
                .iter()
                .any(|kind| record["eventTypeName"] == format!("EVENT_CATEGORY_{kind}"))
            && (1..=5).contains(&number(&record["location"]["category"]))
            && ["NL", "DE", "US", "GB"]
                .iter()
                .any(|country| record["location"]["countryCode"] == *country)
            && record["device"]["clientIP"].is_string()
    });
    let n_activities = all.len();
    all.extend(wanted(Stream::Alerts, &|record| {
        let has = |kind: &str, ids: &[Value]| {
            let entities = record["entities"].as_array().unwrap();
            entities.iter().any(|entity| entity["type"] == kind && ids.contains(&entity["id"]))
        };
        [1, 2].contains(&number(&record["severityValue"]))
            && record["resolutionStatusValue"] == 0
            && has("service", &[json!(11161), json!(20893), json!(10489)])
            && has(
                "policyRule",
                &[
                    json!("62b1b0c0aa11bb22cc33dd55"),
                    json!("5f759b4d106abbe4a504ea5d"),
                    json!("600fe2f4d1a76b7b9c3bd7a1"),
                ],
            )
    }));
    ensure!(
        n_activities > 3 && all.len() > n_activities + 3,
        "{n_activities} and {}",
        all.len() - n_activities
    );
    all.sort();
    let delivered: Vec<String> = world.receiver.ids().into_keys().collect();
    ensure!(delivered == all, "{} delivered, {} wanted", delivered.len(), all.len());
    Ok(())
}

#[tokio::test]
async fn a_filter_that_the_api_refuses_stops_its_stream_and_names_the_filter() -> Result<()> {
    let manifest = Manifest::default()
        .spec("eventTypes: {activities: {filter: {raw: {no.such.filter: {eq: [1]}}}}}");
    let world = World::start(tenant(50, 120), &manifest).await?;
    let status =
        world.until("it is told", |status| status["source"]["state"] == "Unreachable").await?;
    let reason = status["source"]["reason"].as_str().unwrap();
    ensure!(reason.contains("no.such.filter") && reason.contains("400"), "{reason}");
    ensure!(status["token"]["state"] != "Invalid", "{status}");
    world.until_asked("alerts", 4).await?;
    ensure!(world.asked("activities").len() == 1, "the same question gets the same answer");
    ensure!(world.receiver.ids().len() == 120, "alerts go on");
    Ok(())
}

/// A first start with more than a page and less than two: every record once, by both of the API's ways from page to
/// page, and the counters agree.
#[tokio::test]
async fn a_first_start_with_more_than_a_page_delivers_each_record_once() -> Result<()> {
    let mut world = World::prepare(tenant(0, 0), &Manifest::default()).await?;
    for (n_records, hours) in [(3_000, 47), (2_500, 20), (500, 1)] {
        world.defender.produce_at(
            Stream::Activities,
            n_records,
            Duration::from_secs(hours * 3_600),
        );
    }
    world.forwarder.start().await?;
    world.all_delivered().await?;
    world.until_asked("activities", world.asked("activities").len() + 6).await?;
    let ids = world.receiver.ids();
    ensure!(ids.len() == 6_000 && ids.values().all(|count| *count == 1), "each arrives once");
    let counted = world
        .forwarder
        .metric("siem_forwarder_records_delivered_total{stream=\"activities\"}")
        .await?;
    ensure!((counted - 6_000.0).abs() < 0.5, "{counted} counted");
    Ok(())
}
