//! Certificates, keys and authorities change in their mounted folders while the forwarder runs: it follows, and loses nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use siem_agent_sim::arrival::{Receiver as _, all_arrived};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, PATIENCE};
use siem_agent_sim::pki::{Authority, Files};
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::mounted::Mounted;
use tempfile::TempDir;

const SYSLOG: &str = "{host: 127.0.0.1, port: PORT, protocol: TLS, \
                      tls: {caBundleRef: {name: ca}, clientCertificateSecretRef: {name: client}}}";

/// A portal, a receiver that wants certificates of the first authority, and a forwarder that has one.
struct Scene {
    folder: TempDir,
    defender: Defender,
    rsyslog: Rsyslog,
    forwarder: Forwarder,
    authorities: [Authority; 2],
    bundle: Mounted,
    client: Mounted,
}

fn key_pair(files: &Files) -> Result<[(&'static str, String); 2]> {
    Ok([
        ("tls.crt", fs::read_to_string(&files.certificate)?),
        ("tls.key", fs::read_to_string(&files.key)?),
    ])
}

impl Scene {
    async fn set() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authorities = [Authority::new("first authority")?, Authority::new("second authority")?];
        let history = (100, Duration::from_secs(3600));
        let defender =
            Defender::start(Options { budget: 0, history, ..Options::default() }).await?;
        let [first, _] = &authorities;
        let server = first.write(&first.loopback_server()?, &folder.path().join("server"))?;
        let rsyslog =
            Rsyslog::start(Input::Tls { driver: "gtls", files: server, mutual: true }).await?;
        let syslog = SYSLOG.replace("PORT", &rsyslog.port.to_string());
        let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
        let bundle =
            Mounted::new(&forwarder.secrets().join("ca"), &[("ca.crt", &first.certificate())])?;
        let files = first.write(&first.client("forwarder")?, &folder.path().join("client"))?;
        let [certificate, key] = key_pair(&files)?;
        let client = Mounted::new(
            &forwarder.secrets().join("client"),
            &[(certificate.0, &certificate.1), (key.0, &key.1)],
        )?;
        forwarder.start().await?;
        all_arrived(&defender, &rsyslog, &forwarder).await?;
        Ok(Self { folder, defender, rsyslog, forwarder, authorities, bundle, client })
    }

    /// Gives the forwarder a certificate of the second authority.
    fn renew_client(&mut self) -> Result<()> {
        let [_, second] = &self.authorities;
        let files =
            second.write(&second.client("renewed")?, &self.folder.path().join("renewed"))?;
        let [certificate, key] = key_pair(&files)?;
        self.client.swap(&[(certificate.0, &certificate.1), (key.0, &key.1)])
    }

    async fn until_log_says(&self, words: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(
                self.forwarder.log()?.contains(words),
                "`{words}` is not said: {}",
                self.forwarder.log()?
            );
            Ok(())
        })
        .await
    }

    async fn until_target_is(&self, up: f64) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(
                (self.forwarder.metric("siem_forwarder_target_up").await? - up).abs() <= 0.5,
                "target_up is not {up}: {}",
                self.forwarder.log()?
            );
            Ok(())
        })
        .await
    }
}

#[tokio::test]
async fn a_receiver_that_trusts_another_authority_is_served_once_the_certificate_is_renewed()
-> Result<()> {
    let mut scene = Scene::set().await?;
    let pid = scene.forwarder.pid();
    let [first, second] = &scene.authorities;
    let server = first.write(&first.loopback_server()?, &scene.folder.path().join("server2"))?;
    let trusts = scene.folder.path().join("trusts.crt");
    fs::write(&trusts, second.certificate())?;
    scene.rsyslog.end(Signal::SIGTERM)?;
    let files = Files { ca: trusts, ..server };
    scene.rsyslog.become_another(Input::Tls { driver: "gtls", files, mutual: true }).await?;
    scene.defender.produce(50);
    scene.until_target_is(0.0).await?;
    scene.client.swap(&[("tls.crt", "garbage"), ("tls.key", "garbage")])?;
    scene.until_log_says("keeping the old ones").await?;
    scene.renew_client()?;
    all_arrived(&scene.defender, &scene.rsyslog, &scene.forwarder).await?;
    ensure!(scene.forwarder.pid() == pid, "without a restart");
    Ok(())
}

#[tokio::test]
async fn a_receiver_with_a_certificate_of_another_authority_is_served_once_the_bundle_has_it()
-> Result<()> {
    let mut scene = Scene::set().await?;
    let [first, second] = &scene.authorities;
    let server = second.write(&second.loopback_server()?, &scene.folder.path().join("server2"))?;
    let both = format!("{}{}", first.certificate(), second.certificate());
    let trusts = scene.folder.path().join("trusts.crt");
    fs::write(&trusts, first.certificate())?;
    scene.rsyslog.end(Signal::SIGTERM)?;
    let files = Files { ca: trusts, ..server };
    scene.rsyslog.become_another(Input::Tls { driver: "gtls", files, mutual: true }).await?;
    scene.defender.produce(50);
    scene.until_target_is(0.0).await?;
    eventually(PATIENCE, async || {
        let reason = scene.forwarder.status().await?["target"]["reason"].to_string();
        ensure!(reason.contains("certificate"), "the reason names the certificate: {reason}");
        Ok(())
    })
    .await?;
    scene.bundle.swap(&[("ca.crt", &both)])?;
    all_arrived(&scene.defender, &scene.rsyslog, &scene.forwarder).await?;
    Ok(())
}

#[tokio::test]
async fn a_healthy_connection_takes_up_a_renewed_certificate_without_a_repetition() -> Result<()> {
    let mut scene = Scene::set().await?;
    let [first, _] = &scene.authorities;
    let files = first.write(&first.client("renewed")?, &scene.folder.path().join("renewed"))?;
    let [certificate, key] = key_pair(&files)?;
    scene.client.swap(&[(certificate.0, &certificate.1), (key.0, &key.1)])?;
    scene.until_log_says("certificates changed, reconnecting").await?;
    scene.defender.produce(50);
    let counts = all_arrived(&scene.defender, &scene.rsyslog, &scene.forwarder).await?;
    ensure!(counts.values().all(|count| *count == 1), "nothing is repeated");
    let pid = scene.forwarder.pid().context("it runs")?;
    ensure!(pid > 0, "without a restart");
    Ok(())
}

#[tokio::test]
async fn garbage_in_the_folder_leaves_the_old_certificate_at_work() -> Result<()> {
    let mut scene = Scene::set().await?;
    scene.client.swap(&[("tls.crt", "garbage"), ("tls.key", "garbage")])?;
    scene.until_log_says("keeping the old ones").await?;
    // Another connection needs the certificate again.
    scene.rsyslog.end(Signal::SIGKILL)?;
    scene.rsyslog.again().await?;
    scene.defender.produce(50);
    all_arrived(&scene.defender, &scene.rsyslog, &scene.forwarder).await?;
    Ok(())
}
