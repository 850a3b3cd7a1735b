//! What goes out: status, body and headers, gzip where the client takes it, and bodies that end too early.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use serde_json::{Value, json};

/// An answer that has not been sent yet.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) retry_after: Option<String>,
    pub(super) body: String,
    /// The connection ends after this many bytes of the body.
    pub(super) cut: Option<usize>,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    pub(super) fn text(status: StatusCode, content_type: &str, body: String) -> Self {
        let content_type = content_type.to_owned();
        Self { status, content_type, retry_after: None, body, cut: None }
    }

    /// A refusal in a form of its own.
    pub(super) fn refusal(status: u16, body: &str) -> Self {
        let kind = if body.starts_with(['{', '[']) { "application/json" } else { "text/plain" };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Self::text(status, kind, body.to_owned())
    }

    /// What a gateway says of a server that did not answer it.
    pub(super) fn gateway_page() -> Self {
        let page = "<html><head><title>504 Gateway Time-out</title></head><body></body></html>";
        Self::text(StatusCode::GATEWAY_TIMEOUT, "text/html", page.to_owned())
    }

    /// A refusal in the style of Django REST framework.
    pub(super) fn detail(status: StatusCode, words: &str) -> Self {
        Self::json(status, &json!({"detail": words}))
    }

    /// The same with these fields in its JSON; those that are null are left out.
    pub(super) fn with(mut self, fields: &Value) -> Self {
        let (Ok(Value::Object(mut body)), Value::Object(fields)) =
            (serde_json::from_str(&self.body), fields)
        else {
            return self;
        };
        body.extend(fields.clone());
        body.retain(|_, value| !value.is_null());
        self.body = Value::Object(body).to_string();
        self
    }

    /// The response with the server's time in it.
    pub(super) fn respond(self, now: i64, gzip: bool) -> Response {
        let Self { status, content_type, retry_after, body, cut } = self;
        let kept = cut.unwrap_or(body.len()).min(body.len());
        let n_promised = if cut.is_some() { body.len() + 1 } else { body.len() };
        let kept = body.as_bytes().get(..kept).unwrap_or_default();
        let bytes =
            if gzip { Bytes::from(zip(kept, cut.is_none())) } else { Bytes::copy_from_slice(kept) };
        let mut response = Response::new(match cut {
            None => Body::from(bytes),
            Some(_) => Body::from_stream(stream::unfold(Some(bytes), cut_after)),
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(header::CONTENT_TYPE, &content_type);
        set(header::DATE, &http_date(now));
        if gzip {
            set(header::CONTENT_ENCODING, "gzip");
        }
        // More is promised than comes, so that the client must notice.
        if cut.is_some() && !gzip {
            set(header::CONTENT_LENGTH, &n_promised.to_string());
        }
        if let Some(retry_after) = retry_after {
            set(header::RETRY_AFTER, &retry_after);
        }
        response
    }
}

/// The bytes, a moment for them to leave, then the end of the connection.
async fn cut_after(bytes: Option<Bytes>) -> Option<(std::io::Result<Bytes>, Option<Bytes>)> {
    match bytes {
        Some(bytes) => Some((Ok(bytes), None)),
        None => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Err(std::io::ErrorKind::ConnectionReset.into()), None))
        }
    }
}

/// Whether the client takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.split(',').any(|one| one.trim().starts_with("gzip")))
}

/// What is not whole has no trailer either.
fn zip(bytes: &[u8], whole: bool) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // A vector takes everything.
    let _ = encoder.write_all(bytes).and_then(|()| encoder.flush());
    if whole { encoder.finish().unwrap_or_default() } else { encoder.get_ref().clone() }
}

/// A time in HTTP's own format.
pub(super) fn http_date(millis: i64) -> String {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}
