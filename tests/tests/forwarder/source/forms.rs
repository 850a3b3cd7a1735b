//! Inputs as people and servers really have them: tokens with what editors leave around them, identity providers' and
//! proxies' refusals, answers that are nearly JSON, addresses in the place of names.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Options};
use siem_agent_sim::forwarder::LOOK;
use siem_agent_sim::pki::Authority;
use siem_agent_tests::proxy::{Policy, Proxy};
use tokio::time::{Instant, sleep};

use super::world::{Manifest, World, tenant};

/// Puts bytes where a pod would have a token mounted.
fn mount(world: &World, bytes: &[u8]) -> Result<()> {
    let folder = world.forwarder.secrets().join("defender");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("next"), bytes)?;
    Ok(std::fs::rename(folder.join("next"), folder.join("token"))?)
}

async fn is_taken(file: Vec<u8>) -> Result<()> {
    let mut world = World::prepare(tenant(20, 20), &Manifest::default()).await?;
    mount(&world, &file)?;
    world.forwarder.start().await?;
    world.all_delivered().await.with_context(|| format!("{file:?}"))?;
    ensure!(world.defender.requests().iter().all(|request| request.status == 200), "{file:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_is_taken_without_what_is_around_it() -> Result<()> {
    let utf16: Vec<u8> =
        format!("\u{FEFF}{DEMO_TOKEN}\r\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files = [
        format!("\u{FEFF}\"{DEMO_TOKEN}\u{200B}\"\r\n").into_bytes(),
        format!("Authorization: Token {DEMO_TOKEN}\n").into_bytes(),
        format!("Bearer '{DEMO_TOKEN}'\n\n").into_bytes(),
        utf16,
    ];
    try_join_all(files.map(is_taken)).await?;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_a_token_is_never_sent_nor_shown() -> Result<()> {
    let world = World::start(tenant(20, 20), &Manifest::default()).await?;
    world.all_delivered().await?;
    let mut n_asked = None;
    for (file, words) in [
        (&b"PLANTED PLANTED"[..], "a blank in the middle"),
        (b"{\"token\": \"PLANTED\"}", "a JSON document"),
        ("PLANTED\u{200B}PLANTED".as_bytes(), "an invisible character"),
        (b"-----BEGIN PRIVATE KEY-----\nPLANTED\n-----END PRIVATE KEY-----\n", "a PEM block"),
        (b"https://contoso.portal.cloudappsecurity.com/?t=PLANTED", "a URL"),
        (b"\"\"", "is empty"),
    ] {
        mount(&world, file)?;
        let status = world
            .until(words, |status| {
                status["token"]["state"] == "Invalid"
                    && status["token"]["reason"].as_str().is_some_and(|said| said.contains(words))
            })
            .await?;
        let reason = status["token"]["reason"].as_str().unwrap();
        ensure!(reason.contains("defender/token") && !reason.contains("new token"), "{reason}");
        ensure!(!status.to_string().contains("PLANTED"), "{status}");
        let n_now = world.defender.requests().len();
        ensure!(*n_asked.get_or_insert(n_now) == n_now, "{words}: it was sent");
    }
    let known = world.defender.requests();
    ensure!(known.iter().all(|request| request.status == 200), "none was refused by the API");
    world.defender.produce(10);
    ensure!(!world.forwarder.log()?.contains("PLANTED"), "{}", world.forwarder.log()?);
    mount(&world, format!("{DEMO_TOKEN}\n").as_bytes())?;
    world.delivered_within(Duration::from_secs(20)).await
}

/// A forwarder that authenticates as an application at a provider that does this.
async fn application(faults: &[&str]) -> Result<World> {
    let mut world = World::prepare(tenant(20, 20), &Manifest::default()).await?;
    let auth = format!(
        "{{clientCredentials: {{tenantId: contoso.com, clientId: 11111111-2222-3333-4444-555555555555, \
         clientSecretRef: {{name: defender}}, authorityUrl: \"{}\"}}}}",
        world.defender.url()
    );
    let manifest = Manifest { auth, ..Manifest::default() };
    std::fs::write(world.forwarder.manifest(), manifest.text(&world.defender, &world.receiver))?;
    world.mount("defender", "clientSecret", DEMO_TOKEN)?;
    faults.iter().for_each(|fault| world.fault(fault));
    world.forwarder.start().await?;
    Ok(world)
}

async fn is_refused(words: &str, advice: &str) -> Result<()> {
    let world = application(&[&format!("401:{words}x*@stream=token")]).await?;
    let status = world.until(words, |status| status["token"]["state"] == "Invalid").await?;
    let reason = status["token"]["reason"].as_str().unwrap();
    ensure!(
        reason.starts_with(&format!("invalid_client: {}", words.trim_end_matches('.'))),
        "{reason}"
    );
    ensure!(reason.contains(advice), "{advice} is not in: {reason}");
    ensure!(!reason.contains("portal") && !reason.contains("Trace ID"), "{reason}");
    ensure!(world.asked("alerts").is_empty() && world.asked("activities").is_empty());
    Ok(())
}

#[tokio::test]
async fn an_identity_providers_refusal_says_which_setting_is_wrong() -> Result<()> {
    tokio::try_join!(
        is_refused("AADSTS7000222: The provided client secret keys are expired.", "has expired"),
        is_refused("AADSTS7000215: Invalid client secret provided.", "not its Secret ID"),
        is_refused("AADSTS700016: Application was not found in the directory.", "clientId"),
        is_refused("AADSTS90002: Tenant not found.", "tenantId"),
        is_refused("AADSTS65001: The administrator has not consented.", "grant consent"),
        is_refused("AADSTS500011: The resource principal was not found.", "tenantId"),
    )?;
    Ok(())
}

async fn is_granted(fields: &str, at_most: usize) -> Result<()> {
    let world = application(&[&format!("grant:{fields}x*@stream=token")]).await?;
    world.all_delivered().await.with_context(|| fields.to_owned())?;
    world.until_asked("alerts", 4).await?;
    let n_issued = world.defender.access_tokens().len();
    ensure!(n_issued <= at_most, "{fields}: {n_issued} access tokens");
    world.defender.revoke();
    world.defender.produce(10);
    world.delivered_within(Duration::from_secs(20)).await.context("another one is asked for")
}

#[tokio::test]
async fn an_access_token_is_used_however_its_life_is_told() -> Result<()> {
    tokio::try_join!(
        is_granted(r#"{"expires_in": "3599"}"#, 1),
        is_granted(r#"{"expires_in": null}"#, 1),
        is_granted(r#"{"expires_in": 3599.5, "token_type": "bearer"}"#, 1),
        // It is used for two seconds at least.
        is_granted(r#"{"expires_in": -1}"#, 8),
    )?;
    Ok(())
}

async fn is_no_grant(fields: &str, words: &str) -> Result<()> {
    let world = application(&[&format!("grant:{fields}x*@stream=token")]).await?;
    let status = world.until(fields, |status| status["source"]["state"] == "Unreachable").await?;
    let reason = status["source"]["reason"].as_str().unwrap();
    ensure!(reason.contains(words) && reason.contains("identity provider"), "{reason}");
    ensure!(status["token"]["state"] != "Invalid", "{status}");
    world.defender.clear_faults();
    world.all_delivered().await
}

#[tokio::test]
async fn an_access_token_that_cannot_be_sent_is_the_providers_fault() -> Result<()> {
    tokio::try_join!(
        is_no_grant(r#"{"access_token": ""}"#, "is empty"),
        is_no_grant(r#"{"access_token": "a b"}"#, "no HTTP header can carry"),
        is_no_grant(r#"{"token_type": "mac"}"#, "another type than Bearer"),
    )?;
    Ok(())
}

/// A portal that listens on IPv6 loopback, behind a proxy that this manifest names.
async fn on_ipv6(tls: bool, more: &str, passes: bool) -> Result<()> {
    let authority = Authority::new("right")?;
    let proxy = Proxy::start(Policy::Open).await?;
    let options = Options {
        listen: SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)),
        tls: tls.then(|| authority.loopback_server()).transpose()?,
        ..tenant(30, 30)
    };
    let mut world = World::prepare(options, &Manifest::default()).await?;
    let scheme = if tls { "https" } else { "http" };
    let address = world.defender.address();
    let manifest = Manifest { url: Some(format!("{scheme}://{address}")), ..Manifest::default() }
        .source("caBundleRef: {kind: ConfigMap, name: portal-ca, key: ca.crt}")
        .source(format!("proxy: {{url: \"{}\"{more}}}", proxy.url()));
    std::fs::write(world.forwarder.manifest(), manifest.text(&world.defender, &world.receiver))?;
    world.mount("portal-ca", "ca.crt", &authority.certificate())?;
    world.forwarder.start().await?;
    world.all_delivered().await.with_context(|| format!("TLS: {tls}, {more}"))?;
    let passed = proxy.passed();
    ensure!(passed.is_empty() != passes, "TLS: {tls}, {more}: {passed:?}");
    ensure!(passed.iter().all(|one| one.target == address.to_string()), "{passed:?}");
    let host = format!("host: {address}");
    ensure!(passed.iter().all(|one| one.head.to_lowercase().contains(&host)), "{passed:?}");
    Ok(())
}

#[tokio::test]
async fn an_ipv6_address_works_behind_a_proxy_and_past_it() -> Result<()> {
    tokio::try_join!(
        on_ipv6(true, "", true),
        on_ipv6(false, "", false),
        on_ipv6(true, ", noProxy: [\"[::1]/128\"]", false),
        on_ipv6(true, ", noProxy: [\"::1\"]", false),
        on_ipv6(true, ", noProxy: [\"[::2]\", \"127.*\"]", true),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_proxy_that_offers_no_basic_is_told_with_what_it_offers() -> Result<()> {
    let authority = Authority::new("right")?;
    let proxy = Proxy::start(Policy::Schemes(&["NTLM", "Negotiate"])).await?;
    let tls = Some(authority.loopback_server()?);
    let manifest = Manifest::default()
        .source("caBundleRef: {kind: ConfigMap, name: portal-ca, key: ca.crt}")
        .source(format!("proxy: {{url: \"{}\"}}", proxy.url()));
    let mut world = World::prepare(Options { tls, ..tenant(10, 10) }, &manifest).await?;
    world.mount("portal-ca", "ca.crt", &authority.certificate())?;
    world.forwarder.start().await?;
    let status = world.until("407", |status| status["source"]["state"] == "Unreachable").await?;
    let reason = status["source"]["reason"].as_str().unwrap();
    for words in ["proxy", "NTLM, Negotiate only", "407", "Basic"] {
        ensure!(reason.contains(words), "{words} is not in: {reason}");
    }
    ensure!(status["token"]["state"] == "Unknown", "{status}");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_nearly_json_costs_nothing() -> Result<()> {
    let mut world = World::prepare(tenant(30, 30), &Manifest::default()).await?;
    for fault in ["mark@stream=alerts", "mark@stream=activities"] {
        world.fault(fault);
    }
    let record = r#"{"_id": "not-a-number", "timestamp": 1, "appName": NaN, "location": {"longitude": NaN, "latitude": -Infinity}}"#;
    world.defender.inject(Stream::Activities, record);
    world.forwarder.start().await?;
    world.all_delivered().await?;
    let frames = world.receiver.frames();
    let line = frames.iter().find(|line| line.contains("externalId=not-a-number"));
    ensure!(line.is_some_and(|line| line.contains(" destinationServiceName= ")), "{line:?}");
    let status = world.forwarder.status().await?;
    ensure!(status["streams"]["activities"]["rejectedTotal"] == 0, "{status}");
    ensure!(world.asked("alerts").iter().all(|(_, status)| *status == 200));
    Ok(())
}

#[tokio::test]
async fn an_empty_page_that_promises_more_is_no_reject_and_no_storm() -> Result<()> {
    let mut world = World::prepare(tenant(30, 120), &Manifest::default()).await?;
    world.fault("morex*@stream=alerts");
    world.fault("morex*@stream=activities");
    world.forwarder.start().await?;
    let status =
        world.until("it is told", |status| status["source"]["state"] == "Unreachable").await?;
    ensure!(status["source"]["reason"].as_str().unwrap().contains("nextQueryFilters"), "{status}");
    // The wait grows to a minute: three pages show that it does.
    world.until_asked("alerts", 3).await?;
    ensure!(world.most_in_a_minute() < 20, "{}", world.most_in_a_minute());
    world.defender.clear_faults();
    world.all_delivered().await?;
    let status = world.forwarder.status().await?;
    for stream in ["alerts", "activities"] {
        ensure!(status["streams"][stream]["rejectedTotal"] == 0, "{status}");
    }
    ensure!(world.most_in_a_minute() < 60, "{}", world.most_in_a_minute());
    ensure!(world.receiver.ids().values().all(|count| *count == 1), "each arrives once");
    Ok(())
}

#[tokio::test]
async fn the_wait_in_the_words_of_a_429_is_kept() -> Result<()> {
    for (fault, least) in
        [("429-in-words:4@stream=alerts", 4_000), ("429-in-words:4.5@stream=alerts", 4_500)]
    {
        let world = World::start(tenant(20, 20), &Manifest::default()).await?;
        world.all_delivered().await?;
        world.fault(fault);
        world.until("throttled", |status| status["source"]["state"] == "Throttled").await?;
        world.until("it resumes", |status| status["source"]["state"] == "Reachable").await?;
        let refused = world.asked("alerts").iter().find(|(_, status)| *status == 429).unwrap().0;
        // What was on its way at that moment does not count.
        let until = Instant::now() + Duration::from_secs(20);
        let next = loop {
            let requests = world.defender.requests();
            if let Some(next) = requests.iter().map(|one| one.at).find(|at| *at > refused + 2_000) {
                break next;
            }
            ensure!(Instant::now() < until, "{fault}: it resumes");
            sleep(LOOK).await;
        };
        ensure!((least..least + 20_000).contains(&(next - refused)), "{fault}: {}", next - refused);
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_keeps_its_words_whatever_form_it_has() -> Result<()> {
    let mut world = World::prepare(tenant(20, 20), &Manifest::default()).await?;
    world.fault(r#"refusal:403:{"error": {"code": "Forbidden", "message": "the role was taken away"}}x*@stream=alerts"#);
    world.fault(r#"refusal:500:{"title": "Out of order", "detail": "try the other door"}x*@stream=activities"#);
    world.forwarder.start().await?;
    let status = world
        .until("both are told", |status| {
            status["streams"]["alerts"]["forbidden"].is_string()
                && status["source"]["state"] == "Unreachable"
        })
        .await?;
    ensure!(
        status["streams"]["alerts"]["forbidden"] == "Forbidden: the role was taken away",
        "{status}"
    );
    let reason = status["source"]["reason"].as_str().unwrap();
    ensure!(reason.contains("500: Out of order: try the other door"), "{reason}");
    world.defender.clear_faults();
    Ok(())
}

#[tokio::test]
async fn a_start_that_reads_a_backlog_says_from_when_the_first_event_is() -> Result<()> {
    let manifest = Manifest::default().spec("startFrom: 4320h");
    let mut world = World::prepare(tenant(10, 10), &manifest).await?;
    world.forwarder.start().await?;
    world.all_delivered().await?;
    world.until_asked("alerts", 4).await?;
    let log = world.forwarder.log()?;
    for stream in ["alerts", "activities"] {
        let said =
            log.lines().filter(|line| line.contains("reading a backlog") && line.contains(stream));
        let said: Vec<&str> = said.collect();
        ensure!(said.len() == 1 && said[0].contains("first_event"), "{stream}: {log}");
    }
    world.forwarder.terminate().await?;
    world.forwarder.start().await?;
    world.until_asked("alerts", world.asked("alerts").len() + 2).await?;
    let log = world.forwarder.log()?;
    ensure!(log.matches("reading a backlog").count() == 2, "no backlog after a short stop: {log}");
    Ok(())
}
