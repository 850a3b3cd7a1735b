//! Microsoft Graph for the tenant: `alerts_v2` and `runHuntingQuery`, with their limits, permissions and refusals.

mod refusal;
mod odata;
mod alerts;
mod hunting;

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;

use super::answer::Answer;
use super::fault::{Endpoint, FaultKind};
use super::spoil::spoil;
use super::tenant::{Audience, Budget, Shared, Tenant, lock};
use refusal::Refusal;

const CONTENT_TYPE: &str = "application/json;odata.metadata=minimal;odata.streaming=true;\
                            IEEE754Compatible=false;charset=utf-8";
/// How often the share of CPU is given out anew.
const CPU_CYCLE_MS: i64 = 15 * 60_000;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1.0/security/alerts_v2", get(list))
        .route("/v1.0/security/alerts_v2/{id}", get(fetch))
        .route("/v1.0/security/runHuntingQuery", post(hunt))
        .route("/v1.0/security/microsoft.graph.security.runHuntingQuery", post(hunt))
        .route("/v1.0/{*rest}", get(unknown).post(unknown))
}

/// A body that is about to be sent.
#[derive(Debug)]
struct Body {
    text: String,
    /// The tenant's own ids in it, each with the place where its record ends.
    ids: Vec<(usize, String)>,
}

/// One of the two services.
#[derive(Debug, Clone, Copy)]
struct Service {
    endpoint: Endpoint,
    budget: Budget,
    stream: Stream,
    role: &'static str,
}

const ALERTS: Service = Service {
    endpoint: Endpoint::GraphAlerts,
    budget: Budget::GraphAlerts,
    stream: Stream::Alerts,
    role: "SecurityAlert.Read.All",
};
const HUNTING: Service = Service {
    endpoint: Endpoint::GraphHunting,
    budget: Budget::GraphHunting,
    stream: Stream::Activities,
    role: "ThreatHunting.Read.All",
};

/// A page of alerts.
async fn list(
    State(tenant): State<Shared>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let options = alerts::Options::read(query.as_deref().unwrap_or_default());
    let scheme = if lock(&tenant).options.tls.is_some() { "https" } else { "http" };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let url = format!("{scheme}://{host}/v1.0/security/alerts_v2");
    let knows_all = headers
        .get_all("prefer")
        .iter()
        .any(|prefer| prefer.to_str().is_ok_and(|it| it.contains("include-unknown-enum-members")));
    let asked = (json!(options.all), options.continues());
    let more = format!("{url}?{}", query.unwrap_or_default());
    let empty = json!({"@odata.nextLink": more, "value": []});
    serve(ALERTS, &tenant, &headers, asked, &empty, |tenant| {
        tenant.alerts_page(&options, &url, knows_all)
    })
    .await
}

/// One alert.
async fn fetch(
    State(tenant): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let asked = (json!({"id": id}), false);
    serve(ALERTS, &tenant, &headers, asked, &Value::Null, |tenant| tenant.alert(&id)).await
}

/// The rows of a query.
async fn hunt(State(tenant): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let question = serde_json::from_str(&body).unwrap_or(Value::Null);
    let empty = json!({"schema": [], "results": []});
    let asked = (question.clone(), false);
    serve(HUNTING, &tenant, &headers, asked, &empty, |tenant| tenant.hunt(&question)).await
}

async fn unknown(State(tenant): State<Shared>, Path(rest): Path<String>) -> Response {
    let mut tenant = lock(&tenant);
    let words = format!("Resource not found for the segment '{rest}'.");
    let answer = tenant.refusal(&HeaderMap::new(), Refusal::bad_request(words));
    answer.respond(tenant.now(), false)
}

/// Answers a request: notes it, lets it wait or fail where it has to, and gives the body for what was asked.
async fn serve(
    service: Service,
    tenant: &Shared,
    headers: &HeaderMap,
    (question, continued): (Value, bool),
    empty: &Value,
    give: impl FnOnce(&Tenant) -> Result<Body, Refusal>,
) -> Response {
    let (number, too_many, fault) = lock(tenant).arrive(service.endpoint, question, continued);
    if let Some(FaultKind::Hang(seconds)) = fault {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    let mut tenant = lock(tenant);
    let refused = if too_many { Some(tenant.one_too_many(service)) } else { None };
    let refused = match (refused, &fault) {
        (Some(refusal), _) => Some(tenant.refusal(headers, refusal)),
        (None, Some(fault)) => tenant.fails(fault, service, headers, empty),
        (None, None) => None,
    };
    let answer = match refused {
        Some(answer) => answer,
        None => match tenant.admits(service, headers).and_then(|()| give(&tenant)) {
            Err(refusal) => tenant.refusal(headers, refusal),
            Ok(body) => {
                let mut answer = Answer::text(StatusCode::OK, CONTENT_TYPE, body.text);
                let n_shown = spoil(&mut answer, fault.as_ref());
                let whole = body.ids.into_iter().filter(|(end, _)| *end <= n_shown);
                tenant.shown.extend(whole.map(|(_, id)| (service.stream, id)));
                answer
            }
        },
    };
    tenant.send(number, headers, answer)
}

impl Tenant {
    fn one_too_many(&self, service: Service) -> Refusal {
        let seconds = self.throttled_for(service.budget);
        let words = match service.endpoint {
            Endpoint::GraphHunting => {
                "You have exceeded the maximum number of calls per minute for this tenant."
            }
            _ => "Too many requests.",
        };
        Refusal::throttled(words, self.retry_after(seconds))
    }

    /// Whether the bearer may ask.
    fn admits(&self, service: Service, headers: &HeaderMap) -> Result<(), Refusal> {
        let authorization =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        let words = match (authorization, token.and_then(|token| self.audience(token))) {
            (None, _) => Some("Access token is empty."),
            (Some(_), Some(Audience::Graph)) => None,
            (Some(_), Some(Audience::Portal)) => {
                Some("Access token validation failure. Invalid audience.")
            }
            (Some(_), None) => Some("Access token has expired or is not yet valid."),
        };
        if let Some(words) = words {
            return Err(Refusal::unauthorized(words));
        }
        if self.forbidden.contains(&service.stream) {
            let held = if service.role == ALERTS.role { HUNTING.role } else { ALERTS.role };
            return Err(Refusal::forbidden(format!(
                "Missing application roles. API required roles: {}, application roles: {held}.",
                service.role
            )));
        }
        if self.cpu_spent && service.stream == Stream::Activities {
            let rest = CPU_CYCLE_MS - self.now().rem_euclid(CPU_CYCLE_MS);
            let seconds = u64::try_from(rest / 1_000).unwrap_or(0) + 1;
            return Err(Refusal::throttled(
                "You have exceeded the CPU quota of this tenant for hunting queries. Try again \
                 in the next cycle of 15 minutes.",
                self.retry_after(seconds),
            ));
        }
        Ok(())
    }

    /// The faults that need no body of ours.
    fn fails(
        &mut self,
        fault: &FaultKind,
        service: Service,
        headers: &HeaderMap,
        empty: &Value,
    ) -> Option<Answer> {
        let refusal = match fault {
            FaultKind::Throttle(retry_after) => {
                Refusal::throttled("Too many requests.", retry_after.clone())
            }
            FaultKind::ThrottleInWords(seconds) => {
                let words = format!("Too many requests. Try again in {seconds} seconds.");
                Refusal::throttled(&words, None)
            }
            FaultKind::Status(status) => Refusal::of_status(*status),
            FaultKind::Unauthorized(words) => Refusal::unauthorized(words),
            FaultKind::Forbidden(words) if words == super::OWNER_NOT_PERMITTED => {
                Refusal::forbidden(format!(
                    "Missing application roles. API required roles: {}, application roles: .",
                    service.role
                ))
            }
            FaultKind::Forbidden(words) => Refusal::forbidden(words.clone()),
            FaultKind::ResultTooLarge => hunting::too_large(),
            FaultKind::Refusal(status, body) => return Some(Answer::refusal(*status, body)),
            FaultKind::GatewayPage => return Some(Answer::gateway_page()),
            FaultKind::More => {
                return Some(Answer::text(StatusCode::OK, CONTENT_TYPE, empty.to_string()));
            }
            FaultKind::Html => {
                let page = "<html><title>Sign in to your account</title></html>".to_owned();
                return Some(Answer::text(StatusCode::OK, "text/html; charset=utf-8", page));
            }
            FaultKind::Empty => {
                return Some(Answer::text(StatusCode::OK, CONTENT_TYPE, String::new()));
            }
            FaultKind::Hang(_)
            | FaultKind::Cut(_)
            | FaultKind::Short(_)
            | FaultKind::BrokenJson
            | FaultKind::Mark
            | FaultKind::Grant(_)
            | FaultKind::ContentType(_) => return None,
        };
        Some(self.refusal(headers, refusal))
    }
}
