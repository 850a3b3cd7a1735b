//! An agent of which objects can be made. Pure.

use siem_agent_crds::siem_agent::{SiemAgent, SiemAgentSpec};

use crate::platform::Platform;
use crate::rollout::Mark;

/// An agent that can be built.
#[derive(Debug)]
pub(crate) struct Validated<'a> {
    pub(crate) agent: &'a SiemAgent,
    pub(crate) image: String,
    /// The release that the image is of.
    pub(crate) mark: Option<Mark>,
    pub(crate) platform: Platform,
    /// Where the operator runs, which reads the forwarder's report.
    pub(crate) operator_namespace: String,
    /// This agent's share of the tenant's requests.
    pub(crate) requests_per_minute: u32,
}

impl Validated<'_> {
    pub(crate) fn spec(&self) -> &SiemAgentSpec {
        &self.agent.spec
    }
}
