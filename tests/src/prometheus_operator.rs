//! The real CRDs of the Prometheus Operator, from its pinned Go module: what a cluster that has it knows.
//!
//! Nothing of it is run or copied into this repository; the module's digest is compared before a file is used.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

const MODULE: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
const SUM: &str = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=";
const KINDS: [&str; 2] = ["podmonitors", "prometheusrules"];

/// The files of the CRDs that the chart makes objects of.
///
/// # Errors
/// When Go is missing or the module is not what it was.
pub async fn crds() -> Result<Vec<PathBuf>> {
    let folder = tempfile::tempdir()?;
    let out = Command::new("go")
        .args(["mod", "download", "-json", MODULE])
        // Outside of any module.
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .context("run go, which the CRDs of the Prometheus Operator come by: install Go 1.26 from https://go.dev/dl")?;
    let answer: Value = serde_json::from_slice(&out.stdout).with_context(|| {
        format!("go mod download {MODULE}: {}", String::from_utf8_lossy(&out.stderr))
    })?;
    ensure!(answer["Sum"] == SUM, "{MODULE} is not what it was: {answer}");
    let folder = answer["Dir"].as_str().context("go mod download names no folder")?;
    let file = |kind| {
        let name = format!("monitoring.coreos.com_{kind}.yaml");
        PathBuf::from(folder).join("example/prometheus-operator-crd").join(name)
    };
    Ok(KINDS.map(file).to_vec())
}
