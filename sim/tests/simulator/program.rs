//! The simulator itself: its data, its TLS, its control endpoint, its thread.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, header};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Hostility, Options};
use siem_agent_sim::forwarder::{PATIENCE, program};
use siem_agent_sim::issuer::Issuer;
use siem_agent_sim::pki::Authority;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

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

/// The program with these arguments, and the URL that it says.
async fn started(arguments: &[&str]) -> Result<(tokio::process::Child, String)> {
    let mut child = tokio::process::Command::new(program("defender-sim")?)
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut url = String::new();
    timeout(PATIENCE, out.read_line(&mut url)).await??;
    Ok((child, url.trim().to_owned()))
}

#[tokio::test]
async fn the_program_speaks_graph_without_a_flag_and_has_some_for_its_limits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys.json");
    let issuer = Issuer::new()?;
    std::fs::write(&keys, issuer.jwks())?;
    let mut child = tokio::process::Command::new(program("defender-sim")?)
        .args(["--listen=127.0.0.1:0", "--rate=0", "--history=50", "--hunting-budget=2"])
        .args(["--graph-budget=1", "--result-limit=100", "--out-of-order=1", "--trust-issuer=me"])
        .args(["--trust-subject=you", "--fault=504-html@stream=graph-alerts"])
        .arg(format!("--trust-jwks={}", keys.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let (url, graph) = (line().await, line().await);
    ensure!(graph == format!("Microsoft Graph: {url}/v1.0"), "{graph}");
    let assertion = issuer.token(&json!({
        "iss": "me", "sub": "you", "aud": "api://AzureADTokenExchange", "exp": 4_000_000_000_u32,
    }))?;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "11111111-2222-3333-4444-555555555555"),
        ("scope", "https://graph.microsoft.com/.default"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", &assertion),
    ];
    let url = |path: &str| format!("{url}/{path}");
    let granted = client().post(url("contoso.example/oauth2/v2.0/token")).form(&form).send();
    let granted: Value = granted.await?.json().await?;
    let bearer = format!("Bearer {}", granted["access_token"].as_str().unwrap_or_default());
    let hunt = async |query: &str| {
        let request = client().post(url("v1.0/security/runHuntingQuery"));
        let request = request.header(header::AUTHORIZATION, &bearer).json(&json!({"Query": query}));
        request.send().await.unwrap().status().as_u16()
    };
    ensure!(hunt("CloudAppEvents | count").await == 200, "--trust-issuer");
    ensure!(hunt("CloudAppEvents").await == 400, "--result-limit");
    ensure!(hunt("CloudAppEvents | count").await == 429, "--hunting-budget");
    for status in [504, 429] {
        let request = client().get(url("v1.0/security/alerts_v2"));
        let answer = request.header(header::AUTHORIZATION, &bearer).send().await?;
        ensure!(answer.status() == status, "--fault and --graph-budget");
    }
    Ok(())
}

#[tokio::test]
async fn the_program_takes_what_it_simulates_from_its_arguments() -> Result<()> {
    let arguments = [
        "--seed=7 --rate=0 --history=300 --alert-history=50 --budget=4 --retry-after=seconds",
        "--token=mine --skew=-7200 --fault=500@stream=alerts --hostile=none",
    ];
    let arguments: Vec<&str> = arguments.iter().flat_map(|line| line.split(' ')).collect();
    let (mut child, url) = started(&arguments).await?;
    let client = client();
    let ask = async |what: &str| {
        let request = client.post(format!("{url}/api/v1/{what}/"));
        request.header(header::AUTHORIZATION, "Token mine").json(&json!({})).send().await.unwrap()
    };
    ensure!(ask("alerts").await.status() == 500, "--fault");
    let answer = ask("alerts").await;
    ensure!(answer.status() == 200, "--token");
    let date = httpdate::parse_http_date(answer.headers()[header::DATE].to_str()?)?;
    let date = jiff::Timestamp::try_from(date)?.as_millisecond();
    let skew = (date - siem_agent_sim::clock::millis()) / 1_000;
    ensure!((-7_260..-7_140).contains(&skew), "--skew: {skew} s");
    ensure!(answer.json::<Value>().await?["total"] == 50, "--alert-history");
    let page: Value = ask("activities").await.json().await?;
    ensure!(page["total"] == 300, "--history and --rate");
    let who = |page: &Value| -> Vec<String> {
        let records = page["data"].as_array().unwrap().iter();
        records.map(|it| format!("{} {}", it["appName"], it["user"]["userName"])).collect()
    };
    let same = Defender::start(Options {
        seed: 7,
        hostile: Hostility::None,
        budget: 0,
        history: (300, Duration::from_secs(48 * 3600)),
        ..Options::default()
    });
    let same = same.await?;
    let request = client.post(format!("{}/api/v1/activities/", same.url()));
    let request = request.header(header::AUTHORIZATION, format!("Token {DEMO_TOKEN}"));
    let expected: Value = request.json(&json!({})).send().await?.json().await?;
    ensure!(who(&page) == who(&expected), "--seed");
    ensure!(ask("alerts").await.status() == 200, "--budget");
    let answer = ask("alerts").await;
    ensure!(answer.status() == 429 && answer.headers().contains_key(header::RETRY_AFTER));
    kill(Pid::from_raw(i32::try_from(child.id().unwrap())?), Signal::SIGTERM)?;
    ensure!(timeout(PATIENCE, child.wait()).await??.success(), "SIGTERM ends it in order");
    Ok(())
}

#[tokio::test]
async fn late_records_and_a_rate_come_from_the_arguments_and_nonsense_is_refused() -> Result<()> {
    let (_child, url) = started(&["--rate=200", "--late=3600", "--history=0"]).await?;
    let client = client();
    let n_of = async |what: &str| {
        let listed = client.get(format!("{url}/_sim/{what}")).send().await.unwrap();
        listed.json::<Value>().await.unwrap().as_array().unwrap().len()
    };
    let until = tokio::time::Instant::now() + PATIENCE;
    while n_of("produced").await < 200 {
        ensure!(tokio::time::Instant::now() < until, "--rate");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let request = client.post(format!("{url}/api/v1/activities/"));
    let request = request.header(header::AUTHORIZATION, format!("Token {DEMO_TOKEN}"));
    let question = json!({"isScan": true, "limit": 5000});
    let page: Value = request.json(&question).send().await?.json().await?;
    let n_visible = page["data"].as_array().unwrap().len();
    let n_produced = n_of("produced").await;
    ensure!(n_visible > 0 && n_visible < n_produced, "--late: {n_visible} of {n_produced}");
    for (arguments, code, words) in [
        (["--listen", "0.0.0.0:0"], 1, "loopback"),
        (["--fault", "nonsense"], 2, "unknown fault"),
        (["--seed", "x"], 2, "--seed"),
    ] {
        let ended = tokio::process::Command::new(program("defender-sim")?).args(arguments).output();
        let ended = timeout(PATIENCE, ended).await??;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.code() == Some(code) && said.contains(words), "{arguments:?}: {said}");
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
