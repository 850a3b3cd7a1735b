//! What the servers answer besides records: refusals and access tokens. Only `source` reads these.

use serde::Deserialize;

/// The refusal of the API, in the style of Django REST framework: `{"detail": "Invalid token"}`.
#[derive(Deserialize)]
pub(in crate::source) struct Refusal {
    pub(in crate::source) detail: String,
}

/// A granted access token (RFC 6749, section 5.1). It has no `Debug`.
#[derive(Deserialize)]
pub(in crate::source) struct TokenAnswer {
    pub(in crate::source) access_token: String,
    /// Seconds.
    pub(in crate::source) expires_in: u64,
}

/// A refused one (RFC 6749, section 5.2).
#[derive(Deserialize)]
pub(in crate::source) struct TokenRefusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl TokenRefusal {
    /// The first line of the description: the rest are trace ids and a time.
    pub(in crate::source) fn text(&self) -> String {
        let first = self.error_description.lines().next().unwrap_or_default();
        format!("{}: {first}", self.error)
    }
}
