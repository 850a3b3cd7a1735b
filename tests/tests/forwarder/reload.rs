//! `run --sidecar-of`, as in a pod that is somebody else's: it follows its configuration, waits without one, and never ends.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use siem_agent_crds::config::{Config, Paths};
use siem_agent_crds::manifest;
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival::{Receiver as _, counts, missing, quick};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{PATIENCE, free_port, program};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use tempfile::TempDir;
use tokio::time::sleep;

/// A forwarder in a host's pod, with its folders.
struct Sidecar {
    folder: TempDir,
    port: u16,
    child: Child,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sidecar {
    fn start() -> Result<Self> {
        Self::start_at(free_port()?)
    }

    fn start_at(port: u16) -> Result<Self> {
        // Another test of this process may have done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir()?;
        fs::create_dir_all(folder.path().join("secrets/defender"))?;
        fs::create_dir_all(folder.path().join("config"))?;
        fs::write(folder.path().join("secrets/defender/token"), DEMO_TOKEN)?;
        let child = Command::new(program("siem-forwarder")?)
            .args(["run", "--sidecar-of", "Deployment/collector", "--config"])
            .arg(folder.path().join("config/config.yaml"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        Ok(Self { folder, port, child })
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Writes the configuration of this agent as the kubelet does: in one step.
    fn configure(
        &self,
        uid: &str,
        manifest: &Manifest,
        change: impl Fn(&mut Config),
    ) -> Result<()> {
        let mut agent = manifest::read(&manifest.to_string())?;
        agent.metadata.uid = Some(uid.to_owned());
        let secrets = self.folder.path().join("secrets");
        let checkpoint = Some(self.folder.path().join("checkpoint"));
        let paths = Paths {
            config_maps: secrets.clone(),
            secrets,
            state: self.state(),
            checkpoint,
            live: None,
            identity: None,
        };
        let mut config = Config::for_agent(&agent, paths);
        config.sidecar_of = Some("Deployment/collector".to_owned());
        change(&mut config);
        let next = self.folder.path().join("config/next");
        fs::write(&next, serde_json::to_string(&config)?)?;
        Ok(fs::rename(next, self.folder.path().join("config/config.yaml"))?)
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("log"))?)
    }

    async fn until_said(&self, words: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(self.log()?.contains(words), "it does not say `{words}`: {}", self.log()?);
            Ok(())
        })
        .await
    }

    async fn code(&self, path: &str) -> Result<u16> {
        Ok(reqwest::get(format!("http://127.0.0.1:{}/{path}", self.port)).await?.status().as_u16())
    }

    async fn status(&self) -> Result<serde_json::Value> {
        Ok(reqwest::get(format!("http://127.0.0.1:{}/status", self.port)).await?.json().await?)
    }

    fn is_alive(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "it has ended: {ended:?}: {}", self.log()?);
        Ok(())
    }
}

fn to(defender: &Defender, receiver: &Rsyslog) -> Manifest {
    Manifest::new("soc").url(&defender.url()).quick().to("127.0.0.1", receiver.port)
}

async fn all(defender: &Defender, receivers: &[&Rsyslog]) -> Result<usize> {
    eventually(PATIENCE, async || {
        let mut lines = Vec::new();
        for receiver in receivers {
            lines.extend(receiver.lines()?);
        }
        let counts = counts(&lines);
        let missing = missing(defender, &counts);
        ensure!(missing.is_empty(), "{} lost, such as {:?}", missing.len(), missing.first());
        Ok(counts.values().filter(|count| **count > 1).count())
    })
    .await
}

#[tokio::test]
async fn a_changed_configuration_is_taken_up_at_the_same_place() -> Result<()> {
    let mut defender = Defender::start(quick(100.0, 1_000)).await?;
    let (first, second) = (Rsyslog::start(Input::Tcp).await?, Rsyslog::start(Input::Tcp).await?);
    let mut sidecar = Sidecar::start()?;
    // Without a configuration it waits, and says so, and is alive.
    sidecar.until_said("there is no configuration").await?;
    assert_eq!((sidecar.code("livez").await?, sidecar.code("readyz").await?), (200, 503));
    assert_eq!((sidecar.code("status").await?, sidecar.code("metrics").await?), (503, 503));
    sidecar.configure("u-1", &to(&defender, &first), |_| {})?;
    eventually(PATIENCE, async || {
        ensure!(sidecar.code("readyz").await? == 200 && first.lines()?.len() > 500);
        Ok(())
    })
    .await?;
    // Another receiver, another form, another place, again and again while events flow.
    let hash = async || anyhow::Ok(sidecar.status().await?["configHash"].to_string());
    for n in 0..6 {
        let receiver = if n % 2 == 0 { &second } else { &first };
        let more = format!("  displayName: the {n}th\n  format: {{priority: {n}}}\n");
        let before = hash().await?;
        sidecar.configure("u-1", &to(&defender, receiver).more(&more), |_| {})?;
        eventually(PATIENCE, async || {
            ensure!(hash().await? != before, "it is not taken up: {}", sidecar.log()?);
            Ok(())
        })
        .await?;
        sleep(Duration::from_millis(300)).await;
    }
    defender.quiet();
    let n_repeated = all(&defender, &[&first, &second]).await?;
    assert_eq!(n_repeated, 0, "a reload confirms before it goes on");
    assert_eq!(sidecar.status().await?["agent"]["displayName"], "the 5th");
    sidecar.is_alive()?;
    kill(Pid::from_raw(i32::try_from(sidecar.child.id())?), Signal::SIGTERM)?;
    ensure!(sidecar.child.wait()?.success(), "SIGTERM ends it in order");
    Ok(())
}

#[tokio::test]
async fn what_stops_it_is_a_configuration_that_is_gone_or_suspends_and_it_goes_on_there()
-> Result<()> {
    let mut defender = Defender::start(quick(50.0, 500)).await?;
    let receiver = Rsyslog::start(Input::Tcp).await?;
    let mut sidecar = Sidecar::start()?;
    let config = sidecar.folder.path().join("config/config.yaml");
    // What is no configuration of this version is no reason to end.
    fs::write(&config, "version: 99\n")?;
    sidecar.until_said("the configuration cannot be used").await?;
    sidecar.configure("u-1", &to(&defender, &receiver), |_| {})?;
    let flows = async |than: usize| {
        eventually(PATIENCE, async || {
            ensure!(receiver.lines()?.len() > than, "nothing comes: {}", sidecar.log()?);
            Ok(())
        })
        .await
    };
    flows(500).await?;
    // One that cannot be used leaves what runs as it is.
    fs::write(&config, "not: [a, configuration")?;
    let n_before = receiver.lines()?.len();
    flows(n_before + 100).await?;
    for stop in ["gone", "elsewhere", "suspended"] {
        if stop == "gone" {
            fs::remove_file(&config)?;
            sidecar.until_said("there is no configuration").await?;
            assert_eq!(
                sidecar.code("status").await?,
                503,
                "nothing is reported of what does not run"
            );
        } else if stop == "elsewhere" {
            sidecar
                .configure("u-1", &to(&defender, &receiver), |config| config.sidecar_of = None)?;
            sidecar.until_said("runs in a Deployment of its own now").await?;
        } else {
            sidecar.configure("u-1", &to(&defender, &receiver), |config| config.suspend = true)?;
            sidecar.until_said("suspended").await?;
            let status = sidecar.status().await?;
            ensure!(
                status["token"]["state"] == "Unknown" && status["streams"] == serde_json::json!({}),
                "{status}"
            );
        }
        // What was under way has been confirmed; then nothing comes.
        sleep(Duration::from_secs(1)).await;
        let n_stopped = receiver.lines()?.len();
        defender.produce(20);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(receiver.lines()?.len(), n_stopped, "{stop}");
        sidecar.configure("u-1", &to(&defender, &receiver), |_| {})?;
        flows(n_stopped).await?;
    }
    defender.quiet();
    assert_eq!(all(&defender, &[&receiver]).await?, 0, "it goes on exactly there");
    sidecar.is_alive()
}

#[tokio::test]
async fn another_agent_of_the_name_starts_anew_and_leaves_no_folder_of_the_one_before() -> Result<()>
{
    let mut defender = Defender::start(quick(0.0, 200)).await?;
    let receiver = Rsyslog::start(Input::Tcp).await?;
    let mut sidecar = Sidecar::start()?;
    let manifest = to(&defender, &receiver);
    sidecar.configure("u-1", &manifest, |_| {})?;
    defender.quiet();
    all(&defender, &[&receiver]).await?;
    ensure!(sidecar.state().join("u-1").is_dir());
    sidecar.configure("u-2", &manifest, |_| {})?;
    let n = defender.produced().iter().filter(|(stream, _)| *stream == Stream::Activities).count();
    eventually(PATIENCE, async || {
        let n_lines = receiver.lines()?.len();
        ensure!(n_lines >= 2 * n, "{n_lines} lines: {}", sidecar.log()?);
        Ok(())
    })
    .await?;
    let folders: Vec<_> = fs::read_dir(sidecar.state())?
        .map(|entry| entry?.file_name().into_string().ok().context("a name"))
        .collect::<Result<_>>()?;
    assert_eq!(folders, ["u-2"]);
    assert_eq!(sidecar.status().await?["agent"]["uid"], "u-2");
    sidecar.is_alive()
}

/// The port is the pod's, and another container may have it.
#[tokio::test]
async fn a_port_that_is_taken_costs_the_report_and_not_the_export() -> Result<()> {
    let mut defender = Defender::start(quick(0.0, 100)).await?;
    let receiver = Rsyslog::start(Input::Tcp).await?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let sidecar = Sidecar::start_at(listener.local_addr()?.port())?;
    sidecar.until_said("the admin port is not free").await?;
    sidecar.configure("u-1", &to(&defender, &receiver), |_| {})?;
    defender.quiet();
    all(&defender, &[&receiver]).await?;
    drop(listener);
    eventually(PATIENCE, async || {
        ensure!(sidecar.code("readyz").await? == 200);
        Ok(())
    })
    .await
}
