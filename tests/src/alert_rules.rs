//! The alerts of the chart: rendered by the real Helm with values, and read as Prometheus reads them.
//!
//! Separate from Prometheus, because they are files of this project. It must never expand a template itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use siem_agent_sim::helm::{CHART, Helm};

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

/// The rule file that the chart has for an operator in this namespace, with these values and arguments of Helm besides.
///
/// # Errors
/// When Helm does not render it, with its words.
pub async fn render(namespace: &str, values: &Value, more: &[&str]) -> Result<String> {
    let helm = Helm::new(None).await?;
    let [option, path] = helm.values("rules", values)?;
    let rule = ["--show-only", "templates/prometheusrule.yaml"];
    let always = ["--set", "monitoring.renderMode=alwaysRender", "--namespace", namespace];
    let begin = ["template", "siem-agent-operator", CHART, option.as_str(), path.as_str()];
    let rendered = helm.run(&[&begin[..], &rule, &always, more].concat()).await?;
    let (_, spec) = rendered.split_once("\nspec:\n").context("helm renders no rules")?;
    let lines = spec.trim_end().lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
    Ok(lines.fold(String::new(), |text, line| text + line + "\n"))
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
