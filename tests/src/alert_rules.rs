//! The alerts of the chart: rendered by the real Helm with values, and read as Prometheus reads them.
//!
//! Separate from Prometheus, because they are files of this project. It must never expand a template itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::programs::programs;

/// A file of this repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The text of a file of this repository.
///
/// # Errors
/// When it is not there.
pub fn text(path: &str) -> Result<String> {
    fs::read_to_string(file(path)).with_context(|| format!("read {path}"))
}

/// A YAML or JSON file of this repository.
///
/// # Errors
/// When it is not there, or is none.
pub fn document(path: &str) -> Result<Value> {
    serde_saphyr::from_str(&text(path)?).with_context(|| format!("read {path}"))
}

/// The rule file for an operator in this namespace, with these values instead of the default ones.
///
/// # Errors
/// When Helm does not render it, with its words.
pub async fn render(namespace: &str, values: &Value) -> Result<String> {
    let [helm] = programs(["helm"]).await?;
    let folder = tempfile::tempdir()?;
    let chart = folder.path().join("chart");
    fs::create_dir_all(chart.join("templates"))?;
    fs::create_dir(chart.join("files"))?;
    fs::write(
        chart.join("Chart.yaml"),
        "{apiVersion: v2, name: siem-agent-operator, version: 0.1.0}",
    )?;
    fs::write(
        chart.join("values.yaml"),
        "{monitoring: {rules: {runbookUrl: 'https://github.com/siem-agent-operator/siem-agent-operator/blob/main/docs/runbooks'}}}",
    )?;
    fs::write(
        chart.join("files/alerts.yaml"),
        text("charts/siem-agent-operator/files/alerts.yaml")?,
    )?;
    fs::write(
        chart.join("templates/rules.yaml"),
        "{{ tpl (.Files.Get \"files/alerts.yaml\") . }}",
    )?;
    let given = folder.path().join("values.json");
    fs::write(&given, values.to_string())?;
    let out = Command::new(helm)
        .args(["template", "siem-agent-operator"])
        .arg(&chart)
        .args(["--namespace", namespace, "--values"])
        .arg(&given)
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .context("start helm")?;
    ensure!(out.status.success(), "helm template: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout)?;
    let begin = text.find("groups:").context("helm renders no groups")?;
    Ok(format!("{}\n", text[begin..].trim_end()))
}

/// Every rule of a rule file, in order.
///
/// # Errors
/// When it is no rule file.
pub fn rules(text: &str) -> Result<Vec<Value>> {
    let document: Value = serde_saphyr::from_str(text).context("read the rules")?;
    let groups = document["groups"].as_array().cloned().context("read the groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array().cloned());
    Ok(rules.flatten().collect())
}
