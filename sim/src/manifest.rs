//! A SiemAgent's manifest as a user writes it: the text that kubectl applies and the forwarder reads.

use std::fmt;

const TENANT: &str = "0b5f0c4e-1f9e-4d6b-8a57-8d0f3a7c9e21";
const CLIENT: &str = "11111111-2222-3333-4444-555555555555";

/// A manifest; its text is what it displays.
#[derive(Clone, Debug)]
#[must_use = "a manifest is its text"]
pub struct Manifest {
    name: String,
    source: String,
    cloud_apps: String,
    syslog: String,
    more: String,
}

impl Manifest {
    /// The least that is admitted, with a portal and a receiver that nobody reaches.
    pub fn new(name: &str) -> Self {
        let (source, cloud_apps, more) = Default::default();
        let syslog = "{host: siem.example.com}".to_owned();
        Self { name: name.to_owned(), source, cloud_apps, syslog, more }
            .url("https://contoso.us2.portal.cloudappsecurity.com")
    }

    /// With exactly these fields of `spec.source`, between commas.
    pub fn source(mut self, fields: impl fmt::Display) -> Self {
        self.source = fields.to_string();
        self
    }

    /// With this URL, and the token in the Secret `defender`.
    pub fn url(self, url: &str) -> Self {
        self.url_and_secret(url, "defender")
    }

    /// With this URL, and the token in a Secret of this name.
    pub fn url_and_secret(self, url: &str, secret: &str) -> Self {
        let auth = format!("auth: {{tokenSecretRef: {{name: {secret}}}}}");
        self.source(format!("cloudApps: {{url: '{url}'}}, {auth}"))
    }

    /// With Microsoft Graph there, which is the identity provider as well, these fields of `spec.source.graph` between
    /// commas, and an application whose client secret is in the Secret `defender`.
    pub fn graph(self, url: &str, fields: &str) -> Self {
        let auth = application(url, "clientSecretRef: {name: defender}");
        self.source(format!("graph: {{url: '{url}', {fields}}}, {auth}"))
    }

    /// With more fields of `spec.source`, between commas.
    pub fn and_source(mut self, fields: &str) -> Self {
        self.source.push_str(", ");
        self.source.push_str(fields);
        self
    }

    /// With more fields of `spec.source.cloudApps`, between commas.
    pub fn cloud_apps(mut self, fields: &str) -> Self {
        fields.clone_into(&mut self.cloud_apps);
        self
    }

    /// Polls as often as can be, with budget enough for that.
    pub fn quick(self) -> Self {
        self.cloud_apps("requestsPerMinute: 6000, pollInterval: 1s, overlap: 30s")
    }

    /// With this `spec.syslog`.
    pub fn syslog(mut self, syslog: impl fmt::Display) -> Self {
        self.syslog = syslog.to_string();
        self
    }

    /// With this receiver.
    pub fn to(self, host: &str, port: u16) -> Self {
        self.syslog(format!("{{host: {host}, port: {port}}}"))
    }

    /// With more lines below `spec`, indented by two.
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(lines);
        self
    }
}

/// `auth` of an application with this identity provider, which proves itself so.
pub fn application(authority: &str, proof: &str) -> String {
    format!(
        "auth: {{clientCredentials: {{tenantId: {TENANT}, clientId: {CLIENT}, authorityUrl: '{authority}', {proof}}}}}"
    )
}

impl fmt::Display for Manifest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, syslog, more, .. } = self;
        let source = match self.cloud_apps.as_str() {
            "" => self.source.clone(),
            more => self.source.replacen("cloudApps: {", &format!("cloudApps: {{{more}, "), 1),
        };
        write!(
            formatter,
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: {name}}}\nspec:\n  \
             source: {{{source}}}\n  syslog: {syslog}\n{more}"
        )
    }
}
