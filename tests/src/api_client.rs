//! What the API server has, as admin. Not by kubectl: tests that wait look many times a second, and a process each time would
//! be most of what they cost. It changes nothing.

use std::fmt;

use anyhow::{Context as _, Result};
use axum::http::Request;
use kube::Client;
use serde_json::Value;

/// A client that can be shown.
pub(crate) struct ApiClient(pub(crate) Client);

impl fmt::Debug for ApiClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ApiClient")
    }
}

impl ApiClient {
    /// What stands at a path; `None` where nothing does.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<Value>> {
        let request = Request::get(path).body(Vec::new())?;
        match self.0.request::<Value>(request).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            answer => Ok(Some(answer.with_context(|| format!("get {path}"))?)),
        }
    }
}
