//! What people see of SiemAgents with kubectl: the explanation of each field, and the columns.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use siem_agent_crds::schema;
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_tests::admission::{Admission, nodes};

fn minimal() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/fixtures/legal/minimal.yaml");
    Ok(serde_saphyr::from_str(&fs::read_to_string(path)?)?)
}

#[tokio::test]
async fn every_field_is_explained() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    plane.install_crd().await?;
    let kubectl = plane.kubectl()?;
    let objects: BTreeSet<String> = nodes(&schema::object_schema())
        .iter()
        .filter(|node| node.has_fields() && !node.path.is_empty())
        .map(|node| node.path.replace("[]", ""))
        .collect();
    ensure!(objects.len() > 20, "{objects:?}");
    for path in objects {
        let text = kubectl.run(&["explain", &format!("siemagents.{path}")], "").await?;
        ensure!(text.contains("FIELDS:") && text.contains("DESCRIPTION:"), "{path}: {text}");
        ensure!(!text.contains("<no description>") && !text.contains("<empty>"), "{path}: {text}");
    }
    let all = kubectl.run(&["explain", "siemagents", "--recursive"], "").await?;
    for field in ["tokenSecretRef", "confirmGrace", "podOverrides", "deliveredThrough"] {
        ensure!(all.contains(field), "{field}");
    }
    Ok(())
}

#[tokio::test]
async fn people_find_it_and_see_the_columns_of_the_contract() -> Result<()> {
    let admission = Admission::start().await?;
    let kept = admission.keep(&minimal()?).await?;
    let inside = format!("--namespace={}", kept.namespace);
    let kubectl = admission.plane.kubectl()?;
    let now = "2026-01-01T00:00:00Z";
    let status = json!({"status": {
        "observedGeneration": 1,
        "state": "Connected",
        "conditions": [
            {"type": "Stalled", "status": "False", "reason": "No", "message": "", "lastTransitionTime": now},
            {"type": "Ready", "status": "True", "reason": "Delivering", "message": "", "lastTransitionTime": now},
        ],
        "token": {"state": "Valid"},
        "lag": "<1m",
        "image": "forwarder:1",
    }});
    let patch = format!("--patch={status}");
    let merge =
        ["patch", "siemagent", "soc", "--subresource=status", "--type=merge", &patch, &inside];
    kubectl.run(&merge, "").await?;
    for (resource, wide, expected) in [
        (
            "siemagents",
            false,
            [
                "NAME READY STATE TOKEN LAG TARGET AGE",
                "soc True Connected Valid <1m siem.example.com AGE",
            ],
        ),
        (
            "siem",
            true,
            [
                "NAME READY STATE TOKEN LAG TARGET AGE REASON SOURCE IMAGE",
                "soc True Connected Valid <1m siem.example.com AGE Delivering https://contoso.us2.portal.cloudappsecurity.com forwarder:1",
            ],
        ),
        (
            "security",
            false,
            [
                "NAME READY STATE TOKEN LAG TARGET AGE",
                "soc True Connected Valid <1m siem.example.com AGE",
            ],
        ),
    ] {
        let mut arguments = vec!["get", resource, &inside];
        if wide {
            arguments.push("--output=wide");
        }
        let table = kubectl.run(&arguments, "").await?;
        let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let [header, mut row] = table
            .lines()
            .map(cells)
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| anyhow::anyhow!("{table}"))?;
        if let Some(age) = row.get_mut(6) {
            ensure!(age.ends_with('s') || age.ends_with('m'), "{age} is no age");
            "AGE".clone_into(age);
        }
        assert_eq!([header.join(" "), row.join(" ")], expected, "{resource}");
    }
    Ok(())
}
