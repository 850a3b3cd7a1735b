//! TLS as people's receivers and portals really have it: what is trusted, and the line that `check` prints for the rest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use siem_agent_sim::arrival::Receiver as _;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::forwarder::Forwarder;
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::pki::{Authority, Identity, openssl_server, self_signed_server};
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::program::{Ended, forwarder};
use siem_agent_tests::proxy::{Policy, Proxy};
use siem_agent_tests::receiver::{Framing, Receiver, Tls};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::golden::lines_are;

/// A good portal, and the files of a forwarder.
struct Place {
    portal: Defender,
    files: Forwarder,
    authority: Authority,
}

const CA: &str = "caBundleRef: {name: ca}";
const MINE: &str = "caBundleRef: {name: ca}, clientCertificateSecretRef: {name: mine}";

impl Place {
    async fn new() -> Result<Self> {
        let portal = Defender::start(Options {
            history: (3, Duration::from_secs(3600)),
            ..Options::default()
        })
        .await?;
        let files = Forwarder::new(&portal.url(), DEMO_TOKEN, "{host: unused}", "")?;
        let place = Self { portal, files, authority: Authority::new("our authority")? };
        place.mount("ca", "ca.crt", place.authority.certificate())?;
        place.client(&place.authority.client("forwarder")?)?;
        Ok(place)
    }

    fn mount(&self, name: &str, key: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let folder = self.files.secrets().join(name);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(key), content)?)
    }

    fn client(&self, identity: &Identity) -> Result<()> {
        self.mount("mine", "tls.crt", &identity.certificate)?;
        self.mount("mine", "tls.key", &identity.key)
    }

    /// `check` with this source and this receiver.
    async fn check(&self, source: &str, syslog: &str, more: &[&str]) -> Result<Ended> {
        let text = Manifest::new("soc").source(source).syslog(syslog).to_string();
        fs::write(self.files.manifest(), text)?;
        let manifest = self.files.manifest().display().to_string();
        let secrets = self.files.secrets().display().to_string();
        let arguments = ["check", "--manifest", &manifest, "--secrets", &secrets];
        forwarder(&[&arguments, more].concat(), "").await
    }

    fn source(&self) -> String {
        format!(
            "cloudApps: {{url: '{}'}}, auth: {{tokenSecretRef: {{name: defender}}}}",
            self.portal.url()
        )
    }

    /// `check` against a receiver on this port.
    async fn receiver(&self, port: u16, tls: &str, more: &[&str]) -> Result<Ended> {
        let syslog = format!("{{host: localhost, port: {port}, protocol: TLS, tls: {{{tls}}}}}");
        self.check(&self.source(), &syslog, more).await
    }

    /// The receiver's case in the golden file.
    async fn broken(&self, case: &str, port: u16, tls: &str) -> Result<()> {
        let ended = self.receiver(port, tls, &[]).await?;
        ensure!(ended.code == Some(1), "{case}: {}{}", ended.out, ended.err);
        lines_are(case, &ended, self.files.folder());
        Ok(())
    }
}

fn input(
    driver: &'static str,
    identity: &Identity,
    authority: &Authority,
    folder: &Path,
) -> Result<Input> {
    Ok(Input::Tls { driver, files: authority.write(identity, folder)?, mutual: false })
}

#[tokio::test]
async fn a_self_signed_receiver_is_trusted_when_it_is_the_one_that_was_pinned() -> Result<()> {
    let place = Place::new().await?;
    let folder = tempfile::tempdir()?;
    let own = self_signed_server(&["localhost"])?;
    place.mount("ca", "ca.crt", &own.certificate)?;
    for driver in ["gtls", "ossl"] {
        let rsyslog = Rsyslog::start(input(driver, &own, &place.authority, folder.path())?).await?;
        let ended = place.receiver(rsyslog.port(), CA, &["--send-test-event"]).await?;
        ensure!(ended.code == Some(0), "{driver}: {}{}", ended.out, ended.err);
        ensure!(ended.out.contains("was delivered"), "{driver}: {}", ended.out);
    }
    let plain = openssl_server(&["-newkey", "rsa:2048"])?;
    place.mount("ca", "ca.crt", &plain.certificate)?;
    let rsyslog = Rsyslog::start(input("ossl", &plain, &place.authority, folder.path())?).await?;
    let ended = place.receiver(rsyslog.port(), CA, &["--send-test-event"]).await?;
    ensure!(ended.code == Some(0), "as OpenSSL makes it: {}{}", ended.out, ended.err);
    let another_name = format!("{CA}, serverName: siem.example.com");
    place.broken("receiver: pinned, with another name", rsyslog.port(), &another_name).await?;
    let again = openssl_server(&["-newkey", "rsa:2048"])?;
    place.mount("ca", "ca.crt", &again.certificate)?;
    place.broken("receiver: pinned, and renewed since", rsyslog.port(), CA).await?;

    // A portal likewise.
    let portal = Defender::start(Options { tls: Some(own.clone()), ..Options::default() }).await?;
    place.mount("ca", "ca.crt", &own.certificate)?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let source = format!(
        "cloudApps: {{url: '{}'}}, {CA}, auth: {{tokenSecretRef: {{name: defender}}}}",
        portal.url()
    );
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port());
    let ended = place.check(&source, &syslog, &[]).await?;
    ensure!(ended.code == Some(0), "{}{}", ended.out, ended.err);
    Ok(())
}

#[tokio::test]
async fn what_a_receiver_does_not_speak_is_named() -> Result<()> {
    let place = Place::new().await?;
    let folder = tempfile::tempdir()?;
    let good = place.authority.loopback_server()?;
    let ossl_old = "MinProtocol=TLSv1.1\nMaxProtocol=TLSv1.1\nCipherString=ALL:@SECLEVEL=0";
    let suites = |ciphers: &str| format!("MaxProtocol=TLSv1.2\nCipherString={ciphers}:@SECLEVEL=0");
    let rsa: &'static str = suites("AES256-GCM-SHA384").leak();
    let dhe: &'static str = suites("DHE-RSA-AES256-GCM-SHA384").leak();
    let cbc: &'static str = suites("ECDHE-ECDSA-AES128-SHA256").leak();
    for (case, driver, priority) in [
        ("receiver, rsyslog ossl: TLS 1.1 only", "ossl", ossl_old),
        ("receiver, rsyslog ossl: RSA key exchange only", "ossl", rsa),
        ("receiver, rsyslog ossl: DHE only", "ossl", dhe),
        ("receiver, rsyslog ossl: CBC only", "ossl", cbc),
        ("receiver, rsyslog gtls: TLS 1.1 only", "gtls", "NORMAL:-VERS-ALL:+VERS-TLS1.1"),
        (
            "receiver, rsyslog gtls: CBC only",
            "gtls",
            "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-CBC",
        ),
    ] {
        let input = input(driver, &good, &place.authority, folder.path())?;
        let rsyslog = Rsyslog::start_speaking(input, priority).await?;
        place.broken(case, rsyslog.port(), CA).await?;
    }
    for (case, driver, curve) in [
        ("receiver, rsyslog ossl: a key on P-521", "ossl", "ec_paramgen_curve:P-521"),
        ("receiver, rsyslog gtls: a key on P-521", "gtls", "ec_paramgen_curve:P-521"),
    ] {
        let odd = openssl_server(&["-newkey", "ec", "-pkeyopt", curve, "-sha512"])?;
        let rsyslog = Rsyslog::start(input(driver, &odd, &place.authority, folder.path())?).await?;
        place.mount("ca", "ca.crt", &odd.certificate)?;
        place.broken(case, rsyslog.port(), CA).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_is_not_trusted_has_its_line() -> Result<()> {
    let place = Place::new().await?;
    let stranger = Authority::new("their authority")?;
    let own = self_signed_server(&["localhost"])?;
    for (case, identity) in [
        ("receiver: expired", place.authority.expired_server()?),
        ("receiver: another name", place.authority.misnamed_server()?),
        ("receiver: no name", place.authority.server(&[])?),
        ("receiver: unknown issuer", stranger.loopback_server()?),
        ("receiver: self-signed", own),
        ("receiver: a client's certificate", place.authority.client("localhost")?),
    ] {
        let receiver =
            Receiver::start(Framing::Newline, Some(Tls { identity, clients: None })).await?;
        place.broken(case, receiver.port(), CA).await?;
    }
    let identity = place.authority.loopback_server()?;
    let mutual = Tls { identity: identity.clone(), clients: Some(place.authority.certificate()) };
    let receiver = Receiver::start(Framing::Newline, Some(mutual)).await?;
    place.broken("receiver: wants a client certificate", receiver.port(), CA).await?;
    place.client(&stranger.client("forwarder")?)?;
    place.broken("receiver: does not know our certificate's issuer", receiver.port(), MINE).await?;
    place.client(&place.authority.expired_client("forwarder")?)?;
    place.broken("receiver: our certificate has ended", receiver.port(), MINE).await?;

    let talks = TcpListener::bind("127.0.0.1:0").await?;
    let port = talks.local_addr()?.port();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = talks.accept().await {
            // The other side leaves when it has read this.
            let _ = stream.write_all(b"220 plain text is spoken here\r\n").await;
        }
    });
    place.broken("receiver: plain text", port, CA).await?;
    task.abort();
    let closes = TcpListener::bind("127.0.0.1:0").await?;
    let port = closes.local_addr()?.port();
    let task = tokio::spawn(async move { while closes.accept().await.is_ok() {} });
    place.broken("receiver: closes at once", port, CA).await?;
    task.abort();
    Ok(())
}

#[tokio::test]
async fn a_portal_a_proxy_and_an_identity_provider_that_fail_in_tls_have_their_lines() -> Result<()>
{
    let place = Place::new().await?;
    let stranger = Authority::new("their authority")?;
    let syslog = Receiver::start(Framing::Newline, None).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", syslog.port());
    let token = format!("{CA}, auth: {{tokenSecretRef: {{name: defender}}}}");
    let broken = async |case: &str, source: &str| {
        let ended = place.check(source, &syslog, &[]).await?;
        ensure!(ended.code == Some(1), "{case}: {}{}", ended.out, ended.err);
        lines_are(case, &ended, place.files.folder());
        Ok(())
    };
    for (case, identity) in [
        ("portal: expired", place.authority.expired_server()?),
        ("portal: another name", place.authority.misnamed_server()?),
        ("portal: unknown issuer", stranger.loopback_server()?),
    ] {
        let portal = Defender::start(Options { tls: Some(identity), ..Options::default() }).await?;
        broken(case, &format!("cloudApps: {{url: '{}'}}, {token}", portal.url())).await?;
    }
    let plain = place.portal.url().replace("http://127.0.0.1", "https://localhost");
    broken("portal: http, not https", &format!("cloudApps: {{url: '{plain}'}}, {token}")).await?;
    let proxy = Proxy::start(Policy::Open).await?;
    let url = proxy.url().replace("http://127.0.0.1", "https://localhost");
    broken(
        "proxy: http, not https",
        &format!("cloudApps: {{url: '{plain}'}}, proxy: {{url: '{url}'}}, {token}"),
    )
    .await?;
    let good = Options { tls: Some(place.authority.loopback_server()?), ..Options::default() };
    let good = Defender::start(good).await?;
    let theirs = Options { tls: Some(stranger.loopback_server()?), ..Options::default() };
    let theirs = Defender::start(theirs).await?;
    let application = format!(
        "cloudApps: {{url: '{}'}}, {CA}, auth: {{clientCredentials: {{tenantId: contoso.com, clientId: 11111111-2222-3333-4444-555555555555, \
         clientSecretRef: {{name: defender, key: token}}, authorityUrl: '{}'}}}}",
        good.url(),
        theirs.url()
    );
    broken("identity provider: unknown issuer", &application).await
}

#[tokio::test]
async fn files_that_are_no_pem_are_refused_by_name_with_the_command_that_converts_them()
-> Result<()> {
    let place = Place::new().await?;
    let (other, root) = (place.authority.client("other")?, place.authority.certificate());
    let mine = place.authority.client("forwarder")?;
    let der = |pem: &str| {
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        BASE64_STANDARD.decode(base64)
    };
    let ended = place.receiver(1, MINE, &[]).await?;
    ensure!(ended.code == Some(1), "the files are good: {}{}", ended.out, ended.err);
    let chain = |first: &str, second: &str| format!("{first}{second}").into_bytes();
    let literal = |pem: &str| pem.replace('\n', r"\n").into_bytes();
    let key = |pem: &str| pem.as_bytes().to_vec();
    for (case, name, file, content) in [
        ("bundle: DER", "ca", "ca.crt", der(&root)?),
        ("bundle: encoded twice", "ca", "ca.crt", BASE64_STANDARD.encode(&root).into_bytes()),
        ("bundle: empty", "ca", "ca.crt", Vec::new()),
        ("bundle: a path", "ca", "ca.crt", b"/etc/ssl/certs/ca.pem\n".to_vec()),
        ("bundle: cut", "ca", "ca.crt", chain(&root, &root[..root.len() / 2])),
        ("bundle: a key in it", "ca", "ca.crt", chain(&root, &mine.key)),
        ("certificate: a key", "mine", "tls.crt", key(&mine.key)),
        ("certificate: of another key", "mine", "tls.crt", key(&other.certificate)),
        (
            "certificate: chain in the wrong order",
            "mine",
            "tls.crt",
            chain(&root, &mine.certificate),
        ),
        ("key: literal line ends", "mine", "tls.key", literal(&mine.key)),
        ("key: DER", "mine", "tls.key", der(&mine.key)?),
        ("key: a certificate", "mine", "tls.key", key(&mine.certificate)),
        (
            "key: a passphrase",
            "mine",
            "tls.key",
            mine.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY").into_bytes(),
        ),
    ] {
        place.mount("ca", "ca.crt", &root)?;
        place.client(&mine)?;
        place.mount(name, file, content)?;
        let ended = place.receiver(1, MINE, &[]).await?;
        ensure!(ended.code == Some(2), "{case}: {}{}", ended.out, ended.err);
        lines_are(case, &ended, place.files.folder());
    }
    Ok(())
}
