//! What a page says besides its records. Pure.

use serde_json::Value;

/// The page without its records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Envelope {
    /// Whether there is another page.
    pub has_next: bool,
    /// What to ask with for the next page, in scan mode.
    pub next_query_filters: Option<Value>,
    /// How many records match in all, where the API says so.
    pub total: Option<u64>,
}

impl Envelope {
    /// Reads it; what is absent or of another kind says nothing.
    pub fn of(envelope: &Value) -> Self {
        Self {
            has_next: envelope.get("hasNext").and_then(Value::as_bool).unwrap_or(false),
            next_query_filters: envelope
                .get("nextQueryFilters")
                .filter(|filters| !filters.is_null())
                .cloned(),
            total: envelope.get("total").and_then(Value::as_u64),
        }
    }
}
