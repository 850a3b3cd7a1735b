//! Whether an agent can work at all: everything that the schema could not say. Pure; tells all problems, not the first.
//!
//! `Validated` is the only thing that `build` takes, so nothing is built of a spec that was not looked at. The API server
//! would refuse most of this only with the Deployment, where the one who wrote the SiemAgent does not see it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use siem_agent_crds::condition::Reason;
use siem_agent_crds::manifest;
use siem_agent_crds::siem_agent::{Protocol, SiemAgent, SiemAgentSpec};

use crate::names::{self, CONFIG_HASH_ANNOTATION, Owned, RELEASE_LABEL};
use crate::objects::validated::Validated;
use crate::observed::{HostSight, Observed};
use crate::observed_object::ObservedObject;
use crate::platform::Place;
use crate::quantity;
use crate::rollout::Stance;
use crate::tenants::Tenants;

/// Why an agent cannot work; the reason of `Stalled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// An object of an owned name belongs to somebody else.
    ForeignObject,
    /// The cluster's administrator lets only other namespaces export this tenant.
    SourceNotAllowed,
    /// A field that cannot work.
    InvalidSpec,
    /// The API server refuses an object that is made of the spec.
    Rejected,
    /// The workload that is to host the sidecar cannot.
    Host(Reason),
}

impl Cause {
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::ForeignObject => Reason::ForeignObject,
            Self::SourceNotAllowed => Reason::SourceNotAllowed,
            Self::InvalidSpec => Reason::InvalidSpec,
            Self::Rejected => Reason::Rejected,
            Self::Host(reason) => reason,
        }
    }
}

/// One thing that keeps an agent from working.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) cause: Cause,
    pub(crate) text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Checks an agent.
///
/// # Errors
/// All that is wrong, the gravest first.
pub(crate) fn validate<'a>(
    agent: &'a SiemAgent,
    observed: &Observed,
    stance: &Stance,
    place: &Place,
) -> Result<Validated<'a>, Vec<Problem>> {
    let spec = &agent.spec;
    let mut problems = foreign(agent, &observed.live);
    let mut invalid = Vec::new();
    if spec.syslog.protocol == Protocol::TLS {
        invalid.extend(
            manifest::server_name(spec.syslog.tls.as_ref(), spec.syslog.bare_host())
                .err()
                .map(|problem| problem.to_string()),
        );
    }
    let filters = manifest::filters(&spec.source, &spec.event_types);
    invalid.extend(filters.iter().map(ToString::to_string));
    resources(spec, &mut invalid);
    metadata(spec, &mut invalid);
    tolerations(spec, &mut invalid);
    problems.extend(invalid.into_iter().map(|text| Problem { cause: Cause::InvalidSpec, text }));
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Validated {
        agent,
        image: stance.image.clone(),
        mark: stance.mark.clone(),
        platform: place.platform,
        operator_namespace: place.namespace.clone(),
        host: observed.host.as_ref().map(HostSight::traits).unwrap_or_default(),
        allowed: observed.allowed.clone(),
    })
}

/// Why an agent may not export its tenant. Its forwarder is stopped, where it has one.
pub(crate) fn refused(agent: &SiemAgent, tenants: &Tenants) -> Option<Problem> {
    let (field, tenant) = tenants.refused(agent)?;
    Some(Problem {
        cause: Cause::SourceNotAllowed,
        text: format!(
            "{field}: the cluster's administrator does not let the namespace {} export {tenant}; the value `tenants` of the \
             operator's chart names the namespaces that may",
            names::namespace(agent),
        ),
    })
}

/// Why the workload that the agent names cannot host its sidecar.
pub(crate) fn host(agent: &SiemAgent, observed: &Observed) -> Option<Problem> {
    let of = agent.spec.sidecar_of()?;
    let (reason, text) = match observed.host.as_ref()? {
        HostSight::NotEnabled => (
            Reason::SidecarNotEnabled,
            "the operator lacks the rights for sidecars: set the value `sidecars.enabled` of its chart, or bind \
             operator/rbac-sidecars.yaml and start the operator anew"
                .to_owned(),
        ),
        HostSight::Missing => (
            Reason::SidecarHostMissing,
            format!(
                "there is no {of} in the namespace {}: make it, or name another workload",
                names::namespace(agent)
            ),
        ),
        HostSight::Found { is_contested: true, .. } => (
            Reason::SidecarContested,
            format!(
                "something changes the sidecar in {of} back again and again, and each time its pods are started anew: \
                 have it leave initContainers and volumes alone, or take the agent elsewhere; it is tried again in ten minutes"
            ),
        ),
        HostSight::Found { host, is_replaced, .. } => {
            host.refusal(agent.metadata.name.as_deref().unwrap_or_default(), *is_replaced)?
        }
    };
    Some(Problem { cause: Cause::Host(reason), text: format!("spec.placement.sidecarOf: {text}") })
}

/// An object that an earlier agent of the same name has left is on its way out, and only waited for.
fn foreign(agent: &SiemAgent, live: &BTreeMap<Owned, ObservedObject>) -> Vec<Problem> {
    let name = agent.metadata.name.as_deref().unwrap_or_default();
    live.iter()
        .filter(|(_, live)| !live.is_owned_by(agent) && !live.is_left_by_a_namesake(agent))
        .map(|(which, _)| Problem {
            cause: Cause::ForeignObject,
            text: format!(
                "{kind} {object} is not this agent's and is left alone: delete or rename it, or give the SiemAgent another name",
                kind = which.kind(),
                object = which.name(name),
            ),
        })
        .collect()
}

fn resources(spec: &SiemAgentSpec, invalid: &mut Vec<String>) {
    let resources = &spec.forwarder.resources;
    let path = "spec.forwarder.resources";
    let none = BTreeMap::new();
    let amounts =
        |amounts: &Option<BTreeMap<String, Quantity>>| amounts.as_ref().unwrap_or(&none).clone();
    let (limits, requests) = (amounts(&resources.limits), amounts(&resources.requests));
    for (kind, amounts) in [("limits", &limits), ("requests", &requests)] {
        for (name, amount) in amounts {
            if quantity::parse(&amount.0).is_none_or(|amount| amount < 0) {
                invalid.push(format!("{path}.{kind}.{name}: `{}` is no quantity", amount.0));
            }
        }
    }
    for (name, request) in &requests {
        let limit = limits.get(name).and_then(|limit| quantity::parse(&limit.0));
        if limit.is_some_and(|limit| quantity::parse(&request.0) > Some(limit)) {
            invalid.push(format!("{path}.requests.{name}: must not be more than the limit"));
        }
    }
    if resources.claims.is_some() {
        invalid.push(format!("{path}.claims: a forwarder has no resource claims"));
    }
}

fn metadata(spec: &SiemAgentSpec, invalid: &mut Vec<String>) {
    let forwarder = &spec.forwarder;
    let own = names::labels("");
    for (key, value) in &forwarder.pod_labels {
        if own.contains_key(key) || key == RELEASE_LABEL {
            invalid.push(format!("spec.forwarder.podLabels.{key}: is set by the operator"));
        } else if !is_qualified_name(key) || !is_label_value(value) {
            invalid.push(format!("spec.forwarder.podLabels.{key}: is no label with such a value"));
        }
    }
    for (key, value) in &forwarder.node_selector {
        if !is_qualified_name(key) || !is_label_value(value) {
            invalid
                .push(format!("spec.forwarder.nodeSelector.{key}: is no label with such a value"));
        }
    }
    for key in forwarder.pod_annotations.keys() {
        if key == CONFIG_HASH_ANNOTATION {
            invalid.push(format!("spec.forwarder.podAnnotations.{key}: is set by the operator"));
        } else if !is_qualified_name(&key.to_ascii_lowercase()) {
            invalid.push(format!("spec.forwarder.podAnnotations.{key}: is no annotation's name"));
        }
    }
}

fn tolerations(spec: &SiemAgentSpec, invalid: &mut Vec<String>) {
    for (index, toleration) in spec.forwarder.tolerations.iter().enumerate() {
        let path = format!("spec.forwarder.tolerations[{index}]");
        let is_empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        match toleration.operator.as_deref() {
            None | Some("" | "Equal") if is_empty(&toleration.key) => {
                invalid.push(format!("{path}.operator: must be Exists where there is no key"));
            }
            Some("Exists") if !is_empty(&toleration.value) => {
                invalid.push(format!("{path}.value: must be empty with the operator Exists"));
            }
            None | Some("" | "Equal" | "Exists") => {}
            Some(_) => invalid.push(format!("{path}.operator: must be Equal or Exists")),
        }
        match toleration.effect.as_deref() {
            None | Some("" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") => {}
            Some(_) => invalid
                .push(format!("{path}.effect: must be NoSchedule, PreferNoSchedule or NoExecute")),
        }
        if toleration.toleration_seconds.is_some()
            && toleration.effect.as_deref() != Some("NoExecute")
        {
            invalid.push(format!("{path}.tolerationSeconds: needs the effect NoExecute"));
        }
    }
}

/// `[prefix/]name`, as the keys of labels and annotations are.
fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let is_domain = |prefix: &str| {
        prefix.len() <= 253
            && prefix.split('.').all(|label| {
                let lower = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
                label.starts_with(lower)
                    && label.ends_with(lower)
                    && label.chars().all(|char| lower(char) || char == '-')
            })
    };
    prefix.is_none_or(is_domain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let edge = |char: char| char.is_ascii_alphanumeric();
    value.is_empty()
        || value.len() <= 63
            && value.starts_with(edge)
            && value.ends_with(edge)
            && value.chars().all(|char| edge(char) || "-_.".contains(char))
}

#[cfg(test)]
mod tests;
