//! What one agent exports, and how: its streams with their filters, and the pace. Pure.

use std::time::Duration;

use crate::event::Stream;
use crate::map::Format;
use crate::syslog::Layout;

/// What to follow, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The enabled streams with the user's filters in the API's own form.
    pub streams: Vec<(Stream, serde_json::Map<String, serde_json::Value>)>,
    /// How often each is asked where the budget allows.
    pub poll_interval: Duration,
    /// How far behind the watermark each poll of activities looks again.
    pub overlap: Duration,
    /// How far back an export begins, at most, when it starts anew.
    pub start_from: Duration,
    /// What an event is mapped to.
    pub format: Format,
    /// The form of the messages.
    pub layout: Layout,
}
