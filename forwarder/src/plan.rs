//! What one agent's events become, and the pace at which a source is asked. Pure.

use std::time::Duration;

use crate::map::Format;
use crate::syslog::Layout;

/// What events become.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What an event is mapped to.
    pub format: Format,
    /// The form of the messages.
    pub layout: Layout,
}

/// How often a source is asked, and from where on.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often each stream is asked where the budget allows.
    pub poll_interval: Duration,
    /// How far behind what it has read each stream is looked at again.
    pub overlap: Duration,
    /// How far back an export begins, at most, when it starts anew.
    pub start_from: Duration,
}
