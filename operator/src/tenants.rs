//! What the cluster's administrator says of tenants: how many requests one allows, and which namespaces may export it. Pure.
//!
//! One tenant is one URL, compared by what it reaches and not by how it is written.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use siem_agent_crds::SiemAgent;

use crate::same;

/// What is known of tenants, by [`same::tenant`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tenants(BTreeMap<String, Allowance>);

/// What one tenant allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Allowance {
    requests_per_minute: Option<u32>,
    /// `None`: every namespace.
    namespaces: Option<BTreeSet<String>>,
}

/// One tenant as it is written on the command line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    url: String,
    requests_per_minute: Option<u32>,
    namespaces: Option<BTreeSet<String>>,
}

/// Why a tenant cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not the form.
    #[error(
        "a tenant is not a JSON object with url and, where wanted, requestsPerMinute and namespaces"
    )]
    Malformed(#[source] serde_json::Error),
    /// A URL that no SiemAgent could have.
    #[error("`{0}` is not a URL such as https://contoso.us2.portal.cloudappsecurity.com")]
    Url(String),
    /// A number that leaves no requests, or more than the CRD allows.
    #[error("requestsPerMinute of {0} is not between 1 and 6000")]
    Requests(String),
    /// It would be fenced off for everybody.
    #[error("namespaces of {0} is empty; leave it out to let every namespace export the tenant")]
    NoNamespace(String),
    /// Two entries that mean the same tenant.
    #[error("{0} is given twice; one URL in two spellings is one tenant")]
    Twice(String),
}

impl Tenants {
    /// Reads one JSON object for each tenant.
    ///
    /// # Errors
    /// The first one that cannot be read, or that another one contradicts.
    pub(crate) fn read(texts: &[String]) -> Result<Self, Error> {
        let mut tenants = BTreeMap::new();
        for text in texts {
            let Written { url, requests_per_minute, namespaces } =
                serde_json::from_str(text).map_err(Error::Malformed)?;
            if !is_url(&url) {
                return Err(Error::Url(url));
            }
            if requests_per_minute.is_some_and(|requests| !(1..=6000).contains(&requests)) {
                return Err(Error::Requests(url));
            }
            if namespaces.as_ref().is_some_and(BTreeSet::is_empty) {
                return Err(Error::NoNamespace(url));
            }
            let allowance = Allowance { requests_per_minute, namespaces };
            if tenants.insert(same::tenant(&url), allowance).is_some() {
                return Err(Error::Twice(url));
            }
        }
        Ok(Self(tenants))
    }

    /// Whether agents of this namespace may export the tenant of this URL.
    pub(crate) fn may_export(&self, agent: &SiemAgent) -> bool {
        let namespaces = self
            .0
            .get(&same::tenant(&agent.spec.source.cloud_apps.url))
            .and_then(|allowance| allowance.namespaces.as_ref());
        let own = agent.metadata.namespace.as_deref().unwrap_or("default");
        namespaces.is_none_or(|namespaces| namespaces.contains(own))
    }

    /// How many requests a minute a tenant allows, where it is given; by [`same::tenant`].
    pub(crate) fn requests_per_minute(&self, tenant: &str) -> Option<u32> {
        self.0.get(tenant)?.requests_per_minute
    }
}

/// Whether a text is a URL that a SiemAgent could have, without user info, path, query and fragment.
fn is_url(text: &str) -> bool {
    let authority = text
        .split_once("://")
        .filter(|(scheme, _)| ["http", "https"].iter().any(|it| scheme.eq_ignore_ascii_case(it)))
        .map(|(_, rest)| rest.strip_suffix('/').unwrap_or(rest));
    authority.is_some_and(|authority| {
        let is_other = |char: char| char.is_whitespace() || "/?#@".contains(char);
        !authority.is_empty() && !authority.starts_with(':') && !authority.contains(is_other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<Tenants, Error> {
        Tenants::read(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn agent(namespace: &str, url: &str) -> SiemAgent {
        let text = format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: a, namespace: {namespace}}}\n\
             spec:\n  source: {{cloudApps: {{url: '{url}'}}, auth: {{tokenSecretRef: {{name: a}}}}}}\n  syslog: {{host: h}}\n"
        );
        siem_agent_crds::manifest::read(&text).unwrap()
    }

    #[test]
    fn only_the_named_namespaces_may_export_a_tenant() {
        let tenants = read(&[
            r#"{"url": "https://T.example:443/", "requestsPerMinute": 60, "namespaces": ["security"]}"#,
            r#"{"url": "https://u.example", "requestsPerMinute": null}"#,
        ])
        .unwrap();
        assert!(tenants.may_export(&agent("security", "https://t.example")));
        assert!(!tenants.may_export(&agent("other", "https://t.example./")));
        assert!(tenants.may_export(&agent("other", "https://t.example:8443")));
        assert!(tenants.may_export(&agent("other", "https://u.example")));
        assert!(tenants.may_export(&agent("other", "https://v.example")));
        assert_eq!(tenants.requests_per_minute("https://t.example"), Some(60));
        assert_eq!(tenants.requests_per_minute("https://u.example"), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        let one = r#"{"url": "https://t.example"}"#;
        for (texts, words) in [
            (vec!["t.example"], "JSON object"),
            (vec![r#"{"url": "https://t.example", "budget": 3}"#], "JSON object"),
            (vec![r#"{"url": "t.example"}"#], "is not a URL"),
            (vec![r#"{"url": "ftp://t.example"}"#], "is not a URL"),
            (vec![r#"{"url": "https://t.example/api"}"#], "is not a URL"),
            (vec![r#"{"url": "https://t.example", "requestsPerMinute": 0}"#], "1 and 6000"),
            (vec![r#"{"url": "https://t.example", "namespaces": []}"#], "leave it out"),
            (vec![one, r#"{"url": "https://T.example:443"}"#], "twice"),
        ] {
            let error = read(&texts).unwrap_err().to_string();
            assert!(error.contains(words), "{texts:?}: {error}");
        }
    }
}
