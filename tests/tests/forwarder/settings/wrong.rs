//! Wrong settings: each names the field or the file, says the way out, and ends with exit code 2, or 1 where the world
//! is at fault.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use siem_agent_crds::{manifest, schema};
use siem_agent_tests::program::{Ended, forwarder};

/// A folder with the secrets that manifests name.
pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("secrets/defender")).unwrap();
    fs::write(folder.path().join("secrets/defender/token"), "dG9rZW4=").unwrap();
    folder
}

pub(super) const MINIMAL: &str = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc}\nspec:\n  source: {cloudApps: {url: 'http://127.0.0.1:1'}, \
    auth: {tokenSecretRef: {name: defender}}}\n  syslog: {host: 127.0.0.1, port: 1}\n";

/// `run` with a manifest, and more arguments.
pub(super) async fn run(folder: &Path, manifest: &str, more: &[&str]) -> Ended {
    let path = folder.join("siemagent.yaml");
    fs::write(&path, manifest).unwrap();
    let (path, secrets, state) = (
        path.display().to_string(),
        folder.join("secrets").display().to_string(),
        folder.join("state").display().to_string(),
    );
    let mut arguments = vec!["run", "--manifest", &path];
    for (flag, value) in
        [("--secrets", secrets.as_str()), ("--state-dir", &state), ("--listen", "127.0.0.1:0")]
    {
        if !more.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(more);
    forwarder(&arguments, "").await.unwrap()
}

/// One short error that holds all of these words, and this exit code.
#[track_caller]
pub(super) fn complains(what: &str, ended: &Ended, code: i32, words: &[&str]) {
    let Ended { code: ended_with, out, err } = ended;
    assert_eq!(*ended_with, Some(code), "{what}: {out}{err}");
    assert!(out.is_empty(), "{what}: errors go to standard error: {out}");
    let errors: Vec<&str> =
        err.lines().filter(|line| line.starts_with("siem-forwarder: ")).collect();
    assert_eq!(errors.len(), 1, "{what}: one error: {err}");
    for word in words {
        assert!(errors.iter().any(|line| line.contains(word)), "{what}: `{word}` is not in: {err}");
    }
    assert!(!err.contains("panicked"), "{what}: {err}");
}

/// Every field below `spec`, with its schema. What Kubernetes itself defines is not walked into.
fn fields(schema: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{path}.{name}");
        found.push((at.clone(), property.clone()));
        if !["affinity", "resources", "tolerations", "raw"].contains(&name.as_str()) {
            fields(property, &at, found);
        }
    }
}

/// A value of another type than the schema wants.
fn of_another_type(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("string") => json!(7),
        _ => json!("wrong type"),
    }
}

/// Puts a value into a manifest, with what has to stand beside it.
fn with(base: &Value, path: &str, value: Value) -> Value {
    let mut manifest = base.clone();
    let mut at = &mut manifest;
    for name in path.trim_start_matches('.').split('.') {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[name];
    }
    *at = value;
    let spec = &mut manifest["spec"];
    if path.starts_with(".spec.source.auth.tokenSecretRef") {
        spec["source"]["auth"].as_object_mut().unwrap().remove("clientCredentials");
        let reference = &mut spec["source"]["auth"]["tokenSecretRef"];
        if reference.is_object() && reference.get("name").is_none() {
            reference["name"] = json!("defender");
        }
    }
    if path == ".spec.placement.sidecarOf.kind" {
        spec["placement"]["sidecarOf"]["name"] = json!("collector");
    }
    if path == ".spec.placement.sidecarOf.name" {
        spec["placement"]["sidecarOf"]["kind"] = json!("Deployment");
    }
    manifest
}

#[tokio::test]
async fn every_field_given_once_wrongly_is_named() -> Result<()> {
    let full = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/fixtures/legal/full.yaml"),
    )?;
    ensure!(manifest::read(&full).is_ok());
    let full = serde_json::to_value(manifest::read(&full).unwrap())?;
    let mut found = Vec::new();
    fields(&schema::object_schema()["properties"]["spec"], ".spec", &mut found);
    ensure!(found.len() > 80, "{} fields", found.len());
    let folder = folder();
    for (path, schema) in found {
        // `raw` takes whatever the API does, and these take any of Kubernetes' own shapes.
        let wrong = with(&full, &path, of_another_type(&schema));
        let ended = run(folder.path(), &wrong.to_string(), &[]).await;
        let Ended { code, err, .. } = &ended;
        ensure!(*code == Some(2), "{path}: {err}");
        let field = path.trim_start_matches('.');
        let named =
            |line: &str| line.contains("siemagent.yaml") && line.contains(&format!("{field}:"));
        ensure!(err.lines().any(named), "{path} is not named: {err}");
        ensure!(err.lines().count() == 1, "{path}: {err}");
    }
    Ok(())
}

#[tokio::test]
async fn the_illegal_manifests_of_the_contract_end_with_2() -> Result<()> {
    let folder = folder();
    let illegal = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/fixtures/illegal");
    let mut n_manifests = 0;
    for entry in fs::read_dir(illegal)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap();
        let (field, words) = expected.split_once('|').unwrap();
        let ended = run(folder.path(), &text, &[]).await;
        complains(
            &path.display().to_string(),
            &ended,
            2,
            &["siemagent.yaml", field.trim(), words.trim()],
        );
        n_manifests += 1;
    }
    ensure!(n_manifests >= 40, "{n_manifests}");
    Ok(())
}

#[tokio::test]
async fn what_only_settings_can_know_is_refused_as_well() {
    let folder = folder();
    let with = |from: &str, to: &str| MINIMAL.replace(from, to);
    let clash = format!(
        "{MINIMAL}  eventTypes: {{activities: {{filter: {{services: [1], raw: {{service: {{eq: [2]}}}}}}}}}}\n"
    );
    complains(
        "clash",
        &run(folder.path(), &clash, &[]).await,
        2,
        &["spec.eventTypes.activities.filter.raw.service.eq", "keep one"],
    );
    let shape = format!("{MINIMAL}  eventTypes: {{alerts: {{filter: {{raw: {{risk: 5}}}}}}}}\n");
    complains(
        "shape",
        &run(folder.path(), &shape, &[]).await,
        2,
        &["spec.eventTypes.alerts.filter.raw.risk", "operators"],
    );
    complains("no YAML", &run(folder.path(), "{", &[]).await, 2, &["siemagent.yaml", "YAML"]);
    complains(
        "empty",
        &run(folder.path(), "", &[]).await,
        2,
        &["siemagent.yaml", "no document of kind SiemAgent"],
    );
    complains(
        "kind",
        &run(folder.path(), &with("SiemAgent", "Secret"), &[]).await,
        2,
        &["no document of kind SiemAgent"],
    );
    complains(
        "version",
        &run(folder.path(), &with("v1alpha1", "v9"), &[]).await,
        2,
        &["apiVersion"],
    );
    complains(
        "two",
        &run(folder.path(), &format!("{MINIMAL}---\n{MINIMAL}"), &[]).await,
        2,
        &["several"],
    );
}

#[tokio::test]
async fn files_that_are_not_there_or_hold_no_secret_are_named() {
    let folder = folder();
    let ended = forwarder(&["run", "--manifest", "/nonexistent/agent.yaml"], "").await.unwrap();
    complains("manifest", &ended, 2, &["/nonexistent/agent.yaml", "No such file"]);
    let token = folder.path().join("secrets/defender/token");
    for (content, words) in [
        (&b"PLANTED\nPLANTED"[..], "line break"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"PLANTED PLANTED", "a blank in the middle"),
        (b"{\"token\": \"PLANTED\"}", "a JSON document"),
        (b"https://PLANTED.example.com", "a URL"),
        (b"PLANTED\xff", "is not text"),
    ] {
        fs::write(&token, content).unwrap();
        let ended = run(folder.path(), MINIMAL, &[]).await;
        complains(words, &ended, 2, &["defender/token", words, "store the value alone"]);
        assert!(!ended.err.contains("PLANTED"), "{}", ended.err);
    }
    fs::remove_file(&token).unwrap();
    complains(
        "token",
        &run(folder.path(), MINIMAL, &[]).await,
        2,
        &["defender/token", "is missing", "create the Secret"],
    );
    complains(
        "token file",
        &run(folder.path(), MINIMAL, &["--token-file", "/nonexistent/token"]).await,
        2,
        &["/nonexistent/token", "is missing"],
    );
    complains(
        "secrets",
        &run(folder.path(), MINIMAL, &["--secrets", "/nonexistent"]).await,
        2,
        &["/nonexistent/defender/token", "is missing"],
    );
    fs::write(&token, "dG9rZW4=").unwrap();

    let source = |line: &str| MINIMAL.replace("{cloudApps:", &format!("{{{line}, cloudApps:"));
    let bundle = source("caBundleRef: {name: ca}");
    complains(
        "no bundle",
        &run(folder.path(), &bundle, &[]).await,
        2,
        &["ca/ca.crt", "No such file"],
    );
    fs::create_dir_all(folder.path().join("secrets/ca")).unwrap();
    fs::write(folder.path().join("secrets/ca/ca.crt"), "no PEM").unwrap();
    complains(
        "bad bundle",
        &run(folder.path(), &bundle, &[]).await,
        2,
        &["ca/ca.crt", "certificate"],
    );
    let proxy = source("proxy: {url: 'http://127.0.0.1:1', credentialsSecretRef: {name: proxy}}");
    complains(
        "proxy",
        &run(folder.path(), &proxy, &[]).await,
        2,
        &["proxy/username", "is missing"],
    );
    let client = MINIMAL.replace(
        "port: 1}",
        "port: 1, protocol: TLS, tls: {clientCertificateSecretRef: {name: mine}}}",
    );
    complains(
        "client",
        &run(folder.path(), &client, &[]).await,
        2,
        &["mine/tls.crt", "No such file"],
    );
}

#[tokio::test]
async fn folders_and_ports_that_cannot_be_used_are_named() {
    let folder = folder();
    let file = folder.path().join("a-file");
    fs::write(&file, "").unwrap();
    let below = file.join("state").display().to_string();
    complains(
        "state below a file",
        &run(folder.path(), MINIMAL, &["--state-dir", &below]).await,
        2,
        &["a-file/state", "Not a directory"],
    );
    complains(
        "state in /proc",
        &run(folder.path(), MINIMAL, &["--state-dir", "/proc/state"]).await,
        2,
        &["/proc/state"],
    );
    complains(
        "logs",
        &run(folder.path(), MINIMAL, &["--logs-directory", &below]).await,
        2,
        &["a-file/state"],
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    complains(
        "port",
        &run(folder.path(), MINIMAL, &["--listen", &address]).await,
        1,
        &[&address, "--listen", "in use", "another port"],
    );
    complains(
        "address",
        &run(folder.path(), MINIMAL, &["--listen", "nonsense"]).await,
        2,
        &["nonsense", "--listen", "ADDRESS:PORT"],
    );
    complains(
        "proxy",
        &run(folder.path(), MINIMAL, &["--proxy", "http://u:PLANTED@proxy:1"]).await,
        2,
        &["--proxy", "ADDRESS[:PORT]"],
    );
    complains(
        "proxy port",
        &run(folder.path(), MINIMAL, &["--proxy", "proxy:99999"]).await,
        2,
        &["--proxy"],
    );
    let ended = run(folder.path(), MINIMAL, &["--proxy", "u:PLANTED@proxy:1"]).await;
    assert!(!ended.err.contains("PLANTED"), "{}", ended.err);
}

/// A configuration as the operator writes it.
fn config(folder: &Path) -> Value {
    json!({
        "version": 1, "agent": {"namespace": "security", "name": "soc", "displayName": "soc"},
        "source": {"cloudApps": {"url": "http://127.0.0.1:1"}, "auth": {"tokenSecretRef": {"name": "defender"}}},
        "format": {"type": "GenericCEF", "timeFormat": "RFC5424", "includePri": true, "priority": 109, "includeSystemName": true, "systemName": "soc", "dialect": "Legacy"},
        "syslog": {"host": "127.0.0.1", "port": 1, "protocol": "TCP", "header": "Legacy", "framing": "Newline", "maxMessageBytes": 8000, "confirmGrace": "250ms"},
        "startFrom": "1h", "listen": "127.0.0.1:0",
        "paths": {"secrets": folder.join("secrets"), "configMaps": folder.join("config"), "state": folder.join("state")},
    })
}

/// The commands that take a configuration.
const COMMANDS: [&[&str]; 3] = [
    &["run"],
    &["check"],
    &["replay", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-02T00:00:00Z"],
];

#[tokio::test]
async fn a_configuration_file_is_as_strict() {
    let folder = folder();
    let path = folder.path().join("config.json");
    let name = path.display().to_string();
    for (at, value, words) in [
        ("/version", json!(2), "reads version 1"),
        ("/version", Value::Null, "version"),
        ("/agent", json!({"namespace": "x"}), "agent"),
        ("/surprise", json!(1), "surprise"),
        ("/source/surprise", json!(1), "source.surprise"),
        ("/source/auth/tokenSecretRef/surprise", json!(1), "source.auth.tokenSecretRef.surprise"),
        ("/syslog/port", json!("514"), "syslog.port"),
        ("/startFrom", json!("soon"), "startFrom"),
        ("/paths/state", json!(5), "paths.state"),
        ("/listen", json!(9464), "listen"),
        ("/logLevel", json!("loud"), "logLevel"),
    ] {
        let mut config = config(folder.path());
        let (parent, key) = at.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        fs::write(&path, config.to_string()).unwrap();
        for command in COMMANDS {
            let arguments = [command, &["--config", &name]].concat();
            let ended = forwarder(&arguments, "").await.unwrap();
            complains(at, &ended, 2, &["config.json", words]);
        }
    }
    let ended = forwarder(&["run", "--config", "/nonexistent/config.json"], "").await.unwrap();
    complains("missing", &ended, 2, &["/nonexistent/config.json"]);
    fs::write(&path, "{").unwrap();
    let ended = forwarder(&["run", "--config", &name], "").await.unwrap();
    complains("no YAML", &ended, 2, &["config.json", "YAML"]);
}

#[tokio::test]
async fn a_wrong_command_line_names_the_argument_and_shows_no_secret() {
    let folder = folder();
    let path = folder.path().join("siemagent.yaml");
    fs::write(&path, MINIMAL).unwrap();
    let manifest = path.display().to_string();
    let cases: [(&[&str], &str); 18] = [
        (&[], "Usage"),
        (&["walk"], "walk"),
        (&["run"], "--config"),
        (&["run", "--config", "a", "--manifest", "b"], "cannot be used with"),
        (&["run", "--config", "a", "--token", "PLANTED"], "--token"),
        (&["run", "--config", "a", "--token-file", "b"], "--token-file"),
        (&["run", "--config", "a", "--secrets", "b"], "--secrets"),
        (&["run", "--config", "a", "--proxy", "u:PLANTED@b"], "--proxy"),
        (&["run", "--config", "a", "--state-dir", "b"], "--state-dir"),
        (&["run", "--sidecar-of", "Deployment/a", "--manifest", "b"], "--sidecar-of"),
        (&["check", "--config", "a", "--token", "PLANTED"], "change that Secret"),
        (&["run", "--token", "PLANTED"], "--config"),
        (
            &["run", "--manifest", "a", "--token", "PLANTED", "--token-file", "b"],
            "cannot be used with",
        ),
        (&["run", "--manifest", "a", "--log-format", "xml"], "--log-format"),
        (&["run", "--manifest", "a", "--nonsense"], "--nonsense"),
        (&["render", "--manifest", "a", "--stream", "both"], "alerts or activities"),
        (
            &["replay", "--manifest", "a", "--from", "yesterday", "--to", "2026-01-01T00:00:00Z"],
            "--from",
        ),
        (&["check"], "--manifest"),
    ];
    let mut seen = BTreeSet::new();
    for (arguments, words) in cases {
        let ended = forwarder(arguments, "").await.unwrap();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(words), "{arguments:?}: {}", ended.err);
        assert!(!ended.err.contains("PLANTED"), "{arguments:?}: {}", ended.err);
        seen.insert(ended.err);
    }
    assert!(seen.len() > 10, "they differ");
    let window = ["--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"];
    let ended =
        forwarder(&[&["replay", "--manifest", &manifest], &window[..]].concat(), "").await.unwrap();
    complains("window", &ended, 2, &["--from", "before --to"]);
}
