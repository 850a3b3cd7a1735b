//! Walks an object beside its structural schema: defaults, pruning, unknown fields and the schema's own demands.

use std::collections::BTreeSet;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};

use super::{Problem, quote};

/// Fills in defaults and takes out nulls, as the server does before it validates; and writes 514.0 as the whole number
/// that it is in JSON, as the server gives it back.
pub(super) fn default_and_prune(schema: &Value, value: &mut Value) {
    if schema.get("type").and_then(Value::as_str) == Some("integer")
        && let Some(number) =
            value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0)
        && let Ok(whole) = format!("{number:.0}").parse::<i64>()
    {
        *value = whole.into();
    }
    if let (Value::Object(object), Some(properties)) =
        (&mut *value, schema.get("properties").and_then(Value::as_object))
    {
        for (name, property) in properties {
            if object.get(name).is_some_and(Value::is_null) {
                object.remove(name);
            }
            if let (None, Some(default)) = (object.get(name), property.get("default")) {
                object.insert(name.clone(), default.clone());
            }
            if let Some(child) = object.get_mut(name) {
                default_and_prune(property, child);
            }
        }
    }
    if let (Value::Object(object), Some(of)) = (&mut *value, schema.get("additionalProperties")) {
        object.retain(|_, child| !child.is_null());
        object.values_mut().for_each(|child| default_and_prune(of, child));
    }
    if let (Value::Array(array), Some(items)) = (value, schema.get("items")) {
        array.iter_mut().for_each(|child| default_and_prune(items, child));
    }
}

/// Names every field that the schema does not know.
pub(super) fn unknown_fields(
    schema: &Value,
    value: &Value,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    match value {
        Value::Object(object) => {
            let open =
                schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
            let none = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            let rest = schema.get("additionalProperties");
            for (name, child) in object {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (properties.get(name), rest) {
                    (Some(property), _) => unknown_fields(property, child, &at, problems),
                    (None, Some(rest)) => unknown_fields(rest, child, &at, problems),
                    // Metadata is checked apart; the root's own two fields are the server's.
                    (None, None) if open || path == "metadata" || at == "metadata" => {}
                    (None, None) if at == "apiVersion" || at == "kind" => {}
                    (None, None) => {
                        let parent = if path.is_empty() { "" } else { &format!("{path}.") };
                        let at = format!("{parent}{}", quote::name(name));
                        problems.push(Problem::new(at, "unknown field"));
                    }
                }
            }
        }
        Value::Array(array) => {
            if let Some(items) = schema.get("items") {
                for (index, child) in array.iter().enumerate() {
                    unknown_fields(items, child, &format!("{path}[{index}]"), problems);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Names every entry that stands twice in a list which is a set or a map, in the server's words.
pub(super) fn duplicates(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::Object(object) => {
            for (name, child) in object {
                if let Some(property) = schema.get("properties").and_then(|of| of.get(name)) {
                    let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    duplicates(property, child, &at, problems);
                }
            }
        }
        Value::Array(array) => {
            let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
            let key = schema.pointer("/x-kubernetes-list-map-keys/0").and_then(Value::as_str);
            let mut seen = BTreeSet::new();
            for (index, entry) in array.iter().enumerate() {
                let at = format!("{path}[{index}]");
                let identity = match (kind, key) {
                    (Some("set"), _) => Some(entry.to_string()),
                    (Some("map"), Some(key)) => entry.get(key).map(Value::to_string),
                    _ => None,
                };
                if identity.is_some_and(|identity| !seen.insert(identity)) {
                    problems
                        .push(Problem::new(at.as_str(), "Duplicate value: remove one of the two"));
                }
                if let Some(items) = schema.get("items") {
                    duplicates(items, entry, &at, problems);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Holds the object against the schema: types, enums, patterns, bounds, required fields.
pub(super) fn validate(
    validator: &Validator,
    schema: &Value,
    value: &Value,
    problems: &mut Vec<Problem>,
) {
    for error in validator.iter_errors(value) {
        let pointer = error.instance_path().to_string();
        // What is missing is named itself, as the server does, and not the place that lacks it.
        let missing = match error.kind() {
            ValidationErrorKind::Required { property } => property.as_str(),
            _ => None,
        };
        let steps = pointer.split('/').skip(1).chain(missing);
        let path = steps.fold(String::new(), |path, step| match step.parse::<usize>() {
            Ok(index) => format!("{path}[{index}]"),
            Err(_) if path.is_empty() => step.to_owned(),
            Err(_) => format!("{path}.{step}"),
        });
        // A token in the place of a reference to it, or a password in a URL, is not repeated.
        let is_near_a_secret =
            ["Ref", "auth", "proxy", "url"].iter().any(|word| path.contains(word));
        let message =
            if is_near_a_secret { error.masked().to_string() } else { told(schema, &error) };
        problems.push(Problem::new(path, message));
    }
}

/// What is wrong, and what would be right.
fn told(schema: &Value, error: &ValidationError<'_>) -> String {
    match error.kind() {
        // The library names two of the words only.
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> =
                options.as_array().into_iter().flatten().map(ToString::to_string).collect();
            format!("{} is not one of {}", error.instance(), options.join(", "))
        }
        // A pattern explains nothing; the field's description does.
        ValidationErrorKind::Pattern { .. } => {
            let of = error.schema_path().to_string();
            let of = of.rsplit_once('/').and_then(|(of, _)| schema.pointer(of));
            match of.and_then(|of| of.get("description")).and_then(Value::as_str) {
                Some(description) => {
                    let words: Vec<&str> = description.split_whitespace().collect();
                    format!("{error}: {}", words.join(" "))
                }
                None => error.to_string(),
            }
        }
        _ => error.to_string(),
    }
}
