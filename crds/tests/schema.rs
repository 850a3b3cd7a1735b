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
fn a_secret_in_the_place_of_its_reference_is_never_repeated() {
    const PLANTED: &str = "PLANTED1234567890abcdef";
    for auth in [
        "tokenSecretRef: PLANTED",
        "tokenSecretRef: {name: PLANTED/==}",
        "tokenSecretRef: [PLANTED]",
        "tokenSecretRef: {name: a, key: 'PLANTED =='}",
        "tokenSecretRef: {PLANTED: a}",
        "tokenSecretRef: {PLANTED: a, PLANTED: b}",
        "tokenSecretRef: {PLANTED}",
        "tokenSecretRef: *PLANTED",
        "tokenSecretRef: !PLANTED a",
        "tokenSecretRef: !!int PLANTED",
        "tokenSecretRef: \"PLANTED\\q\"",
        "tokenSecretRef: PLANTED: a: b",
        "token: PLANTED",
        "PLANTED: {name: a}",
        "clientCredentials: PLANTED",
        "clientCredentials: {tenantId: PLANTED=, clientId: PLANTED, clientSecretRef: PLANTED}",
    ] {
        let auth = auth.replace("PLANTED", PLANTED);
        let text = format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: soc}}\nspec:\n  \
             source: {{cloudApps: {{url: https://contoso.us2.portal.cloudappsecurity.com}}, auth: {{{auth}}}}}\n  \
             syslog: {{host: siem.example.com}}\n"
        );
        let said = manifest::read(&text).unwrap_err().to_string();
        assert!(!said.is_empty() && !said.contains("PLANTED"), "{auth}: {said}");
    }
}

#[test]
fn the_committed_crd_is_what_the_types_say() {
    let crd = schema::generate();
    let (yaml, json) = (serde_saphyr::to_string(&crd).unwrap(), crd.to_string());
    #[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write("siemagents.yaml", &yaml).unwrap();
        fs::write("src/schema/crd.json", &json).unwrap();
    }
    for (path, text) in [("siemagents.yaml", &yaml), ("src/schema/crd.json", &json)] {
        let found = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(&found, text, "UPDATE_EXPECT=1 rewrites {path}");
    }
    assert!(!yaml.contains("nullable"));
}

/// `kubectl apply` and Argo CD keep the applied object in an annotation, and docs/install.md says that it fits there.
#[test]
fn the_crd_fits_the_annotation_of_a_client_side_apply() {
    let n_bytes = schema::generate().to_string().len();
    assert!(n_bytes < 262_144 / 3, "{n_bytes} of the 262144 bytes of all annotations");
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
                source: {cloudApps: {url: 'https://h'}, auth: {tokenSecretRef: {name: a, key: null}}}, eventTypes: null, \
                syslog: {host: h, port: 514.0, tls: null}, forwarder: {podLabels: {kept: a, gone: null}}}}";
    let agent = manifest::read(text).unwrap();
    assert_eq!(agent.spec.syslog.port, Some(514));
    assert!(agent.spec.event_types.alerts.enabled);
    let labels: Vec<_> = agent.spec.forwarder.pod_labels.keys().collect();
    assert_eq!(labels, ["kept"]);
    let half = text.replace("514.0", "514.5");
    assert_eq!(manifest::read(&half).unwrap_err().0[0].path, "spec.syslog.port");
}

#[test]
fn what_can_never_match_in_no_proxy_is_refused_in_words() {
    let minimal = fs::read_to_string("fixtures/legal/minimal.yaml").unwrap();
    let mut agent: Value = serde_saphyr::from_str(&minimal).unwrap();
    let mut read = |entry: &str| {
        agent["spec"]["source"]["proxy"] = serde_json::json!({"url": "http://proxy:3128", "noProxy": ["first.example.com", entry]});
        manifest::read(&agent.to_string())
    };
    for entry in [
        "*",
        "example.com",
        "Example.COM.",
        ".example.com",
        "*.example.com",
        "*example.com",
        "*:443",
        "*.svc",
        "localhost",
        "example.com:8443",
        "*.example.com:443",
        " example.com ",
        "a_b.example.com",
        "1.example.com",
        "3com",
        "10.0.0.1",
        "10.0.0.1:80",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "127.*",
        "127.*.*.*",
        "10.1.*",
        "10.1.2.*",
        "192.168.*:80",
        "::1",
        "::",
        "[::1]",
        "[::1]:443",
        "::1/128",
        "[::1]/128",
        "[::1/128]",
        "2001:db8::/32",
        "1:2:3:4:5:6:7:8",
        "1::8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "xn--bcher-kva.example",
    ] {
        let problems = read(entry).err().map(|problems| problems.to_string());
        assert_eq!(problems, None, "{entry}");
    }
    for entry in [
        "",
        " ",
        ".",
        "..",
        "https://example.com",
        "http://10.0.0.1:80",
        "//example.com",
        "example.com/path",
        "user@example.com",
        "example.com,example.org",
        "example.com example.org",
        "a..b",
        "-",
        "-example.com",
        "api.*",
        "*.example.*",
        "a*.example.com",
        "api.*.example.com",
        "*.*",
        "**",
        "*.",
        "-a",
        "127.*.0.1",
        "192.168.*.5",
        "127.",
        "10.",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/8:443",
        "example.com:",
        "example.com:0",
        "example.com:99999",
        "example.com:https",
        "1:2:3",
        ":::",
        "1::2::3",
        "::1/129",
        "[::1",
        "[example.com]",
        "fe80::1%eth0",
        "::ffff:10.0.0.1/33",
        "1.2.3.4.*",
        "300.*",
        "example.com/8",
    ] {
        let problems = read(entry).unwrap_err().to_string();
        assert!(problems.contains("spec.source.proxy.noProxy[1]"), "{entry}: {problems}");
        assert!(entry.is_empty() || problems.contains("no scheme, no path"), "{entry}: {problems}");
    }
}
