//! Kubernetes' strategic merge patch, for what a pod template holds. Pure.
//!
//! Source: "Strategic Merge Patch" of sig-api-machinery's contributor documentation, and the patch merge keys of the
//! published OpenAPI schema (`x-kubernetes-patch-merge-key`). Of the directives `$patch` is known, with `merge`, `replace`
//! and `delete`; the others are what `kubectl` writes for itself, and are refused.

use serde_json::{Map, Value};

/// Name of a list of objects, and the field by which an entry of it is known. Any other list is replaced as a whole.
const MERGE_KEYS: [(&str, &str); 11] = [
    ("containers", "name"),
    ("env", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ports", "containerPort"),
    ("resourceClaims", "name"),
    ("schedulingGates", "name"),
    ("topologySpreadConstraints", "topologyKey"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];
const DIRECTIVE: &str = "$patch";

/// What is wrong with a patch, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) path: String,
    pub(crate) why: String,
}

/// The field by which an entry of this list is known.
pub(crate) fn merge_key(list: &str) -> Option<&'static str> {
    MERGE_KEYS.iter().find(|(of, _)| *of == list).map(|(_, key)| *key)
}

/// Patches an object.
///
/// # Errors
/// [`Refused`]: a directive that is not known, or an entry of a list without the field by which it is known.
pub(crate) fn merge(
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    path: &str,
) -> Result<(), Refused> {
    for (name, value) in patch {
        let at = join(path, name);
        if name == DIRECTIVE {
            continue;
        }
        if name.starts_with('$') {
            return Err(refused(&at, "of a patch's directives only $patch is known"));
        }
        match (value, merge_key(name)) {
            (Value::Null, _) => {
                target.remove(name);
            }
            (Value::Object(patch), _) => match directive(patch, &at)? {
                Directive::Delete => {
                    target.remove(name);
                }
                is => {
                    let slot = target.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    if is == Directive::Replace || !slot.is_object() {
                        *slot = Value::Object(Map::new());
                    }
                    if let Value::Object(slot) = slot {
                        merge(slot, patch, &at)?;
                    }
                }
            },
            (Value::Array(patch), Some(key)) => {
                let slot = target.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if !slot.is_array() {
                    *slot = Value::Array(Vec::new());
                }
                if let Value::Array(slot) = slot {
                    merge_list(slot, patch, key, &at)?;
                }
            }
            (value, _) if has_directive(value) => {
                return Err(refused(
                    &at,
                    "is replaced as a whole: give all of it, without a directive",
                ));
            }
            (value, _) => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(())
}

/// As upstream: directives first, wherever they stand; `replace` in any entry makes the list the entries without one.
fn merge_list(
    target: &mut Vec<Value>,
    patch: &[Value],
    key: &str,
    path: &str,
) -> Result<(), Refused> {
    let mut replaces = false;
    let mut entries = Vec::new();
    for (index, entry) in patch.iter().enumerate() {
        let at = format!("{path}[{index}]");
        let Value::Object(entry) = entry else { return Err(refused(&at, "must be an object")) };
        let is = directive(entry, &at)?;
        match (is, entry.get(key)) {
            (Directive::Replace, _) => replaces = true,
            (_, None) => {
                return Err(refused(
                    &at,
                    &format!("needs `{key}`, by which entries of this list are known"),
                ));
            }
            (Directive::Delete, Some(identity)) => {
                target.retain(|known| known.get(key) != Some(identity));
            }
            (Directive::Merge, Some(identity)) => entries.push((at, identity, entry)),
        }
    }
    if replaces {
        target.clear();
    }
    for (at, identity, entry) in entries {
        let known = target.iter_mut().find(|known| known.get(key) == Some(identity));
        if let Some(Value::Object(known)) = known {
            merge(known, entry, &at)?;
        } else {
            let mut new = Map::new();
            merge(&mut new, entry, &at)?;
            target.push(Value::Object(new));
        }
    }
    Ok(())
}

/// Whether there is a directive anywhere below.
fn has_directive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| name.starts_with('$') || has_directive(value))
        }
        Value::Array(values) => values.iter().any(has_directive),
        _ => false,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(patch: &Map<String, Value>, path: &str) -> Result<Directive, Refused> {
    match patch.get(DIRECTIVE).map(Value::as_str) {
        None | Some(Some("merge")) => Ok(Directive::Merge),
        Some(Some("replace")) => Ok(Directive::Replace),
        Some(Some("delete")) => Ok(Directive::Delete),
        Some(_) => Err(refused(&join(path, DIRECTIVE), "must be merge, replace or delete")),
    }
}

fn join(path: &str, name: &str) -> String {
    format!("{path}.{name}")
}

fn refused(path: &str, why: &str) -> Refused {
    Refused { path: path.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(target: Value, patch: Value) -> Result<Value, String> {
        let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
            unreachable!()
        };
        merge(&mut target, &patch, "p")
            .map(|()| Value::Object(target))
            .map_err(|refused| format!("{}: {}", refused.path, refused.why))
    }

    #[test]
    fn objects_and_lists_with_a_key_are_merged_and_other_lists_replaced() {
        let target = json!({
            "a": {"x": 1, "y": 2}, "args": ["one", "two"],
            "containers": [{"name": "one", "env": [{"name": "A", "value": "1"}]}, {"name": "two"}],
        });
        let patch = json!({
            "a": {"y": 3, "z": {"w": null, "v": 4}}, "args": ["three"], "b": null,
            "containers": [
                {"name": "two", "image": "i"},
                {"name": "one", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "9"}]},
                {"name": "three"},
            ],
        });
        let expected = json!({
            "a": {"x": 1, "y": 3, "z": {"v": 4}}, "args": ["three"],
            "containers": [
                {"name": "one", "env": [{"name": "A", "value": "9"}, {"name": "B", "value": "2"}]},
                {"name": "two", "image": "i"},
                {"name": "three"},
            ],
        });
        assert_eq!(merged(target, patch), Ok(expected));
    }

    #[test]
    fn null_and_the_directives_take_away_and_replace() {
        let target = || json!({"a": {"x": 1}, "b": {"x": 1}, "c": 1, "volumes": [{"name": "v", "k": 1}, {"name": "w"}]});
        let of = |patch| merged(target(), patch).unwrap();
        let none = of(json!({"a": null, "b": {"$patch": "delete"}, "c": null, "volumes": null}));
        assert_eq!(none, json!({}));
        let replaced = of(json!({"a": {"$patch": "replace", "y": 2}}));
        assert_eq!(replaced["a"], json!({"y": 2}));
        let without = of(
            json!({"volumes": [{"name": "v", "$patch": "delete"}, {"name": "x", "$patch": "delete"}]}),
        );
        assert_eq!(without["volumes"], json!([{"name": "w"}]));
        let whole = of(json!({"volumes": [{"name": "x"}, {"$patch": "replace"}]}));
        assert_eq!(whole["volumes"], json!([{"name": "x"}]));
    }

    #[test]
    fn what_is_not_known_is_refused_by_its_path() {
        for (patch, path) in [
            (json!({"a": {"$patch": "remove"}}), "p.a.$patch: "),
            (json!({"a": {"$retainKeys": ["x"]}}), "p.a.$retainKeys: "),
            (json!({"volumes": [{"emptyDir": {}}]}), "p.volumes[0]: needs `name`"),
            (json!({"volumes": ["v"]}), "p.volumes[0]: "),
            (json!({"tolerations": [{"$patch": "replace"}]}), "p.tolerations: "),
            (
                json!({"containers": [{"name": "a", "env": [{"value": "x"}]}]}),
                "p.containers[0].env[0]: needs `name`",
            ),
        ] {
            let why = merged(json!({}), patch).unwrap_err();
            assert!(why.starts_with(path), "{why}");
        }
    }
}
