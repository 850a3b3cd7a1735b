//! An agent of which objects can be made. Pure.

use siem_agent_crds::siem_agent::{SiemAgent, SiemAgentSpec};

use crate::budget::Allowed;
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
    /// Of the pods that host its sidecar.
    pub(crate) host: Traits,
    /// This agent's shares of the tenant's requests.
    pub(crate) allowed: Allowed,
}

/// What of a host's pods its sidecar depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// They run as root unless a container says otherwise.
    pub(crate) as_root: bool,
    /// They are on the network of their node.
    pub(crate) on_node: bool,
}

impl Validated<'_> {
    pub(crate) fn spec(&self) -> &SiemAgentSpec {
        &self.agent.spec
    }
}
