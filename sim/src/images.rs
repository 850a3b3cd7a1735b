//! The images of both programs: asks `images/build`, which builds what has changed and says so as it goes.
//!
//! Separate because the tests of the images, of the chart and of the real node all run what ships, and only that.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// OCI archives, and the names under which a node knows the images once they are imported.
#[derive(Clone, Debug)]
pub struct Images {
    /// The archive of the operator.
    pub operator: PathBuf,
    /// Its name.
    pub operator_name: String,
    /// The archive of the forwarder.
    pub forwarder: PathBuf,
    /// Its name.
    pub forwarder_name: String,
}

impl Images {
    /// The images of this checkout.
    ///
    /// # Errors
    /// When they cannot be built; what was said about it stands on standard error.
    pub async fn build() -> Result<Self> {
        Self::build_with(&[]).await
    }

    /// The same, with these arguments of `images/build`.
    ///
    /// # Errors
    /// As [`Images::build`].
    pub async fn build_with(arguments: &[&str]) -> Result<Self> {
        let out = Command::new(script())
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .await
            .context("run images/build")?;
        ensure!(out.status.success(), "images/build ended with {}", out.status);
        let out = String::from_utf8(out.stdout)?;
        let built = |program: &str| {
            let line = out.lines().find_map(|line| line.strip_prefix(program)?.strip_prefix(' '));
            let (archive, name) = line.and_then(|line| line.rsplit_once(' '))?;
            Some((PathBuf::from(archive), name.to_owned()))
        };
        let missing = || format!("images/build printed: {out}");
        let (operator, operator_name) = built("siem-operator").with_context(missing)?;
        let (forwarder, forwarder_name) = built("siem-forwarder").with_context(missing)?;
        Ok(Self { operator, operator_name, forwarder, forwarder_name })
    }
}

/// A program as its image holds it: where `images/build` has put it.
///
/// # Errors
/// When the images cannot be built.
pub async fn shipped(program: &str) -> Result<PathBuf> {
    let images = Images::build().await?;
    let target = images.operator.ancestors().nth(2).context("find the target folder")?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(target.join(triple).join("dist").join(program))
}

/// `images/build` of this checkout.
#[must_use]
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/build")
}
