//! The endpoints of the simulated portal: who may ask, how often, and what goes wrong on the way to a page.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;

use super::answer::{Answer, http_date, takes_gzip};
use super::fault::{Endpoint, FaultKind};
use super::page::CURSOR;
use super::spoil::spoil;
use super::tenant::{Budget, Shared, Tenant, lock};
use super::{OWNER_NOT_PERMITTED, control, graph, identity};

/// The portal, Microsoft Graph, the identity provider and the control endpoint on one listener.
pub(super) fn routes(tenant: Shared) -> Router {
    let mut router = Router::new();
    for prefix in ["/api/v1", "/cas/api/v1"] {
        for (stream, name) in [(Stream::Alerts, "alerts"), (Stream::Activities, "activities")] {
            let listed =
                move |state, headers, query, body| list(stream, state, headers, query, body);
            let fetched =
                move |state, headers, path| async move { fetch(stream, state, headers, path) };
            router = router
                .route(&format!("{prefix}/{name}/"), post(listed).get(listed))
                .route(&format!("{prefix}/{name}/{{id}}/"), get(fetched));
        }
    }
    router
        .route("/{tenant}/oauth2/v2.0/token", post(identity::second))
        .route("/{tenant}/oauth2/token", post(identity::first))
        .route("/_sim/", get(control::help))
        .nest("/_sim", control::routes())
        .merge(graph::routes())
        .with_state(tenant)
}

/// A page of a stream.
async fn list(
    stream: Stream,
    State(tenant): State<Shared>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    body: String,
) -> Response {
    let question = question(&body, query.as_deref());
    let endpoint = Endpoint::Records(stream);
    let (number, too_many, fault) = {
        let mut tenant = lock(&tenant);
        let asked = question.as_ref().ok().cloned().unwrap_or_default();
        let continued = tenant.continues(stream, &asked);
        tenant.arrive(endpoint, asked, continued)
    };
    if let Some(FaultKind::Hang(seconds)) = fault {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
    let mut tenant = lock(&tenant);
    let refused = if too_many { Some(tenant.throttled()) } else { fault.as_ref().and_then(before) };
    let answer = match refused.or_else(|| tenant.refuse(&headers)) {
        Some(answer) => answer,
        None => tenant.show(stream, question, fault.as_ref()),
    };
    tenant.send(number, &headers, answer)
}

/// One record.
fn fetch(
    stream: Stream,
    State(tenant): State<Shared>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let mut tenant = lock(&tenant);
    let (number, too_many, _) = tenant.arrive(Endpoint::Records(stream), json!({"_id": id}), false);
    let refused = if too_many { Some(tenant.throttled()) } else { tenant.refuse(&headers) };
    let answer = refused.unwrap_or_else(|| match tenant.one(stream, &id) {
        Some(record) => Answer::text(StatusCode::OK, "application/json", record.json.to_string()),
        None => Answer::detail(StatusCode::NOT_FOUND, "Not found."),
    });
    tenant.send(number, &headers, answer)
}

/// The question of a request: its body, or the query of a GET, whose limit counts for nothing.
fn question(body: &str, query: Option<&str>) -> Result<Value, Answer> {
    if !body.trim().is_empty() {
        return serde_json::from_str(body).map_err(|error| {
            Answer::detail(StatusCode::BAD_REQUEST, &format!("JSON parse error - {error}"))
        });
    }
    let mut question = json!({});
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name != "limit" {
            let value = serde_json::from_str(&value).unwrap_or_else(|_text| json!(value));
            question[name.as_ref()] = value;
        }
    }
    Ok(question)
}

/// The faults that need no page.
fn before(fault: &FaultKind) -> Option<Answer> {
    Some(match fault {
        FaultKind::Throttle(retry_after) => {
            let mut answer =
                Answer::detail(StatusCode::TOO_MANY_REQUESTS, "Request was throttled.");
            answer.retry_after.clone_from(retry_after);
            answer
        }
        FaultKind::ThrottleInWords(seconds) => {
            let words = format!("Request was throttled. Expected available in {seconds} seconds.");
            Answer::detail(StatusCode::TOO_MANY_REQUESTS, &words)
        }
        FaultKind::Refusal(status, body) => Answer::refusal(*status, body),
        FaultKind::More => {
            Answer::json(StatusCode::OK, &json!({"data": [], "hasNext": true, "total": 1}))
        }
        FaultKind::Status(status) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            Answer::detail(status, "simulated")
        }
        FaultKind::Unauthorized(words) => Answer::detail(StatusCode::UNAUTHORIZED, words),
        FaultKind::Forbidden(words) => Answer::detail(StatusCode::FORBIDDEN, words),
        FaultKind::Html => {
            let page = "<html><title>Sign in to your account</title></html>";
            Answer::text(StatusCode::OK, "text/html; charset=utf-8", page.to_owned())
        }
        FaultKind::GatewayPage => Answer::gateway_page(),
        FaultKind::ResultTooLarge => Answer::detail(StatusCode::BAD_REQUEST, "too large"),
        FaultKind::Empty => Answer::text(StatusCode::OK, "application/json", String::new()),
        FaultKind::Hang(_)
        | FaultKind::Cut(_)
        | FaultKind::Short(_)
        | FaultKind::BrokenJson
        | FaultKind::Mark
        | FaultKind::Grant(_)
        | FaultKind::ContentType(_) => return None,
    })
}

impl Tenant {
    /// Whether a question goes on where the page before it ended.
    fn continues(&self, stream: Stream, question: &Value) -> bool {
        question.get("skip").and_then(Value::as_u64).is_some_and(|skip| skip > 0)
            || question.pointer(&format!("/filters/{CURSOR}")).is_some()
            || self.more.get(&stream).copied().unwrap_or(false)
    }

    /// Too many requests of this tenant.
    fn throttled(&self) -> Answer {
        let seconds = self.throttled_for(Budget::Portal);
        let words = format!("Request was throttled. Expected available in {seconds} seconds.");
        let mut answer = Answer::detail(StatusCode::TOO_MANY_REQUESTS, &words);
        answer.retry_after = self.retry_after(seconds);
        answer
    }

    /// The refusal of a bearer who may not ask at all.
    fn refuse(&self, headers: &HeaderMap) -> Option<Answer> {
        let authorization =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match authorization {
            None => {
                let words = "Authentication credentials were not provided.";
                Some(Answer::detail(StatusCode::UNAUTHORIZED, words))
            }
            Some(value) if !self.lets_in(value) => {
                Some(Answer::detail(StatusCode::UNAUTHORIZED, "Invalid token"))
            }
            Some(_) => None,
        }
    }

    /// The page, or the refusal of the question, with the fault that meets it.
    fn show(
        &mut self,
        stream: Stream,
        question: Result<Value, Answer>,
        fault: Option<&FaultKind>,
    ) -> Answer {
        if self.forbidden.contains(&stream) {
            return Answer::detail(StatusCode::FORBIDDEN, OWNER_NOT_PERMITTED);
        }
        let question = match question {
            Ok(question) => question,
            Err(refusal) => return refusal,
        };
        let page = match self.page(stream, &question) {
            Ok(page) => page,
            Err(refusal) => return Answer::json(StatusCode::BAD_REQUEST, &refusal),
        };
        self.more.insert(stream, page.has_next);
        let mut answer = Answer::text(StatusCode::OK, "application/json", page.body);
        let n_shown = spoil(&mut answer, fault);
        let whole = page.ids.into_iter().filter(|(end, _)| *end <= n_shown);
        self.shown.extend(whole.map(|(_, id)| (stream, id)));
        answer
    }

    /// Notes how a request was answered.
    pub(super) fn send(
        &mut self,
        number: usize,
        headers: &HeaderMap,
        mut answer: Answer,
    ) -> Response {
        let now = self.now();
        let gzip = takes_gzip(headers);
        if let Some(request) = self.requests.get_mut(number) {
            request.status = answer.status.as_u16();
            request.gzip = gzip;
            request.n_bytes = answer.body.len();
        }
        if let Some(seconds) =
            answer.retry_after.as_deref().and_then(|text| text.strip_prefix("date+"))
        {
            let ahead: i64 = seconds.parse().unwrap_or(0);
            answer.retry_after = Some(http_date(now + ahead * 1_000));
        }
        answer.respond(now, gzip)
    }
}
