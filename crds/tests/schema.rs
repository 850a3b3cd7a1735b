//! The contract's manifests, legal and illegal, each with its verdict; and the CRD that is committed.
//!
//! An illegal manifest begins with `# expect: PATH | WORDS`: the problem must name that path and hold those words.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::fs;
use std::path::Path;

use serde_json::Value;
use siem_agent_crds::{manifest, schema};

fn manifests(folder: &str) -> Vec<(String, String)> {
    let mut found: Vec<_> = fs::read_dir(Path::new("fixtures").join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

#[test]
fn legal_manifests_are_read() {
    for (path, text) in manifests("legal") {
        if let Err(problems) = manifest::read(&text) {
            panic!("{path}: {problems}");
        }
    }
}

#[test]
fn illegal_manifests_are_refused_by_the_field() {
    let mut wrong = Vec::new();
    for (path, text) in manifests("illegal") {
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap();
        let (field, words) = expected.split_once('|').unwrap();
        match manifest::read(&text) {
            Ok(_) => wrong.push(format!("{path}: was read")),
            Err(problems) => {
                let named = |problem: &manifest::Problem| {
                    problem.path == field.trim() && problem.message.contains(words.trim())
                };
                if !problems.0.iter().any(named) {
                    wrong.push(format!("{path}: {problems}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_committed_crd_is_what_the_types_say() {
    let yaml = serde_saphyr::to_string(&schema::generate()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write("siemagents.yaml", &yaml).unwrap();
    }
    assert_eq!(
        fs::read_to_string("siemagents.yaml").unwrap_or_default(),
        yaml,
        "UPDATE_EXPECT=1 rewrites it"
    );
    assert!(yaml.len() < 100_000, "{} bytes", yaml.len());
    assert!(!yaml.contains("nullable"));
}

#[test]
fn every_field_is_described() {
    fn walk(schema: &Value, path: &str, silent: &mut Vec<String>) {
        for (name, property) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let at = format!("{path}.{name}");
            if property.get("description").is_none() {
                silent.push(at.clone());
            }
            if !["affinity", "resources", "tolerations"].contains(&name.as_str()) {
                walk(property, &at, silent);
            }
        }
        if let Some(items) = schema.get("items") {
            walk(items, &format!("{path}[]"), silent);
        }
    }
    let mut silent = Vec::new();
    walk(&schema::object_schema(), "", &mut silent);
    silent.retain(|path| path != ".metadata");
    assert!(silent.is_empty(), "no description: {silent:?}");
}

#[test]
fn a_manifest_with_several_or_no_agents_is_refused() {
    assert!(
        manifest::read("kind: Secret")
            .unwrap_err()
            .to_string()
            .contains("no document of kind SiemAgent")
    );
    let (_, one) = manifests("legal").pop().unwrap();
    assert!(
        manifest::read(&format!("{one}\n---\n{one}")).unwrap_err().to_string().contains("several")
    );
    assert!(manifest::read(&format!("kind: Secret\n---\n{one}")).is_ok());
}

#[test]
fn nulls_are_pruned_and_whole_numbers_are_whole_as_on_the_server() {
    let text = "{apiVersion: siemagent.dev/v1alpha1, kind: SiemAgent, metadata: {name: soc}, spec: {displayName: null, \
                source: {url: 'https://h', auth: {tokenSecretRef: {name: a, key: null}}}, eventTypes: null, \
                syslog: {host: h, port: 514.0, tls: null}, forwarder: {podLabels: {kept: a, gone: null}}}}";
    let agent = manifest::read(text).unwrap();
    assert_eq!(agent.spec.syslog.port, Some(514));
    assert!(agent.spec.event_types.alerts.enabled);
    let labels: Vec<_> = agent.spec.forwarder.pod_labels.keys().collect();
    assert_eq!(labels, ["kept"]);
    let half = text.replace("514.0", "514.5");
    assert_eq!(manifest::read(&half).unwrap_err().0[0].path, "spec.syslog.port");
}
