//! The real Helm, as one user of the control plane, and the chart of this project.
//!
//! It must never read or write anything of the person who runs the tests: kubeconfig, caches and settings are its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::kubectl::Said;
use crate::leash;
use crate::programs::programs;

/// The chart as it is committed.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/siem-agent-operator");

/// Helm with a kubeconfig, or without one for what needs no cluster.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: TempDir,
}

impl Helm {
    /// Finds the program, building it where it is missing.
    ///
    /// # Errors
    /// When it cannot be built.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self> {
        let [program] = programs(["helm"]).await?;
        let home = tempfile::Builder::new().prefix("siem-helm-").tempdir()?;
        leash::folder(home.path())?;
        Ok(Self { program, kubeconfig: kubeconfig.map(Path::to_owned), home })
    }

    /// Its folder, for values and copies of charts.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Writes values into a file and gives the arguments that use it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn values(&self, name: &str, values: &Value) -> Result<[String; 2]> {
        let path = self.folder().join(format!("{}.json", name.replace(' ', "-")));
        std::fs::write(&path, values.to_string())
            .with_context(|| format!("write {}", path.display()))?;
        Ok(["--values".to_owned(), path.display().to_string()])
    }

    /// Runs it.
    ///
    /// # Errors
    /// When it cannot be run; not when it refuses.
    pub async fn say<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Said> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments.iter().map(AsRef::as_ref))
            .env_clear()
            .env("HOME", self.folder())
            // Where `helm test` finds nothing else either.
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let out = command.output().await.context("start helm")?;
        Ok(Said {
            ok: out.status.success(),
            stdout: String::from_utf8(out.stdout)?,
            stderr: String::from_utf8(out.stderr)?,
        })
    }

    /// Runs it and gives its standard output.
    ///
    /// # Errors
    /// When it ends with another code than 0, with what it said.
    pub async fn run<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        let said = self.say(arguments).await?;
        if !said.ok {
            bail!("helm {}: {}{}", words(arguments), said.stdout, said.stderr.trim_end());
        }
        Ok(said.stdout)
    }

    /// Runs what must be refused and gives its standard error.
    ///
    /// # Errors
    /// When it ends with 0.
    pub async fn refused<S: AsRef<str>>(&self, arguments: &[S]) -> Result<String> {
        let said = self.say(arguments).await?;
        if said.ok {
            bail!("helm {} was not refused: {}", words(arguments), said.stdout.trim_end());
        }
        Ok(said.stderr)
    }
}

/// The objects of a text of many documents.
///
/// # Errors
/// When it is not YAML.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml)
        .with_context(|| format!("read what helm rendered: {yaml}"))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn words<S: AsRef<str>>(arguments: &[S]) -> String {
    arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}
