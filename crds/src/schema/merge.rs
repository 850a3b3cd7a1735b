//! How two appliers' values merge under server-side apply, for every list and every object that is one value. Pure.
//!
//! A list is a set, a map by the key of its entries, or replaced as a whole; a reference belongs to one applier as a
//! whole, or two of them could make one of a kind that neither meant. Fields that are copied from a Pod merge as there
//! (Kubernetes API reference, `PodSpec`; "Merge strategy" in the documentation of server-side apply).

use serde_json::{Map, Value, json};

use super::property;

/// Names of lists without order in which no entry stands twice.
const SETS: [&str; 10] = [
    "countries",
    "eventTypes",
    "ipCategories",
    "noProxy",
    "policies",
    "serviceSources",
    "services",
    "severities",
    "tables",
    "users",
];
/// Name of a list, and the key by which its entries are known.
const MAPS: [(&str, &str); 3] =
    [("conditions", "type"), ("imagePullSecrets", "name"), ("streams", "name")];
/// Names of objects that are one value, besides those that end with `Ref`.
const ATOMIC: [&str; 8] = [
    "labelSelector",
    "namespaceSelector",
    "nodeSelector",
    "nodeSelectorTerms[]",
    "podOverrides",
    "podSelector",
    "preference",
    "requiredDuringSchedulingIgnoredDuringExecution",
];

/// Says of each list and object of spec and status how it merges.
pub(super) fn merge(schema: &mut Value) {
    for root in ["spec", "status"] {
        if let Some(schema) = property(schema, root) {
            each(schema, root);
        }
    }
}

fn each(schema: &mut Value, name: &str) {
    let Value::Object(object) = schema else { return };
    match object.get("type").and_then(Value::as_str) {
        Some("array") => list(object, name),
        Some("object") if name.ends_with("Ref") || ATOMIC.contains(&name) => {
            object.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        _ => {}
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, property) in properties {
            each(property, name);
        }
    }
    if let Some(items) = object.get_mut("items") {
        each(items, &format!("{name}[]"));
    }
}

fn list(object: &mut Map<String, Value>, name: &str) {
    let key = MAPS.iter().find(|(of, _)| *of == name).map(|(_, key)| *key);
    let kind = match key {
        Some(_) => "map",
        None if SETS.contains(&name) => "set",
        None => "atomic",
    };
    object.insert("x-kubernetes-list-type".to_owned(), kind.into());
    if let Some(key) = key {
        object.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::object_schema;

    fn all<'a>(schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
        found.push((path.to_owned(), schema));
        for (name, property) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            all(property, &format!("{path}.{name}"), found);
        }
        if let Some(items) = schema.get("items") {
            all(items, &format!("{path}[]"), found);
        }
    }

    #[test]
    fn every_list_and_every_reference_says_how_it_merges() {
        let schema = object_schema();
        let mut found = Vec::new();
        all(&schema, "", &mut found);
        for (path, of) in found {
            match of["type"].as_str() {
                Some("array") => {
                    let kind = of["x-kubernetes-list-type"].as_str().unwrap_or_default();
                    assert!(["set", "map", "atomic"].contains(&kind), "{path}");
                    for key in of["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
                        let entry = &of["items"];
                        let key = key.as_str().unwrap();
                        let is_there = entry["required"].to_string().contains(key);
                        assert!(is_there, "{path}: an entry without {key} has no place in the map");
                    }
                }
                Some("object") if path.ends_with("Ref") => {
                    assert_eq!(of["x-kubernetes-map-type"], "atomic", "{path}");
                }
                _ => {}
            }
        }
    }
}
