//! A forwarder that holds every planted secret, logs everything, and leaves all its outputs in one folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use siem_agent_crds::config::{Config, Paths};
use siem_agent_crds::manifest;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, free_port, program};
use siem_agent_sim::manifest::Manifest;
use siem_agent_tests::program::{Ended, forwarder};
use tokio::time::{Instant, sleep};

use super::search::{CLIENT_SECRET, PASSWORD, Search, TOKEN, USERNAME, files, processes};

/// No secret is longer, in any form.
const OVERLAP: usize = 4_096;

/// A forwarder that logs everything, with all its outputs in one folder, and its secrets in another.
pub(crate) struct Place {
    outputs: tempfile::TempDir,
    pub(crate) secrets: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    pub(crate) search: Search,
    /// How much of each log was looked at.
    looked_at: Mutex<BTreeMap<PathBuf, usize>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // What has ended already cannot be ended again.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Place {
    pub(crate) fn new(private_key: &str) -> Result<Self> {
        // Another test of this process may have done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = Self {
            outputs: tempfile::tempdir()?,
            secrets: tempfile::tempdir()?,
            port: free_port()?,
            child: None,
            search: Search::new(private_key),
            looked_at: Mutex::default(),
        };
        for (name, key, secret) in [
            ("defender", "token", TOKEN),
            ("defender", "clientSecret", CLIENT_SECRET),
            ("proxy", "username", USERNAME),
            ("proxy", "password", PASSWORD),
            ("mine", "tls.key", private_key),
        ] {
            place.mount(name, key, secret)?;
        }
        Ok(place)
    }

    pub(crate) fn mount(&self, name: &str, key: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let folder = self.secrets.path().join(name);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(key), content)?)
    }

    pub(crate) fn manifest(&self, source: &str, syslog: &str) -> Result<String> {
        let path = self.outputs.path().join("siemagent.yaml");
        let quick = "requestsPerMinute: 6000, pollInterval: 1s, overlap: 30s";
        let text = Manifest::new("soc")
            .source(source)
            .cloud_apps(quick)
            .syslog(syslog)
            .more("  forwarder: {logLevel: trace}\n")
            .to_string();
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    pub(crate) fn start(&mut self, source: &str, syslog: &str) -> Result<()> {
        let manifest = self.manifest(source, syslog)?;
        let secrets = self.secrets.path().display().to_string();
        let state = self.outputs.path().join("state").display().to_string();
        self.spawn(&["--manifest", &manifest, "--secrets", &secrets, "--state-dir", &state])
    }

    /// The file that the operator would write.
    pub(crate) fn config(&self, source: &str, syslog: &str) -> Result<String> {
        let agent = manifest::read(&fs::read_to_string(self.manifest(source, syslog)?)?)?;
        let secrets = self.secrets.path().to_owned();
        let paths = Paths {
            config_maps: secrets.clone(),
            secrets,
            state: self.outputs.path().join("state"),
            checkpoint: None,
            live: None,
            identity: None,
        };
        let config = self.outputs.path().join("config.json");
        fs::write(&config, serde_json::to_string(&Config::for_agent(&agent, paths))?)?;
        Ok(config.display().to_string())
    }

    /// As in a pod, where it starts whatever its files hold.
    pub(crate) fn start_by_config(&mut self, source: &str, syslog: &str) -> Result<()> {
        let config = self.config(source, syslog)?;
        self.spawn(&["--config", &config])
    }

    fn spawn(&mut self, arguments: &[&str]) -> Result<()> {
        let output = |name: &str| {
            fs::File::options().create(true).append(true).open(self.outputs.path().join(name))
        };
        let child = Command::new(program("siem-forwarder")?)
            .arg("run")
            .args(arguments)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--logs-directory")
            .arg(self.outputs.path().join("logs"))
            .stdin(Stdio::null())
            .stdout(output("out")?)
            .stderr(output("err")?)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Everything that can be seen from outside, now.
    pub(crate) async fn look(&self) -> Result<()> {
        let pid = self.child.as_ref().context("it runs")?.id();
        for (what, bytes) in processes(pid) {
            self.search.finds_nothing(&what, &bytes);
        }
        for page in ["metrics", "status", "livez", "readyz"] {
            // It may not listen yet.
            if let Ok(answer) = reqwest::get(format!("http://127.0.0.1:{}/{page}", self.port)).await
            {
                self.search.finds_nothing(page, &answer.bytes().await?);
            }
        }
        for path in files(self.outputs.path()) {
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // Renamed since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            self.look_at(&path, &bytes);
        }
        Ok(())
    }

    /// A file; of a log only what is new, with a little of what was there.
    fn look_at(&self, path: &Path, bytes: &[u8]) {
        let name = path.file_name().unwrap_or_default();
        let is_log = name == "err"
            || name == "out"
            || path.parent().is_some_and(|folder| folder.ends_with("logs"));
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let before = looked_at.insert(path.to_owned(), bytes.len()).filter(|_| is_log);
        let from = before.unwrap_or(0).saturating_sub(OVERLAP).min(bytes.len());
        if before != Some(bytes.len()) {
            self.search.finds_nothing(&path.display().to_string(), &bytes[from..]);
        }
    }

    /// Looks again and again until the report says so.
    pub(crate) async fn look_until(
        &self,
        what: &str,
        good: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.look().await?;
            if let Ok(answer) = reqwest::get(format!("http://127.0.0.1:{}/status", self.port)).await
            {
                let status = answer.json().await?;
                if good(&status) {
                    return Ok(());
                }
                ensure!(Instant::now() < until, "{what}: {status}");
            }
            ensure!(
                Instant::now() < until,
                "{what}: it does not answer: {}",
                fs::read_to_string(self.outputs.path().join("err"))?
            );
            sleep(LOOK).await;
        }
    }

    /// SIGTERM; what is left behind is looked at as well.
    pub(crate) async fn end(&mut self) -> Result<()> {
        self.look().await?;
        let mut child = self.child.take().context("it runs")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > until => {
                    child.kill()?;
                    break child.wait()?;
                }
                None => sleep(LOOK).await,
            }
        };
        for path in files(self.outputs.path()) {
            let bytes = fs::read(&path)?;
            self.look_at(&path, &bytes);
            ensure!(!String::from_utf8_lossy(&bytes).contains("panicked"), "{}", path.display());
        }
        ensure!(status.success(), "it ends in order");
        let traced = fs::read_to_string(self.outputs.path().join("err"))?;
        ensure!(traced.contains("TRACE") && traced.contains("DEBUG"), "everything is logged");
        ensure!(!files(&self.outputs.path().join("logs")).is_empty(), "into files too");
        Ok(())
    }

    /// Runs a command to its end, and looks at what it printed.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Result<Option<i32>> {
        self.seen(forwarder(arguments, "").await?)
    }

    /// Looks at what a program printed.
    pub(crate) fn seen(&self, ended: Ended) -> Result<Option<i32>> {
        self.search.finds_nothing("standard output", ended.out.as_bytes());
        self.search.finds_nothing("standard error", ended.err.as_bytes());
        ensure!(!ended.err.contains("panicked"), "{}", ended.err);
        Ok(ended.code)
    }
}
