//! Reads a CRD's schema as a list of nodes, and makes for each the manifests that break what it demands.
//!
//! So each demand of a single field is tested once, and none can be added without its case. Kubernetes' own types below
//! `spec.forwarder` are not walked into: the server checks pods itself.

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

const FOREIGN: [&str; 3] =
    ["spec.forwarder.affinity", "spec.forwarder.resources", "spec.forwarder.tolerations"];

/// A place in the schema.
#[derive(Clone, Debug)]
pub struct Node {
    /// Dotted; `[]` after a list stands for any of its items; empty for the root.
    pub path: String,
    /// Whether its parent demands it.
    pub required: bool,
    schema: Value,
}

/// A manifest that breaks one demand.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The field that is to be named.
    pub path: String,
    /// The demand.
    pub demand: &'static str,
    /// The manifest.
    pub manifest: Value,
}

/// Every node of `spec` and `status`, and the root.
pub fn nodes(schema: &Value) -> Vec<Node> {
    let mut found = Vec::new();
    walk(schema, "", false, &mut found);
    found
}

fn walk(schema: &Value, path: &str, required: bool, found: &mut Vec<Node>) {
    found.push(Node { path: path.to_owned(), required, schema: schema.clone() });
    if FOREIGN.contains(&path) {
        return;
    }
    for (name, property) in
        schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let refused = schema.get("x-kubernetes-preserve-unknown-fields").is_some();
        if at != "metadata" && !refused {
            walk(property, &at, requires(schema, name), found);
        }
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), false, found);
    }
}

fn requires(schema: &Value, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|at| at == name))
}

impl Node {
    /// The messages of its rules.
    pub fn rules(&self) -> Vec<String> {
        let rules = self.schema.get("x-kubernetes-validations").and_then(Value::as_array);
        let message = |rule: &Value| Some(rule.get("message")?.as_str()?.to_owned());
        rules.into_iter().flatten().filter_map(message).collect()
    }

    /// Whether it has fields of its own to explain.
    pub fn has_fields(&self) -> bool {
        !FOREIGN.contains(&&*self.path)
            && self.schema.get("properties").is_some()
            && self.schema.get("x-kubernetes-preserve-unknown-fields").is_none()
    }

    /// Whether it is a list or a map without a bound.
    pub fn is_unbounded(&self) -> bool {
        let is_list = self.schema.get("items").is_some() && self.schema.get("maxItems").is_none();
        let open = ["additionalProperties", "x-kubernetes-preserve-unknown-fields"];
        let is_map = open.iter().any(|open| self.schema.get(open).is_some())
            && self.schema.get("maxProperties").is_none();
        is_list || is_map
    }

    /// Manifests that break what this node of `spec` demands, each in one way.
    ///
    /// # Errors
    /// When a demand is of a kind that this does not know.
    pub fn broken(&self, legal: &Value) -> Result<Vec<Broken>> {
        let mut broken = Vec::new();
        let path = self.path.replace("[]", "[0]");
        let mut with = |demand: &'static str, value: Value| {
            let mut manifest = legal.clone();
            set(&mut manifest, &path, value);
            broken.push(Broken { path: path.clone(), demand, manifest });
        };
        let number = |demand: &str| self.schema.get(demand).and_then(Value::as_f64);
        let size = |demand: &str| {
            self.schema
                .get(demand)
                .and_then(Value::as_u64)
                .and_then(|size| usize::try_from(size).ok())
        };
        match self.schema.get("type").and_then(Value::as_str) {
            Some("string") => with("type", json!(1)),
            Some("object" | "array" | "boolean" | "integer") => with("type", json!("x")),
            other => anyhow::bail!("{path} is of type {other:?}"),
        }
        if self.schema.get("enum").is_some() {
            with("enum", json!("Nope"));
        }
        if self.schema.get("pattern").is_some() {
            // No pattern takes control characters.
            with("pattern", json!("\u{1}"));
        }
        if let Some(least) = size("minLength") {
            with("minLength", json!("a".repeat(least.saturating_sub(1))));
        }
        if let Some(most) = size("maxLength") {
            with("maxLength", json!("a".repeat(most + 1)));
        }
        if let Some(least) = number("minimum") {
            with("minimum", whole(least - 1.0)?);
        }
        if let Some(most) = number("maximum") {
            with("maximum", whole(most + 1.0)?);
        }
        if let Some(most) = size("maxItems") {
            let item = example(self.schema.get("items").context("a list of something")?);
            with("maxItems", Value::Array(vec![item; most + 1]));
        }
        if let Some(most) = size("maxProperties") {
            let value = self.schema.get("additionalProperties").map_or_else(|| json!({}), example);
            let object: Map<_, _> =
                (0..=most).map(|at| (format!("k{at}"), value.clone())).collect();
            with("maxProperties", Value::Object(object));
        }
        if self.required {
            let mut manifest = legal.clone();
            let (parent, name) = path.rsplit_once('.').unwrap_or(("", &path));
            if !parent.is_empty() && at(&mut manifest, parent).is_null() {
                set(&mut manifest, parent, json!({}));
            }
            if let Value::Object(parent) = at(&mut manifest, parent) {
                parent.remove(name);
            }
            broken.push(Broken { path, demand: "required", manifest });
        }
        Ok(broken)
    }
}

fn whole(number: f64) -> Result<Value> {
    Ok(serde_json::from_str(&format!("{number:.0}"))?)
}

/// Something of the right type.
fn example(schema: &Value) -> Value {
    if let Some(first) = schema.pointer("/enum/0") {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let required = properties
                .into_iter()
                .flatten()
                .filter(|(name, _)| requires(schema, name))
                .map(|(name, property)| (name.clone(), example(property)));
            Value::Object(required.collect())
        }
        Some("array") => json!([]),
        Some("integer") => json!(1),
        Some("boolean") => json!(true),
        _ => json!("AA"),
    }
}

/// Sets the value at a dotted path, whose list steps are written `name[0]`; what is missing above it is made.
pub fn set(manifest: &mut Value, path: &str, value: Value) {
    *at(manifest, path) = value;
}

fn at<'a>(manifest: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').filter(|step| !step.is_empty()).fold(manifest, |parent, step| {
        let name = step.trim_end_matches("[0]");
        if !parent.is_object() {
            *parent = json!({});
        }
        let child = &mut parent[name];
        if name == step {
            return child;
        }
        if child.as_array().is_none_or(Vec::is_empty) {
            *child = json!([null]);
        }
        &mut child[0]
    })
}
