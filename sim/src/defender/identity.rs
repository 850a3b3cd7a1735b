//! The identity provider: the client credentials grant of Entra ID in both versions, and its refusals.
//!
//! The client secret is the tenant's token, whatever the application; in its place an assertion of a trusted issuer is as
//! good. Each access token is another one, lives as long as the options say, and is accepted until then or until it is
//! revoked, by the API alone that it was asked for: the portal's or Microsoft Graph.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::Answer;
use super::assertion::{self, Wrong};
use super::fault::{Endpoint, FaultKind};
use super::tenant::{Access, Audience, Shared, Tenant, lock};

/// The application id of Microsoft Cloud App Security.
const APPLICATION: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af";
/// Microsoft Graph in the clouds that have what is simulated.
const GRAPHS: [&str; 3] =
    ["https://graph.microsoft.com", "https://graph.microsoft.us", "https://dod-graph.microsoft.us"];
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// `POST /<tenant>/oauth2/v2.0/token`, which wants a scope.
pub(super) async fn second(
    State(tenant): State<Shared>,
    Path(directory): Path<String>,
    headers: HeaderMap,
    form: String,
) -> Response {
    grant(&tenant, &directory, &headers, &form, Version::Second).await
}

/// `POST /<tenant>/oauth2/token`, which wants a resource.
pub(super) async fn first(
    State(tenant): State<Shared>,
    Path(directory): Path<String>,
    headers: HeaderMap,
    form: String,
) -> Response {
    grant(&tenant, &directory, &headers, &form, Version::First).await
}

/// The version of the endpoint.
#[derive(Debug, Clone, Copy)]
enum Version {
    First,
    Second,
}

/// Fields of a request that are never noted.
const SECRETS: [&str; 2] = ["client_secret", "client_assertion"];

async fn grant(
    tenant: &Shared,
    directory: &str,
    headers: &HeaderMap,
    form: &str,
    version: Version,
) -> Response {
    let form: BTreeMap<String, String> =
        form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    // What is noted of it holds no secret.
    let noted: BTreeMap<_, _> =
        form.iter().filter(|(name, _)| !SECRETS.contains(&name.as_str())).collect();
    let (number, _, fault) = lock(tenant).arrive(Endpoint::Token, json!(noted), false);
    if let Some(FaultKind::Hang(seconds)) = fault {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    let mut tenant = lock(tenant);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
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
        Some(FaultKind::Refusal(status, body)) => Answer::refusal(status, &body),
        Some(FaultKind::GatewayPage) => Answer::gateway_page(),
        Some(FaultKind::Grant(fields)) => match judge(&tenant, directory, &form, version, host) {
            Ok(audience) => tenant.issue(&form, audience).with(&fields),
            Err((status, error, words)) => Answer::json(status, &refusal(error, &words)),
        },
        Some(FaultKind::Html) => {
            Answer::text(StatusCode::OK, "text/html", "<html>Sign in</html>".to_owned())
        }
        Some(FaultKind::Unauthorized(words)) => {
            Answer::json(StatusCode::UNAUTHORIZED, &refusal("invalid_client", &words))
        }
        Some(_) | None => match judge(&tenant, directory, &form, version, host) {
            Ok(audience) => tenant.issue(&form, audience),
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
    version: Version,
    host: &str,
) -> Result<Audience, Refusal> {
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
    let (name, resource) = match version {
        Version::First => ("resource", Some(given("resource"))),
        Version::Second => ("scope", given("scope").strip_suffix("/.default")),
    };
    let Some(audience) = resource.and_then(|resource| audience(tenant, resource, host)) else {
        let words = format!("AADSTS1002012: The provided value for {name} is not valid.");
        return bad("invalid_scope", words);
    };
    let client = given("client_id");
    if !is_id(client) {
        let words = format!("AADSTS700016: Application with identifier '{client}' was not found.");
        return bad("unauthorized_client", words);
    }
    if form.contains_key("client_assertion") {
        return asserted(tenant, given("client_assertion_type"), given("client_assertion"))
            .map(|()| audience);
    }
    if given("client_secret") != tenant.token {
        let words = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent \
                     in the request is the client secret value, not the client secret ID.";
        return Err((StatusCode::UNAUTHORIZED, "invalid_client", words.to_owned()));
    }
    Ok(audience)
}

/// Whom a resource stands for.
fn audience(tenant: &Tenant, resource: &str, host: &str) -> Option<Audience> {
    if resource == APPLICATION {
        return Some(Audience::Portal);
    }
    let resource = resource.trim_end_matches('/');
    let (_, of) = resource.split_once("://")?;
    let ours = of == host || tenant.origins.iter().any(|origin| origin == of);
    (ours || GRAPHS.contains(&resource)).then_some(Audience::Graph)
}

/// Whether an assertion is as good as a client secret.
fn asserted(tenant: &Tenant, kind: &str, assertion: &str) -> Result<(), Refusal> {
    let bad = |words: String| Err((StatusCode::UNAUTHORIZED, "invalid_client", words));
    let unmatched = |what: &str, value: String| {
        format!(
            "No matching federated identity record found for presented assertion {what} '{value}'. \
             Check your federated identity credential Subject, Audience and Issuer against the \
             presented assertion."
        )
    };
    if kind != ASSERTION_TYPE {
        let words = "AADSTS900144: The request body must contain the following parameter: \
                     'client_assertion_type'.";
        return Err((StatusCode::BAD_REQUEST, "invalid_request", words.to_owned()));
    }
    match assertion::verify(assertion, &tenant.trust, tenant.now() / 1_000) {
        Ok(()) => Ok(()),
        Err(Wrong::Form(what)) => {
            bad(format!("AADSTS50027: JWT token is invalid or malformed. {what}"))
        }
        Err(Wrong::Issuer(issuer)) => bad(format!("AADSTS700211: {}", unmatched("issuer", issuer))),
        Err(Wrong::Audience(audience)) => {
            bad(format!("AADSTS700212: {}", unmatched("audience", audience)))
        }
        Err(Wrong::Subject(subject)) => {
            bad(format!("AADSTS700213: {}", unmatched("subject", subject)))
        }
        Err(Wrong::Time) => {
            bad("AADSTS700024: Client assertion is not within its valid time range.".to_owned())
        }
    }
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
    fn issue(&mut self, form: &BTreeMap<String, String>, audience: Audience) -> Answer {
        let (resource, roles) = match audience {
            Audience::Portal => (APPLICATION, json!(["investigation.read"])),
            Audience::Graph => {
                (GRAPHS[0], json!(["SecurityAlert.Read.All", "ThreatHunting.Read.All"]))
            }
        };
        let life = self.options.access_life;
        let number = self.issued.len();
        let claims = json!({
            "aud": resource, "roles": roles, "jti": number,
            "appid": form.get("client_id"), "nonce": self.chance.next(),
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.chance.next().to_be_bytes());
        let token = format!("{}.{}.{signature}", part(&json!({"alg": "RS256"})), part(&claims));
        let until = Instant::now() + life;
        self.access.push(Access { token: token.clone(), until, audience });
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
