//! `values.yaml`, read line by line with the comment above each key, so that schema, README and values cannot differ.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A key with what stands above it and behind it.
#[derive(Debug)]
pub(crate) struct Key {
    /// `image.tag`.
    pub(crate) path: String,
    /// The comment above it.
    pub(crate) words: String,
    /// Its default as written; `None` where other keys follow below it.
    pub(crate) default: Option<String>,
}

pub(crate) fn chart() -> PathBuf {
    PathBuf::from(siem_agent_sim::helm::CHART)
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// Every key of `values.yaml`, in its order.
pub(crate) fn keys() -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    let mut parents: Vec<String> = Vec::new();
    let text = read(chart().join("values.yaml"));
    for line in text.lines() {
        let inner = line.trim_start();
        if inner.is_empty() {
            above.clear();
        } else if let Some(words) = inner.strip_prefix('#') {
            above.push(words.trim());
        } else {
            let (name, default) = inner.split_once(':').unwrap_or_else(|| panic!("{line}"));
            assert!(name.chars().all(char::is_alphanumeric), "a key on each line: {line}");
            parents.truncate((line.len() - inner.len()) / 2);
            parents.push(name.to_owned());
            let default = Some(default.trim().to_owned()).filter(|default| !default.is_empty());
            keys.push(Key { path: parents.join("."), words: above.join(" "), default });
            above.clear();
        }
    }
    keys
}

/// The values as YAML has them.
pub(crate) fn parsed() -> Value {
    serde_saphyr::from_str(&read(chart().join("values.yaml"))).unwrap()
}

pub(crate) fn schema() -> Value {
    serde_json::from_str(&read(chart().join("values.schema.json"))).unwrap()
}

/// `/image/tag`, with what stands between two names.
pub(crate) fn pointer(path: &str, between: &str) -> String {
    path.split('.').map(|name| format!("{between}/{name}")).collect()
}
