//! Who may not ask Graph, who asks too often, and faults on demand.

use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::header;
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options, RetryAfter};

use super::super::ask::{ask_as, unlimited};
use super::{Graph, bearer, refused, rows};

const PORTAL: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af/.default";

#[tokio::test]
async fn each_service_has_a_budget_of_its_own() -> Result<()> {
    let options = Options {
        graph_budget: 6,
        hunting_budget: 3,
        retry_after: RetryAfter::Seconds,
        ..Options::default()
    };
    let defender = Defender::start(options).await?;
    let graph = Graph::at(&defender).await;
    for _ in 0..3 {
        graph.hunt("CloudAppEvents | count").await;
        graph.page(&[]).await;
        graph.page(&[]).await;
    }
    for answer in [graph.ask(&json!({"Query": "CloudAppEvents"})).await, graph.alerts(&[]).await] {
        let after: u64 = answer.headers()[header::RETRY_AFTER].to_str()?.parse()?;
        ensure!((1..=60).contains(&after));
        let (status, code, _) = refused(answer).await;
        ensure!(status == 429 && code == "TooManyRequests");
    }
    let token = format!("Token {DEMO_TOKEN}");
    ensure!(ask_as(&defender, "alerts", &json!({}), &token).await.status() == 200);

    let defender = Defender::start(Options { hunting_budget: 1, ..Options::default() }).await?;
    let graph = Graph::at(&defender).await;
    graph.hunt("CloudAppEvents | count").await;
    let answer = graph.ask(&json!({"Query": "CloudAppEvents"})).await;
    ensure!(answer.status() == 429 && !answer.headers().contains_key(header::RETRY_AFTER));
    Ok(())
}

#[tokio::test]
async fn the_share_of_cpu_is_used_up_until_it_is_lifted() -> Result<()> {
    let defender = Defender::start(unlimited(10)).await?;
    let graph = Graph::at(&defender).await;
    defender.spend_cpu_quota(true);
    let (status, code, message) =
        refused(graph.ask(&json!({"Query": "CloudAppEvents"})).await).await;
    ensure!(
        status == 429 && code == "TooManyRequests" && message.contains("CPU quota"),
        "{message}"
    );
    graph.page(&[]).await;
    defender.spend_cpu_quota(false);
    graph.hunt("CloudAppEvents").await;
    Ok(())
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named() -> Result<()> {
    let defender = Defender::start(unlimited(10)).await?;
    let graph = Graph::at(&defender).await;
    defender.forbid(Stream::Alerts, true);
    let (status, code, message) = refused(graph.alerts(&[]).await).await;
    ensure!(status == 403 && code == "Forbidden");
    ensure!(message.starts_with("Missing application roles. API required roles: SecurityAlert.Read.All, application roles: "), "{message}");
    graph.hunt("CloudAppEvents").await;
    defender.forbid(Stream::Activities, true);
    let (status, _, message) = refused(graph.ask(&json!({"Query": "CloudAppEvents"})).await).await;
    ensure!(status == 403 && message.contains("ThreatHunting.Read.All"), "{message}");
    defender.forbid(Stream::Alerts, false);
    graph.page(&[]).await;
    Ok(())
}

#[tokio::test]
async fn a_token_is_good_for_the_api_that_it_was_asked_for() -> Result<()> {
    let defender = Defender::start(unlimited(10)).await?;
    for scope in [
        "https://graph.microsoft.com/.default",
        "https://graph.microsoft.us/.default",
        "https://dod-graph.microsoft.us/.default",
        &format!("{}/.default", defender.url()),
        &format!("http://localhost:{}/.default", defender.address().port()),
    ] {
        let of_graph = bearer(&defender, scope).await;
        let graph = Graph { defender: &defender, bearer: of_graph.clone() };
        graph.page(&[]).await;
        ensure!(
            ask_as(&defender, "alerts", &json!({}), &of_graph).await.status() == 401,
            "{scope}"
        );
    }
    let of_portal = bearer(&defender, PORTAL).await;
    ensure!(ask_as(&defender, "alerts", &json!({}), &of_portal).await.status() == 200);
    let refuse = async |bearer: &str, words: &str| -> Result<()> {
        let graph = Graph { defender: &defender, bearer: bearer.to_owned() };
        for answer in
            [graph.alerts(&[]).await, graph.ask(&json!({"Query": "CloudAppEvents"})).await]
        {
            let (status, code, message) = refused(answer).await;
            ensure!(status == 401 && code == "InvalidAuthenticationToken", "{bearer}");
            ensure!(message == words, "{message}");
        }
        Ok(())
    };
    let expired = "Access token has expired or is not yet valid.";
    refuse(&of_portal, "Access token validation failure. Invalid audience.").await?;
    refuse(&format!("Token {DEMO_TOKEN}"), expired).await?;
    refuse("Bearer wrong", expired).await?;
    let of_graph = Graph::at(&defender).await.bearer;
    defender.revoke();
    refuse(&of_graph, expired).await?;
    Ok(())
}

#[tokio::test]
async fn faults_meet_graph_in_its_own_words() -> Result<()> {
    let defender = Defender::start(Options { alert_history: Some(300), ..unlimited(300) }).await?;
    let graph = Graph::at(&defender).await;
    let add = |fault: &str| defender.fault(fault.parse().unwrap());
    let hunt = json!({"Query": "CloudAppEvents"});

    add("500@stream=graph-hunting");
    graph.page(&[]).await;
    let (status, code, _) = refused(graph.ask(&hunt).await).await;
    ensure!(status == 500 && code == "InternalServerError");
    add("503@stream=graph-alerts,page=continued");
    let page = graph.page(&[]).await;
    let next = page["@odata.nextLink"].as_str().unwrap().to_owned();
    ensure!(graph.get(&next).await.status() == 503 && graph.get(&next).await.status() == 200);

    for (fault, status, code) in [
        ("429:7", 429, "TooManyRequests"),
        ("429-in-words:9", 429, "TooManyRequests"),
        ("504", 504, "GatewayTimeout"),
        ("too-large", 400, "BadRequest"),
        ("401", 401, "InvalidAuthenticationToken"),
        ("403", 403, "Forbidden"),
        ("418", 418, "UnknownError"),
    ] {
        for hunting in [false, true] {
            add(fault);
            let answer = if hunting { graph.ask(&hunt).await } else { graph.alerts(&[]).await };
            let after = answer.headers().get(header::RETRY_AFTER).cloned();
            ensure!(after.is_some() == (fault == "429:7"), "{fault}");
            let (answered, said, _) = refused(answer).await;
            ensure!(answered == status && said == code, "{fault}: {answered} {said}");
        }
    }
    for (fault, status, kind) in [
        ("504-html", 504, "text/html"),
        ("html", 200, "text/html"),
        ("refusal:403:no", 403, "text/plain"),
        ("type:text/plain", 200, "text/plain"),
    ] {
        add(fault);
        let answer = graph.ask(&hunt).await;
        ensure!(answer.status() == status, "{fault}");
        ensure!(answer.headers()[header::CONTENT_TYPE].to_str()?.starts_with(kind), "{fault}");
    }
    for fault in ["broken", "short:300", "empty", "mark"] {
        for hunting in [false, true] {
            add(fault);
            let answer = if hunting { graph.ask(&hunt).await } else { graph.alerts(&[]).await };
            ensure!(serde_json::from_slice::<Value>(&answer.bytes().await?).is_err(), "{fault}");
        }
    }
    add("more@stream=graph-alerts");
    let page = graph.page(&[("$top", "5")]).await;
    ensure!(page["value"] == json!([]) && page["@odata.nextLink"].is_string());
    add("more@stream=graph-hunting");
    ensure!(rows(&graph.hunt("CloudAppEvents").await).is_empty());
    add("hang:1@stream=graph-hunting");
    let began = tokio::time::Instant::now();
    graph.hunt("CloudAppEvents").await;
    ensure!(began.elapsed() >= Duration::from_secs(1));
    Ok(())
}

#[tokio::test]
async fn what_a_cut_answer_did_not_bring_counts_as_not_shown() -> Result<()> {
    let defender = Defender::start(Options { alert_history: Some(50), ..unlimited(100) }).await?;
    let graph = Graph::at(&defender).await;
    defender.fault("cut:20000@stream=graph-alerts".parse().unwrap());
    ensure!(graph.alerts(&[]).await.bytes().await.is_err());
    let n_alerts = defender.shown().len();
    ensure!(n_alerts > 0 && n_alerts < 50, "{n_alerts}");
    defender.fault("cut:40000@stream=graph-hunting".parse().unwrap());
    ensure!(graph.ask(&json!({"Query": "CloudAppEvents"})).await.bytes().await.is_err());
    let n_rows = defender.shown().len() - n_alerts;
    ensure!(n_rows > 0 && n_rows < 70, "{n_rows}");
    Ok(())
}
