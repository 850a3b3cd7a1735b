//! Values that let forwarders be sidecars of other workloads.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::rendered::sidecar_rules;
use super::Row;

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "sidecars",
            values: json!({"sidecars": {"enabled": true}, "admissionPolicy": {"enabled": true}}),
            holds: |it| {
                let roles = it.of_kind("ClusterRole");
                for part in ["-sidecars", "-hosts"] {
                    let is = |role: &&&Value| role["metadata"]["name"].to_string().contains(part);
                    ensure!(roles.iter().filter(is).count() == 1, "{part}: {roles:?}");
                }
                Ok(())
            },
        },
        Row {
            name: "sidecars in these workloads only",
            values: json!({
                "sidecars": {"enabled": true, "hosts": [
                    {"namespace": "team-a", "kind": "StatefulSet", "name": "collector"},
                    {"namespace": "team-b", "kind": "Deployment", "name": "collector"},
                ]},
                "watchNamespaces": ["team-a", "team-b"], "admissionPolicy": {"enabled": true},
            }),
            holds: |it| {
                let roles = it.of_kind("Role");
                let of = |role: &&&Value| {
                    role["metadata"]["name"].to_string().contains("-host-collector")
                };
                let by_name: Vec<_> = roles.iter().filter(of).collect();
                ensure!(by_name.len() == 1, "{by_name:?}");
                let role = by_name.first().context("a role")?;
                ensure!(role["metadata"]["namespace"] == "team-a", "{role}");
                let expected = json!([{
                    "apiGroups": ["apps"], "resources": ["statefulsets"], "resourceNames": ["collector"], "verbs": ["patch"],
                }]);
                ensure!(role["rules"] == expected, "{role}");
                Ok(())
            },
        },
    ]
}

/// What a role has to grant that is about sidecars; `None` for others, null where it is by name.
pub(super) fn rules(role: &str) -> Result<Option<Value>> {
    let [of_sidecars, of_hosts] = sidecar_rules()?;
    Ok(match role {
        _ if role.contains("-host-") => Some(Value::Null),
        _ if role.ends_with("-sidecars") => Some(of_sidecars),
        _ if role.ends_with("-hosts") => Some(of_hosts),
        _ => None,
    })
}
