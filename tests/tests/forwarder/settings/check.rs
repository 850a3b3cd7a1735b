//! `check`: a line for each thing that `run` needs, what to do about each failure, and an exit code.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::forwarder::{Forwarder, free_port};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::pki::Authority;
use siem_agent_tests::program::{Ended, forwarder};
use siem_agent_tests::proxy::{Policy, Proxy};
use siem_agent_tests::receiver::{Framing, Receiver, Tls};

struct Place {
    defender: Defender,
    receiver: Receiver,
    files: Forwarder,
    authority: Authority,
}

/// A portal behind TLS and a SIEM behind TLS, whose certificates come from one authority.
async fn place() -> Result<Place> {
    let authority = Authority::new("check")?;
    let defender = Defender::start(Options {
        history: (120, Duration::from_secs(3600)),
        alert_history: Some(30),
        tls: Some(authority.loopback_server()?),
        ..Options::default()
    })
    .await?;
    let tls =
        Tls { identity: authority.loopback_server()?, clients: Some(authority.certificate()) };
    let receiver = Receiver::start(Framing::Newline, Some(tls)).await?;
    let files = Forwarder::new(&defender.url(), DEMO_TOKEN, "{host: unused}", "")?;
    let place = Place { defender, receiver, files, authority };
    place.mount("ca", "ca.crt", &place.authority.certificate())?;
    let client = place.authority.client("forwarder")?;
    place.mount("mine", "tls.crt", &client.certificate)?;
    place.mount("mine", "tls.key", &client.key)?;
    Ok(place)
}

impl Place {
    fn mount(&self, name: &str, key: &str, content: &str) -> Result<()> {
        let folder = self.files.secrets().join(name);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(key), content)?)
    }

    fn syslog(&self) -> String {
        let port = self.receiver.port();
        format!(
            "{{host: localhost, port: {port}, protocol: TLS, tls: {{caBundleRef: {{name: ca}}, clientCertificateSecretRef: {{name: mine}}}}}}"
        )
    }

    /// Runs `check` with these lines of `spec.source`, this target and these flags.
    async fn check(&self, source: &str, syslog: &str, more: &[&str]) -> Ended {
        let url = self.defender.url();
        let source = if source.starts_with("cloudApps:") {
            source.to_owned()
        } else {
            format!("cloudApps: {{url: '{url}'}}, {source}")
        };
        let text = Manifest::new("soc").source(source).syslog(syslog).to_string();
        fs::write(self.files.manifest(), text).unwrap();
        let manifest = self.files.manifest().display().to_string();
        let secrets = self.files.secrets().display().to_string();
        let arguments = [&["check", "--manifest", &manifest, "--secrets", &secrets], more].concat();
        forwarder(&arguments, "").await.unwrap()
    }
}

const TOKEN: &str = "auth: {tokenSecretRef: {name: defender}}, caBundleRef: {name: ca}";

/// Each of these lines is there, begins with a mark, and the exit code fits.
#[track_caller]
fn says(ended: &Ended, code: i32, lines: &[(&str, &[&str])]) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.out, ended.err);
    assert!(
        ended
            .out
            .lines()
            .all(|line| { ["ok   ", "WARN ", "FAIL "].iter().any(|mark| line.starts_with(mark)) }),
        "{}",
        ended.out
    );
    assert_eq!(ended.out.contains("FAIL "), code != 0, "{}", ended.out);
    for (begins, words) in lines {
        let found = ended.out.lines().find(|line| line.starts_with(begins));
        let line = found.unwrap_or_default();
        assert!(!line.is_empty(), "`{begins}` is not in:\n{}", ended.out);
        for word in *words {
            assert!(line.contains(word), "`{word}` is not in: {line}");
        }
    }
}

#[tokio::test]
async fn a_good_place_is_good_in_every_line() -> Result<()> {
    let place = place().await?;
    let ended = place.check(TOKEN, &place.syslog(), &["--send-test-event"]).await;
    says(
        &ended,
        0,
        &[
            ("ok   manifest:", &[]),
            ("ok   DNS, API, localhost: is ", &[]),
            ("ok   TCP, API, localhost port ", &["takes connections"]),
            ("ok   TLS, API, localhost: ", &["TLS 1.3", "trusted"]),
            ("ok   API, alerts:", &["may read it", "30 records in the last 24 hours"]),
            ("ok   API, activities:", &["may read it", "120 records in the last 24 hours"]),
            ("ok   DNS, SIEM, localhost: is ", &[]),
            ("ok   TCP, SIEM, localhost port ", &[]),
            ("ok   TLS, SIEM, localhost: ", &["trusted"]),
            ("ok   SIEM, localhost port ", &["keeps the connection"]),
            ("ok   framing:", &["line feed", "8000 bytes"]),
            ("ok   test event: siem-forwarder-test-", &["was delivered"]),
        ],
    );
    let frames = place.receiver.frames();
    ensure!(
        frames.len() == 1 && frames[0].contains("externalId=siem-forwarder-test-"),
        "{frames:?}"
    );
    ensure!(place.defender.requests().len() == 2, "one request a stream");
    let token = place.files.secrets().join("defender/token").display().to_string();
    let ended = place.check(TOKEN, &place.syslog(), &["--token-file", &token]).await;
    says(&ended, 0, &[("ok   flags: --token-file instead of spec.source.auth", &["wins"])]);
    let ended = place.check(TOKEN, &place.syslog(), &[]).await;
    ensure!(
        ended.code == Some(0) && place.receiver.frames().len() == 1,
        "no event unless asked for"
    );
    Ok(())
}

#[tokio::test]
async fn an_application_and_a_proxy_are_checked_on_the_way() -> Result<()> {
    let place = place().await?;
    let proxy = Proxy::start(Policy::Credentials("name".to_owned(), "pass".to_owned())).await?;
    place.mount("proxy", "username", "name")?;
    place.mount("proxy", "password", "pass")?;
    place.mount("defender", "clientSecret", DEMO_TOKEN)?;
    let (url, authority) = (proxy.url(), place.defender.url());
    let application = format!(
        "auth: {{clientCredentials: {{tenantId: contoso.com, clientId: 11111111-2222-3333-4444-555555555555, \
         clientSecretRef: {{name: defender}}, authorityUrl: '{authority}'}}}}, caBundleRef: {{name: ca}}, \
         proxy: {{url: '{url}', credentialsSecretRef: {{name: proxy}}}}"
    );
    let good: &[(&str, &[&str])] = &[
        ("ok   DNS, proxy, 127.0.0.1:", &[]),
        ("ok   TCP, proxy, 127.0.0.1 port ", &[]),
        ("ok   proxy, to localhost port ", &["connects us"]),
        ("ok   TLS, API, localhost:", &[]),
        ("ok   TLS, identity provider, localhost:", &[]),
        ("ok   API, alerts:", &["may read it"]),
    ];
    says(&place.check(&application, &place.syslog(), &[]).await, 0, good);
    let past = application.replace("proxy: {", "proxy: {noProxy: [localhost], ");
    let n_passed = proxy.passed().len();
    says(
        &place.check(&past, &place.syslog(), &[]).await,
        0,
        &[("ok   TCP, API, localhost port ", &[])],
    );
    ensure!(proxy.passed().len() == n_passed, "noProxy is obeyed");

    place.mount("proxy", "password", "wrong")?;
    let ended = place.check(&application, &place.syslog(), &[]).await;
    says(
        &ended,
        1,
        &[
            ("FAIL proxy, to localhost port ", &["407", "credentialsSecretRef"]),
            ("FAIL API: not tried", &[]),
            ("ok   SIEM, localhost port ", &[]),
        ],
    );
    ensure!(!ended.out.contains("wrong"), "{}", ended.out);
    proxy.set_policy(Policy::Forbidden("text/html"));
    let ended = place.check(&application, &place.syslog(), &[]).await;
    says(&ended, 1, &[("FAIL proxy, to localhost port ", &["403", "allow this host"])]);
    drop(proxy);
    let ended = place.check(&application, &place.syslog(), &[]).await;
    says(&ended, 1, &[("FAIL TCP, proxy, 127.0.0.1 port ", &["refused", "firewalls"])]);

    place.mount("defender", "clientSecret", "not-it")?;
    let direct = application.split(", proxy:").next().unwrap().to_owned();
    let ended = place.check(&direct, &place.syslog(), &[]).await;
    says(&ended, 1, &[("FAIL API, alerts:", &["AADSTS7000215", "store it in the Secret"])]);
    Ok(())
}

#[tokio::test]
async fn each_failure_of_the_portal_has_its_line_and_its_advice() -> Result<()> {
    let place = place().await?;
    let ended = place
        .check(
            &format!("cloudApps: {{url: 'https://no-such-host.invalid'}}, {TOKEN}"),
            &place.syslog(),
            &[],
        )
        .await;
    says(
        &ended,
        1,
        &[("FAIL DNS, API, no-such-host.invalid:", &["resolver"]), ("ok   SIEM, localhost", &[])],
    );
    let port = free_port()?;
    let ended = place
        .check(
            &format!("cloudApps: {{url: 'https://localhost:{port}'}}, {TOKEN}"),
            &place.syslog(),
            &[],
        )
        .await;
    says(
        &ended,
        1,
        &[
            ("ok   DNS, API, localhost:", &[]),
            ("FAIL TCP, API, localhost port ", &["refused", "firewalls"]),
        ],
    );
    let public = "auth: {tokenSecretRef: {name: defender}}";
    says(
        &place.check(public, &place.syslog(), &[]).await,
        1,
        &[
            ("ok   TCP, API, localhost port ", &[]),
            (
                "FAIL TLS, API, localhost:",
                &["unknown issuer", "CN=check", "spec.source.caBundleRef"],
            ),
        ],
    );
    ensure!(place.defender.requests().is_empty(), "no token went to a stranger");

    place.defender.forbid(Stream::Activities, true);
    says(
        &place.check(TOKEN, &place.syslog(), &[]).await,
        1,
        &[
            ("ok   API, alerts:", &["may read it"]),
            ("FAIL API, activities:", &["not permitted", "Investigation.read"]),
        ],
    );
    place.defender.set_token("another");
    says(
        &place.check(TOKEN, &place.syslog(), &[]).await,
        1,
        &[
            ("FAIL API, alerts:", &["Invalid token", "Make a new token"]),
            ("FAIL API, activities:", &["Invalid token"]),
        ],
    );
    place.files.set_token("another")?;
    place.defender.forbid(Stream::Activities, false);
    for (fault, words) in [
        ("429", ["throttling us", "30 requests a minute"]),
        ("500", ["500", "Check spec.source.cloudApps.url"]),
        ("html", ["login page", "Check spec.source.cloudApps.url"]),
        ("jwks", ["data centre", "tenant's own API URL"]),
    ] {
        place.defender.fault(format!("{fault}@stream=alerts").parse().unwrap());
        says(
            &place.check(TOKEN, &place.syslog(), &[]).await,
            1,
            &[("FAIL API, alerts:", &words), ("ok   API, activities:", &[])],
        );
    }
    Ok(())
}

#[tokio::test]
async fn each_failure_of_the_siem_has_its_line_and_its_advice() -> Result<()> {
    let place = place().await?;
    let at = |text: &str| {
        format!(
            "{{{}, protocol: TLS, tls: {{{text}}}}}",
            format_args!("host: localhost, port: {}", place.receiver.port())
        )
    };
    let ended = place.check(TOKEN, "{host: no-such-host.invalid}", &[]).await;
    says(
        &ended,
        1,
        &[("ok   API, alerts:", &[]), ("FAIL DNS, SIEM, no-such-host.invalid:", &["resolver"])],
    );
    let ended =
        place.check(TOKEN, &format!("{{host: localhost, port: {}}}", free_port()?), &[]).await;
    says(&ended, 1, &[("FAIL TCP, SIEM, localhost port ", &["refused", "firewalls"])]);
    let ended = place.check(TOKEN, &at("clientCertificateSecretRef: {name: mine}"), &[]).await;
    says(
        &ended,
        1,
        &[
            ("ok   TCP, SIEM,", &[]),
            (
                "FAIL TLS, SIEM, localhost:",
                &["unknown issuer", "CN=check", "spec.syslog.tls.caBundleRef"],
            ),
        ],
    );
    let ended = place.check(TOKEN, &at("caBundleRef: {name: ca}, serverName: other.example.com, clientCertificateSecretRef: {name: mine}"), &[]).await;
    says(
        &ended,
        1,
        &[("FAIL TLS, SIEM, localhost:", &["not valid for name", "other.example.com"])],
    );
    // TLS 1.3: the handshake looks complete; the refusal comes after it.
    let ended = place.check(TOKEN, &at("caBundleRef: {name: ca}"), &[]).await;
    says(
        &ended,
        1,
        &[
            ("ok   TLS, SIEM, localhost:", &[]),
            ("FAIL SIEM, localhost port ", &["ertificate", "spec.syslog"]),
        ],
    );
    let stranger = Authority::new("stranger")?.client("forwarder")?;
    place.mount("mine", "tls.crt", &stranger.certificate)?;
    place.mount("mine", "tls.key", &stranger.key)?;
    let ended = place.check(TOKEN, &place.syslog(), &["--send-test-event"]).await;
    says(&ended, 1, &[("FAIL SIEM, localhost port ", &["spec.syslog"])]);
    ensure!(place.receiver.frames().is_empty());
    let ended = place.check(TOKEN, "{host: 127.0.0.1, port: 9, protocol: UDP}", &[]).await;
    says(
        &ended,
        0,
        &[
            ("ok   DNS, SIEM, 127.0.0.1:", &[]),
            ("ok   SIEM, 127.0.0.1 port 9:", &["UDP confirms nothing"]),
            ("ok   framing:", &["datagram"]),
        ],
    );
    Ok(())
}
