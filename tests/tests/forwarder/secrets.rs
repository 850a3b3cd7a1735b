//! Planted secrets are seen nowhere: not in outputs, log files, state, metrics or the report, nor in the arguments and the
//! environment of any process, with everything logged, whatever goes right or wrong.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

mod malformed;
mod place;
mod search;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{Defender, Options};
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::pki::Authority;
use siem_agent_tests::proxy::{Policy, Proxy};
use siem_agent_tests::receiver::{Framing, Receiver, Tls};
use tokio::time::{Instant, sleep};

use place::Place;
use search::{CLIENT_SECRET, PASSWORD, Search, TOKEN, USERNAME, files, processes};

fn tenant(token: &str) -> Options {
    Options {
        budget: 0,
        history: (100, Duration::from_secs(3600)),
        alert_history: Some(150),
        token: token.to_owned(),
        ..Options::default()
    }
}

fn delivered(status: &serde_json::Value, stream: &str, n_records: u64) -> bool {
    status["streams"][stream]["deliveredTotal"].as_u64().is_some_and(|told| told >= n_records)
}

#[tokio::test]
async fn a_token_is_seen_nowhere_whether_it_is_good_or_dead() -> Result<()> {
    let defender = Defender::start(tenant(TOKEN)).await?;
    let receiver = Receiver::start(Framing::Newline, None).await?;
    let mut place = Place::new("")?;
    let source = format!(
        "cloudApps: {{url: '{}'}}, auth: {{tokenSecretRef: {{name: defender}}}}",
        defender.url()
    );
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", receiver.port());
    place.start(&source, &syslog)?;
    place
        .look_until("it delivers", |status| {
            delivered(status, "activities", 100) && delivered(status, "alerts", 150)
        })
        .await?;
    for fault in ["500", "cut:200", "broken", "html", "jwks", "429:1", "400"] {
        defender.fault(fault.parse().unwrap());
    }
    // A server that repeats what it was given.
    defender.fault(format!("401:Invalid token {TOKEN}").parse().unwrap());
    defender.fault(format!("401:Invalid token {TOKEN}").parse().unwrap());
    place
        .look_until("a dead token is told", |status| status["token"]["state"] == "Invalid")
        .await?;
    place.mount("defender", "token", format!("{TOKEN}\n{TOKEN}"))?;
    place.look().await?;
    place.end().await?;
    for frame in receiver.frames() {
        place.search.finds_nothing("a syslog line", frame.as_bytes());
    }

    defender.clear_faults();
    let manifest = place.manifest(&source, &syslog)?;
    let secrets = place.secrets.path().display().to_string();
    let with =
        |command: &'static str| vec![command, "--manifest", &manifest, "--secrets", &secrets];
    ensure!(place.command(&with("run")).await? == Some(2), "a token of two lines");
    ensure!(place.command(&with("check")).await? == Some(2));
    ensure!(place.command(&[with("check"), vec!["--token", TOKEN]].concat()).await? == Some(0));
    defender.set_token("another");
    ensure!(place.command(&[with("check"), vec!["--token", TOKEN]].concat()).await? == Some(1));
    let window =
        vec!["--token", TOKEN, "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"];
    ensure!(place.command(&[with("replay"), window].concat()).await? == Some(1));
    in_a_pod(&place, &defender, &place.config(&source, &syslog)?).await?;
    ensure!(place.command(&["run", "--token", TOKEN]).await? == Some(2));
    ensure!(place.command(&["run", "--config", "x", "--token", TOKEN]).await? == Some(2));
    ensure!(
        place
            .command(&[
                "run",
                "--manifest",
                &manifest,
                &format!("--token={TOKEN}"),
                "--listen",
                "x"
            ])
            .await?
            == Some(2)
    );
    ensure!(
        place
            .command(
                &[with("check"), vec!["--proxy", &format!("{USERNAME}:{PASSWORD}@proxy")]].concat()
            )
            .await?
            == Some(2)
    );
    Ok(())
}

/// The commands that a pod's own configuration is given to, with a token of two lines, a dead one and a good one.
async fn in_a_pod(place: &Place, defender: &Defender, config: &str) -> Result<()> {
    let window = ["--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"];
    let replay = [&["replay", "--config", config], &window[..]].concat();
    let check = ["check", "--config", config, "--send-test-event"];
    ensure!(place.command(&check).await? == Some(1), "a token of two lines");
    ensure!(place.command(&replay).await? == Some(1));
    place.mount("defender", "token", TOKEN)?;
    ensure!(place.command(&check).await? == Some(1), "a dead token");
    ensure!(place.command(&replay).await? == Some(1));
    defender.set_token(TOKEN);
    ensure!(place.command(&check).await? == Some(0), "a good token");
    ensure!(place.command(&replay).await? == Some(0));
    for flag in ["--token", "--token-file", "--proxy", "--secrets"] {
        ensure!(place.command(&[&check[..], &[flag, TOKEN]].concat()).await? == Some(2));
        ensure!(place.command(&[&replay[..], &[flag, TOKEN]].concat()).await? == Some(2));
    }
    Ok(())
}

#[tokio::test]
async fn secrets_of_an_application_a_proxy_and_a_certificate_are_seen_nowhere() -> Result<()> {
    let authority = Authority::new("right")?;
    let client = authority.client("forwarder")?;
    let options = Options { tls: Some(authority.loopback_server()?), ..tenant(CLIENT_SECRET) };
    let defender = Defender::start(options).await?;
    let tls =
        Tls { identity: authority.loopback_server()?, clients: Some(authority.certificate()) };
    let receiver = Receiver::start(Framing::Newline, Some(tls)).await?;
    let good = Policy::Credentials(USERNAME.to_owned(), PASSWORD.to_owned());
    let proxy = Proxy::start(good.clone()).await?;
    let mut place = Place::new(&client.key)?;
    place.mount("mine", "tls.crt", &client.certificate)?;
    place.mount("ca", "ca.crt", authority.certificate())?;
    let source = format!(
        "cloudApps: {{url: '{0}'}}, caBundleRef: {{name: ca}}, proxy: {{url: '{1}', credentialsSecretRef: {{name: proxy}}}}, \
         auth: {{clientCredentials: {{tenantId: contoso.com, clientId: 11111111-2222-3333-4444-555555555555, \
         clientSecretRef: {{name: defender}}, authorityUrl: '{0}'}}}}",
        defender.url(),
        proxy.url()
    );
    let syslog = format!(
        "{{host: localhost, port: {}, protocol: TLS, tls: {{caBundleRef: {{name: ca}}, clientCertificateSecretRef: {{name: mine}}}}}}",
        receiver.port()
    );
    place.start(&source, &syslog)?;
    place
        .look_until("it delivers", |status| {
            delivered(status, "activities", 100) && delivered(status, "alerts", 150)
        })
        .await?;
    let issued = defender.access_tokens();
    ensure!(!issued.is_empty());
    issued.iter().for_each(|token| place.search.plant("access token", token));
    place.look().await?;
    let heads: String = proxy.passed().iter().map(|passed| passed.head.clone()).collect();
    ensure!(
        !place.search.found_in(heads.as_bytes()).is_empty(),
        "the proxy was shown the password: it was in use"
    );

    defender.revoke();
    defender.produce(10);
    place
        .look_until("a refused access token is renewed", |status| {
            delivered(status, "activities", 110)
        })
        .await?;
    defender.access_tokens().iter().for_each(|token| place.search.plant("access token", token));
    defender.set_token("another");
    defender.revoke();
    place
        .look_until("a refused client secret is told", |status| {
            status["token"]["reason"].as_str().unwrap_or_default().contains("AADSTS7000215")
        })
        .await?;
    defender.set_token(CLIENT_SECRET);
    for policy in
        [Policy::Credentials("nobody".to_owned(), "x".to_owned()), Policy::Forbidden("text/html")]
    {
        place.end().await?;
        proxy.set_policy(policy);
        place.start(&source, &syslog)?;
        place
            .look_until("the proxy refuses", |status| status["source"]["state"] == "Unreachable")
            .await?;
    }
    proxy.set_policy(good);
    place.end().await?;

    // Authorities that nobody trusts, on both sides, and a key that fits no certificate.
    let stranger = Authority::new("wrong")?;
    place.mount("ca", "ca.crt", stranger.certificate())?;
    place.start(&source, &syslog)?;
    place.look_until("nobody is trusted", |status| status["target"]["state"] == "Down").await?;
    place.mount("mine", "tls.crt", &stranger.client("forwarder")?.certificate)?;
    place.end().await?;
    let manifest = place.manifest(&source, &syslog)?;
    let secrets = place.secrets.path().display().to_string();
    for command in ["run", "check"] {
        let code =
            place.command(&[command, "--manifest", &manifest, "--secrets", &secrets]).await?;
        ensure!(code == Some(2), "{command}: a key that does not fit is told");
    }
    place.mount("mine", "tls.crt", &client.certificate)?;
    ensure!(
        place.command(&["check", "--manifest", &manifest, "--secrets", &secrets]).await? == Some(1)
    );
    place.mount("ca", "ca.crt", authority.certificate())?;
    defender.forbid(Stream::Alerts, true);
    ensure!(
        place.command(&["check", "--manifest", &manifest, "--secrets", &secrets]).await? == Some(1)
    );
    defender.forbid(Stream::Alerts, false);
    ensure!(
        place
            .command(&[
                "check",
                "--manifest",
                &manifest,
                "--secrets",
                &secrets,
                "--send-test-event"
            ])
            .await?
            == Some(0)
    );
    Ok(())
}

/// What a record says is for the SIEM alone, whether it can be mapped or not.
#[tokio::test]
async fn what_records_say_is_seen_nowhere_but_in_their_lines() -> Result<()> {
    let word = "Planted-words-of-a-record-8Qkx7";
    let defender = Defender::start(tenant(TOKEN)).await?;
    let now = siem_agent_sim::clock::millis();
    for record in [
        json!({"_id": format!("{word}-id"), "timestamp": now, "created": now, "eventTypeName": format!("{word}-type"),
            "description": format!("Log on of {word}"), "user": {"userName": word}, "device": {"userAgent": word}}),
        json!({"timestamp": now, "created": now, "description": word, "user": {"userName": word}}),
        json!({"_id": "no-time", "timestamp": word, "created": now, "description": word}),
        json!([word, {"description": word}]),
    ] {
        defender.inject(Stream::Activities, &record.to_string());
    }
    let alert = json!({"_id": "planted", "timestamp": now, "title": word, "description": word, "entities": [{"label": word}]});
    defender.inject(Stream::Alerts, &alert.to_string());
    // Bodies that break in the middle of one.
    for fault in ["cut:5000", "broken"] {
        defender.fault(format!("{fault}@stream=activities").parse().unwrap());
        defender.fault(format!("{fault}@stream=alerts").parse().unwrap());
    }
    let receiver = Receiver::start(Framing::Newline, None).await?;
    let mut place = Place::new("")?;
    place.search.plant("a record", word);
    let source = format!(
        "cloudApps: {{url: '{}'}}, auth: {{tokenSecretRef: {{name: defender}}}}",
        defender.url()
    );
    place.start(&source, &format!("{{host: 127.0.0.1, port: {}}}", receiver.port()))?;
    place
        .look_until("it delivers and rejects", |status| {
            delivered(status, "activities", 101)
                && delivered(status, "alerts", 151)
                && status["streams"]["activities"]["rejectedTotal"] == 3
        })
        .await?;
    place.end().await?;
    ensure!(!defender.has_faults(), "each was met");
    let frames = receiver.frames();
    let n_planted = frames.iter().filter(|frame| frame.contains(word)).count();
    ensure!(n_planted >= 2, "{n_planted} lines carry it: it was there to be seen");
    Ok(())
}

/// The search itself: it finds what it looks for, in every form and every place.
#[tokio::test]
async fn the_search_would_find_them() -> Result<()> {
    let key = Authority::new("control")?.client("control")?.key;
    let search = Search::new(&key);
    for hay in [
        format!("Authorization: Token {TOKEN}"),
        format!(
            "Proxy-Authorization: Basic {}",
            BASE64_STANDARD.encode(format!("{USERNAME}:{PASSWORD}"))
        ),
        format!(
            "grant_type=client_credentials&client_secret={}",
            form_urlencoded::byte_serialize(CLIENT_SECRET.as_bytes()).collect::<String>()
        ),
        format!("secret: {}", BASE64_STANDARD.encode(CLIENT_SECRET)),
        format!("{:?}", TOKEN.as_bytes()),
        format!("{:x?}", TOKEN.as_bytes()),
        TOKEN.bytes().map(|byte| format!("{byte} ")).collect(),
        TOKEN.bytes().map(|byte| format!("\\x{byte:02X}")).collect(),
        TOKEN.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        TOKEN.bytes().rev().map(char::from).collect(),
        TOKEN
            .as_bytes()
            .chunks(2)
            .flat_map(|pair| pair.iter().rev())
            .map(|byte| char::from(*byte))
            .collect(),
        BASE64_STANDARD.encode(format!("x{TOKEN}")),
        format!("half of it: {}", &TOKEN[TOKEN.len() / 2..]),
        format!("{:?}", BASE64_STANDARD.decode(key.lines().nth(2).unwrap()).unwrap()),
        format!("config: {}", serde_json::json!({"password": PASSWORD})),
        key.lines().nth(2).unwrap().to_owned(),
    ] {
        ensure!(!search.found_in(hay.as_bytes()).is_empty(), "not found: {hay}");
    }
    search.finds_nothing("another text", b"Authorization: Token another");

    // A process that shows one in its arguments, and whose child shows one in its environment.
    let mut child = Command::new("/bin/sh")
        .args(["-c", "SHOWN=$1 /bin/sh -c 'read line'; true", "sh", TOKEN])
        .stdin(Stdio::piped())
        .spawn()?;
    let until = Instant::now() + PATIENCE;
    let seen = loop {
        let found: Vec<String> = processes(child.id())
            .iter()
            .filter(|(_, bytes)| !search.found_in(bytes).is_empty())
            .map(|(path, _)| path.rsplit('/').next().unwrap().to_owned())
            .collect();
        // Before it becomes another program, a child shows its parent's arguments.
        if found.iter().any(|found| found == "environ") || Instant::now() > until {
            break found;
        }
        sleep(LOOK).await;
    };
    drop(child.stdin.take());
    child.wait()?;
    ensure!(
        seen.contains(&"cmdline".to_owned()) && seen.contains(&"environ".to_owned()),
        "{seen:?}"
    );

    // And a file, where outputs are looked for.
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("logs"))?;
    fs::write(folder.path().join("logs/today.log"), format!("DEBUG token={TOKEN}"))?;
    let found = files(folder.path());
    ensure!(found.len() == 1 && !search.found_in(&fs::read(&found[0])?).is_empty());
    Ok(())
}
