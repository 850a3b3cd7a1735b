//! `cargo demo` as people run it: what it shows, what it ends with, and that nothing of it stays.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, program};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The demo waits for a minute at most for each of its steps.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running demo whose temporary files all lie in one folder.
struct Demo {
    child: Child,
    folder: TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        // What has ended cannot be ended again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("siem-demo-").tempdir()?;
        fs::create_dir(folder.path().join("tmp"))?;
        let shown = fs::File::create(folder.path().join("shown"))?;
        let child = Command::new(program("demo")?)
            .arg("--built")
            .args(arguments)
            .env("TMPDIR", folder.path().join("tmp"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .stdin(Stdio::null())
            .stdout(shown.try_clone()?)
            .stderr(shown)
            .spawn()
            .context("start the demo")?;
        Ok(Self { child, folder })
    }

    fn shown(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("shown"))?)
    }

    async fn until_shown(&self, text: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(self.shown()?.contains(text), "`{text}` is not shown: {}", self.shown()?);
            Ok(())
        })
        .await
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Waits for its end; gives the exit code and what it showed, once nothing of it is left.
    async fn ended(mut self) -> Result<(Option<i32>, String)> {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < until, "it does not end: {}", self.shown()?);
            sleep(LOOK).await;
        };
        let tmp = self.folder.path().join("tmp");
        // What it left to others ends a moment later.
        loop {
            let left = (processes_of(&tmp)?, fs::read_dir(&tmp)?.count());
            if left == (Vec::new(), 0) {
                break;
            }
            ensure!(Instant::now() < until, "it left processes and files: {left:?}");
            sleep(LOOK).await;
        }
        Ok((status.code(), self.shown()?))
    }
}

/// Processes that work with files below a folder.
fn processes_of(folder: &Path) -> Result<Vec<String>> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // One that ends while we look is none.
        let line = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&folder) {
            found.push(line);
        }
    }
    Ok(found)
}

/// Produced, delivered, lost and repeated.
fn summary(shown: &str) -> Result<[usize; 4]> {
    let line = shown.lines().find_map(|line| line.strip_prefix("summary: "));
    let words = line.with_context(|| format!("no summary: {shown}"))?.split(", ");
    let figures = words.map(|part| part.rsplit(' ').next().unwrap_or_default().parse());
    let figures: Vec<usize> = figures.collect::<Result<_, _>>()?;
    figures.try_into().map_err(|_| anyhow::anyhow!("{line:?}"))
}

#[tokio::test]
async fn the_whole_job_is_shown_and_a_broken_token_with_it() -> Result<()> {
    let (code, shown) = Demo::start(&["--for", "1s"])?.ended().await?;
    ensure!(code == Some(0), "{code:?}: {shown}");
    let [n_produced, n_delivered, n_lost, _] = summary(&shown)?;
    ensure!(n_produced > 100 && n_delivered == n_produced && n_lost == 0, "{shown}");
    ensure!(shown.contains("|externalId=") || shown.contains(" externalId="), "{shown}");
    // kubectl's own table, in this order.
    let mut rest = shown.as_str();
    for cells in [
        ["soc", "True", "Connected", "Valid"],
        ["soc", "False", "Connected", "Invalid"],
        ["soc", "True", "Connected", "Valid"],
    ] {
        let is_row = |line: &&str| line.split_whitespace().take(4).eq(cells);
        let row = rest.lines().find(is_row).with_context(|| format!("{cells:?}: {shown}"))?;
        rest = rest.split_once(row).map_or("", |(_, rest)| rest);
    }
    // The Events at the end.
    for reason in ["TokenInvalid", "Delivering"] {
        let is_event = |line: &str| line.contains(reason) && line.contains("SiemAgent/soc");
        ensure!(rest.lines().any(is_event), "{reason}: {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn the_short_one_needs_no_kubernetes_and_knows_both_sources() -> Result<()> {
    for source in ["CloudApps", "Graph"] {
        let arguments = ["--standalone", "--source", source, "--for", "3s"];
        let (code, shown) = Demo::start(&arguments)?.ended().await?;
        ensure!(code == Some(0), "{source}, {code:?}: {shown}");
        let [n_produced, n_delivered, n_lost, n_repeated] = summary(&shown)?;
        ensure!(n_produced > 100 && n_delivered == n_produced && n_lost == 0, "{shown}");
        ensure!(n_repeated == 0, "{shown}");
        ensure!(!shown.contains("kubectl"), "{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn the_whole_job_reads_graph_as_well() -> Result<()> {
    let (code, shown) = Demo::start(&["--source", "Graph", "--for", "1s"])?.ended().await?;
    ensure!(code == Some(0), "{code:?}: {shown}");
    let [n_produced, n_delivered, n_lost, _] = summary(&shown)?;
    ensure!(n_produced > 100 && n_delivered == n_produced && n_lost == 0, "{shown}");
    Ok(())
}

#[tokio::test]
async fn control_c_delivers_what_was_produced_and_leaves_nothing() -> Result<()> {
    let demo = Demo::start(&[])?;
    demo.until_shown("a token that the portal refuses").await?;
    demo.signal(Signal::SIGINT)?;
    let (code, shown) = demo.ended().await?;
    ensure!(code == Some(0), "{code:?}: {shown}");
    let [n_produced, n_delivered, n_lost, _] = summary(&shown)?;
    ensure!(n_delivered == n_produced && n_lost == 0, "{shown}");

    // While it begins it ends at once.
    let demo = Demo::start(&[])?;
    demo.until_shown("starting a Kubernetes control plane").await?;
    demo.signal(Signal::SIGINT)?;
    let (code, _) = demo.ended().await?;
    ensure!(code != Some(0), "nothing was shown yet");
    Ok(())
}
