//! The filters: what each lets through, and what the portal refuses.

use anyhow::{Result, ensure};
use reqwest::header;
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Hostility, Options};

use super::ask::{ask, client, page, refused, unlimited};

#[tokio::test]
async fn every_filter_lets_through_what_it_names() -> Result<()> {
    let defender =
        Defender::start(Options { hostile: Hostility::None, ..unlimited(4_000) }).await?;
    let check = async |what: &str, filters: Value, holds: &dyn Fn(&Value) -> bool| {
        let stream = if what == "alerts" { Stream::Alerts } else { Stream::Activities };
        let wanted = defender
            .records(stream)
            .iter()
            .filter(|json| holds(&serde_json::from_str(json).unwrap()))
            .count();
        let question = json!({"filters": filters, "limit": 5_000, "isScan": true});
        let page = page(&defender, what, &question).await;
        assert_eq!(page["total"], wanted, "{filters}");
        assert!(
            wanted > 0 && wanted < defender.records(stream).len(),
            "{filters} sifts nothing: {wanted}"
        );
    };
    let number =
        |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(-1);
    let app = |record: &Value| number(&record["appId"]);
    check("activities", json!({"service": {"eq": [11161, 10489]}}), &|record| {
        [11161, 10489].contains(&app(record))
    })
    .await;
    check("activities", json!({"service": {"neq": [11161]}}), &|record| app(record) != 11161).await;
    check("activities", json!({"ip.category": {"eq": [3, 4]}}), &|record| {
        [3, 4].contains(&number(&record["location"]["category"]))
    })
    .await;
    check("activities", json!({"location.country": {"eq": ["NL"]}}), &|record| {
        record["location"]["countryCode"] == "NL"
    })
    .await;
    check("activities", json!({"location.country": {"isnotset": true}}), &|record| {
        record["location"]["countryCode"].is_null()
    })
    .await;
    check("activities", json!({"user.username": {"eq": ["USER7@contoso.com"]}}), &|record| {
        record["user"]["userName"] == "user7@contoso.com"
    })
    .await;
    check("activities", json!({"user.username": {"startswith": ["svc-"]}}), &|record| {
        record["user"]["userName"].as_str().is_some_and(|name| name.starts_with("svc-"))
    })
    .await;
    check(
        "activities",
        json!({"activity.eventType": {"eq": ["EVENT_CATEGORY_LOGIN"]}}),
        &|record| record["eventTypeName"] == "EVENT_CATEGORY_LOGIN",
    )
    .await;
    check("activities", json!({"policy": {"isset": true}}), &|record| {
        record["policies"].is_array()
    })
    .await;
    check(
        "activities",
        json!({"device.type": {"eq": ["MOBILE"]}, "service": {"eq": [11161]}}),
        &|record| record["userAgent"]["deviceType"] == "MOBILE" && app(record) == 11161,
    )
    .await;
    check("activities", json!({"ip.address": {"doesnotstartwith": ["192.0.2."]}}), &|record| {
        !record["device"]["clientIP"].as_str().is_some_and(|ip| ip.starts_with("192.0.2."))
    })
    .await;
    check("activities", json!({"text": {"text": "download"}}), &|record| {
        record["description"].as_str().unwrap_or_default().to_lowercase().contains("download")
    })
    .await;
    let middle =
        serde_json::from_str::<Value>(&defender.records(Stream::Activities)[2_000])?["created"]
            .as_i64()
            .unwrap();
    for (window, from, until) in [
        (json!({"gte": middle}), middle, i64::MAX),
        (json!({"gt": middle}), middle + 1, i64::MAX),
        (json!({"lt": middle}), 0, middle - 1),
        (json!({"gte": middle - 500_000, "lte": middle}), middle - 500_000, middle),
        (json!({"range": [{"start": middle - 9_000, "end": middle}]}), middle - 9_000, middle),
    ] {
        check("activities", json!({"created": window}), &|record| {
            (from..=until).contains(&number(&record["created"]))
        })
        .await;
    }
    check("activities", json!({"date": {"gte": middle}}), &|record| {
        number(&record["timestamp"]) >= middle
    })
    .await;
    check("alerts", json!({"severity": {"eq": [1, 2]}}), &|record| {
        [1, 2].contains(&number(&record["severityValue"]))
    })
    .await;
    check("alerts", json!({"alertOpen": {"eq": true}}), &|record| {
        record["resolutionStatusValue"] == 0
    })
    .await;
    check("alerts", json!({"date": {"lte": middle}}), &|record| {
        number(&record["timestamp"]) <= middle
    })
    .await;
    let entity = |record: &Value, kind: &str, id: Value| {
        let entities = record["entities"].as_array().unwrap();
        entities.iter().any(|entity| entity["type"] == kind && entity["id"] == id)
    };
    let policy = "5bfd18bfab73c36ba10d38ca";
    check("alerts", json!({"entity.policy": {"eq": [policy]}}), &|record| {
        entity(record, "policyRule", json!(policy))
    })
    .await;
    check("alerts", json!({"entity.service": {"neq": [11161, 20893]}}), &|record| {
        !entity(record, "service", json!(11161)) && !entity(record, "service", json!(20893))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn what_the_portal_does_not_know_is_refused_in_its_words() -> Result<()> {
    let defender = Defender::start(unlimited(10)).await?;
    for (what, filters) in [
        ("activities", json!({"activity.takenOn": {"gte": 1}})),
        ("activities", json!({"severity": {"eq": [1]}})),
        ("alerts", json!({"created": {"gte": 1}})),
        ("alerts", json!({"severity": {"eq": ["High"]}})),
        ("alerts", json!({"severity": {"contains": [1]}})),
        ("alerts", json!({"alertOpen": {"eq": "yes"}})),
        ("alerts", json!({"date": {"gte": "2026-01-01"}})),
        ("activities", json!({"service": {"eq": []}})),
        ("activities", json!({"service": [11161]})),
        ("activities", json!({"created": {"range": [{"start": 1}]}})),
        ("activities", json!([])),
    ] {
        let (status, body) =
            refused(ask(&defender, what, &json!({"filters": filters})).await).await;
        ensure!(status == 400 && body["error"] == true, "{filters}: {status} {body}");
        ensure!(
            body["filters"][0]["errorMessageCode"] == "CONSOLE_FORMS_NOT_VALID_VALUE",
            "{body}"
        );
        ensure!(body["filters"][0]["error"].as_str().unwrap().ends_with("is not valid"), "{body}");
    }
    let request = client().post(format!("{}/api/v1/alerts/", defender.url()));
    let broken =
        request.header(header::AUTHORIZATION, format!("Token {DEMO_TOKEN}")).body("{").send();
    let (status, body) = refused(broken.await?).await;
    ensure!(
        status == 400 && body["detail"].as_str().unwrap().starts_with("JSON parse error"),
        "{body}"
    );
    Ok(())
}
