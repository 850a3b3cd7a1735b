//! Client assertions in place of a secret: which are taken, and the numbers with which others are refused.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use siem_agent_sim::clock;
use siem_agent_sim::defender::Defender;
use siem_agent_sim::issuer::Issuer;

use super::ask::{ask_as, client, unlimited};

const ISSUER: &str = "https://cluster.example";
const SUBJECT: &str = "system:serviceaccount:siem:agent";
const AUDIENCE: &str = "api://AzureADTokenExchange";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const PORTAL: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af/.default";

fn claims() -> Value {
    let now = clock::millis() / 1_000;
    json!({"iss": ISSUER, "sub": SUBJECT, "aud": [AUDIENCE], "nbf": now, "iat": now, "exp": now + 600})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

async fn grant(defender: &Defender, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/contoso.example/oauth2/v2.0/token", defender.url());
    let answer = client().post(url).form(form).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn form<'a>(assertion: &'a str, client: &'a str, kind: &'a str) -> [(&'a str, &'a str); 5] {
    [
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("scope", PORTAL),
        ("client_assertion_type", kind),
        ("client_assertion", assertion),
    ]
}

const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

#[tokio::test]
async fn an_assertion_of_a_trusted_issuer_is_as_good_as_a_secret() -> Result<()> {
    let defender = Defender::start(unlimited(1)).await?;
    let issuer = Issuer::new()?;
    let good = issuer.token(&claims())?;
    let (status, body) = grant(&defender, &form(&good, CLIENT, TYPE)).await;
    ensure!(status == 401 && body["error_codes"][0] == 700_211, "nobody is trusted yet: {body}");
    defender.trust(ISSUER, &issuer.jwks(), SUBJECT, AUDIENCE)?;
    let (status, body) = grant(&defender, &form(&good, CLIENT, TYPE)).await;
    ensure!(status == 200, "{body}");
    let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
    ensure!(ask_as(&defender, "alerts", &json!({}), &bearer).await.status() == 200);

    let mut forged = good.clone();
    forged.replace_range(
        good.len() - 20..good.len() - 19,
        if good.as_bytes()[good.len() - 20] == b'A' { "B" } else { "A" },
    );
    let parts: Vec<&str> = good.split('.').collect();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let others_claims = format!("{}.{}.{}", parts[0], part(&with("jti", json!(1))), parts[2]);
    let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), parts[1]);
    let now = clock::millis() / 1_000;
    for (assertion, number) in [
        (issuer.token(&with("sub", json!("system:serviceaccount:siem:other")))?, 700_213),
        (issuer.token(&with("iss", json!("https://elsewhere.example")))?, 700_211),
        (issuer.token(&with("iss", json!(null)))?, 700_211),
        (issuer.token(&with("aud", json!("api://other")))?, 700_212),
        (issuer.token(&with("exp", json!(now - 60)))?, 700_024),
        (issuer.token(&with("exp", json!(null)))?, 700_024),
        (issuer.token(&with("nbf", json!(now + 3_600)))?, 700_024),
        (forged, 50_027),
        (others_claims, 50_027),
        (unsigned, 50_027),
        ("nonsense".to_owned(), 50_027),
        ("a.b.c".to_owned(), 50_027),
        (String::new(), 50_027),
    ] {
        let (status, body) = grant(&defender, &form(&assertion, CLIENT, TYPE)).await;
        ensure!(status == 401 && body["error"] == "invalid_client", "{number}: {body}");
        ensure!(body["error_codes"][0] == number, "{number}: {body}");
    }
    let (status, body) = grant(&defender, &form(&good, "nobody", TYPE)).await;
    ensure!(status == 400 && body["error_codes"][0] == 700_016, "{body}");
    let (status, body) = grant(&defender, &form(&good, CLIENT, "other")).await;
    ensure!(status == 400 && body["error"] == "invalid_request", "{body}");
    let noted = json!(defender.requests()).to_string();
    ensure!(noted.contains("client_assertion_type") && !noted.contains(parts[2]));
    ensure!(!noted.contains("\"client_assertion\""), "no assertion is noted");
    for wrong in ["", "{}", "{\"keys\": []}", "{\"keys\": [{\"kty\": \"EC\"}]}"] {
        ensure!(defender.trust(ISSUER, wrong, SUBJECT, AUDIENCE).is_err(), "{wrong}");
    }
    Ok(())
}

#[tokio::test]
async fn the_control_endpoint_trusts_too() -> Result<()> {
    let defender = Defender::start(unlimited(1)).await?;
    let issuer = Issuer::new()?;
    let jwks: Value = serde_json::from_str(&issuer.jwks())?;
    let body = json!({"issuer": ISSUER, "subject": SUBJECT, "audience": AUDIENCE, "jwks": jwks});
    let post = async |path: &str, body: String| {
        let url = format!("{}/_sim/{path}", defender.url());
        client().post(url).body(body).send().await.unwrap().status().as_u16()
    };
    ensure!(post("trust", "{}".to_owned()).await == 400);
    ensure!(post("trust", body.to_string()).await == 200);
    let token = issuer.token(&claims())?;
    ensure!(grant(&defender, &form(&token, CLIENT, TYPE)).await.0 == 200);
    ensure!(post("cpu-quota", String::new()).await == 200);
    ensure!(post("faults", "504-html@stream=graph-alerts".to_owned()).await == 200);
    ensure!(post("faults", "too-large@stream=graph-hunting".to_owned()).await == 200);
    Ok(())
}
