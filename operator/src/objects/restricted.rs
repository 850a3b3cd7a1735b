//! The restricted profile of Kubernetes' Pod Security Standards, as far as a patch on a pod can leave it. Pure.
//!
//! Source: "Pod Security Standards" in the Kubernetes documentation. It is held a little closer than there: no capability is
//! added at all, and no SELinux type, user or role is set.

use serde_json::Value;

/// Kinds of volumes that the profile has.
const VOLUMES: [&str; 8] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Annotations of old that took AppArmor from a container.
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The first field by which a pod template leaves the profile.
pub(super) fn beyond(template: &Value) -> Option<String> {
    let annotations = template.pointer("/metadata/annotations").and_then(Value::as_object);
    if let Some(name) =
        annotations.and_then(|all| all.keys().find(|name| name.starts_with(APPARMOR)))
    {
        return Some(format!("metadata.annotations.{name}"));
    }
    let pod = template.get("spec")?;
    if let Some(name) =
        ["hostNetwork", "hostPID", "hostIPC"].into_iter().find(|name| is_true(pod.get(name)))
    {
        return Some(format!("spec.{name}"));
    }
    for volume in entries(pod, "volumes") {
        let kind = volume.as_object().and_then(|fields| {
            fields.keys().find(|kind| *kind != "name" && !VOLUMES.contains(&kind.as_str()))
        });
        if let Some(kind) = kind {
            return Some(format!("spec.volumes[{}].{kind}", name(volume)));
        }
    }
    let none = Value::Null;
    let context = pod.get("securityContext").unwrap_or(&none);
    let of_pod =
        if is_true(context.get("runAsNonRoot")) { of_both(context) } else { Some("runAsNonRoot") };
    let is_confined = context.get("seccompProfile").is_some();
    let of_pod = of_pod.or_else(|| (!is_confined).then_some("seccompProfile"));
    let of_pod = of_pod.or_else(|| context.get("sysctls").map(|_| "sysctls"));
    if let Some(field) = of_pod {
        return Some(format!("spec.securityContext.{field}"));
    }
    ["initContainers", "containers", "ephemeralContainers"].into_iter().find_map(|kind| {
        entries(pod, kind).iter().find_map(|container| {
            let at = format!("spec.{kind}[{}]", name(container));
            if entries(container, "ports").iter().any(|port| port.get("hostPort").is_some()) {
                return Some(format!("{at}.ports.hostPort"));
            }
            let context = container.get("securityContext").unwrap_or(&none);
            of_container(context).map(|field| format!("{at}.securityContext.{field}"))
        })
    })
}

fn of_container(context: &Value) -> Option<&'static str> {
    let capabilities = |which: &str| {
        let list = context.pointer(&format!("/capabilities/{which}")).and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    };
    let drops_all = capabilities("drop").iter().any(|dropped| dropped == "ALL");
    [
        ("privileged", is_true(context.get("privileged"))),
        (
            "allowPrivilegeEscalation",
            context.get("allowPrivilegeEscalation") != Some(&Value::Bool(false)),
        ),
        ("capabilities", !drops_all || !capabilities("add").is_empty()),
        ("procMount", context.get("procMount").is_some()),
    ]
    .into_iter()
    .find_map(|(field, leaves)| leaves.then_some(field))
    .or_else(|| of_both(context))
}

/// What the contexts of a pod and of a container both have.
fn of_both(context: &Value) -> Option<&'static str> {
    let is = |pointer: &str, value: &Value| context.pointer(pointer) == Some(value);
    let unconfined = Value::from("Unconfined");
    let se_linux = ["type", "user", "role"]
        .iter()
        .any(|name| context.pointer(&format!("/seLinuxOptions/{name}")).is_some());
    [
        ("runAsUser", is("/runAsUser", &Value::from(0))),
        ("runAsNonRoot", is("/runAsNonRoot", &Value::Bool(false))),
        ("seccompProfile", is("/seccompProfile/type", &unconfined)),
        ("appArmorProfile", is("/appArmorProfile/type", &unconfined)),
        ("seLinuxOptions", se_linux),
        ("windowsOptions", context.get("windowsOptions").is_some()),
    ]
    .into_iter()
    .find_map(|(field, leaves)| leaves.then_some(field))
}

fn is_true(value: Option<&Value>) -> bool {
    value == Some(&Value::Bool(true))
}

fn entries<'a>(of: &'a Value, list: &str) -> &'a [Value] {
    of.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn name(of: &Value) -> &str {
    of.get("name").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context() -> Value {
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
    }

    fn with(pointer: &str, value: Value) -> Option<String> {
        let mut template = json!({
            "metadata": {"annotations": {}},
            "spec": {
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "securityContext": context(), "ports": [{}]}],
                "initContainers": [{"name": "i", "securityContext": context()}],
            },
        });
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        template.pointer_mut(parent).unwrap()[field.replace("~1", "/")] = value;
        beyond(&template)
    }

    #[test]
    fn each_way_out_of_the_profile_is_named() {
        assert_eq!(with("/spec/securityContext/runAsUser", json!(1000)), None);
        for (pointer, value, path) in [
            ("/spec/hostNetwork", json!(true), "spec.hostNetwork"),
            ("/spec/hostPID", json!(true), "spec.hostPID"),
            ("/spec/hostIPC", json!(true), "spec.hostIPC"),
            ("/spec/volumes/0/hostPath", json!({"path": "/"}), "spec.volumes[v].hostPath"),
            ("/spec/volumes/0/nfs", json!({}), "spec.volumes[v].nfs"),
            ("/spec/securityContext", Value::Null, "spec.securityContext.runAsNonRoot"),
            (
                "/spec/securityContext/runAsNonRoot",
                json!(false),
                "spec.securityContext.runAsNonRoot",
            ),
            ("/spec/securityContext/runAsUser", json!(0), "spec.securityContext.runAsUser"),
            ("/spec/securityContext/sysctls", json!([]), "spec.securityContext.sysctls"),
            (
                "/spec/securityContext/seccompProfile",
                json!({"type": "Unconfined"}),
                "spec.securityContext.seccompProfile",
            ),
            ("/spec/containers/0/ports/0/hostPort", json!(80), "spec.containers[c].ports.hostPort"),
        ] {
            assert_eq!(with(pointer, value).as_deref(), Some(path));
        }
        for (field, value) in [
            ("privileged", json!(true)),
            ("allowPrivilegeEscalation", Value::Null),
            ("capabilities", Value::Null),
            ("capabilities", json!({"drop": ["ALL"], "add": ["NET_ADMIN"]})),
            ("procMount", json!("Unmasked")),
            ("runAsUser", json!(0)),
            ("runAsNonRoot", json!(false)),
            ("seccompProfile", json!({"type": "Unconfined"})),
            ("appArmorProfile", json!({"type": "Unconfined"})),
            ("seLinuxOptions", json!({"type": "spc_t"})),
            ("windowsOptions", json!({"hostProcess": true})),
        ] {
            for (kind, name) in [("containers", "c"), ("initContainers", "i")] {
                let pointer = format!("/spec/{kind}/0/securityContext/{field}");
                let path = format!("spec.{kind}[{name}].securityContext.{field}");
                assert_eq!(with(&pointer, value.clone()), Some(path));
            }
        }
        let name = format!("{APPARMOR}c");
        let pointer = format!("/metadata/annotations/{}", name.replace('/', "~1"));
        assert_eq!(
            with(&pointer, json!("unconfined")),
            Some(format!("metadata.annotations.{name}"))
        );
    }
}
