//! The chart's files beside those that they are made from, and what is made from the chart.
//!
//! `UPDATE_EXPECT=1` rewrites the copies, the table in the chart's README and the plain manifests in `deploy/`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;
use siem_agent_sim::helm::{CHART, Helm};

use super::values::{chart, keys, parsed, pointer, read, schema};

const TABLE: [&str; 2] = ["<!-- values -->\n", "<!-- /values -->\n"];
/// Objects that other keys' objects have besides those of `values.yaml`.
const OPEN: [&str; 1] = ["global"];
const NAMESPACE: &str = "siem-system";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
fn expect(path: &Path, text: &str) {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let is = fs::read_to_string(path).unwrap_or_default();
    let line = is.lines().zip(text.lines()).position(|(is, shall)| is != shall);
    let line = line.unwrap_or_else(|| is.lines().count().min(text.lines().count())) + 1;
    let path = path.display();
    assert!(
        is == text,
        "{path} differs from what it is made from at line {line}; UPDATE_EXPECT=1 rewrites it"
    );
}

#[test]
fn crd_and_rules_are_the_crates_own() {
    let pairs = [
        ("crds/siemagents.yaml", "files/crds/siemagents.yaml"),
        ("operator/rbac.yaml", "files/rbac.yaml"),
        ("operator/rbac-sidecars.yaml", "files/rbac-sidecars.yaml"),
    ];
    for (from, to) in pairs {
        expect(&chart().join(to), &read(root().join(from)));
    }
}

#[test]
fn crates_images_and_chart_have_one_version() {
    let text = read(chart().join("Chart.yaml"));
    let about: Value = serde_saphyr::from_str(&text).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(about["version"], version);
    assert_eq!(about["appVersion"], version);
    let images = about["annotations"]["artifacthub.io/images"].as_str().unwrap();
    let images: Vec<Value> = serde_saphyr::from_str(images).unwrap();
    let names: Vec<_> = images.iter().map(|image| image["image"].as_str().unwrap()).collect();
    for program in ["siem-operator", "siem-forwarder"] {
        let name = format!("ghcr.io/siem-agent-operator/{program}:{version}");
        assert!(names.contains(&name.as_str()), "{names:?}");
    }
    for annotation in ["crds", "crdsExamples", "changes", "links"] {
        let text = about["annotations"][format!("artifacthub.io/{annotation}")].as_str().unwrap();
        let _: Vec<Value> = serde_saphyr::from_str(text).unwrap();
    }
}

#[test]
fn every_value_has_words_a_default_and_a_place_in_the_schema() {
    let (values, schema) = (parsed(), schema());
    let keys = keys();
    for key in &keys {
        let path = &key.path;
        assert!(key.words.len() > 8, "{path} has no comment above it");
        let is = values.pointer(&pointer(path, "")).unwrap_or_else(|| panic!("{path}"));
        if let Some(default) = &key.default {
            let written: Value = serde_saphyr::from_str(default).unwrap();
            assert_eq!(*is, written, "{path} is not on one line");
        } else {
            assert!(is.is_object(), "{path} has neither a default nor keys below it");
        }
        let place = schema.pointer(&pointer(path, "/properties"));
        let place = place.unwrap_or_else(|| panic!("values.schema.json does not know {path}"));
        if key.default.is_none() {
            let is_closed =
                place["additionalProperties"] == Value::Bool(OPEN.contains(&path.as_str()));
            assert!(is_closed, "{path} lets unknown keys through");
        }
    }
    assert_eq!(schema["additionalProperties"], false);
    let known: Vec<&str> = keys.iter().map(|key| key.path.as_str()).collect();
    each_property(&schema, "", &|path| {
        assert!(known.contains(&path), "values.yaml does not have {path}");
    });
}

fn each_property(schema: &Value, above: &str, with: &impl Fn(&str)) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        with(&path);
        each_property(below, &path, with);
    }
}

#[test]
fn the_readme_lists_every_value() {
    let mut table = String::from("| value | what it is | default |\n| --- | --- | --- |\n");
    for key in keys() {
        let words = key.words.replace('|', "\\|");
        let default = key.default.map_or_else(String::new, |default| format!("`{default}`"));
        writeln!(table, "| `{}` | {words} | {default} |", key.path).unwrap();
    }
    let path = chart().join("README.md");
    let readme = read(&path);
    let [begin, end] = TABLE;
    let (before, rest) = readme.split_once(begin).expect("the README has a place for the table");
    let (_, after) = rest.split_once(end).expect("the table has an end");
    expect(&path, &format!("{before}{begin}{table}{end}{after}"));
}

/// What `kubectl apply -f` takes: the chart's defaults without what only Helm needs.
#[tokio::test]
async fn the_plain_manifests_are_the_charts() -> Result<()> {
    let helm = Helm::new(None).await?;
    let render =
        ["template", "siem-agent-operator", CHART, "--namespace", NAMESPACE, "--skip-tests"];
    let plain = [&render[..], &["--set", "crds.keep=false"]].concat();
    let mut install = format!(
        "# siem-agent-operator {version}, rendered from the chart with its defaults: kubectl apply --server-side -f install.yaml\n\
         # For other values render it anew: kubectl create namespace {NAMESPACE}, and\n\
         #   helm template siem-agent-operator charts/siem-agent-operator --namespace {NAMESPACE} --skip-tests\n\
         apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    \
         pod-security.kubernetes.io/enforce: restricted\n",
        version = env!("CARGO_PKG_VERSION")
    );
    for line in helm.run(&plain).await?.lines() {
        let is_helms = ["# Source:", "helm.sh/chart:", "app.kubernetes.io/managed-by: Helm"]
            .iter()
            .any(|helms| line.trim_start().starts_with(helms));
        if !is_helms {
            install.push_str(line);
            install.push('\n');
        }
    }
    expect(&root().join("deploy/install.yaml"), &install.replace("\n\n---\n", "\n---\n"));
    Ok(())
}
