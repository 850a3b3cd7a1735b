//! What is known from an agent's reports. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use siem_agent_crds::report::Report;

/// What is known from an agent's reports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sighting {
    /// The last one that was believed, without the digests of alerts.
    pub(crate) report: Option<Arc<Report>>,
    /// Whether it is of the pod that runs just now.
    pub(crate) is_current: bool,
    /// When it was read.
    pub(crate) last_read: Option<Timestamp>,
    /// When one last said that the token is valid.
    pub(crate) valid: Option<Timestamp>,
    /// Why none can be read.
    pub(crate) failing: Option<Failing>,
}

/// Since when and why no report can be read from the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) since: Timestamp,
    pub(crate) reason: String,
}

impl Sighting {
    /// The report, if it is of the pod that runs just now.
    pub(crate) fn current(&self) -> Option<&Report> {
        self.report.as_deref().filter(|_| self.is_current)
    }
}
