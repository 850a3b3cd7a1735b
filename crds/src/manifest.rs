//! Reads a `SiemAgent` manifest offline, and refuses what the API server would refuse.
//!
//! The same steps as the server's, in the same order: nulls are pruned, defaults filled in, unknown fields refused (as
//! `kubectl apply --validate=strict` does), then the schema, then the rules. All problems are reported, not the first alone.

mod beyond;
mod condition;
pub(crate) mod quote;
mod schema_walk;
mod weight;

use std::fmt;
use std::sync::OnceLock;

use kube_cel::Validator;
use serde_json::{Map, Value};

use crate::schema;
use crate::siem_agent::SiemAgent;

pub use beyond::{filters, server_name};
pub use weight::{MAX_RAW_BYTES, MAX_RAW_LEVELS, MAX_SPEC_BYTES, too_large};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Dotted path, such as `spec.syslog.port`; empty for the whole text.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problem {
    /// A problem at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Problems {
    pub(crate) fn one(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self(vec![Problem::new(path, message)])
    }
}

/// What holds an object against the schema, made once: that takes longer than using it.
#[expect(clippy::expect_used, reason = "the schema is this crate's own, and every test uses it")]
fn schema_validator() -> &'static jsonschema::Validator {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        jsonschema::validator_for(object_schema()).expect("the CRD's schema is a JSON schema")
    })
}

/// The schema of one object, made once.
fn object_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(schema::object_schema)
}

/// Reads YAML or JSON with one `SiemAgent`; documents of other kinds beside it are left alone.
///
/// # Errors
/// [`Problems`]: each names the field and what would be right.
pub fn read(text: &str) -> Result<SiemAgent, Problems> {
    let documents: Vec<Value> = serde_saphyr::from_str_multiple(text).map_err(|error| {
        Problems::one(
            "",
            format!("this is not YAML: {}", quote::yaml_error(&error.to_string(), text)),
        )
    })?;
    let mut agents = documents
        .into_iter()
        .filter(|document| document.get("kind").and_then(Value::as_str) == Some("SiemAgent"));
    let Some(agent) = agents.next() else {
        return Err(Problems::one("kind", "there is no document of kind SiemAgent"));
    };
    if agents.next().is_some() {
        return Err(Problems::one("kind", "there are several SiemAgents; give one at a time"));
    }
    from_value(agent)
}

fn from_value(mut agent: Value) -> Result<SiemAgent, Problems> {
    let mut problems = Vec::new();
    if agent.get("apiVersion").and_then(Value::as_str) != Some("siemagent.dev/v1alpha1") {
        problems.push(Problem::new("apiVersion", "must be siemagent.dev/v1alpha1"));
    }
    if let Value::Object(agent) = &mut agent {
        // The server takes no status from a manifest either.
        agent.remove("status");
    }
    for map in ["/metadata/labels", "/metadata/annotations"] {
        if let Some(Value::Object(map)) = agent.pointer_mut(map) {
            map.retain(|_, value| !value.is_null());
        }
    }
    let schema = object_schema();
    schema_walk::default_and_prune(schema, &mut agent);
    schema_walk::unknown_fields(schema, &agent, "", &mut problems);
    schema_walk::duplicates(schema, &agent, "", &mut problems);
    metadata(agent.get("metadata"), &mut problems);
    schema_walk::validate(schema_validator(), schema, &agent, &mut problems);
    problems.sort();
    // A value of the wrong type breaks every rule of its field; the first one says enough.
    problems.dedup_by(|other, first| other.path == first.path);
    if problems.is_empty()
        && let Err(broken) = Validator::new().validate(schema, &agent, None)
    {
        problems.extend(
            broken.as_slice().iter().map(|error| Problem::new(&error.field_path, &error.message)),
        );
    }
    if !problems.is_empty() {
        problems.sort();
        problems.dedup();
        return Err(Problems(problems));
    }
    if let Some(problem) = agent.get("spec").and_then(too_large) {
        return Err(Problems(vec![problem]));
    }
    // As the watches read it; what the schema and the rules let through has this type.
    serde_json::from_value(agent).map_err(|error| Problems::one("", error.to_string()))
}

/// What the server knows of metadata; a manifest may carry more than a person writes, such as a `uid`.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

fn metadata(metadata: Option<&Value>, problems: &mut Vec<Problem>) {
    let empty = Map::new();
    let metadata = metadata.and_then(Value::as_object).unwrap_or(&empty);
    for key in metadata.keys().filter(|key| !METADATA.contains(&key.as_str())) {
        problems.push(Problem::new(format!("metadata.{}", quote::name(key)), "unknown field"));
    }
    match metadata.get("name").and_then(Value::as_str) {
        Some(name) if is_dns_name(name, 253) => {}
        Some(_) => problems.push(Problem::new(
            "metadata.name",
            "must be lower case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
        )),
        None => problems.push(Problem::new("metadata.name", "is required")),
    }
    if let Some(namespace) = metadata.get("namespace")
        && !namespace.as_str().is_some_and(|name| is_dns_name(name, 63) && !name.contains('.'))
    {
        problems
            .push(Problem::new("metadata.namespace", "must be lower case letters, digits and `-`"));
    }
    for field in ["labels", "annotations"] {
        let Some(map) = metadata.get(field).filter(|map| !map.is_null()) else { continue };
        match map.as_object() {
            Some(map) if map.values().all(Value::is_string) => {}
            _ => problems.push(Problem::new(format!("metadata.{field}"), "must be a map of texts")),
        }
    }
}

fn is_dns_name(name: &str, max: usize) -> bool {
    let inner = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    name.len() <= max
        && !name.is_empty()
        && name.split('.').all(|label| {
            label.starts_with(inner)
                && label.ends_with(inner)
                && label.chars().all(|char| inner(char) || char == '-')
        })
}
