//! Where the Kubernetes programs lie: asks `sim/programs/build`, which builds what is missing and says so as it goes.
//!
//! Separate because the control plane, kubectl, KWOK and Helm all come from there. It must never look for a program in
//! the PATH: only the pinned versions are tested.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// The paths of these programs, in the same order.
///
/// # Errors
/// When one cannot be built; what was said about it stands on standard error.
pub async fn programs<const N: usize>(names: [&str; N]) -> Result<[PathBuf; N]> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/build");
    let out = Command::new(&build)
        .args(names)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .context("run sim/programs/build")?;
    ensure!(out.status.success(), "sim/programs/build ended with {}", out.status);
    let out = String::from_utf8(out.stdout)?;
    let paths: Vec<PathBuf> = out
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, path)| PathBuf::from(path))
        .collect();
    paths.try_into().map_err(|_| anyhow::anyhow!("sim/programs/build printed: {out}"))
}
