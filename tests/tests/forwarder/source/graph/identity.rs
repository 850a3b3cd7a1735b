//! An application that proves itself by a ServiceAccount's token: exchanged, read again as the kubelet renews it, and
//! never shown.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::clock;
use siem_agent_sim::defender::Options;
use siem_agent_sim::issuer::Issuer;
use siem_agent_sim::manifest::{Manifest, application};

use super::{QUICK, each_once, tenant};
use crate::source::world::World;

const ISSUER: &str = "https://oidc.example.com/soc";
const SUBJECT: &str = "system:serviceaccount:security:soc-forwarder";
const AUDIENCE: &str = "api://AzureADTokenExchange";

/// The claims of a token that is let in for so many seconds.
fn claims(seconds: i64) -> Value {
    let now = clock::millis() / 1_000;
    json!({
        "iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "iat": now, "nbf": now, "exp": now + seconds,
        "kubernetes.io": {"namespace": "security", "serviceaccount": {"name": "soc-forwarder"}},
    })
}

fn token(claims: &Value) -> Result<String> {
    Issuer::new()?.token(claims)
}

/// A world whose tenant trusts the issuer, and whose application has no secret.
async fn prepare(options: Options) -> Result<World> {
    let world = World::of(options, |defender, receiver| {
        let url = defender.url();
        let auth = application(&url, "workloadIdentity: {}");
        Manifest::new("soc")
            .source(format!("graph: {{url: '{url}', {QUICK}}}, {auth}"))
            .to("127.0.0.1", receiver.port())
            .more("  forwarder: {logLevel: trace}\n")
            .to_string()
    })
    .await?;
    world.defender.trust(ISSUER, &Issuer::new()?.jwks(), SUBJECT, AUDIENCE)?;
    Ok(world)
}

/// Puts a token where a server has it by default.
fn mount(world: &World, token: &str) -> Result<()> {
    world.mount("workload-identity", "token", token)
}

/// Nothing that the forwarder shows has any of these in it, nor the part of them that proves something.
async fn shows_none_of(world: &World, tokens: &[&str]) -> Result<()> {
    let shown = [
        world.forwarder.log()?,
        world.forwarder.get("status").await?,
        world.forwarder.get("metrics").await?,
    ];
    for token in tokens {
        let signature = token.rsplit('.').next().context("a signature")?;
        for text in &shown {
            ensure!(!text.contains(token) && !text.contains(signature), "a token is shown: {text}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_service_accounts_token_stands_for_a_secret() -> Result<()> {
    let mut world = prepare(tenant(300, 100)).await?;
    let token = token(&claims(3_600))?;
    mount(&world, &token)?;
    world.forwarder.start().await?;
    each_once(&world).await?;
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["state"] == "Valid", "{status}");
    let asked = world.defender.requests();
    let grant = asked.iter().find(|request| request.what == "token").context("a grant")?;
    ensure!(grant.question["scope"] == "https://graph.microsoft.com/.default", "{grant:?}");
    ensure!(world.defender.access_tokens().len() == 1, "one access token serves both streams");
    shows_none_of(&world, &[&token]).await
}

#[tokio::test]
async fn a_token_in_another_file_is_read_again_when_it_changes() -> Result<()> {
    let options = Options { access_life: Duration::from_secs(3), ..tenant(100, 50) };
    let mut world = prepare(options).await?;
    let file: PathBuf = world.forwarder.folder().join("projected");
    let (first, second) = (token(&claims(8))?, token(&claims(3_600))?);
    fs::write(&file, &first)?;
    world.forwarder.set_arguments([PathBuf::from("--token-file"), file.clone()]);
    world.forwarder.start().await?;
    each_once(&world).await?;
    // As the kubelet does: another file in its place, before the first one has expired.
    let next = file.with_extension("next");
    fs::write(&next, &second)?;
    fs::rename(next, &file)?;
    let ends = clock::millis() + 8_000;
    world
        .until("several grants after the first token's end", |_| {
            world.asked("token").iter().filter(|(at, _)| *at > ends).count() >= 2
        })
        .await?;
    world.defender.produce(50);
    each_once(&world).await?;
    let requests = world.defender.requests();
    ensure!(requests.iter().all(|request| request.status == 200), "none was refused: {requests:?}");
    shows_none_of(&world, &[&first, &second]).await
}

/// A token that is refused: the report has the provider's words and this advice; a good one in its place is tried at once.
async fn advises(wrong: &str, number: &str, advice: &str) -> Result<()> {
    let mut world = prepare(tenant(50, 20)).await?;
    mount(&world, wrong)?;
    world.forwarder.start().await?;
    let status = world.until(number, |status| status["token"]["state"] == "Invalid").await?;
    let reason = status["token"]["reason"].as_str().unwrap();
    ensure!(reason.contains(number) && reason.contains(advice), "{number}: {reason}");
    ensure!(!reason.contains("portal") && !reason.contains("clientSecretRef"), "{reason}");
    let n_grants = world.asked("token").len();
    ensure!(n_grants <= 2, "{number}: {n_grants} times the same token");
    ensure!(world.asked("graph-alerts").is_empty(), "nothing was asked without an access token");
    let good = token(&claims(3_600))?;
    mount(&world, &good)?;
    world.delivered_within(Duration::from_secs(30)).await.with_context(|| number.to_owned())?;
    world.until("valid", |status| status["token"]["state"] == "Valid").await?;
    shows_none_of(&world, &[wrong, &good]).await
}

fn with(name: &str, value: impl Into<Value>) -> Result<String> {
    let mut claims = claims(3_600);
    claims[name] = value.into();
    token(&claims)
}

#[tokio::test]
async fn each_refusal_of_a_service_accounts_token_has_its_own_advice() -> Result<()> {
    let subject = with("sub", "system:serviceaccount:security:another-forwarder")?;
    let issuer = with("iss", "https://oidc.example.com/another")?;
    let audience = with("aud", "api://another")?;
    let expired = with("exp", clock::millis() / 1_000 - 10)?;
    let (message, signature) = (&token(&claims(3_600))?, &token(&claims(3_599))?);
    let (message, signature) =
        (message.rsplit_once('.').unwrap().0, signature.rsplit_once('.').unwrap().1);
    let forged = format!("{message}.{signature}");
    tokio::try_join!(
        advises(&subject, "AADSTS700213", "no federated credential with this subject"),
        advises(&issuer, "AADSTS700211", "no federated credential with this issuer"),
        advises(&audience, "AADSTS700212", "workloadIdentity.audience: make them equal"),
        advises(&expired, "AADSTS700024", "is not valid at this time"),
        advises(&forged, "AADSTS50027", "cannot verify the ServiceAccount token"),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_provider_that_repeats_the_token_does_not_make_it_seen() -> Result<()> {
    let mut world = prepare(tenant(20, 20)).await?;
    let token = token(&claims(3_600))?;
    mount(&world, &token)?;
    let words = format!("AADSTS50027: JWT token is invalid: {token}");
    let body = json!({"error": "invalid_client", "error_description": words});
    world.fault(&format!("refusal:401:{body}x*@stream=token"));
    world.forwarder.start().await?;
    let status = world.until("refused", |status| status["token"]["state"] == "Invalid").await?;
    let reason = status["token"]["reason"].as_str().unwrap();
    ensure!(reason.contains("cannot verify the ServiceAccount token"), "{reason}");
    shows_none_of(&world, &[&token]).await
}

#[tokio::test]
async fn a_token_that_is_not_there_is_missing_and_named() -> Result<()> {
    let mut world = prepare(tenant(20, 20)).await?;
    let error = world.forwarder.start().await.err().context("on a server it must be there")?;
    ensure!(error.to_string().contains("workload-identity/token"), "{error}");
    mount(&world, &token(&claims(3_600))?)?;
    world.forwarder.start().await?;
    each_once(&world).await?;
    fs::remove_file(world.forwarder.secrets().join("workload-identity/token"))?;
    let status = world.until("missing", |status| status["token"]["state"] == "Missing").await?;
    let reason = status["token"]["reason"].as_str().unwrap();
    ensure!(reason.contains("workload-identity/token"), "{reason}");
    mount(&world, &token(&claims(3_600))?)?;
    world.defender.produce(10);
    each_once(&world).await
}
