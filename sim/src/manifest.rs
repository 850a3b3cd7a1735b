//! A SiemAgent's manifest as a user writes it: the text that kubectl applies and the forwarder reads.

use std::fmt;

/// A manifest; its text is what it displays.
#[derive(Clone, Debug)]
#[must_use = "a manifest is its text"]
pub struct Manifest {
    name: String,
    source: String,
    syslog: String,
    more: String,
}

impl Manifest {
    /// The least that is admitted, with a portal and a receiver that nobody reaches.
    pub fn new(name: &str) -> Self {
        let (source, more) = (String::new(), String::new());
        let syslog = "{host: siem.example.com}".to_owned();
        Self { name: name.to_owned(), source, syslog, more }
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
        self.source(format!("url: '{url}', auth: {{tokenSecretRef: {{name: {secret}}}}}"))
    }

    /// With more fields of `spec.source`, between commas.
    pub fn and_source(mut self, fields: &str) -> Self {
        self.source.push_str(", ");
        self.source.push_str(fields);
        self
    }

    /// Polls as often as can be, with budget enough for that.
    pub fn quick(self) -> Self {
        self.and_source("requestsPerMinute: 6000, pollInterval: 1s, overlap: 30s")
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

impl fmt::Display for Manifest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, source, syslog, more } = self;
        write!(
            formatter,
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: {name}}}\nspec:\n  \
             source: {{{source}}}\n  syslog: {syslog}\n{more}"
        )
    }
}
