//! The identity provider's grants and refusals.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};

use super::ask::{ask_as, client, unlimited};

const SCOPE: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af/.default";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

fn grant<'a>(form: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut whole = vec![
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT),
        ("client_secret", DEMO_TOKEN),
        ("scope", SCOPE),
    ];
    for (name, value) in form {
        whole.retain(|(there, _)| there != name);
        whole.push((name, value));
    }
    whole
}

#[tokio::test]
async fn the_identity_provider_grants_short_tokens_and_says_why_not() -> Result<()> {
    let access_life = Duration::from_secs(2);
    let defender = Defender::start(Options { access_life, ..unlimited(1) }).await?;
    let directory = "00000000-0000-0000-0000-000000000000";
    let post = async |path: &str, form: &[(&str, &str)]| {
        let request = client().post(format!("{}/{path}", defender.url()));
        let answer = request.form(form).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let second = format!("{directory}/oauth2/v2.0/token");
    let (status, granted) = post(&second, &grant(&[])).await;
    ensure!(
        status == 200 && granted["token_type"] == "Bearer" && granted["expires_in"] == 2,
        "{granted}"
    );
    let bearer = format!("Bearer {}", granted["access_token"].as_str().unwrap());
    ensure!(ask_as(&defender, "alerts", &json!({}), &bearer).await.status() == 200);
    ensure!(
        ask_as(&defender, "alerts", &json!({}), &bearer.replace("Bearer", "Token")).await.status()
            == 401
    );
    let first = format!("{directory}/oauth2/token");
    let resource = grant(&[("resource", "05a65629-4c1b-48c1-a78b-804c4abdd4af")]);
    ensure!(post(&first, &resource).await.0 == 200);
    ensure!(post(&second, &grant(&[])).await.1["access_token"] != granted["access_token"]);
    ensure!(defender.access_tokens().len() == 3, "each is counted");

    for (form, status, error, number) in [
        (vec![("client_secret", "wrong")], 401, "invalid_client", "AADSTS7000215"),
        (vec![("client_id", "nobody")], 400, "unauthorized_client", "AADSTS700016"),
        (
            vec![("scope", "https://management.azure.com/.default")],
            400,
            "invalid_scope",
            "AADSTS1002012",
        ),
        (vec![("grant_type", "password")], 400, "unsupported_grant_type", "AADSTS70003"),
    ] {
        let (answered, body) = post(&second, &grant(&form)).await;
        ensure!(answered == status && body["error"] == error, "{answered} {body}");
        ensure!(body["error_description"].as_str().unwrap().starts_with(number), "{body}");
        ensure!(
            body["error_codes"][0].as_u64().unwrap().to_string()
                == number.trim_start_matches("AADSTS")
        );
    }
    let (status, body) = post("nowhere/oauth2/v2.0/token", &grant(&[])).await;
    ensure!(
        status == 400 && body["error_description"].as_str().unwrap().starts_with("AADSTS90002")
    );
    defender.fault("503@stream=token".parse().unwrap());
    ensure!(post(&second, &grant(&[])).await.0 == 503);

    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while ask_as(&defender, "alerts", &json!({}), &bearer).await.status() != 401 {
        ensure!(tokio::time::Instant::now() < until, "an access token expires");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, granted) = post(&second, &grant(&[])).await;
    let bearer = format!("Bearer {}", granted["access_token"].as_str().unwrap());
    defender.revoke();
    ensure!(ask_as(&defender, "alerts", &json!({}), &bearer).await.status() == 401, "revoked");
    Ok(())
}
