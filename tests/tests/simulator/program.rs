//! The simulator itself: its data, its TLS, its control endpoint, its thread.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::{Client, header};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_tests::defender::{DEMO_TOKEN, Defender, Hostility, Options};
use siem_agent_tests::pki::Authority;

use super::ask::{ask, client, page, unlimited};

#[tokio::test]
async fn one_seed_makes_the_same_tenant_and_hostile_records_only_on_request() -> Result<()> {
    let shapes = async |seed, hostile| -> Result<Vec<String>> {
        let defender = Defender::start(Options { seed, hostile, ..unlimited(800) }).await?;
        let records = defender.records(Stream::Activities);
        Ok(records
            .iter()
            .map(|json| {
                let record: Value = serde_json::from_str(json).unwrap_or_default();
                format!(
                    "{} {} {} {}",
                    record["appName"],
                    record["user"]["userName"],
                    record["device"]["clientIP"],
                    record["description"]
                )
            })
            .collect())
    };
    let realistic = shapes(7, Hostility::None).await?;
    ensure!(realistic == shapes(7, Hostility::None).await?, "from one seed");
    ensure!(realistic != shapes(8, Hostility::None).await?, "another seed, another tenant");
    let distinct = |at: usize| {
        realistic.iter().filter_map(|line| line.split("\" ").nth(at)).collect::<BTreeSet<_>>().len()
    };
    ensure!(distinct(0) >= 15 && distinct(1) >= 200, "{} apps, {} users", distinct(0), distinct(1));
    ensure!(
        realistic.iter().any(|line| line.contains("2001:db8"))
            && realistic.iter().any(|line| line.contains("203.0.113."))
    );
    ensure!(realistic.iter().any(|line| line.contains("<b>")), "HTML");
    ensure!(!realistic.iter().any(|line| line.contains("FORGED")));
    ensure!(shapes(7, Hostility::Strings).await?.iter().any(|line| line.contains("FORGED")));

    let defender =
        Defender::start(Options { hostile: Hostility::Records, ..unlimited(800) }).await?;
    let texts = defender.records(Stream::Activities);
    let records: Vec<Value> =
        texts.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
    ensure!(texts.len() == 800 && records.len() < 800, "some hold lone surrogates");
    ensure!(
        records.iter().any(|record| record.is_object() && record.get("_id").is_none()),
        "no _id"
    );
    ensure!(records.iter().any(|record| !record.is_object()), "no object");
    ensure!(records.iter().any(|record| record["device"] == 5), "wrong types");
    ensure!(
        records
            .iter()
            .any(|record| record["description"].as_str().is_some_and(|text| text.len() == 1 << 20))
    );
    Ok(())
}

#[tokio::test]
async fn it_speaks_tls_with_an_authority_of_its_own() -> Result<()> {
    let authority = Authority::new("simulator")?;
    let tls = Some(authority.loopback_server()?);
    let defender = Defender::start(Options { tls, ..unlimited(1) }).await?;
    client();
    let trusting = Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(authority.certificate().as_bytes())?])
        .build()?;
    let request = trusting.post(format!("{}/api/v1/alerts/", defender.url()));
    let answer = request
        .header(header::AUTHORIZATION, format!("Token {DEMO_TOKEN}"))
        .json(&json!({}))
        .send()
        .await?;
    ensure!(answer.status() == 200 && defender.url().starts_with("https://localhost:"));
    ensure!(client().post(defender.url()).send().await.is_err(), "nobody else trusts it");
    Ok(())
}

#[tokio::test]
async fn the_control_endpoint_does_what_the_library_does() -> Result<()> {
    let defender = Defender::start(unlimited(100)).await?;
    let client = client();
    let at = |path: &str| format!("{}/_sim/{path}", defender.url());
    let post = async |path: &str, body: &str| {
        client.post(at(path)).body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    let get = async |path: &str| {
        client.get(at(path)).send().await.unwrap().json::<Value>().await.unwrap()
    };
    ensure!(client.get(at("")).send().await?.text().await?.contains("/_sim/faults"));
    ensure!(get("produced").await.as_array().unwrap().len() == 102);
    page(&defender, "activities", &json!({})).await;
    ensure!(get("shown").await.as_array().unwrap().len() == 100);
    ensure!(get("shown").await[0]["stream"] == "activities");
    ensure!(post("produce/alerts", "5").await == 200 && defender.produced().len() == 107);
    ensure!(post("records/alerts", r#"{"_id": "mine", "timestamp": 1}"#).await == 200);
    ensure!(defender.produced().contains(&(Stream::Alerts, "mine".to_owned())));
    ensure!(
        post("faults", "500@stream=alerts").await == 200 && post("faults", "nonsense").await == 400
    );
    ensure!(get("faults").await.as_array().unwrap().len() == 1);
    ensure!(ask(&defender, "alerts", &json!({})).await.status() == 500);
    ensure!(post("forbidden/alerts", "").await == 200);
    ensure!(ask(&defender, "alerts", &json!({})).await.status() == 403);
    ensure!(client.delete(at("forbidden/alerts")).send().await?.status() == 200);
    ensure!(ask(&defender, "alerts", &json!({})).await.status() == 200);
    ensure!(post("token", "another\n").await == 200);
    ensure!(ask(&defender, "alerts", &json!({})).await.status() == 401);
    let statuses: Vec<_> = get("requests")
        .await
        .as_array()
        .unwrap()
        .iter()
        .map(|request| request["status"].as_u64().unwrap())
        .collect();
    ensure!(statuses == [200, 500, 403, 200, 401], "{statuses:?}");
    ensure!(post("skew", "3600").await == 200 && post("rate", "x").await == 400);
    ensure!(post("rate", "50").await == 200);
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while defender.produced().len() < 130 {
        ensure!(tokio::time::Instant::now() < until, "records are made at the new rate");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn it_answers_while_the_test_is_busy() -> Result<()> {
    let defender = Defender::start(Options { rate: 100.0, ..unlimited(1) }).await?;
    let n_before = defender.produced().len();
    // The only thread of this runtime waits here, and a client of another thread is served.
    let address = defender.address();
    let answered = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /_sim/shown HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    ensure!(answered.join().unwrap().starts_with("HTTP/1.1 200"));
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while defender.produced().len() < n_before + 10 {
        ensure!(tokio::time::Instant::now() < until, "and records are made");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
