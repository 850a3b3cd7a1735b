//! The CRD on a real API server: what is admitted, what is refused and by which field, and that the check without a
//! server says the same.
//!
//! Constraints of single fields are not listed: they are read off the committed CRD, each is broken once, and so none
//! can be added without a case. Rules over several fields have their manifests in `crds/fixtures`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use siem_agent_crds::{manifest, schema};
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::fleet::largest;
use siem_agent_sim::forwarder::program;
use siem_agent_tests::admission::{Admission, Broken, Node, Verb, nodes, set};
use siem_agent_tests::program::{forwarder, to_its_end};

/// What the offline check calls it, and what the server does.
const WORDS: &[(&str, &[&str])] = &[
    ("is not one of", &["Unsupported value"]),
    ("does not match", &["should match"]),
    ("minimum", &["should be greater than or equal to"]),
    ("maximum", &["should be less than or equal to"]),
    ("lower case", &["lowercase RFC 1123"]),
    ("is a required property", &["Required value"]),
    ("Duplicate value", &["Duplicate value", "duplicate entries"]),
    ("unknown field", &["unknown field", "field not declared in schema"]),
    ("integer", &["must be of type integer", "expected numeric"]),
    ("boolean", &["must be of type boolean", "expected boolean"]),
];

struct Fixture {
    name: String,
    /// The field, and words of the refusal; none for a legal one.
    expected: Option<(String, String)>,
    text: String,
    manifest: Value,
}

fn fixtures(folder: &str) -> Result<Vec<Fixture>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/fixtures").join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let expected = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# expect: ")?.split_once('|'))
            .map(|(field, words)| (field.trim().to_owned(), words.trim().to_owned()));
        // An example may bring what its agent needs.
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        let is_agent = |document: &Value| document["kind"] == "SiemAgent";
        let manifest = match documents.as_slice() {
            [one] => one.clone(),
            many => many.iter().find(|one| is_agent(one)).context("a SiemAgent")?.clone(),
        };
        found.push(Fixture { name: path.display().to_string(), expected, text, manifest });
    }
    ensure!(!found.is_empty());
    Ok(found)
}

fn minimal() -> Result<Value> {
    let found = fixtures("legal")?.into_iter().find(|at| at.name.ends_with("/minimal.yaml"));
    Ok(found.context("the minimal manifest")?.manifest)
}

#[tokio::test]
async fn legal_manifests_are_admitted_with_the_defaults_that_the_offline_check_fills_in()
-> Result<()> {
    let admission = Admission::start().await?;
    let kept = admission.keep(&minimal()?).await?;
    for fixture in fixtures("legal")? {
        // No field is fixed once it is written: every legal manifest may follow every other.
        for verb in [Verb::Create, Verb::Apply, Verb::Replace] {
            let kept = (verb == Verb::Replace).then_some(&kept);
            let admitted = admission.admit(verb, kept, &fixture.manifest).await?;
            let admitted =
                admitted.map_err(|refused| anyhow::anyhow!("{}: {refused:?}", fixture.name))?;
            let read = manifest::read(&fixture.text)?;
            let spec = admitted.pointer("/spec").context("a spec")?;
            // Through the type, so that 1s and 1000ms are one.
            let served = manifest::read(&admitted.to_string())?;
            assert_eq!(served.spec, read.spec, "{}: {spec}", fixture.name);
            assert_eq!(admitted.pointer("/status"), Some(&json!({"observedGeneration": -1})));
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_example_is_admitted_rendered_and_listed() -> Result<()> {
    let admission = Admission::start().await?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let list = fs::read_to_string(examples.join("README.md"))?;
    for example in fixtures("../../examples")? {
        let Fixture { name: path, manifest, .. } = &example;
        let admitted = admission.admit(Verb::Create, None, manifest).await?;
        ensure!(admitted.is_ok(), "{path}: {:?}", admitted.err());
        let mut operator = Command::new(program("siem-operator")?);
        operator.args(["render", "-f", path]);
        let page = ["render", "--manifest", path, "--stream", "alerts"];
        let lines = forwarder(&page, "{\"data\": []}").await?;
        for ended in [to_its_end(operator, b"").await?, lines] {
            ensure!(ended.code == Some(0), "{path}: {}", ended.err);
        }
        let file = Path::new(path).file_name().context("a name")?.to_string_lossy();
        ensure!(list.contains(&format!("| [{file}]({file}) |")), "{file} is not in the list");
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_of_the_largest_size_is_a_few_tens_of_kilobytes() -> Result<()> {
    let admission = Admission::start().await?;
    let agent = largest("soc", "https://contoso.us2.portal.cloudappsecurity.com");
    let n_bytes = agent["spec"].to_string().len();
    ensure!((55_000..manifest::MAX_SPEC_BYTES).contains(&n_bytes), "{n_bytes}");
    let admitted = admission.admit(Verb::Create, None, &agent).await?;
    ensure!(admitted.is_ok(), "{:?}", admitted.err());
    manifest::read(&agent.to_string())?;
    // What no rule of the server sees is refused offline, and by the operator.
    let mut larger = agent.clone();
    larger["spec"]["eventTypes"]["alerts"]["filter"]["raw"]["y"] = json!({"eq": vec![1; 2_000]});
    let problems = manifest::read(&larger.to_string()).err().context("it is too large")?;
    ensure!(
        problems.0.iter().any(|it| it.path == "spec.eventTypes.alerts.filter.raw"),
        "{problems}"
    );
    Ok(())
}

#[tokio::test]
async fn illegal_manifests_are_refused_by_the_field_however_they_come() -> Result<()> {
    let admission = Admission::start().await?;
    let minimal = minimal()?;
    let kept = admission.keep(&minimal).await?;
    let mut wrong = Vec::new();
    let mut said = String::new();
    for fixture in fixtures("illegal")? {
        let (field, words) = fixture.expected.context("every illegal one says what it expects")?;
        let own = [&*words];
        let words = WORDS.iter().find(|(ours, _)| *ours == words).map_or(&own[..], |(_, its)| its);
        for verb in [Verb::Create, Verb::Apply, Verb::Replace] {
            let has_own_name = fixture.manifest.pointer("/metadata/name") != Some(&json!("soc"));
            if verb == Verb::Replace && has_own_name {
                continue;
            }
            let kept = (verb == Verb::Replace).then_some(&kept);
            match admission.admit(verb, kept, &fixture.manifest).await? {
                Ok(_) => wrong.push(format!("{} by {verb:?}: was admitted", fixture.name)),
                Err(refused) => {
                    if !refused.names(&field, words) {
                        wrong.push(format!("{} by {verb:?}: {refused:?}", fixture.name));
                    }
                    said.push_str(&refused.message);
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No rule without a manifest that breaks it.
    for node in nodes(&schema::object_schema()) {
        for rule in node.rules() {
            ensure!(said.contains(&rule), "no illegal manifest breaks `{}`: {rule}", node.path);
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_constraint_of_a_field_refuses_by_that_field_on_the_server_and_offline() -> Result<()>
{
    let admission = Admission::start().await?;
    let minimal = minimal()?;
    let mut wrong = Vec::new();
    let mut n_broken = 0;
    for node in nodes(&schema::object_schema()) {
        if !node.path.starts_with("spec") {
            continue;
        }
        for Broken { path, demand: why, manifest } in node.broken(&minimal)? {
            n_broken += 1;
            match admission.admit(Verb::Create, None, &manifest).await? {
                Ok(_) => wrong.push(format!("{path} {why}: was admitted")),
                Err(refused) if refused.names(&path, &[]) => {}
                Err(refused) => wrong.push(format!("{path} {why}: {refused:?}")),
            }
            match manifest::read(&manifest.to_string()) {
                Ok(_) => wrong.push(format!("{path} {why}: was read offline")),
                Err(problems) if problems.0.iter().any(|problem| problem.path == path) => {}
                Err(problems) => wrong.push(format!("{path} {why}: offline: {problems}")),
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(n_broken > 150, "only {n_broken} cases were found in the schema");
    Ok(())
}

/// Values near a bound, or that the parsers of URLs, durations and numbers are known to read differently.
const NEAR: &[(&str, &str)] = &[
    (
        "spec.source.cloudApps.url",
        r#"["https://h", "https://h/", "https://h:8443", "https://h:99999", "https://u:p@h", "https://*", "HTTPS://H", "https:h", "https://", "https://h/path", "https://h#f", "http://127.0.0.1:80", "http://127.1", "http://2130706433", "http://localhost:8080", "http://localhost.example.com", "http://[::1]:80", "http://[::2]", "https://[2001:db8::1]", "ftp://h", " https://h", "https://h "]"#,
    ),
    (
        "spec.source.cloudApps.pollInterval",
        r#"["1s", "999ms", "1h", "1h1ms", "60m", "61m", "1.5s", "0s", "-1s", "1s500ms", "1d", "999999999h", "1000us", 4, ""]"#,
    ),
    (
        "spec.source.cloudApps.overlap",
        r#"["0s", "0ms", "24h", "1440m", "24h1ms", "999999999h", "5"]"#,
    ),
    ("spec.startFrom", r#"["0s", "4320h", "4320h1s", "180d", "999999999h999999999h"]"#),
    ("spec.syslog.confirmGrace", r#"["0ms", "1m", "60s", "60001ms"]"#),
    ("spec.syslog.port", r#"[1, 65535, 65536, 514.0, 5.14e2, 514.5, 1e300, "514", true]"#),
    ("spec.syslog.maxMessageBytes", "[480, 1048576, 65507, 1048577, 9223372036854775808]"),
    (
        "spec.syslog.host",
        r#"["siem", "siem.example.com.", "-siem", "a..b", "10.0.0.1", "::1", "[::1]", "fe80::1%eth0", "a_b", "h:514", "münchen"]"#,
    ),
    ("spec.format.priority", "[0, 191, -1, 1.0]"),
    ("spec.format.systemName", r#"["", "a b", "ü"]"#),
    ("spec.displayName", r#"["SOC", "", "SOC Zürich", "a\nb"]"#),
    (
        "spec.source.proxy",
        r#"[{"url": "http://p", "noProxy": [null]}, {"url": "http://p", "noProxy": ["*", "10.0.0.0/8"]}, {"url": "http://p", "noProxy": ["[::1]/128", "127.*", "h.", "[::1]:443"]}, {"url": "http://p", "noProxy": ["ok", "https://h"]}, {"url": "http://p", "noProxy": ["a.*.b"]}, {"url": "http://p", "noProxy": ["1:2:3"]}, {"url": null}]"#,
    ),
    ("spec.suspend", r#"[true, "true", 1]"#),
    (
        "spec.source.proxy.url",
        r#"["http://proxy:3128", "https://proxy", "socks5://proxy", "http://u:p@proxy", "proxy:3128"]"#,
    ),
    (
        "spec.eventTypes.alerts.filter.raw",
        r#"[{}, {"x": 1}, {"date": 1}, {"date": null}, {"date": {}}, {"a.b": {"eq": [null]}}]"#,
    ),
    (
        "spec.eventTypes.activities.filter.services",
        r#"[[], [0], [2147483647], ["1"], [1.5], [11161, 11161]]"#,
    ),
    (
        "spec.forwarder.resources",
        r#"[{}, {"limits": {"cpu": "1", "memory": "64Mi"}}, {"limits": {"cpu": 1}}, {"limits": {"cpu": "lots"}}, {"claims": [{}]}]"#,
    ),
    (
        "spec.forwarder.tolerations",
        r#"[[], [{"operator": "Exists"}], [{"operator": "Nope"}], [{"nope": 1}], [{"tolerationSeconds": "1"}]]"#,
    ),
    (
        "spec.forwarder.affinity",
        r#"[{}, {"nodeAffinity": {}}, {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}, {"nope": {}}]"#,
    ),
    ("spec.forwarder.podLabels", r#"[{}, {"a": "b"}, {"a": 1}, {"a": null}, {"a": {}}]"#),
    ("spec.forwarder.persistence.size", r#"["1Gi", "1.5Gi", "1e3", "0", 1, "-1"]"#),
    ("spec.forwarder.image", r#"["", "registry/forwarder@sha256:0", "a b"]"#),
    (
        "spec.forwarder.podOverrides",
        r#"[{}, {"spec": {"dnsPolicy": "None", "anything": [1, {"x": null}]}}, {"metadata": {"labels": {"a": "b"}}}, {"spec": []}, {"status": {}}, null]"#,
    ),
    ("spec.syslog.receiver", r#"["SC4S", "sc4s", "", null]"#),
    ("spec.source.url", r#"["https://h", "", null, 1]"#),
    ("metadata.labels", r#"[{"a": "b"}, {"a": 1}]"#),
    ("metadata.name", r#"["a", "a.b", "a_b", "-a", ""]"#),
];

#[tokio::test]
async fn server_and_offline_check_give_the_same_verdicts() -> Result<()> {
    let admission = Admission::start().await?;
    let minimal = minimal()?;
    let mut differ = Vec::new();
    for (path, values) in NEAR {
        let values: Vec<Value> = serde_json::from_str(values)?;
        for value in values {
            let mut manifest = minimal.clone();
            set(&mut manifest, path, value.clone());
            let server = admission.admit(Verb::Create, None, &manifest).await?;
            let offline = manifest::read(&manifest.to_string());
            if server.is_ok() != offline.is_ok() {
                let (server, offline) = (server.err(), offline.err());
                differ.push(format!("{path} = {value}: server {server:?}, offline {offline:?}"));
            }
        }
    }
    ensure!(differ.is_empty(), "{}", differ.join("\n"));
    Ok(())
}

/// What any field may be given by mistake.
const MISTAKES: &str = r#"[null, "", " ", "x", "null", "a\nb", "-1", 0, -1, 7, 1.5, 1e300, true, [], [null], [1], ["x", "x"],
    {}, {"nope": 1}, {"k": null}]"#;
/// The same of what Kubernetes itself defines; only what people write.
const METADATA: &[(&str, &str)] = &[
    ("name", r#"[null, "", "A", 7, {}, ["x"]]"#),
    ("labels", r#"[null, "x", [], {"k": null}, {"k": 1}, {"k": {}}]"#),
    ("annotations", r#"[null, "x", [], {"k": null}, {"k": 1}, {"k": true}]"#),
    ("nope", "[1, null]"),
];

#[tokio::test]
async fn every_field_of_a_full_manifest_given_by_mistake_gets_the_same_verdict() -> Result<()> {
    let admission = Admission::start().await?;
    let full = fixtures("legal")?.into_iter().find(|at| at.name.ends_with("/full.yaml"));
    let full = full.context("the full manifest")?.manifest;
    let mut cases = Vec::new();
    for node in nodes(&schema::object_schema()) {
        if !node.path.starts_with("spec") {
            continue;
        }
        let path = node.path.replace("[]", "[0]");
        for value in serde_json::from_str::<Vec<Value>>(MISTAKES)? {
            cases.push((path.clone(), value));
        }
        if node.has_fields() {
            cases.push((format!("{path}.nope"), json!(1)));
        }
    }
    for (field, values) in METADATA {
        for value in serde_json::from_str::<Vec<Value>>(values)? {
            cases.push((format!("metadata.{field}"), value));
        }
    }
    let n_cases = cases.len();
    let verdicts = stream::iter(cases).map(async |(path, value)| {
        let mut manifest = full.clone();
        set(&mut manifest, &path, value.clone());
        let server = admission.admit(Verb::Create, None, &manifest).await?;
        let offline = manifest::read(&manifest.to_string());
        let differ = server.is_ok() != offline.is_ok();
        anyhow::Ok(differ.then(|| {
            let (server, offline) = (server.err().map(|no| no.message), offline.err());
            format!("{path} = {value}: server {server:?}, offline {offline:?}")
        }))
    });
    let verdicts: Vec<Option<String>> = verdicts.buffer_unordered(8).try_collect().await?;
    let differ: Vec<String> = verdicts.into_iter().flatten().collect();
    ensure!(differ.is_empty(), "{} of {n_cases}:\n{}", differ.len(), differ.join("\n"));
    ensure!(n_cases > 1_500, "only {n_cases}");
    Ok(())
}

#[tokio::test]
async fn null_is_as_good_as_absent_for_what_may_be_absent() -> Result<()> {
    let admission = Admission::start().await?;
    let minimal = minimal()?;
    let mut differ = Vec::new();
    let mut n_fields = 0;
    for node in nodes(&schema::object_schema()) {
        if !node.path.starts_with("spec.") || node.path.contains("[]") {
            continue;
        }
        n_fields += 1;
        let (path, required) = (node.path, node.required);
        let mut manifest = minimal.clone();
        set(&mut manifest, &path, Value::Null);
        let server = admission.admit(Verb::Create, None, &manifest).await?;
        let offline = manifest::read(&manifest.to_string());
        if server.is_ok() != offline.is_ok() || (required && server.is_ok()) {
            differ.push(format!("{path}: server {:?}, offline {:?}", server.err(), offline.err()));
        }
    }
    ensure!(differ.is_empty(), "{}", differ.join("\n"));
    ensure!(n_fields > 60, "only {n_fields} fields");
    Ok(())
}

#[tokio::test]
async fn the_crd_is_established_without_a_warning() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    plane.install_crd().await?;
    let kubectl = plane.kubectl()?;
    let yaml =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/siemagents.yaml"))?;
    let strictly =
        ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"];
    let said = kubectl.say(&strictly, &yaml).await?;
    ensure!(said.ok && said.stderr.is_empty(), "{}", said.stderr);
    // The client's apply keeps a copy in an annotation, which may have 256 KiB.
    let said = kubectl.say(&["apply", "--dry-run=server", "--filename=-"], &yaml).await?;
    ensure!(said.ok, "{}", said.stderr);

    let served =
        kubectl.run(&["get", "crd", "siemagents.siemagent.dev", "--output=json"], "").await?;
    let served: Value = serde_json::from_str(&served)?;
    let compact = served.get("spec").context("a spec")?.to_string();
    let unbounded: Vec<_> = nodes(&schema::object_schema())
        .into_iter()
        .filter(Node::is_unbounded)
        .map(|node| node.path)
        .collect();
    ensure!(unbounded.is_empty(), "{unbounded:?}");
    ensure!(compact.len() < 100_000, "{} bytes", compact.len());
    let conditions: BTreeMap<&str, &str> = served
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|at| Some((at.get("type")?.as_str()?, at.get("status")?.as_str()?)))
        .collect();
    assert_eq!(
        conditions,
        BTreeMap::from([("Established", "True"), ("NamesAccepted", "True")]),
        "NonStructuralSchema would stand here"
    );
    Ok(())
}
