//! What the cluster's administrator says of tenants: how many requests one allows, and which namespaces may export it. Pure.
//!
//! One tenant is one URL of the portal, compared by what it reaches and not by how it is written, or one tenant of Graph by
//! the id or domain that agents name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use siem_agent_crds::SiemAgent;
use siem_agent_crds::siem_agent::{Stream, StreamSource, graph_name};

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
    url: Option<String>,
    tenant_id: Option<String>,
    requests_per_minute: Option<u32>,
    namespaces: Option<BTreeSet<String>>,
}

/// Why a tenant cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not the form.
    #[error(
        "a tenant is not a JSON object with url or tenantId and, where wanted, requestsPerMinute and namespaces"
    )]
    Malformed(#[source] serde_json::Error),
    /// Not one tenant.
    #[error("a tenant needs exactly one of url, for the portal, and tenantId, for Microsoft Graph")]
    Which,
    /// A URL that no SiemAgent could have.
    #[error("`{0}` is not a URL such as https://contoso.us2.portal.cloudappsecurity.com")]
    Url(String),
    /// An id that no SiemAgent could have.
    #[error("`{0}` is neither a directory (tenant) id nor a domain of the tenant")]
    TenantId(String),
    /// A number that leaves no requests, or more than the CRD allows.
    #[error("requestsPerMinute of {0} is not between 1 and 6000")]
    Requests(String),
    /// It would be fenced off for everybody.
    #[error("namespaces of {0} is empty; leave it out to let every namespace export the tenant")]
    NoNamespace(String),
    /// Two entries that mean the same tenant.
    #[error("{0} is given twice; one tenant in two spellings is one tenant")]
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
            let Written { url, tenant_id, requests_per_minute, namespaces } =
                serde_json::from_str(text).map_err(Error::Malformed)?;
            let (given, tenant) = match (url, tenant_id) {
                (Some(url), None) if !is_url(&url) => return Err(Error::Url(url)),
                (None, Some(id)) if !is_tenant_id(&id) => return Err(Error::TenantId(id)),
                (Some(url), None) => (url.clone(), same::tenant(&url)),
                (None, Some(id)) => (id.clone(), same::tenant(&graph_name(&id))),
                (Some(_), Some(_)) | (None, None) => return Err(Error::Which),
            };
            if requests_per_minute.is_some_and(|requests| !(1..=6000).contains(&requests)) {
                return Err(Error::Requests(given));
            }
            if namespaces.as_ref().is_some_and(BTreeSet::is_empty) {
                return Err(Error::NoNamespace(given));
            }
            let allowance = Allowance { requests_per_minute, namespaces };
            if tenants.insert(tenant, allowance).is_some() {
                return Err(Error::Twice(given));
            }
        }
        Ok(Self(tenants))
    }

    /// The tenant that an agent of its namespace may not export, and the field that names it. Only a source that serves a
    /// stream is asked.
    pub(crate) fn refused<'a>(&self, agent: &'a SiemAgent) -> Option<(&'static str, &'a str)> {
        let own = agent.metadata.namespace.as_deref().unwrap_or("default");
        let spec = &agent.spec;
        let source = [Stream::Alerts, Stream::Activities].into_iter().find_map(|stream| {
            let tenant = same::tenant(&spec.source_name(stream)?);
            let namespaces = self.0.get(&tenant)?.namespaces.as_ref()?;
            spec.source_of(stream).filter(|_| !namespaces.contains(own))
        })?;
        match source {
            StreamSource::CloudApps => {
                Some(("spec.source.cloudApps.url", &spec.source.cloud_apps.as_ref()?.url))
            }
            StreamSource::Graph => Some((
                "spec.source.auth.clientCredentials.tenantId",
                &spec.source.auth.client_credentials.as_ref()?.tenant_id,
            )),
        }
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

/// Whether a text is an id that a SiemAgent could have.
fn is_tenant_id(text: &str) -> bool {
    let is_edge = |byte: u8| byte.is_ascii_alphanumeric();
    text.len() <= 253
        && text.bytes().next().is_some_and(is_edge)
        && text.bytes().last().is_some_and(is_edge)
        && text.bytes().all(|byte| is_edge(byte) || b".-".contains(&byte))
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
        let may_export = |agent: &SiemAgent| tenants.refused(agent).is_none();
        assert!(may_export(&agent("security", "https://t.example")));
        assert!(!may_export(&agent("other", "https://t.example./")));
        assert!(may_export(&agent("other", "https://t.example:8443")));
        assert!(may_export(&agent("other", "https://u.example")));
        assert!(may_export(&agent("other", "https://v.example")));
        assert_eq!(tenants.requests_per_minute("https://t.example"), Some(60));
        assert_eq!(tenants.requests_per_minute("https://u.example"), None);
    }

    #[test]
    fn every_source_that_serves_a_stream_must_be_allowed_and_the_one_that_is_not_is_named() {
        let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: a, namespace: ns}\n\
             spec:\n  source: {cloudApps: {url: 'https://t.example'}, graph: {}, auth: {clientCredentials: {tenantId: Contoso.com, \
             clientId: 00000000-0000-0000-0000-000000000000, clientSecretRef: {name: a}}}}\n  syslog: {host: h}\n";
        let both = siem_agent_crds::manifest::read(text).unwrap();
        let portal = r#"{"url": "https://t.example/", "namespaces": ["other"]}"#;
        let graph =
            r#"{"tenantId": "contoso.COM", "namespaces": ["other"], "requestsPerMinute": 20}"#;
        let url = Some(("spec.source.cloudApps.url", "https://t.example"));
        let tenant = Some(("spec.source.auth.clientCredentials.tenantId", "Contoso.com"));
        assert_eq!(read(&[]).unwrap().refused(&both), None);
        assert_eq!(read(&[portal]).unwrap().refused(&both), url);
        let tenants = read(&[graph]).unwrap();
        assert_eq!(tenants.refused(&both), tenant);
        assert_eq!(tenants.requests_per_minute("graph:contoso.com"), Some(20));
        // A source that serves no stream of it is not asked.
        let mut from_portal = both;
        from_portal.spec.event_types.alerts.enabled = false;
        assert_eq!(tenants.refused(&from_portal), None);
        assert_eq!(read(&[portal]).unwrap().refused(&from_portal), url);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        let one = r#"{"url": "https://t.example"}"#;
        for (texts, words) in [
            (vec!["t.example"], "JSON object"),
            (vec![r#"{"url": "https://t.example", "budget": 3}"#], "JSON object"),
            (vec![r#"{"requestsPerMinute": 3}"#], "exactly one of url"),
            (vec![r#"{"url": "https://t.example", "tenantId": "t"}"#], "exactly one of url"),
            (vec![r#"{"tenantId": "https://t.example"}"#], "directory (tenant) id"),
            (vec![r#"{"tenantId": ""}"#], "directory (tenant) id"),
            (vec![r#"{"tenantId": "A"}"#, r#"{"tenantId": "a"}"#], "twice"),
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
