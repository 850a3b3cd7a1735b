//! Bounds on whatever a writer of SiemAgents may repeat or make long, so that nobody's agents weigh on the whole cluster's
//! operator. Pure.
//!
//! Every list, map and text has a bound of its own, and what is made of many of them has one for all of it together, as a
//! rule that counts characters. A bound that a type gives itself stays.

use serde_json::{Map, Value, json};

use super::property;

/// Name of a list or map, how many entries it may have.
const ENTRIES: &[(&str, u64)] = &[
    ("limits", 16),
    ("requests", 16),
    ("matchExpressions", 8),
    ("matchFields", 2),
    ("matchLabels", 8),
    ("matchLabelKeys", 4),
    ("mismatchLabelKeys", 4),
    ("namespaces", 16),
    ("nodeSelectorTerms", 8),
    ("preferredDuringSchedulingIgnoredDuringExecution", 8),
    ("requiredDuringSchedulingIgnoredDuringExecution", 8),
    ("values", 32),
];
/// Name of a text, or of the list or map whose texts they are, and its longest.
const CHARACTERS: &[(&str, u64)] = &[
    ("effect", 32),
    ("key", LONGEST_KEY),
    ("lag", 16),
    ("image", 512),
    ("limits", 64),
    ("matchLabelKeys", LONGEST_KEY),
    ("matchLabels", 63),
    ("message", 4096),
    ("mismatchLabelKeys", LONGEST_KEY),
    ("nodeSelector", 63),
    ("operator", 32),
    ("podAnnotations", 4096),
    ("podLabels", 63),
    ("reason", 2048),
    ("requests", 64),
    ("status", 16),
    ("topologyKey", LONGEST_KEY),
    ("type", 316),
    ("value", 63),
    ("values", 253),
];
/// The longest name of a label or annotation: a domain of 253 characters, a slash and 63 more.
const LONGEST_KEY: u64 = 317;
/// Where nothing else is said.
const ANY_ENTRIES: u64 = 32;
const ANY_CHARACTERS: u64 = 253;
/// What is bounded as a whole: path, most characters, words.
const TOGETHER: &[(&str, u64, &str)] = &[
    (
        "spec.forwarder",
        24_576,
        "spec.forwarder may hold at most 24576 characters in names and values together",
    ),
    (
        "spec.eventTypes",
        16_384,
        "spec.eventTypes may hold at most 16384 characters in the values of its filters together",
    ),
];

/// Adds what bounds are missing.
pub(super) fn bound(schema: &mut Value) {
    for root in ["spec", "status"] {
        if let Some(schema) = property(schema, root) {
            each(schema, root);
        }
    }
    for (path, most, message) in TOGETHER {
        if let Some(schema) = property(schema, path)
            && let Some(weight) = weight(schema, "self", 0)
        {
            super::rule_at(schema, &format!("{weight} <= {most}"), message);
        }
    }
}

fn each(schema: &mut Value, name: &str) {
    let Value::Object(object) = schema else { return };
    let limit = |table: &[(&str, u64)], otherwise: u64| {
        table.iter().find(|(of, _)| *of == name).map_or(otherwise, |(_, limit)| *limit)
    };
    let add = |object: &mut Map<String, Value>, key: &str, limit: u64| {
        object.entry(key).or_insert_with(|| limit.into());
    };
    let is_any = object.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    match object.get("type").and_then(Value::as_str) {
        Some("string") => {
            let is_time = object.get("format").and_then(Value::as_str) == Some("date-time");
            if !object.contains_key("enum") && !is_time {
                add(object, "maxLength", limit(CHARACTERS, ANY_CHARACTERS));
            }
        }
        Some("array") => add(object, "maxItems", limit(ENTRIES, ANY_ENTRIES)),
        Some("object") if object.contains_key("additionalProperties") => {
            add(object, "maxProperties", limit(ENTRIES, ANY_ENTRIES));
            let rule = format!("self.all(key, size(key) <= {LONGEST_KEY})");
            let rules = object.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
            if let Value::Array(rules) = rules {
                let message =
                    "a name of a label, annotation or resource may have at most 317 characters";
                rules.push(json!({"rule": rule, "message": message}));
            }
        }
        _ if is_any => add(object, "maxLength", limit(CHARACTERS, ANY_CHARACTERS)),
        _ => {}
    }
    // What is in a list or a map goes by its name.
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(inner) {
            each(inner, name);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, schema) in properties {
            each(schema, name);
        }
    }
}

/// An expression for the number of characters below a place; `None` where there are none. What cannot be seen by a rule
/// counts nothing.
fn weight(schema: &Value, at: &str, depth: usize) -> Option<String> {
    let item = format!("v{depth}");
    if schema.get("enum").is_some() {
        return None;
    }
    match schema.get("type").and_then(Value::as_str)? {
        "string" => Some(format!("size({at})")),
        "array" => {
            let inner = weight(schema.get("items")?, &item, depth + 1)?;
            Some(format!("{at}.map({item}, {inner}).sum()"))
        }
        "object" if schema.get("additionalProperties").is_some() => {
            let value = format!("{at}[{item}]");
            let inner = weight(schema.get("additionalProperties")?, &value, depth + 1);
            let inner = inner.map_or_else(String::new, |inner| format!(" + {inner}"));
            Some(format!("{at}.map({item}, size({item}){inner}).sum()"))
        }
        "object" if schema.get("x-kubernetes-preserve-unknown-fields").is_none() => {
            let required = schema.get("required").and_then(Value::as_array);
            // A default is itself held against the rules, before those below it are filled in.
            let is_there =
                |name: &str| required.is_some_and(|required| required.iter().any(|it| it == name));
            let parts = schema.get("properties").and_then(Value::as_object)?.iter();
            let parts = parts.filter_map(|(name, property)| {
                let field = format!("{at}.{name}");
                let part = weight(property, &field, depth)?;
                Some(if is_there(name) { part } else { format!("(has({field}) ? {part} : 0)") })
            });
            let parts: Vec<_> = parts.collect();
            (!parts.is_empty()).then(|| parts.join(" + "))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_repeated_or_be_long_has_a_bound() {
        fn walk(schema: &Value, path: &str, unbounded: &mut Vec<String>) {
            let has = |key: &str| schema.get(key).is_some();
            let is_bounded = match schema.get("type").and_then(Value::as_str) {
                Some("string") => {
                    let is_time = schema.get("format").and_then(Value::as_str) == Some("date-time");
                    has("maxLength") || has("enum") || is_time
                }
                Some("array") => has("maxItems"),
                Some("object") => !has("additionalProperties") || has("maxProperties"),
                // A value of a raw filter, which nobody but the program can measure, or a quantity.
                None => has("maxLength") || has("x-kubernetes-preserve-unknown-fields"),
                Some(_) => true,
            };
            if !is_bounded {
                unbounded.push(path.to_owned());
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(inner) = schema.get(inner) {
                    walk(inner, &format!("{path}[]"), unbounded);
                }
            }
            for (name, property) in
                schema.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                walk(property, &format!("{path}.{name}"), unbounded);
            }
        }
        let mut schema = super::super::object_schema();
        let mut unbounded = Vec::new();
        for root in ["spec", "status"] {
            walk(property(&mut schema, root).unwrap(), root, &mut unbounded);
        }
        assert_eq!(unbounded, Vec::<String>::new());
    }
}
