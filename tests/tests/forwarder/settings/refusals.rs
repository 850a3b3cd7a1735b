//! Tokens, identity providers, proxies and portals as people have them: the line that `check` prints for each refusal.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::forwarder::Forwarder;
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::pki::{Authority, Identity};
use siem_agent_tests::program::{Ended, forwarder};
use siem_agent_tests::proxy::{Policy, Proxy};

use super::golden::lines_are;

/// A good portal, which is its own identity provider, and the files of a forwarder.
struct Place {
    portal: Defender,
    files: Forwarder,
}

const SYSLOG: &str = "{host: 127.0.0.1, port: 9, protocol: UDP}";
const TOKEN: &str = "auth: {tokenSecretRef: {name: defender}}";

impl Place {
    async fn new() -> Result<Self> {
        Self::with(None).await
    }

    async fn with(tls: Option<Identity>) -> Result<Self> {
        let portal = Defender::start(Options {
            history: (3, Duration::from_secs(3600)),
            tls,
            ..Options::default()
        })
        .await?;
        let files = Forwarder::new(&portal.url(), DEMO_TOKEN, SYSLOG, "")?;
        let place = Self { portal, files };
        place.mount("token", DEMO_TOKEN)?;
        place.mount("clientSecret", DEMO_TOKEN)?;
        Ok(place)
    }

    fn mount(&self, key: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let folder = self.files.secrets().join("defender");
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(key), content)?)
    }

    /// `check` with these lines of `spec.source`.
    async fn check(&self, source: &str) -> Result<Ended> {
        let source = format!("cloudApps: {{url: '{}'}}, {source}", self.portal.url());
        let text = Manifest::new("soc").source(source).syslog(SYSLOG).to_string();
        fs::write(self.files.manifest(), text)?;
        let manifest = self.files.manifest().display().to_string();
        let secrets = self.files.secrets().display().to_string();
        forwarder(&["check", "--manifest", &manifest, "--secrets", &secrets], "").await
    }

    async fn shows(&self, case: &str, source: &str) -> Result<()> {
        lines_are(case, &self.check(source).await?, self.files.folder());
        Ok(())
    }

    fn application(&self) -> String {
        format!(
            "auth: {{clientCredentials: {{tenantId: contoso.com, clientId: 11111111-2222-3333-4444-555555555555, \
             clientSecretRef: {{name: defender}}, authorityUrl: '{}'}}}}",
            self.portal.url()
        )
    }

    /// Everything meets this fault until the next one.
    fn fault(&self, fault: &str) {
        self.portal.clear_faults();
        self.portal.fault(fault.parse().unwrap());
    }
}

#[tokio::test]
async fn what_cannot_be_a_token_is_named_in_a_line() -> Result<()> {
    let place = Place::new().await?;
    for (case, file) in [
        ("token: a blank in the middle", "PLANTED PLANTED"),
        ("token: a document", "{\"token\": \"PLANTED\"}"),
        ("token: a PEM block", "-----BEGIN PRIVATE KEY-----\nPLANTED\n-----END PRIVATE KEY-----\n"),
        ("token: a URL", "https://contoso.portal.cloudappsecurity.com/?t=PLANTED"),
        ("token: an invisible character", "PLANTED\u{200B}PLANTED"),
        ("token: empty", ""),
        ("token: only quotes", "\"\""),
    ] {
        place.mount("token", file)?;
        place.shows(case, TOKEN).await?;
    }
    fs::remove_file(place.files.secrets().join("defender/token"))?;
    place.shows("token: no file", TOKEN).await
}

#[tokio::test]
async fn each_refusal_of_an_identity_provider_has_its_line() -> Result<()> {
    let place = Place::new().await?;
    for (case, words) in [
        (
            "identity provider: expired secret",
            "AADSTS7000222: The provided client secret keys for app are expired.",
        ),
        (
            "identity provider: no consent",
            "AADSTS65001: The user or administrator has not consented to use the application.",
        ),
        (
            "identity provider: no such resource",
            "AADSTS500011: The resource principal was not found in the tenant.",
        ),
        (
            "identity provider: unknown application",
            "AADSTS700016: Application was not found in the directory.",
        ),
        ("identity provider: unknown tenant", "AADSTS90002: Tenant 'contoso.com' not found."),
        ("identity provider: wrong secret", "AADSTS7000215: Invalid client secret provided."),
    ] {
        place.fault(&format!("401:{words}x*@stream=token"));
        place.shows(case, &place.application()).await?;
    }
    for (case, fault) in [
        ("identity provider: a login page", "htmlx*@stream=token"),
        (
            "identity provider: a token of another type",
            "grant:{\"token_type\": \"mac\"}x*@stream=token",
        ),
        ("identity provider: an empty token", "grant:{\"access_token\": \"\"}x*@stream=token"),
        ("identity provider: out of order", "503x*@stream=token"),
    ] {
        place.fault(fault);
        place.shows(case, &place.application()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn each_refusal_of_a_proxy_has_its_line() -> Result<()> {
    let authority = Authority::new("our authority")?;
    let place = Place::with(Some(authority.loopback_server()?)).await?;
    place.mount("ca.crt", authority.certificate())?;
    let proxy = Proxy::start(Policy::Open).await?;
    let source = format!("{TOKEN}, caBundleRef: {{name: defender}}");
    let behind = |url: &str| format!("{source}, proxy: {{url: '{url}'}}");
    for (case, policy) in [
        ("proxy: forbids the host", Policy::Forbidden("text/html")),
        ("proxy: Negotiate and NTLM only", Policy::Schemes(&["Negotiate", "NTLM"])),
        ("proxy: wants credentials", Policy::Credentials("name".to_owned(), "pass".to_owned())),
    ] {
        proxy.set_policy(policy);
        place.shows(case, &behind(&proxy.url())).await?;
    }
    let proxied = format!("{{url: '{}', credentialsSecretRef: {{name: defender}}}}", proxy.url());
    place.mount("username", "name")?;
    place.mount("password", "PLANTED")?;
    place.shows("proxy: refuses the credentials", &format!("{source}, proxy: {proxied}")).await?;
    let no_proxy = "noProxy: ['https://portal.example.com']";
    let proxied = format!("{source}, proxy: {{url: '{}', {no_proxy}}}", proxy.url());
    place.shows("proxy: noProxy with a scheme", &proxied).await
}

#[tokio::test]
async fn each_refusal_of_a_portal_has_its_line() -> Result<()> {
    let place = Place::new().await?;
    for (case, fault) in [
        ("portal: a login page", "htmlx*"),
        (
            "portal: an error object",
            "refusal:403:{\"error\": {\"code\": \"Forbidden\", \"message\": \"Your plan has no API.\"}}x*",
        ),
        ("portal: another data centre", "jwksx*"),
        ("portal: dead token", "401x*"),
        ("portal: no JSON", "brokenx*"),
        ("portal: no permission", "403x*"),
        ("portal: out of order", "500x*"),
        ("portal: throttled", "429:41x*"),
        ("portal: throttled, in words", "429-in-words:41x*"),
    ] {
        place.fault(fault);
        place.shows(case, TOKEN).await?;
    }
    Ok(())
}
