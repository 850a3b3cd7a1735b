//! The answer to a scrape, in the form that it asks for.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use siem_agent_crds::exposition::Form;

use super::Recent;

/// The last answers to scrapes.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    text: Recent,
    open_metrics: Recent,
}

impl Scrape {
    /// What `encode` makes in OpenMetrics, in the form that these headers ask for.
    pub fn answer<E>(
        &self,
        headers: &HeaderMap,
        encode: impl FnOnce() -> Result<String, E>,
    ) -> Response {
        let accept = headers.get_all(header::ACCEPT).iter();
        let form = Form::accepted(accept.filter_map(|value| value.to_str().ok()));
        let recent = match form {
            Form::Text => &self.text,
            Form::OpenMetrics => &self.open_metrics,
        };
        match recent.or_make(|| encode().map(|open_metrics| form.of(open_metrics))) {
            Ok(text) => ([(header::CONTENT_TYPE, form.content_type())], text).into_response(),
            Err(_unwritable) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}
