//! Refusals of Microsoft Graph: a code, a message, and what support asks for.

use axum::http::{HeaderMap, StatusCode};
use serde_json::json;

use super::super::answer::Answer;
use super::super::tenant::Tenant;
use super::super::ticks;

/// A refusal that has not been sent yet.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    code: &'static str,
    words: String,
    retry_after: Option<String>,
}

impl Refusal {
    fn new(status: u16, code: &'static str, words: impl Into<String>) -> Self {
        Self { status, code, words: words.into(), retry_after: None }
    }

    pub(super) fn bad_request(words: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", words)
    }

    pub(super) fn unauthorized(words: &str) -> Self {
        Self::new(401, "InvalidAuthenticationToken", words)
    }

    pub(super) fn forbidden(words: String) -> Self {
        Self::new(403, "Forbidden", words)
    }

    pub(super) fn not_found(words: &str) -> Self {
        Self::new(404, "ResourceNotFound", words)
    }

    pub(super) fn throttled(words: &str, retry_after: Option<String>) -> Self {
        Self { retry_after, ..Self::new(429, "TooManyRequests", words) }
    }

    /// What Graph says with a status for which there is no better word.
    pub(super) fn of_status(status: u16) -> Self {
        let code = match status {
            400 => "BadRequest",
            401 => "InvalidAuthenticationToken",
            403 => "Forbidden",
            404 => "ResourceNotFound",
            429 => "TooManyRequests",
            500 => "InternalServerError",
            502 => "BadGateway",
            503 => "ServiceUnavailable",
            504 => "GatewayTimeout",
            _ => "UnknownError",
        };
        Self::new(status, code, "simulated")
    }
}

impl Tenant {
    /// The answer that says so. A client's own id of its request comes back.
    pub(super) fn refusal(&mut self, headers: &HeaderMap, refusal: Refusal) -> Answer {
        let Refusal { status, code, words, retry_after } = refusal;
        let id = self.chance.uuid();
        let of_client = headers.get("client-request-id").and_then(|id| id.to_str().ok());
        let date = ticks::print(self.now() * ticks::MILLISECOND, 0);
        let body = json!({"error": {"code": code, "message": words, "innerError": {
            "date": date.trim_end_matches('Z'), "request-id": id,
            "client-request-id": of_client.unwrap_or(&id),
        }}});
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Answer { retry_after, ..Answer::json(status, &body) }
    }
}
