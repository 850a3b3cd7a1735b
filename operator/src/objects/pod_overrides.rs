//! `spec.forwarder.podOverrides`: a user's patch on the pod template, held to what the operator leaves to the user. Pure.
//!
//! What the operator needs itself is compared after the patch, so that no directive finds a way around it.

use serde_json::{Map, Value};
use siem_agent_crds::siem_agent::PodOverrides;

use super::strategic_merge::{Refused, merge, merge_key};
use crate::names::{self, CONFIG_HASH_ANNOTATION, CONTAINER, RELEASE_LABEL};

const PATH: &str = "spec.forwarder.podOverrides";
/// Of the pod, whether it is there or not: who it runs as, how it ends, and that it runs for ever.
const OF_POD: [&str; 6] = [
    "activeDeadlineSeconds",
    "automountServiceAccountToken",
    "restartPolicy",
    "serviceAccount",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
];
/// Of the forwarder's container.
const OF_CONTAINER: [&str; 7] = [
    "args",
    "command",
    "image",
    "livenessProbe",
    "readinessProbe",
    "restartPolicy",
    "startupProbe",
];
/// Lists of the forwarder's container of which further entries are the user's.
const LISTS_OF_CONTAINER: [&str; 3] = ["env", "ports", "volumeMounts"];
const OWN: &str = "is what the operator needs itself, and cannot be overridden";

/// Patches a pod template.
///
/// # Errors
/// [`Refused`]: the path in `podOverrides`, and why.
pub(super) fn apply(template: &mut Value, overrides: &PodOverrides) -> Result<(), Refused> {
    let base = template.clone();
    let Value::Object(fields) = template else { return Ok(()) };
    let mut patch = Map::new();
    for (name, part) in [("metadata", &overrides.metadata), ("spec", &overrides.spec)] {
        patch.extend(part.clone().map(|part| (name.to_owned(), Value::Object(part))));
    }
    if let Some(Value::Object(metadata)) = patch.get("metadata")
        && let Some(name) =
            metadata.keys().find(|name| !["labels", "annotations"].contains(&name.as_str()))
    {
        let path = format!("{PATH}.metadata.{name}");
        return Err(Refused {
            path,
            why: "of a pod's metadata only labels and annotations can be set".to_owned(),
        });
    }
    merge(fields, &patch, PATH)?;
    match changed(&base, template) {
        Some(path) => Err(Refused { path: format!("{PATH}.{path}"), why: OWN.to_owned() }),
        None => Ok(()),
    }
}

/// What of the operator's own is no longer as it was.
fn changed(base: &Value, patched: &Value) -> Option<String> {
    let is_same = |pointer: &str| base.pointer(pointer) == patched.pointer(pointer);
    let own_labels = names::labels("");
    let labels = own_labels.keys().map(String::as_str).chain([RELEASE_LABEL]);
    let label = labels
        .map(|name| ("labels", name))
        .find(|(_, name)| !is_same(&format!("/metadata/labels/{}", escaped(name))));
    let annotation = Some(("annotations", CONFIG_HASH_ANNOTATION))
        .filter(|(_, name)| !is_same(&format!("/metadata/annotations/{}", escaped(name))));
    if let Some((map, name)) = label.or(annotation) {
        return Some(format!("metadata.{map}.{name}"));
    }
    if let Some(name) = OF_POD.into_iter().find(|name| !is_same(&format!("/spec/{name}"))) {
        return Some(format!("spec.{name}"));
    }
    if let Some(entry) = changed_entry(base.pointer("/spec"), patched.pointer("/spec"), "volumes") {
        return Some(format!("spec.{entry}"));
    }
    let (base, patched) = (container(base), container(patched));
    let of_container = format!("spec.containers[{CONTAINER}]");
    if patched.is_none() {
        return Some(of_container);
    }
    let field = |of: Option<&Value>, name: &str| of.and_then(|of| of.get(name)).cloned();
    let own = OF_CONTAINER.into_iter().find(|name| field(base, name) != field(patched, name));
    let entry =
        || LISTS_OF_CONTAINER.into_iter().find_map(|list| changed_entry(base, patched, list));
    own.map(str::to_owned).or_else(entry).map(|name| format!("{of_container}.{name}"))
}

fn container(template: &Value) -> Option<&Value> {
    let containers = template.pointer("/spec/containers")?.as_array()?;
    containers.iter().find(|container| container.get("name").is_some_and(|name| name == CONTAINER))
}

/// An entry of the base's list that is no longer in the patched one as it was.
fn changed_entry(base: Option<&Value>, patched: Option<&Value>, list: &str) -> Option<String> {
    let key = merge_key(list)?;
    let entries = |of: Option<&Value>| {
        of.and_then(|of| of.get(list)).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let patched = entries(patched);
    let gone = entries(base).into_iter().find(|entry| !patched.contains(entry))?;
    let name =
        gone.get(key).map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned));
    Some(format!("{list}[{}]", name.unwrap_or_default()))
}

/// A name within a JSON pointer (RFC 6901, section 3).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> Value {
        let mut labels = serde_json::to_value(names::labels("soc")).unwrap();
        labels[RELEASE_LABEL] = json!("r");
        json!({
            "metadata": {"labels": labels, "annotations": {CONFIG_HASH_ANNOTATION: "h"}},
            "spec": {
                "serviceAccountName": "soc-forwarder", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 30,
                "securityContext": {"runAsNonRoot": true},
                "containers": [{
                    "name": "forwarder", "image": "i", "args": ["run"], "livenessProbe": {"periodSeconds": 20},
                    "env": [{"name": "POD_UID"}], "ports": [{"name": "http", "containerPort": 9464, "protocol": "TCP"}],
                    "volumeMounts": [{"name": "state", "mountPath": "/state"}],
                }],
                "volumes": [{"name": "config", "configMap": {"name": "soc-config"}}],
            },
        })
    }

    fn patched(overrides: Value) -> Result<Value, String> {
        let mut template = template();
        let overrides: PodOverrides = serde_json::from_value(overrides).unwrap();
        apply(&mut template, &overrides)
            .map(|()| template)
            .map_err(|refused| format!("{}: {}", refused.path, refused.why))
    }

    #[test]
    fn what_is_the_users_is_patched() {
        let overrides = json!({
            "metadata": {"annotations": {"sidecar.istio.io/inject": "true"}, "labels": {"team": "soc"}},
            "spec": {
                "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"]}, "securityContext": {"runAsUser": 1000},
                "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1}],
                "volumes": [{"name": "extra", "emptyDir": {}}],
                "containers": [
                    {"name": "forwarder", "env": [{"name": "TZ", "value": "UTC"}], "volumeMounts": [{"name": "extra", "mountPath": "/extra"}]},
                    {"name": "proxy", "image": "envoy"},
                ],
            },
        });
        let template = patched(overrides).unwrap();
        let spec = &template["spec"];
        assert_eq!(template["metadata"]["labels"]["team"], "soc");
        assert_eq!(spec["securityContext"], json!({"runAsNonRoot": true, "runAsUser": 1000}));
        assert_eq!(spec["containers"][0]["args"], json!(["run"]));
        assert_eq!(
            spec["containers"][0]["env"],
            json!([{"name": "POD_UID"}, {"name": "TZ", "value": "UTC"}])
        );
        assert_eq!(spec["containers"][1]["name"], "proxy");
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_the_operator_needs_itself_is_refused_by_its_path() {
        let container = |fields: Value| {
            let mut container = json!({"name": "forwarder"});
            container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({"spec": {"containers": [container]}})
        };
        for (overrides, path) in [
            (json!({"metadata": {"name": "x"}}), "metadata.name"),
            (
                json!({"metadata": {"labels": {"siemagent.dev/name": "x"}}}),
                "metadata.labels.siemagent.dev/name",
            ),
            (json!({"metadata": {"labels": null}}), "metadata.labels.app.kubernetes.io/component"),
            (
                json!({"metadata": {"annotations": {"$patch": "replace"}}}),
                "metadata.annotations.siemagent.dev/config-hash",
            ),
            (json!({"spec": {"serviceAccountName": "admin"}}), "spec.serviceAccountName"),
            (json!({"spec": {"serviceAccount": "admin"}}), "spec.serviceAccount"),
            (
                json!({"spec": {"automountServiceAccountToken": true}}),
                "spec.automountServiceAccountToken",
            ),
            (json!({"spec": {"restartPolicy": "Never"}}), "spec.restartPolicy"),
            (
                json!({"spec": {"volumes": [{"name": "config", "hostPath": {"path": "/"}}]}}),
                "spec.volumes[config]",
            ),
            (json!({"spec": {"volumes": [{"$patch": "replace"}]}}), "spec.volumes[config]"),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "x"}]}}),
                "spec.containers[forwarder]",
            ),
            (
                json!({"spec": {"containers": [{"name": "forwarder", "$patch": "delete"}]}}),
                "spec.containers[forwarder]",
            ),
            (container(json!({"command": ["sh"]})), "spec.containers[forwarder].command"),
            (container(json!({"args": ["x"]})), "spec.containers[forwarder].args"),
            (container(json!({"image": "x"})), "spec.containers[forwarder].image"),
            (container(json!({"livenessProbe": null})), "spec.containers[forwarder].livenessProbe"),
            (
                container(json!({"env": [{"name": "POD_UID", "value": "x"}]})),
                "spec.containers[forwarder].env[POD_UID]",
            ),
            (
                container(json!({"ports": [{"containerPort": 9464, "hostPort": 80}]})),
                "spec.containers[forwarder].ports[9464]",
            ),
            (
                container(json!({"volumeMounts": [{"mountPath": "/state", "name": "x"}]})),
                "spec.containers[forwarder].volumeMounts[/state]",
            ),
            (json!({"spec": {"volumes": [{"emptyDir": {}}]}}), "spec.volumes[0]"),
        ] {
            let why = patched(overrides).unwrap_err();
            assert!(why.starts_with(&format!("{PATH}.{path}: ")), "{path}: {why}");
        }
    }
}
