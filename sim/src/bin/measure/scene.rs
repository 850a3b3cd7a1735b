//! A simulated source, a real rsyslogd and a forwarder between them over TLS.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::forwarder::{Forwarder, LOOK, PATIENCE};
use siem_agent_sim::pki::Authority;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::source::Source;

/// Everything that a figure is taken of.
pub(crate) struct Scene {
    pub(crate) defender: Defender,
    pub(crate) rsyslog: Rsyslog,
    pub(crate) forwarder: Forwarder,
    _folder: TempDir,
}

impl Scene {
    /// Prepares it; the forwarder is not started.
    pub(crate) async fn new(source: Source, program: &Path, options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("measuring authority")?;
        let server = authority.loopback_server()?;
        let files = authority.write(&server, &folder.path().join("server"))?;
        let ca = files.ca.clone();
        let defender = Defender::start(options).await?;
        let rsyslog =
            Rsyslog::start_stamped(Input::Tls { driver: "gtls", files, mutual: false }).await?;
        let syslog = format!(
            "{{host: 127.0.0.1, port: {}, protocol: TLS, tls: {{caBundleRef: {{name: ca}}}}}}",
            rsyslog.port
        );
        let fields = source.fields(&defender.url());
        let mut forwarder = Forwarder::with_source(&fields, DEMO_TOKEN, &syslog, "")?;
        let mounted = forwarder.secrets().join("ca");
        fs::create_dir_all(&mounted)?;
        fs::copy(ca, mounted.join("ca.crt"))?;
        forwarder.set_program(program.to_owned());
        forwarder.run_by_config("uid")?;
        Ok(Self { defender, rsyslog, forwarder, _folder: folder })
    }

    /// The forwarder's process.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.forwarder.pid().context("the forwarder runs")
    }

    /// Waits until both streams have come to the newest record.
    pub(crate) async fn caught_up(&self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.forwarder.status().await?;
            let lag = |stream: &str| status["streams"][stream]["lagSeconds"].as_f64();
            if ["alerts", "activities"].iter().all(|of| lag(of).is_some_and(|lag| lag < 10.0)) {
                return Ok(());
            }
            ensure!(Instant::now() < until, "it does not catch up: {}", self.forwarder.log()?);
            sleep(LOOK).await;
        }
    }
}
