//! Whether this account may do all that `operator/rbac.yaml` lists: every verb is asked of the API server.
//!
//! The file is what the chart grants as well, so that what is asked and what is given cannot differ.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

const RULES: &str = include_str!("../../../rbac.yaml");
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read the rules of operator/rbac.yaml")]
    Rules(#[source] serde_saphyr::Error),
    #[error("invalid rules in operator/rbac.yaml")]
    Roles(#[source] serde_json::Error),
    #[error("the API server does not answer")]
    TimedOut,
    #[error("cannot ask the API server for the account's rights")]
    Ask(#[source] kube::Error),
}

#[derive(Debug, Deserialize)]
struct Role {
    kind: String,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

/// What the account may not do though it has to: `patch deployments.apps in NS`.
///
/// # Errors
/// When the API server does not say.
pub(super) async fn missing(
    client: &Client,
    namespaces: &[String],
    own: &str,
) -> Result<Vec<String>, Error> {
    let everywhere = [String::new()];
    let watched = if namespaces.is_empty() { &everywhere } else { namespaces };
    let mut missing = Vec::new();
    for (is_of_agents, attributes) in needed()? {
        let own = [own.to_owned()];
        for namespace in if is_of_agents { watched } else { &own } {
            let attributes =
                ResourceAttributes { namespace: Some(namespace.clone()), ..attributes.clone() };
            if !is_allowed(client, attributes.clone()).await? {
                missing.push(words(&attributes));
            }
        }
    }
    Ok(missing)
}

/// Where the account may read Secrets.
///
/// # Errors
/// When the API server does not say.
pub(super) async fn may_read_secrets(
    client: &Client,
    namespaces: &[String],
) -> Result<Option<String>, Error> {
    let everywhere = [String::new()];
    for namespace in if namespaces.is_empty() { &everywhere } else { namespaces } {
        let attributes = ResourceAttributes {
            namespace: Some(namespace.clone()),
            verb: Some("get".to_owned()),
            group: Some(String::new()),
            resource: Some("secrets".to_owned()),
            ..ResourceAttributes::default()
        };
        if is_allowed(client, attributes).await? {
            return Ok(Some(place(namespace)));
        }
    }
    Ok(None)
}

async fn is_allowed(client: &Client, attributes: ResourceAttributes) -> Result<bool, Error> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let parameters = PostParams::default();
    let answer = timeout(PATIENCE, reviews.create(&parameters, &review)).await;
    let answer = answer.map_err(|_elapsed| Error::TimedOut)?.map_err(Error::Ask)?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Every single right, and whether it is needed where the agents are; the others in the operator's own namespace.
fn needed() -> Result<Vec<(bool, ResourceAttributes)>, Error> {
    let roles: Value =
        serde_saphyr::from_multiple(RULES).map(Value::Array).map_err(Error::Rules)?;
    let roles: Vec<Role> = serde_json::from_value(roles).map_err(Error::Roles)?;
    let mut needed = Vec::new();
    for role in roles {
        let is_of_agents = role.kind == "ClusterRole";
        for rule in &role.rules {
            let names: Vec<Option<String>> = if rule.resource_names.is_empty() {
                vec![None]
            } else {
                rule.resource_names.iter().cloned().map(Some).collect()
            };
            for (group, resource) in rule
                .api_groups
                .iter()
                .flat_map(|group| rule.resources.iter().map(move |resource| (group, resource)))
            {
                let (resource, subresource) = match resource.split_once('/') {
                    Some((resource, part)) => (resource, Some(part.to_owned())),
                    None => (resource.as_str(), None),
                };
                for verb in &rule.verbs {
                    needed.extend(names.iter().map(|name| {
                        let attributes = ResourceAttributes {
                            group: Some(group.clone()),
                            resource: Some(resource.to_owned()),
                            subresource: subresource.clone(),
                            verb: Some(verb.clone()),
                            name: name.clone(),
                            ..ResourceAttributes::default()
                        };
                        (is_of_agents, attributes)
                    }));
                }
            }
        }
    }
    Ok(needed)
}

fn words(attributes: &ResourceAttributes) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let mut words = format!("{} {}", text(&attributes.verb), text(&attributes.resource));
    if let Some(part) = &attributes.subresource {
        words.push('/');
        words.push_str(part);
    }
    if let Some(group) = attributes.group.as_deref().filter(|group| !group.is_empty()) {
        words.push('.');
        words.push_str(group);
    }
    format!("{words} {}", place(&text(&attributes.namespace)))
}

fn place(namespace: &str) -> String {
    match namespace {
        "" => "in all namespaces".to_owned(),
        one => format!("in {one}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_of_the_shipped_roles_is_asked() {
        let needed = needed().unwrap();
        let asked: Vec<_> = needed.iter().map(|(_, attributes)| words(attributes)).collect();
        for expected in [
            "patch siemagents/status.siemagent.dev in all namespaces",
            "create events.events.k8s.io in all namespaces",
            "list pods in all namespaces",
        ] {
            assert!(asked.iter().any(|asked| asked == expected), "{asked:?}");
        }
        let of_lease: Vec<_> = needed.iter().filter(|(is_of_agents, _)| !is_of_agents).collect();
        assert!(of_lease.iter().any(|(_, it)| it.name.as_deref() == Some("siem-agent-operator")));
        assert!(of_lease.iter().all(|(_, it)| it.resource.as_deref() == Some("leases")));
        assert!(needed.iter().all(|(_, it)| it.resource.as_deref() != Some("secrets")));
    }
}
