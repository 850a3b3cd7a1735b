//! The endpoints of the simulated portal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use tokio::time::Instant;

use super::{Fault, FaultKind, Record, Request, Tenant, lock};
use crate::clock;

type Shared = State<Arc<Mutex<Tenant>>>;

const MINUTE: Duration = Duration::from_secs(60);
/// How many records a page that is not the last one loses in scan mode.
const DROPPED: usize = 3;

pub(super) fn routes(tenant: Arc<Mutex<Tenant>>) -> Router {
    let alerts = |state: Shared, headers: HeaderMap, body: String| {
        list(Stream::Alerts, state, headers, body)
    };
    let activities = |state: Shared, headers: HeaderMap, body: String| {
        list(Stream::Activities, state, headers, body)
    };
    Router::new()
        .route("/api/v1/alerts/", post(alerts).get(alerts))
        .route("/api/v1/activities/", post(activities).get(activities))
        .route("/cas/api/v1/alerts/", post(alerts).get(alerts))
        .route("/cas/api/v1/activities/", post(activities).get(activities))
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/_control/shown", get(shown))
        .route("/_control/requests", get(requests))
        .route("/_control/token", post(set_token))
        .route("/_control/fault", post(set_fault))
        .with_state(tenant)
}

async fn shown(State(tenant): Shared) -> Response {
    let shown: Vec<_> = lock(&tenant)
        .shown
        .iter()
        .map(|(stream, id)| json!({"stream": stream, "id": id}))
        .collect();
    answer(StatusCode::OK, &Value::from(shown))
}

async fn requests(State(tenant): Shared) -> Response {
    let requests = lock(&tenant).requests.clone();
    answer(StatusCode::OK, &serde_json::to_value(requests).unwrap_or_default())
}

async fn set_token(State(tenant): Shared, token: String) -> Response {
    token.trim().clone_into(&mut lock(&tenant).token);
    answer(StatusCode::OK, &json!({}))
}

async fn set_fault(State(tenant): Shared, fault: String) -> Response {
    match fault.trim().parse::<Fault>() {
        Ok(fault) => {
            lock(&tenant).faults.push_back(fault);
            answer(StatusCode::OK, &json!({}))
        }
        Err(detail) => answer(StatusCode::BAD_REQUEST, &json!({"detail": detail})),
    }
}

/// The client credentials grant: the client secret is the tenant's token, and the access token made of it is short.
async fn token(State(tenant): Shared, form: String) -> Response {
    let mut tenant = lock(&tenant);
    let good = form.split('&').any(|pair| {
        let secret = pair.strip_prefix("client_secret=").map(|secret| secret.replace("%3D", "="));
        secret.as_deref() == Some(tenant.token.as_str())
    });
    let status = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
    tenant.requests.push(Request { at: clock::millis(), what: "token", status: status.as_u16() });
    if good {
        let access = format!("access-{}", tenant.token);
        return answer(
            status,
            &json!({"token_type": "Bearer", "expires_in": 3599, "access_token": access}),
        );
    }
    let description = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the value.\r\nTrace ID: 0";
    answer(status, &json!({"error": "invalid_client", "error_description": description}))
}

async fn list(stream: Stream, State(tenant): Shared, headers: HeaderMap, body: String) -> Response {
    let (fault, page) = {
        let mut tenant = lock(&tenant);
        let fault = tenant.take_fault(stream);
        let page = tenant.answer(stream, &headers, &body, fault.as_ref());
        (fault, page)
    };
    if let Some(FaultKind::Hang(seconds)) = fault {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    page
}

impl Tenant {
    fn take_fault(&mut self, stream: Stream) -> Option<FaultKind> {
        let at = self.faults.iter().position(|fault| fault.stream.is_none_or(|of| of == stream))?;
        let fault = self.faults.get_mut(at)?;
        fault.n_requests = fault.n_requests.saturating_sub(1);
        let kind = fault.kind.clone();
        if fault.n_requests == 0 {
            self.faults.remove(at);
        }
        Some(kind)
    }

    fn answer(
        &mut self,
        stream: Stream,
        headers: &HeaderMap,
        body: &str,
        fault: Option<&FaultKind>,
    ) -> Response {
        let response = self.judge(stream, headers, body, fault);
        let status = response.status().as_u16();
        self.requests.push(Request { at: clock::millis(), what: stream.as_str(), status });
        response
    }

    fn judge(
        &mut self,
        stream: Stream,
        headers: &HeaderMap,
        body: &str,
        fault: Option<&FaultKind>,
    ) -> Response {
        let now = Instant::now();
        while self.recent.front().is_some_and(|sent| now.duration_since(*sent) >= MINUTE) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        if self.budget > 0 && self.recent.len() > self.budget {
            return detail(
                StatusCode::TOO_MANY_REQUESTS,
                "Request was throttled. Expected available in 60 seconds.",
            );
        }
        match fault {
            Some(FaultKind::Throttle(after)) => {
                let mut response = detail(StatusCode::TOO_MANY_REQUESTS, "Request was throttled.");
                if let Some(after) = after.as_ref().and_then(|after| after.parse().ok()) {
                    response.headers_mut().insert(header::RETRY_AFTER, after);
                }
                return response;
            }
            Some(FaultKind::Status(status)) => {
                let status =
                    StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return detail(status, "simulated");
            }
            Some(FaultKind::Unauthorized(words)) => return detail(StatusCode::UNAUTHORIZED, words),
            Some(FaultKind::Html) => {
                return respond(
                    StatusCode::OK,
                    "text/html",
                    "<html>Sign in to your account</html>".to_owned(),
                );
            }
            Some(FaultKind::Hang(_) | FaultKind::Cut(_) | FaultKind::BrokenJson) | None => {}
        }
        let authorization =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let good = [format!("Token {}", self.token), format!("Bearer access-{}", self.token)];
        if !authorization.is_some_and(|value| good.iter().any(|good| good == value)) {
            return detail(StatusCode::UNAUTHORIZED, "Invalid token");
        }
        if self.forbidden.contains(&stream) {
            let words = "Invalid user - the owner of this token is not permitted to use tokens";
            return detail(StatusCode::FORBIDDEN, words);
        }
        let question: Value = serde_json::from_str(body).unwrap_or_else(|_empty| json!({}));
        let page = match self.page(stream, &question) {
            Ok(page) => page,
            Err(refusal) => return answer(StatusCode::BAD_REQUEST, &refusal),
        };
        match fault {
            // The length of a whole page is promised, so that the client must notice.
            Some(FaultKind::Cut(n_bytes)) => {
                let cut: String = page.chars().take(*n_bytes).collect();
                respond(StatusCode::OK, "application/json", cut)
            }
            Some(FaultKind::BrokenJson) => respond(
                StatusCode::OK,
                "application/json",
                page.replacen("\"data\":", "\"data\"", 1),
            ),
            _ => respond(StatusCode::OK, "application/json", page),
        }
    }

    fn page(&mut self, stream: Stream, question: &Value) -> Result<String, Value> {
        let number = |name: &str| {
            question.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
        };
        let scan =
            stream == Stream::Activities && question.get("isScan") == Some(&Value::Bool(true));
        let limit = number("limit").unwrap_or(if scan { 500 } else { 100 });
        let limit = if scan { limit.clamp(500, 5_000) } else { limit.min(100) };
        let skip = number("skip").unwrap_or(0);
        if skip + limit > 5_000 && !scan {
            return Err(json!({"detail": "skip and limit cannot pass 5000"}));
        }
        let empty = json!({});
        let filters = question.get("filters").unwrap_or(&empty);
        let (from, until) = window(stream, filters)?;
        let cursor = filters.get("cursor").and_then(Value::as_array);
        let after =
            cursor.and_then(|at| Some((at.first()?.as_i64()?, at.get(1)?.as_str()?.to_owned())));
        let now = clock::millis();
        let mut found: Vec<&Record> = match stream {
            Stream::Alerts => &self.alerts,
            Stream::Activities => &self.activities,
        }
        .iter()
        .filter(|record| record.visible <= now && record.listed >= from && record.listed <= until)
        .filter(|record| {
            after
                .as_ref()
                .is_none_or(|(time, id)| (record.listed, record.key()) >= (*time, id.as_str()))
        })
        .collect();
        found.sort_by(|one, other| (one.listed, one.key()).cmp(&(other.listed, other.key())));
        let total = found.len();
        let has_next = total > skip + limit;
        let n_given = if scan && has_next { limit - DROPPED } else { limit };
        let next = found.get(skip + n_given).map(|record| (record.listed, record.key().to_owned()));
        let page: Vec<&Record> = found.into_iter().skip(skip).take(n_given).collect();
        let data: Vec<&str> = page.iter().map(|record| record.json.as_ref()).collect();
        let mut body =
            format!("{{\"data\":[{}],\"hasNext\":{has_next},\"total\":{total}", data.join(","));
        if let (true, true, Some((time, id))) = (scan, has_next, next) {
            let mut filters = filters.clone();
            filters["cursor"] = json!([time, id]);
            body.push_str(&format!(",\"nextQueryFilters\":{filters}"));
        }
        body.push('}');
        let ids: Vec<_> =
            page.iter().filter_map(|record| Some((stream, record.id.clone()?))).collect();
        self.shown.extend(ids);
        Ok(body)
    }
}

impl Record {
    fn key(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }
}

/// The lower and the upper end that the filters set; a filter that the portal does not know is refused in its words.
fn window(stream: Stream, filters: &Value) -> Result<(i64, i64), Value> {
    let time = match stream {
        Stream::Alerts => "date",
        Stream::Activities => "created",
    };
    for field in filters.as_object().into_iter().flat_map(|filters| filters.keys()) {
        let known = [
            time,
            "cursor",
            "service",
            "severity",
            "entity.service",
            "entity.policy",
            "user.username",
            "policy",
        ];
        if !known.contains(&field.as_str()) {
            return Err(json!({
                "filters": [{"error": format!("{field} is not valid"), "errorMessageCode": "CONSOLE_FORMS_NOT_VALID_VALUE"}],
                "error": true,
            }));
        }
    }
    let bound =
        |operator: &str| filters.get(time).and_then(|of| of.get(operator)).and_then(Value::as_i64);
    Ok((bound("gte").unwrap_or(0), bound("lte").unwrap_or(i64::MAX)))
}

fn detail(status: StatusCode, words: &str) -> Response {
    answer(status, &json!({"detail": words}))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    respond(status, "application/json", body.to_string())
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
