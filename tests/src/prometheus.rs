//! A real Prometheus, Debian's Alertmanager, their tools, and a receiver of what Alertmanager sends.
//!
//! Prometheus is built from its pinned module, because Debian's finds no pods; Alertmanager's module lacks the pages that
//! it is built with, so `tests/run` unpacks Debian's below the target folder, and no daemon is ever started by an
//! installation. They must never listen on anything but loopback, nor find each other by gossip.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::installed::installed;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, free_port};
use siem_agent_sim::leash::{self, Leashed};
use siem_agent_sim::programs::programs;

/// Debian's Alertmanager looks for its templates in `/usr/share`, where nothing was installed: it gets its own, in a mount
/// namespace that nobody else sees.
const WITH_ITS_SHARE: &str = r#"mount --bind "$1" /usr/share; shift; exec "$@""#;

/// Runs `promtool` to its end, and gives what it printed.
///
/// # Errors
/// When it cannot be built, or ends with another code than 0; with what it said.
pub async fn promtool(arguments: &[&str]) -> Result<String> {
    promtool_reads("", arguments).await
}

/// Runs `promtool` to its end with this on its standard input, and gives what it printed.
///
/// # Errors
/// When it cannot be built, or ends with another code than 0; with what it said.
pub async fn promtool_reads(input: &str, arguments: &[&str]) -> Result<String> {
    let [program] = programs(["promtool"]).await?;
    tool(&program, input, arguments)
}

/// Has a program's admin port show its metrics in both forms, as they are asked for, and `promtool` read the text form.
///
/// # Errors
/// When a form is another one than was asked for, or `promtool` finds anything to say about the metrics.
pub async fn check_metrics(url: &str) -> Result<()> {
    let client = reqwest::Client::new();
    let show = async |accept: &str| -> Result<(String, String)> {
        let answer = client.get(url).header("accept", accept).send().await?.error_for_status()?;
        let kind = answer.headers().get("content-type").context("a Content-Type")?;
        Ok((kind.to_str()?.to_owned(), answer.text().await?))
    };
    for accept in ["*/*", "text/plain", "application/openmetrics-text;q=0.1,text/plain"] {
        let (kind, text) = show(accept).await?;
        ensure!(kind == "text/plain; version=0.0.4; charset=utf-8", "{accept}: {kind}");
        ensure!(!text.contains("# EOF") && !text.contains("# UNIT"), "{accept}: {text}");
        let said = promtool_reads(&text, &["check", "metrics"]).await?;
        ensure!(said.trim().is_empty(), "promtool says of {url}: {said}");
    }
    for accept in ["application/openmetrics-text", "application/openmetrics-text,text/plain;q=0.5"]
    {
        let (kind, text) = show(accept).await?;
        let open = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ensure!(kind == open && text.ends_with("# EOF\n"), "{accept}: {kind}: {text}");
    }
    Ok(())
}

/// Runs `amtool` to its end, and gives what it printed.
///
/// # Errors
/// When it is not there, or ends with another code than 0; with what it said.
pub fn amtool(arguments: &[&str]) -> Result<String> {
    tool(&debians("bin/amtool")?, "", arguments)
}

fn tool(program: &Path, input: &str, arguments: &[&str]) -> Result<String> {
    let name = program.display();
    let mut given = tempfile::tempfile().context("make a file for the input")?;
    given.write_all(input.as_bytes())?;
    given.rewind()?;
    let out = Command::new(program)
        .args(arguments)
        .stdin(given)
        .output()
        .with_context(|| format!("start {name}"))?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.success(), "{name} {arguments:?}: {said}");
    Ok(said)
}

fn debians(path: &str) -> Result<PathBuf> {
    installed(&format!("alertmanager/usr/{path}"))
}

/// A series of an instant query's answer: its labels, and its value.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The labels, `__name__` among them where it is kept.
    pub labels: Value,
    /// The value.
    pub value: f64,
}

/// A running Prometheus; it ends with this value.
#[derive(Debug)]
pub struct Prometheus {
    served: Served,
}

impl Prometheus {
    /// Starts it with a configuration, which may name files of the folder where it runs, and these files.
    ///
    /// # Errors
    /// When it is not installed, does not take its configuration, or is not ready in time.
    pub async fn start(configuration: &Value, files: &[(&str, &str)]) -> Result<Self> {
        let [program] = programs(["prometheus"]).await?;
        let served = Served::start(
            Command::new(program),
            configuration,
            files,
            &["--web.listen-address", "--config.file", "--storage.tsdb.path"],
            &["--log.level=warn"],
        )
        .await?;
        Ok(Self { served })
    }

    /// Replaces a file of its folder at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        let next = self.served.folder.path().join(format!(".{name}.next"));
        fs::write(&next, content)?;
        Ok(fs::rename(next, self.served.folder.path().join(name))?)
    }

    /// An instant query.
    ///
    /// # Errors
    /// When it does not answer, or refuses the expression; with its words.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let answer = self.get("query", &[("query", expression)]).await?;
        let answer = answer.with_context(|| format!("query {expression}"))?;
        let result = match answer["resultType"].as_str() {
            Some("vector") => answer["result"].as_array().cloned().unwrap_or_default(),
            Some("scalar") => vec![json!({"metric": {}, "value": answer["result"]})],
            other => bail!("{expression} has the type {other:?}"),
        };
        let samples = result.iter().map(|series| {
            let value = series["value"][1].as_str().and_then(|value| value.parse().ok());
            let value = value.with_context(|| format!("read the value of {series}"))?;
            Ok(Sample { labels: series["metric"].clone(), value })
        });
        samples.collect()
    }

    /// The alerts that fire or wait, with their labels and their `state`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn alerts(&self) -> Result<Vec<Value>> {
        let answer = self.get("alerts", &[]).await??;
        Ok(answer["alerts"].as_array().cloned().unwrap_or_default())
    }

    /// The rules as it has loaded them, by the name of the alert.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn rules(&self) -> Result<Vec<Value>> {
        let answer = self.get("rules", &[]).await??;
        let groups = answer["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().filter_map(|group| group["rules"].as_array().cloned());
        Ok(rules.flatten().collect())
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.served.log()
    }

    /// The answer's data, or the refusal.
    async fn get(&self, what: &str, arguments: &[(&str, &str)]) -> Result<Result<Value>> {
        let query =
            form_urlencoded::Serializer::new(String::new()).extend_pairs(arguments).finish();
        let url = format!("{}/api/v1/{what}?{query}", self.served.url());
        let answer: Value = reqwest::get(url).await?.json().await?;
        if answer["status"] == "success" {
            return Ok(Ok(answer["data"].clone()));
        }
        Ok(Err(anyhow::anyhow!("{}", answer["error"].as_str().unwrap_or_default())))
    }
}

/// A running Alertmanager; it ends with this value.
#[derive(Debug)]
pub struct Alertmanager {
    served: Served,
}

impl Alertmanager {
    /// Starts it with a configuration.
    ///
    /// # Errors
    /// When it is not installed, does not take its configuration, or is not ready in time.
    pub async fn start(configuration: &Value) -> Result<Self> {
        let mut program = Command::new("unshare");
        program
            .args(["--user", "--map-root-user", "--mount", "sh", "-ec", WITH_ITS_SHARE, "sh"])
            .arg(debians("share")?)
            .arg(debians("bin/prometheus-alertmanager")?);
        let served = Served::start(
            program,
            configuration,
            &[],
            &["--web.listen-address", "--config.file", "--storage.path"],
            &["--log.level=warn", "--cluster.listen-address="],
        )
        .await?;
        Ok(Self { served })
    }

    /// Where it is, as Prometheus wants it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.served.port)
    }

    /// Hands it alerts by their labels, as Prometheus does.
    ///
    /// # Errors
    /// When it does not take them.
    pub async fn post(&self, labels: &[Value]) -> Result<()> {
        let alerts: Vec<_> = labels.iter().map(|labels| json!({"labels": labels})).collect();
        let url = format!("{}/api/v2/alerts", self.served.url());
        reqwest::Client::new().post(url).json(&alerts).send().await?.error_for_status()?;
        Ok(())
    }

    /// The alerts that it would tell, by their labels: neither silenced nor inhibited.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn active(&self) -> Result<Vec<Value>> {
        let url = format!("{}/api/v2/alerts?active=true&inhibited=false", self.served.url());
        let alerts: Vec<Value> = reqwest::get(url).await?.json().await?;
        Ok(alerts.into_iter().map(|alert| alert["labels"].clone()).collect())
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.served.log()
    }
}

/// A program with a port, a configuration and a folder.
#[derive(Debug)]
struct Served {
    process: Leashed,
    folder: TempDir,
    port: u16,
}

impl Served {
    async fn start(
        mut program: Command,
        configuration: &Value,
        files: &[(&str, &str)],
        [listen, config, storage]: &[&str; 3],
        more: &[&str],
    ) -> Result<Self> {
        // Another test of the process may have been first; without any, no client can be made.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::Builder::new().prefix("siem-prometheus-").tempdir()?;
        leash::folder(folder.path())?;
        for (name, content) in files {
            fs::write(folder.path().join(name), content)?;
        }
        // JSON is YAML.
        fs::write(folder.path().join("configuration.yaml"), configuration.to_string())?;
        let port = free_port()?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let process = Leashed::spawn(
            program
                .arg(format!("{listen}=127.0.0.1:{port}"))
                .arg(format!("{config}={}", at("configuration.yaml")))
                .arg(format!("{storage}={}", at("data")))
                .args(more)
                .current_dir(folder.path())
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .stdout(Stdio::null())
                .stderr(File::create(folder.path().join("log"))?),
        )?;
        let mut served = Self { process, folder, port };
        let until = Instant::now() + PATIENCE;
        let ready = format!("{}/-/ready", served.url());
        while !reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()) {
            if Instant::now() > until || served.process.ended()?.is_some() {
                bail!("{program:?} is not ready: {}", served.log());
            }
            sleep(LOOK).await;
        }
        Ok(served)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// One alert of a notification.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// Its name.
    pub alert: String,
    /// The agent's name; empty where the alert is about none.
    pub name: String,
    /// Its severity.
    pub severity: String,
    /// Whether it fires; else it is over.
    pub fires: bool,
}

/// Receives what Alertmanager sends, as a pager would; it ends with this value.
#[derive(Debug)]
pub struct Pager {
    address: SocketAddr,
    told: Arc<Mutex<Vec<(Told, Value)>>>,
    task: JoinHandle<()>,
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Inbox = Arc<Mutex<Vec<(Told, Value)>>>;

impl Pager {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When loopback gives none.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let told = Inbox::default();
        let routes = Router::new().route("/", post(take)).with_state(Arc::clone(&told));
        let task = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, told, task })
    }

    /// Where Alertmanager is to send to.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Everything that was sent so far, in order.
    pub fn told(&self) -> Vec<Told> {
        self.lock().iter().map(|(told, _)| told.clone()).collect()
    }

    /// The annotations of the first notification of an alert.
    pub fn annotations(&self, alert: &str) -> Option<Value> {
        let told = self.lock();
        let first = told.iter().find(|(told, _)| told.alert == alert);
        first.map(|(_, alert)| alert["annotations"].clone())
    }

    /// Waits until this has been told.
    ///
    /// # Errors
    /// When it is not in time, with what was told instead.
    pub async fn until_told(&self, alert: &str, name: &str, fires: bool) -> Result<()> {
        let until = Instant::now() + 2 * PATIENCE;
        let is_meant =
            |told: &Told| told.alert == alert && told.name == name && told.fires == fires;
        while !self.told().iter().any(is_meant) {
            let verb = if fires { "fires" } else { "is over" };
            ensure!(
                Instant::now() < until,
                "{alert} of {name} is not told that it {verb}: {:#?}",
                self.told()
            );
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Told, Value)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn take(State(inbox): State<Inbox>, Json(notification): Json<Value>) {
    let alerts = notification["alerts"].as_array().cloned().unwrap_or_default();
    let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
    for alert in alerts {
        let label = |name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
        let told = Told {
            alert: label("alertname"),
            name: label("name"),
            severity: label("severity"),
            fires: alert["status"] == "firing",
        };
        inbox.push((told, alert));
    }
}
