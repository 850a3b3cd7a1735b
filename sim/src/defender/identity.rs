//! The identity provider: the client credentials grant of Entra ID in both versions, and its refusals.
//!
//! The client secret is the tenant's token, whatever the application; each access token is another one, lives as long
//! as the options say, and is accepted by the API until then or until it is revoked.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::Answer;
use super::fault::{Endpoint, FaultKind};
use super::tenant::{Access, Shared, Tenant, lock};

/// The application id of Microsoft Cloud App Security.
const APPLICATION: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af";

/// `POST /<tenant>/oauth2/v2.0/token`, which wants a scope.
pub(super) async fn second(
    State(tenant): State<Shared>,
    Path(directory): Path<String>,
    headers: HeaderMap,
    form: String,
) -> Response {
    let scope = format!("{APPLICATION}/.default");
    grant(&tenant, &directory, &headers, &form, ("scope", &scope)).await
}

/// `POST /<tenant>/oauth2/token`, which wants a resource.
pub(super) async fn first(
    State(tenant): State<Shared>,
    Path(directory): Path<String>,
    headers: HeaderMap,
    form: String,
) -> Response {
    grant(&tenant, &directory, &headers, &form, ("resource", APPLICATION)).await
}

async fn grant(
    tenant: &Shared,
    directory: &str,
    headers: &HeaderMap,
    form: &str,
    wanted: (&str, &str),
) -> Response {
    let form: BTreeMap<String, String> =
        form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    // What is noted of it holds no secret.
    let noted: BTreeMap<_, _> = form.iter().filter(|(name, _)| *name != "client_secret").collect();
    let (number, _, fault) = lock(tenant).arrive(Endpoint::Token, json!(noted), false);
    if let Some(FaultKind::Hang(seconds)) = fault {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    let mut tenant = lock(tenant);
    let answer = match fault {
        Some(FaultKind::Status(status)) => Answer::json(
            StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
            &refusal("temporarily_unavailable", "AADSTS90033: A transient error has occurred."),
        ),
        Some(FaultKind::Throttle(retry_after)) => {
            let words = "AADSTS90055: The server has exceeded the allotted number of requests.";
            let refusal = refusal("temporarily_unavailable", words);
            let answer = Answer::json(StatusCode::TOO_MANY_REQUESTS, &refusal);
            Answer { retry_after, ..answer }
        }
        Some(FaultKind::Refusal(status, body)) => super::api::refusal(status, &body),
        Some(FaultKind::Grant(fields)) => match judge(&tenant, directory, &form, wanted) {
            Ok(()) => tenant.issue(&form).with(&fields),
            Err((status, error, words)) => Answer::json(status, &refusal(error, &words)),
        },
        Some(FaultKind::Html) => {
            Answer::text(StatusCode::OK, "text/html", "<html>Sign in</html>".to_owned())
        }
        Some(FaultKind::Unauthorized(words)) => {
            Answer::json(StatusCode::UNAUTHORIZED, &refusal("invalid_client", &words))
        }
        Some(_) | None => match judge(&tenant, directory, &form, wanted) {
            Ok(()) => tenant.issue(&form),
            Err((status, error, words)) => Answer::json(status, &refusal(error, &words)),
        },
    };
    tenant.send(number, headers, answer)
}

type Refusal = (StatusCode, &'static str, String);

fn judge(
    tenant: &Tenant,
    directory: &str,
    form: &BTreeMap<String, String>,
    (name, value): (&str, &str),
) -> Result<(), Refusal> {
    let given = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let bad = |error, words: String| Err((StatusCode::BAD_REQUEST, error, words));
    let is_id = |text: &str| {
        text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    };
    if !is_id(directory) && !directory.contains('.') {
        return bad("invalid_request", format!("AADSTS90002: Tenant '{directory}' not found."));
    }
    if given("grant_type") != "client_credentials" {
        let words = "AADSTS70003: The app requested an unsupported grant type.";
        return bad("unsupported_grant_type", words.to_owned());
    }
    if given(name) != value {
        let words = format!("AADSTS1002012: The provided value for {name} is not valid.");
        return bad("invalid_scope", words);
    }
    let client = given("client_id");
    if !is_id(client) {
        let words = format!("AADSTS700016: Application with identifier '{client}' was not found.");
        return bad("unauthorized_client", words);
    }
    if given("client_secret") != tenant.token {
        let words = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent \
                     in the request is the client secret value, not the client secret ID.";
        return Err((StatusCode::UNAUTHORIZED, "invalid_client", words.to_owned()));
    }
    Ok(())
}

fn refusal(error: &str, words: &str) -> Value {
    let numbers: String =
        words.chars().skip("AADSTS".len()).take_while(char::is_ascii_digit).collect();
    json!({
        "error": error,
        "error_description": format!(
            "{words} Trace ID: 0b5f0c4e-1f9e-4d6b-8a57-8d0f3a7c9e21\r\nTimestamp: 2026-01-01 00:00:00Z"
        ),
        "error_codes": [numbers.parse::<u32>().unwrap_or(0)],
    })
}

impl Tenant {
    fn issue(&mut self, form: &BTreeMap<String, String>) -> Answer {
        let life = self.options.access_life;
        let number = self.issued.len();
        let claims = json!({
            "aud": APPLICATION, "roles": ["investigation.read"], "jti": number,
            "appid": form.get("client_id"), "nonce": self.chance.next(),
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.chance.next().to_be_bytes());
        let token = format!("{}.{}.{signature}", part(&json!({"alg": "RS256"})), part(&claims));
        self.access.push(Access { token: token.clone(), until: Instant::now() + life });
        self.issued.push(token.clone());
        let seconds = life.as_secs();
        Answer::json(
            StatusCode::OK,
            &json!({
                "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds,
                "access_token": token,
            }),
        )
    }
}
