//! The way to the API: its certificate authority, and proxies.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::defender::{DEMO_TOKEN, Options};
use siem_agent_sim::pki::Authority;
use siem_agent_tests::proxy::{Policy, Proxy};

use super::world::{Manifest, World, tenant};

const NAME: &str = "proxy-user";
const PASSWORD: &str = "p@ss:w/rd%";

fn behind_tls(authority: &Authority) -> Result<Options> {
    Ok(Options { tls: Some(authority.loopback_server()?), ..tenant(60, 60) })
}

fn bundle() -> Manifest {
    Manifest::default().source("caBundleRef: {kind: ConfigMap, name: portal-ca, key: ca.crt}")
}

#[tokio::test]
async fn the_bundle_is_trusted_and_another_one_is_a_clear_reason_until_it_is_changed() -> Result<()>
{
    let (authority, stranger) = (Authority::new("right")?, Authority::new("wrong")?);
    let mut world = World::prepare(behind_tls(&authority)?, &bundle()).await?;
    world.mount("portal-ca", "ca.crt", &stranger.certificate())?;
    world.forwarder.start().await?;
    let status =
        world.until("it is told", |status| status["source"]["state"] == "Unreachable").await?;
    let reason = status["source"]["reason"].as_str().unwrap();
    ensure!(reason.contains("certificate") && reason.contains("unknown issuer"), "{reason}");
    ensure!(status["token"]["state"] == "Unknown", "{status}");
    ensure!(world.defender.requests().is_empty(), "the token went nowhere");
    world.mount(
        "portal-ca",
        "ca.crt",
        &format!("{}{}", stranger.certificate(), authority.certificate()),
    )?;
    world.all_delivered().await.context("a changed bundle is read")
}

#[tokio::test]
async fn without_a_bundle_only_public_authorities_are_trusted() -> Result<()> {
    let authority = Authority::new("private")?;
    let world = World::start(behind_tls(&authority)?, &Manifest::default()).await?;
    let status =
        world.until("it is told", |status| status["source"]["state"] == "Unreachable").await?;
    ensure!(status["source"]["reason"].as_str().unwrap().contains("unknown issuer"), "{status}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_of_somebody_else_or_of_the_past_is_a_clear_reason() -> Result<()> {
    let authority = Authority::new("right")?;
    for (identity, words) in [
        (authority.misnamed_server()?, "not valid for name"),
        (authority.expired_server()?, "expired"),
    ] {
        let options = Options { tls: Some(identity), ..tenant(5, 5) };
        let mut world = World::prepare(options, &bundle()).await?;
        world.mount("portal-ca", "ca.crt", &authority.certificate())?;
        world.forwarder.start().await?;
        let status =
            world.until(words, |status| status["source"]["state"] == "Unreachable").await?;
        let reason = status["source"]["reason"].as_str().unwrap();
        ensure!(reason.contains("certificate") && reason.contains(words), "{reason}");
    }
    Ok(())
}

fn through(proxy: &Proxy, manifest: Manifest, more: &str) -> Manifest {
    manifest.source(format!("proxy: {{url: \"{}\"{more}}}", proxy.url()))
}

const CREDENTIALS: &str = ", credentialsSecretRef: {name: proxy}";

/// A forwarder behind a proxy.
async fn behind(proxy: &Proxy, more: &str) -> Result<World> {
    let authority = Authority::new("right")?;
    let manifest = through(proxy, bundle(), more);
    let world = World::prepare(behind_tls(&authority)?, &manifest).await?;
    world.mount("portal-ca", "ca.crt", &authority.certificate())?;
    world.mount("proxy", "username", NAME)?;
    world.mount("proxy", "password", PASSWORD)?;
    Ok(world)
}

#[tokio::test]
async fn a_proxy_with_credentials_is_passed_by_a_tunnel() -> Result<()> {
    let proxy = Proxy::start(Policy::Credentials(NAME.to_owned(), PASSWORD.to_owned())).await?;
    let mut world = behind(&proxy, CREDENTIALS).await?;
    world.forwarder.start().await?;
    world.all_delivered().await?;
    let passed = proxy.passed();
    ensure!(!passed.is_empty());
    ensure!(passed.iter().all(|one| one.method == "CONNECT" && one.status == 200), "{passed:?}");
    ensure!(!passed.iter().any(|one| one.head.contains(DEMO_TOKEN)), "inside it sees nothing");
    let requests = world.defender.requests();
    ensure!(requests.iter().all(|request| request.status == 200));
    Ok(())
}

/// What is spoken in plain text lies on loopback: the token on it is no proxy's business.
#[tokio::test]
async fn a_source_in_plain_text_is_asked_past_the_proxy() -> Result<()> {
    let proxy = Proxy::start(Policy::Open).await?;
    let manifest = through(&proxy, Manifest::default(), CREDENTIALS);
    let mut world = World::prepare(tenant(60, 60), &manifest).await?;
    world.mount("proxy", "username", NAME)?;
    world.mount("proxy", "password", PASSWORD)?;
    world.forwarder.start().await?;
    world.all_delivered().await?;
    ensure!(proxy.passed().is_empty(), "{:?}", proxy.passed());
    Ok(())
}

async fn is_held_up(policy: Policy, words: &str) -> Result<()> {
    let what = format!("{policy:?}");
    let proxy = Proxy::start(policy).await?;
    let mut world = behind(&proxy, "").await?;
    world.forwarder.start().await?;
    let status = world.until(&what, |status| status["source"]["state"] == "Unreachable").await?;
    let reason = status["source"]["reason"].as_str().unwrap();
    ensure!(reason.contains(words) && reason.contains("proxy"), "{what}: {reason}");
    ensure!(status["token"]["state"] == "Unknown", "{what}: {status}");
    for stream in ["alerts", "activities"] {
        ensure!(status["streams"][stream]["forbidden"].is_null(), "{what}: {status}");
    }
    ensure!(world.token_valid().await?.is_none(), "{what}: nothing is known of it");
    ensure!(world.defender.requests().is_empty(), "{what}");
    proxy.set_policy(Policy::Open);
    world.all_delivered().await.context(what)
}

#[tokio::test]
async fn a_proxy_that_wants_credentials_or_refuses_is_not_a_bad_token() -> Result<()> {
    let wants = Policy::Credentials(NAME.to_owned(), PASSWORD.to_owned());
    tokio::try_join!(
        is_held_up(wants, "407"),
        is_held_up(Policy::Forbidden("text/html"), "refuses"),
        is_held_up(Policy::Forbidden("text/plain"), "refuses"),
    )?;
    Ok(())
}

#[tokio::test]
async fn changed_credentials_of_the_proxy_are_used() -> Result<()> {
    let proxy = Proxy::start(Policy::Credentials(NAME.to_owned(), "another".to_owned())).await?;
    let mut world = behind(&proxy, CREDENTIALS).await?;
    world.forwarder.start().await?;
    world.until("407", |status| status["source"]["state"] == "Unreachable").await?;
    world.mount("proxy", "password", "another")?;
    world.delivered_within(Duration::from_secs(30)).await
}

async fn goes_past(host: &str, entry: &str, past: bool) -> Result<()> {
    let proxy = Proxy::start(Policy::Open).await?;
    let more = format!(", noProxy: [192.0.2.1, \"{entry}\"]");
    let mut world = behind(&proxy, &more).await?;
    let url = format!("https://{host}:{}", world.defender.address().port());
    let manifest = through(&proxy, Manifest { url: Some(url), ..bundle() }, &more);
    std::fs::write(world.forwarder.manifest(), manifest.text(&world.defender, &world.receiver))?;
    world.forwarder.start().await?;
    world.all_delivered().await?;
    ensure!(proxy.passed().is_empty() == past, "{entry}: {:?}", proxy.passed());
    Ok(())
}

#[tokio::test]
async fn what_no_proxy_names_goes_past_the_proxy_and_nothing_else() -> Result<()> {
    tokio::try_join!(
        goes_past("127.0.0.1", "127.0.0.1", true),
        goes_past("127.0.0.1", "127.0.0.0/8", true),
        goes_past("127.0.0.1", "*", true),
        goes_past("127.0.0.1", "10.0.0.0/8", false),
        goes_past("127.0.0.1", ".example.com", false),
        goes_past("127.0.0.1", "127.0.0.1:1", false),
        goes_past("localhost", "localhost", true),
        goes_past("localhost", ".localhost", true),
        goes_past("localhost", "*.localhost", true),
        goes_past("localhost", "*", true),
        goes_past("localhost", "host", false),
    )?;
    Ok(())
}

#[tokio::test]
async fn proxies_of_the_environment_count_for_nothing() -> Result<()> {
    let proxy = Proxy::start(Policy::Open).await?;
    let mut world = World::prepare(tenant(10, 10), &Manifest::default()).await?;
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
    {
        world.forwarder.set_environment(name, &proxy.url());
    }
    world.forwarder.start().await?;
    world.all_delivered().await?;
    ensure!(proxy.passed().is_empty(), "where data goes is in the manifest alone");
    Ok(())
}
