//! `spec.forwarder.podOverrides`: a user's patch on the pod template, held to what the operator leaves to the user. Pure.
//!
//! What the operator needs itself is compared after the patch, so that no directive finds a way around it. And no patch gives
//! a pod more than the restricted profile of Pod Security: who may write a SiemAgent need not be able to make such a pod.

use serde_json::{Map, Value};
use siem_agent_crds::siem_agent::PodOverrides;

use super::restricted;
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
const OF_CONTAINER: [&str; 8] = [
    "args",
    "command",
    "image",
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "restartPolicy",
    "startupProbe",
];
/// Lists of the forwarder's container of which further entries are the user's.
const LISTS_OF_CONTAINER: [&str; 3] = ["env", "ports", "volumeMounts"];
const OWN: &str = "is what the operator needs itself, and cannot be overridden: remove it";
const MORE: &str =
    "gives the pod more than the restricted profile of Pod Security allows: remove it";
/// The program in the image, beside the mounts.
const PROGRAM: &str = "/siem-forwarder";

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
    let refused =
        |path: String, why: &str| Refused { path: format!("{PATH}.{path}"), why: why.to_owned() };
    if let Some(path) = changed(&base, template).or_else(|| shadowed(&base, template)) {
        return Err(refused(path, OWN));
    }
    match restricted::beyond(template) {
        Some(path) => Err(refused(path, MORE)),
        None => Ok(()),
    }
}

/// A mount of the user's at, above or below one of the operator's, or the program.
fn shadowed(base: &Value, patched: &Value) -> Option<String> {
    let own = paths(container(base)?, "volumeMounts", "mountPath");
    let is_beside = |path: &Vec<String>, own: &Vec<String>| {
        let common = path.iter().zip(own).take_while(|(one, two)| one == two).count();
        common < path.len() && common < own.len()
    };
    let program = steps(PROGRAM);
    for (list, field) in [("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")] {
        for given in paths(container(patched)?, list, field) {
            let path = steps(&given);
            let is_own = list == "volumeMounts" && own.contains(&given);
            let own = own.iter().map(|own| steps(own)).chain([program.clone()]);
            let climbs = path.iter().any(|step| step == "..");
            if !is_own && (climbs || own.into_iter().any(|own| !is_beside(&path, &own))) {
                return Some(format!("spec.containers[{CONTAINER}].{list}[{given}]"));
            }
        }
    }
    None
}

fn paths(container: &Value, list: &str, field: &str) -> Vec<String> {
    let entries = container.get(list).and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.get(field)?.as_str()?.to_owned())).collect()
}

fn steps(path: &str) -> Vec<String> {
    path.split('/').filter(|step| !step.is_empty() && *step != ".").map(str::to_owned).collect()
}

/// What of the operator's own is not as it was.
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
    // What makes the volume of the state writable for a user without a fixed number.
    let groups =
        ["fsGroup", "fsGroupChangePolicy"].map(|name| format!("/spec/securityContext/{name}"));
    if let Some(group) =
        groups.iter().find(|group| base.pointer(group).is_some() && !is_same(group))
    {
        return Some(group.trim_start_matches('/').replace('/', "."));
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

/// An entry of the base's list that the patched one has not as it was.
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

    fn context() -> Value {
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
    }

    fn template() -> Value {
        let mut labels = serde_json::to_value(names::labels("soc")).unwrap();
        labels[RELEASE_LABEL] = json!("r");
        json!({
            "metadata": {"labels": labels, "annotations": {CONFIG_HASH_ANNOTATION: "h"}},
            "spec": {
                "serviceAccountName": "soc-forwarder", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 30,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "forwarder", "image": "i", "args": ["run"], "livenessProbe": {"periodSeconds": 20},
                    "env": [{"name": "POD_UID"}], "ports": [{"name": "http", "containerPort": 9464, "protocol": "TCP"}],
                    "volumeMounts": [{"name": "state", "mountPath": "/var/state"}],
                    "securityContext": context(),
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
                    {"name": "proxy", "image": "envoy", "securityContext": context()},
                ],
            },
        });
        let template = patched(overrides).unwrap();
        let spec = &template["spec"];
        assert_eq!(template["metadata"]["labels"]["team"], "soc");
        assert_eq!(
            spec["securityContext"],
            json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}})
        );
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
                container(json!({"volumeMounts": [{"mountPath": "/var/state", "name": "x"}]})),
                "spec.containers[forwarder].volumeMounts[/var/state]",
            ),
            (json!({"spec": {"volumes": [{"emptyDir": {}}]}}), "spec.volumes[0]"),
        ] {
            let why = patched(overrides).unwrap_err();
            assert!(why.starts_with(&format!("{PATH}.{path}: ")), "{path}: {why}");
        }
    }

    #[test]
    fn nothing_shadows_the_operators_mounts_and_nothing_gives_more_than_restricted() {
        let mount = |path: &str| json!({"spec": {"containers": [{"name": "forwarder", "volumeMounts": [{"name": "x", "mountPath": path}]}]}});
        for path in [
            "/",
            "/var",
            "/var/state/",
            "//var/./state",
            "/var/state/sub",
            "/x/../var/state",
            "/siem-forwarder",
        ] {
            let why = patched(mount(path)).unwrap_err();
            assert!(
                why.contains(&format!("volumeMounts[{path}]: is what the operator needs")),
                "{why}"
            );
        }
        for path in ["/var/other", "/state", "/siem-forwarder2", "/tmp"] {
            assert!(patched(mount(path)).is_ok(), "{path}");
        }
        let beside = |context: Value| json!({"spec": {"initContainers": [{"name": "a", "securityContext": context}]}});
        let why = patched(beside(json!({}))).unwrap_err();
        let path = "spec.initContainers[a].securityContext.allowPrivilegeEscalation";
        assert!(why.starts_with(&format!("{PATH}.{path}: gives the pod more")), "{why}");
        assert!(patched(beside(context())).is_ok());
    }
}
