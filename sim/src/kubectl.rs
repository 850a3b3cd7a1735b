//! The real kubectl, as one user of the control plane.
//!
//! It must never read or write anything of the person who runs the tests: kubeconfig and caches are the control plane's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// kubectl with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub(crate) program: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) cache: PathBuf,
}

/// What one call said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whether it ended with 0.
    pub ok: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Kubectl {
    /// Where it lies.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command that is not started yet, for calls that go on for long.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", &self.cache)
            // `kubectl diff` runs diff.
            .env("PATH", "/usr/bin:/bin")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs it with this on its standard input.
    ///
    /// # Errors
    /// When it cannot be run; not when it refuses.
    pub async fn say(&self, arguments: &[&str], stdin: &str) -> Result<Said> {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        let mut input = child.stdin.take().context("write to kubectl")?;
        let stdin = stdin.to_owned();
        let write = async move {
            // kubectl need not read what it is given.
            let _ = input.write_all(stdin.as_bytes()).await;
        };
        let (out, ()) = tokio::join!(child.wait_with_output(), write);
        let out = out?;
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
    pub async fn run(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let said = self.say(arguments, stdin).await?;
        if !said.ok {
            // What ran in a container says on standard output why it failed.
            let (out, err) = (said.stdout, said.stderr.trim_end());
            bail!("kubectl {}: {out}{err}", arguments.join(" "));
        }
        Ok(said.stdout)
    }

    /// Runs what must be refused and gives its standard error.
    ///
    /// # Errors
    /// When it ends with 0.
    pub async fn refused(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let said = self.say(arguments, stdin).await?;
        if said.ok {
            bail!("kubectl {} was not refused: {}", arguments.join(" "), said.stdout.trim_end());
        }
        Ok(said.stderr)
    }
}
