//! Who is not let in, who asks too often, and faults on demand.

use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::header;
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Fault, Options, RetryAfter};

use super::ask::{ask, ask_as, client, page, refused, unlimited};

#[tokio::test]
async fn the_budget_is_thirty_a_minute_for_the_whole_tenant() -> Result<()> {
    for (retry_after, form) in
        [(RetryAfter::Absent, ""), (RetryAfter::Seconds, "seconds"), (RetryAfter::Date, "date")]
    {
        let defender = Defender::start(Options { retry_after, ..Options::default() }).await?;
        for index in 0..30 {
            let what = if index % 2 == 0 { "alerts" } else { "activities" };
            ensure!(ask(&defender, what, &json!({})).await.status() == 200);
        }
        let answer = ask(&defender, "alerts", &json!({})).await;
        ensure!(answer.status() == 429);
        let after = answer
            .headers()
            .get(header::RETRY_AFTER)
            .map(|value| value.to_str().unwrap().to_owned());
        match (form, after) {
            ("", None) => {}
            ("seconds", Some(after)) => ensure!((1..=60).contains(&after.parse::<u64>()?)),
            ("date", Some(after)) => {
                let date = answer.headers()[header::DATE].to_str()?;
                let ahead = httpdate::parse_http_date(&after)?
                    .duration_since(httpdate::parse_http_date(date)?)?;
                ensure!(ahead.as_secs() <= 61, "{after} at {date}");
            }
            other => anyhow::bail!("{other:?}"),
        }
        let body: Value = answer.json().await?;
        ensure!(
            body["detail"]
                .as_str()
                .unwrap()
                .starts_with("Request was throttled. Expected available in "),
            "{body}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn who_may_not_ask_is_told_so() -> Result<()> {
    let defender = Defender::start(unlimited(1)).await?;
    let none = client().post(format!("{}/api/v1/alerts/", defender.url())).json(&json!({})).send();
    let (status, body) = refused(none.await?).await;
    ensure!(status == 401 && body["detail"] == "Authentication credentials were not provided.");
    for wrong in
        ["Token wrong", "Bearer wrong", &format!("Token {}", DEMO_TOKEN.to_lowercase()), DEMO_TOKEN]
    {
        let (status, body) = refused(ask_as(&defender, "alerts", &json!({}), wrong).await).await;
        ensure!(status == 401 && body == json!({"detail": "Invalid token"}), "{wrong}: {body}");
    }
    defender.forbid(Stream::Activities, true);
    let (status, body) = refused(ask(&defender, "activities", &json!({})).await).await;
    ensure!(status == 403 && body["detail"].as_str().unwrap().contains("not permitted"), "{body}");
    page(&defender, "alerts", &json!({})).await;
    defender.set_token("another");
    ensure!(ask(&defender, "alerts", &json!({})).await.status() == 401, "the old one is dead");
    ensure!(ask_as(&defender, "alerts", &json!({}), "Token another").await.status() == 200);
    Ok(())
}

#[tokio::test]
async fn faults_meet_the_requests_that_they_name() -> Result<()> {
    let defender = Defender::start(unlimited(3_000)).await?;
    let add = |fault: &str| defender.fault(fault.parse::<Fault>().unwrap());
    let first =
        json!({"isScan": true, "limit": 500, "sortField": "created", "sortDirection": "asc"});
    let status =
        async |what: &str, question: &Value| ask(&defender, what, question).await.status().as_u16();

    add("403@stream=activities,page=continued");
    ensure!(status("alerts", &json!({})).await == 200, "another stream");
    let one = page(&defender, "activities", &first).await;
    let mut second = first.clone();
    second["filters"] = one["nextQueryFilters"].clone();
    ensure!(status("activities", &second).await == 403, "in the middle of a walk");
    ensure!(status("activities", &second).await == 200, "once");

    add("502x2@after=1");
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(status("alerts", &json!({})).await);
    }
    ensure!(seen == [200, 502, 502, 200], "{seen:?}");

    add("429:date+7");
    let answer = ask(&defender, "alerts", &json!({})).await;
    ensure!(
        answer.status() == 429 && answer.headers()[header::RETRY_AFTER].to_str()?.ends_with("GMT")
    );
    add("jwks");
    let (code, body) = refused(ask(&defender, "alerts", &json!({})).await).await;
    ensure!(code == 401 && body["detail"] == "Invalid JSON Web Key Set");
    add("html");
    let answer = ask(&defender, "alerts", &json!({})).await;
    ensure!(
        answer.status() == 200
            && answer.headers()[header::CONTENT_TYPE].to_str()?.starts_with("text/html")
    );
    add("type:text/plain");
    let answer = ask(&defender, "alerts", &json!({})).await;
    ensure!(answer.headers()[header::CONTENT_TYPE] == "text/plain");
    for fault in ["broken", "short:300", "empty"] {
        add(fault);
        let body = ask(&defender, "alerts", &json!({})).await.bytes().await?;
        ensure!(serde_json::from_slice::<Value>(&body).is_err(), "{fault}");
    }
    add("cut:300");
    ensure!(
        ask(&defender, "alerts", &json!({})).await.bytes().await.is_err(),
        "the connection ends"
    );
    add("hang:1");
    let began = tokio::time::Instant::now();
    ensure!(status("alerts", &json!({})).await == 200 && began.elapsed() >= Duration::from_secs(1));

    add("500x*@p=0.3");
    let mut n_failed = 0;
    for _ in 0..200 {
        n_failed += u32::from(status("alerts", &json!({"limit": 1})).await == 500);
    }
    ensure!((30..=90).contains(&n_failed), "{n_failed} of 200 by chance");
    defender.clear_faults();
    ensure!(!defender.has_faults() && status("alerts", &json!({})).await == 200);
    Ok(())
}

#[tokio::test]
async fn what_a_cut_page_did_not_bring_counts_as_not_shown() -> Result<()> {
    let defender = Defender::start(unlimited(50)).await?;
    defender.fault("cut:20000".parse().unwrap());
    ensure!(ask(&defender, "activities", &json!({})).await.bytes().await.is_err());
    let n_shown = defender.shown().len();
    ensure!(n_shown > 0 && n_shown < 50, "{n_shown} are whole in the first 20,000 bytes");
    Ok(())
}
