//! The forwarder as users run it: the built program, a manifest, a folder of secrets and a folder of state.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use siem_agent_crds::config::{Config, Paths};
use siem_agent_crds::manifest;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Long enough for anything that is going to happen on this machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
pub const LOOK: Duration = Duration::from_millis(50);

/// The built program, beside the running test.
///
/// # Errors
/// When it is not built; says how to build it.
pub fn program(name: impl AsRef<Path>) -> Result<PathBuf> {
    let name = name.as_ref();
    let test = std::env::current_exe().context("find the running test")?;
    let found = test
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{} is not built: run `cargo test --workspace --no-run`, or tests/run",
            name.display()
        )
    })
}

/// Below what Linux gives to outgoing connections, which would take such a port away again.
const PORTS: std::ops::Range<u32> = 12_000..32_000;
static NEXT_PORT: AtomicU32 = AtomicU32::new(0);

/// A port that was free a moment ago, and that no other test of this process gets.
///
/// # Errors
/// When loopback gives none.
pub fn free_port() -> Result<u16> {
    // Processes of tests begin at places far from each other.
    let begin = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    for _ in PORTS {
        let number = begin.wrapping_add(NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + number % (PORTS.end - PORTS.start))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free")
}

/// A forwarder with its folders; the process ends with it.
#[derive(Debug)]
pub struct Forwarder {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    program: PathBuf,
    arguments: Vec<OsString>,
    config: Option<PathBuf>,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // What has ended already cannot be ended again.
        let _ = self.kill();
    }
}

impl Forwarder {
    /// Writes a minimal manifest for this source and port, with more `spec` lines below (indented by two), and the token.
    /// It polls quickly and has budget enough for that.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(url: &str, token: &str, syslog: &str, more: &str) -> Result<Self> {
        let quick = "requestsPerMinute: 6000, pollInterval: 1s, overlap: 30s";
        Self::with_cloud_apps(url, token, quick, syslog, more)
    }

    /// The same with these fields of `spec.source.cloudApps`, between commas.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn with_cloud_apps(
        url: &str,
        token: &str,
        fields: &str,
        syslog: &str,
        more: &str,
    ) -> Result<Self> {
        let source = format!(
            "cloudApps: {{url: '{url}', {fields}}}\n    auth: {{tokenSecretRef: {{name: defender}}}}"
        );
        Self::with_source(&source, token, syslog, more)
    }

    /// The same with these fields of `spec.source`, each on a line of its own indented by four; the secret lies under the key
    /// `token` of the Secret `defender`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn with_source(source: &str, token: &str, syslog: &str, more: &str) -> Result<Self> {
        // Another test of this process may have done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir()?;
        let manifest = format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: soc, namespace: security}}\nspec:\n  \
             source:\n    {source}\n  syslog: {syslog}\n{more}"
        );
        fs::write(folder.path().join("siemagent.yaml"), manifest)?;
        fs::create_dir_all(folder.path().join("secrets/defender"))?;
        let forwarder = Self {
            folder,
            port: free_port()?,
            child: None,
            environment: Vec::new(),
            program: PathBuf::from("siem-forwarder"),
            arguments: Vec::new(),
            config: None,
        };
        forwarder.set_token(token)?;
        Ok(forwarder)
    }

    /// The manifest's path.
    pub fn manifest(&self) -> PathBuf {
        self.folder.path().join("siemagent.yaml")
    }

    /// The folder of secrets.
    pub fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    /// Writes the token's file anew, as one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_token(&self, token: &str) -> Result<()> {
        let path = self.secrets().join("defender/token");
        let next = path.with_extension("next");
        fs::write(&next, token)?;
        Ok(fs::rename(next, path)?)
    }

    /// Sets an environment variable for every start from here on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// From here on starts this program: a path, or a name beside the running test.
    pub fn set_program(&mut self, program: impl Into<PathBuf>) {
        self.program = program.into();
    }

    /// From here on starts it with these arguments more.
    pub fn set_arguments(&mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) {
        self.arguments = arguments.into_iter().map(Into::into).collect();
    }

    /// From here on starts it with these failpoints, which are compiled in by `cargo test --workspace` and do nothing
    /// without this; `None` starts it without any again.
    pub fn set_failpoints(&mut self, failpoints: Option<&str>) {
        self.environment.retain(|(name, _)| name != "FAILPOINTS");
        if let Some(failpoints) = failpoints {
            self.set_environment("FAILPOINTS", failpoints);
        }
    }

    /// From here on starts it as in a pod: by the file that the operator writes, with the operator's checkpoint in a
    /// folder. Gives that folder.
    ///
    /// # Errors
    /// When the manifest cannot be read or the file cannot be written.
    pub fn run_by_config(&mut self, uid: &str) -> Result<PathBuf> {
        let mut agent = manifest::read(&fs::read_to_string(self.manifest())?)?;
        agent.metadata.uid = Some(uid.to_owned());
        let checkpoint = self.folder.path().join("checkpoint");
        fs::create_dir_all(&checkpoint)?;
        let paths = Paths {
            secrets: self.secrets(),
            config_maps: self.secrets(),
            state: self.state(),
            checkpoint: Some(checkpoint.clone()),
            live: None,
            identity: None,
        };
        let config = self.folder.path().join("config.json");
        fs::write(&config, serde_json::to_string(&Config::for_agent(&agent, paths))?)?;
        self.config = Some(config);
        Ok(checkpoint)
    }

    /// The folder of its state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts the program and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; with what it said.
    pub async fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = Command::new(program(&self.program)?);
        command.arg("run");
        match &self.config {
            Some(config) => command.arg("--config").arg(config),
            None => command
                .arg("--manifest")
                .arg(self.manifest())
                .arg("--secrets")
                .arg(self.secrets())
                .arg("--state-dir")
                .arg(self.state()),
        };
        let child = command
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start siem-forwarder")?;
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while self.get("readyz").await.is_err() {
            if Instant::now() > until || self.ended()?.is_some() {
                bail!("siem-forwarder is not ready: {}", self.log()?);
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Everything that it has printed.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        match fs::read_to_string(self.folder.path().join("log")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => Ok(read?),
        }
    }

    /// The folder of everything that it writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where its admin port is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("siem-forwarder does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let pid = i32::try_from(self.pid().context("siem-forwarder does not run")?)?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                self.child = None;
                return Ok(status);
            }
            sleep(LOOK).await;
        }
        bail!("siem-forwarder does not end: {}", self.log()?)
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    /// The URL of a page of the admin port.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// What the admin port answers.
    ///
    /// # Errors
    /// When it does not answer 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        let answer = reqwest::get(self.url(path)).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// The report.
    ///
    /// # Errors
    /// When the admin port does not answer.
    pub async fn status(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&self.get("status").await?)?)
    }

    /// A metric's value: the sum over the series whose line begins so. 0 when there is none.
    ///
    /// # Errors
    /// When the admin port does not answer.
    pub async fn metric(&self, begins: &str) -> Result<f64> {
        let text = self.get("metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with(begins));
        Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }

    /// Lines on the standard output of `render`, for records in this JSON.
    ///
    /// # Errors
    /// When it fails.
    pub fn render(&self, stream: &str, json: &str) -> Result<String> {
        let mut child = Command::new(program("siem-forwarder")?)
            .args(["render", "--stream", stream, "--manifest"])
            .arg(self.manifest())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("write to render")?;
        let json = json.to_owned();
        let writer = std::thread::spawn(move || stdin.write_all(json.as_bytes()));
        let out = child.wait_with_output()?;
        if writer.join().is_err() || !out.status.success() {
            bail!("render ended with {}", out.status);
        }
        Ok(String::from_utf8(out.stdout)?)
    }
}
