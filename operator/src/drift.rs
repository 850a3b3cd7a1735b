//! Whether an object on the server still is what was applied, told from a few bytes. Pure.
//!
//! The server keeps, for every field manager, the set of fields that it applied (`fieldsV1`). What lies under our own
//! set in the live object is exactly what we applied, as long as nobody else changed it: a field that another manager
//! takes over leaves our set. So the digest of that part of the live object is compared with the digest of what would
//! be applied, and nothing is sent while the two are equal, also after a restart. Fields of others are outside the set
//! and never count. Quantities are compared by their amount, because the server rewrites them.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::quantity;

/// SHA-256 in hexadecimal.
pub(crate) fn hex(text: impl AsRef<[u8]>) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of what would be applied. Leaves out what identifies the object, because `fieldsV1` does.
pub(crate) fn of_desired(object: &Value) -> String {
    let mut object = object.clone();
    if let Value::Object(fields) = &mut object {
        for identity in ["apiVersion", "kind"] {
            fields.remove(identity);
        }
        if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
            for identity in ["name", "namespace", "uid", "resourceVersion"] {
                metadata.remove(identity);
            }
        }
    }
    of(&object)
}

/// The digest of what a manager owns in a live object; `None` where it has applied nothing.
pub(crate) fn of_live(object: &Value, manager: &str) -> Option<String> {
    let entry = object.pointer("/metadata/managedFields")?.as_array()?.iter().find(|entry| {
        let is = |field: &str, value: &str| entry.get(field).and_then(Value::as_str) == Some(value);
        is("manager", manager) && is("operation", "Apply") && entry.get("subresource").is_none()
    })?;
    let fields = entry.get("fieldsV1")?.as_object()?;
    Some(of(&owned_part(object, fields)))
}

fn of(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, false, &mut text);
    hex(text)
}

/// What a set of fields covers: the whole value where the set ends.
fn owned_part(value: &Value, fields: &Map<String, Value>) -> Value {
    let inner = |value: &Value, fields: &Value| match fields.as_object() {
        Some(fields) if fields.keys().any(|field| field != ".") => owned_part(value, fields),
        Some(_) | None => value.clone(),
    };
    match value {
        Value::Object(object) => {
            let mut part = Map::new();
            for (field, below) in fields {
                if let Some(name) = field.strip_prefix("f:")
                    && let Some(child) = object.get(name)
                {
                    part.insert(name.to_owned(), inner(child, below));
                }
            }
            Value::Object(part)
        }
        Value::Array(items) => {
            // In the order of the live list, which keeps the order in which it was applied.
            let owned = items.iter().filter_map(|item| {
                let below = fields.iter().find(|(field, _)| selects(field, item))?.1;
                Some(inner(item, below))
            });
            Value::Array(owned.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// `k:{"name":"x"}` selects the item with these keys, `v:"x"` the item of this value.
fn selects(field: &str, item: &Value) -> bool {
    if let Some(value) = field.strip_prefix("v:") {
        return serde_json::from_str::<Value>(value).is_ok_and(|value| value == *item);
    }
    let Some(keys) = field.strip_prefix("k:") else { return false };
    serde_json::from_str::<Map<String, Value>>(keys)
        .is_ok_and(|keys| keys.iter().all(|(key, value)| item.get(key) == Some(value)))
}

fn canonical(value: &Value, is_quantity: bool, text: &mut String) {
    match value {
        Value::Object(object) => {
            let mut keys: Vec<_> = object.keys().collect();
            keys.sort();
            text.push('{');
            for key in keys {
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                let amounts =
                    is_quantity || ["limits", "requests", "sizeLimit"].contains(&key.as_str());
                canonical(&object[key], amounts, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, is_quantity, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::String(amount) if is_quantity => match quantity::parse(amount) {
            Some(amount) => text.push_str(&amount.to_string()),
            None => text.push_str(&value.to_string()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn desired() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Thing",
            "metadata": {"name": "x", "labels": {"a": "1"}, "ownerReferences": [{"uid": "u", "controller": true}]},
            "spec": {
                "items": [{"name": "one", "limits": {"memory": "1Gi"}, "drop": ["ALL"]}, {"name": "two", "empty": {}}],
            },
        })
    }

    fn live() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Thing",
            "metadata": {
                "name": "x", "resourceVersion": "7", "labels": {"a": "1", "foreign": "2"},
                "ownerReferences": [{"uid": "u", "controller": true}],
                "managedFields": [
                    {"manager": "other", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:foreign": {}}}}},
                    {"manager": "we", "operation": "Apply", "fieldsV1": {
                        "f:metadata": {"f:labels": {"f:a": {}}, "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}}},
                        "f:spec": {"f:items": {
                            "k:{\"name\":\"one\"}": {".": {}, "f:name": {}, "f:limits": {"f:memory": {}}, "f:drop": {}},
                            "k:{\"name\":\"two\"}": {".": {}, "f:name": {}, "f:empty": {}},
                        }},
                    }},
                ],
            },
            "spec": {
                "items": [
                    {"name": "injected"},
                    {"name": "one", "limits": {"memory": "1024Mi"}, "drop": ["ALL"], "defaulted": true},
                    {"name": "two", "empty": {}},
                ],
                "replicas": 1,
            },
        })
    }

    #[test]
    fn what_was_applied_is_recognised_among_what_others_added() {
        assert_eq!(of_live(&live(), "we").unwrap(), of_desired(&desired()));
        assert_eq!(of_live(&live(), "nobody"), None);
    }

    #[test]
    fn every_change_of_what_was_applied_is_seen() {
        let changes: [fn(&mut Value); 5] = [
            |live| live["metadata"]["labels"]["a"] = json!("2"),
            |live| live["spec"]["items"][1]["limits"]["memory"] = json!("2Gi"),
            |live| live["spec"]["items"][1]["drop"] = json!([]),
            |live| drop(live["spec"]["items"].as_array_mut().unwrap().remove(2)),
            // Somebody else took the field over by force, with the same value even.
            |live| {
                let fields = &mut live["metadata"]["managedFields"][1]["fieldsV1"]["f:metadata"];
                fields["f:labels"] = json!({});
            },
        ];
        for change in changes {
            let mut changed = live();
            change(&mut changed);
            assert_ne!(of_live(&changed, "we").unwrap(), of_desired(&desired()));
        }
    }
}
