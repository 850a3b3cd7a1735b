//! Every default, once: what the description says, what the schema stores, and what the programs use.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use siem_agent_crds::receiver::PRESETS;
use siem_agent_crds::{defaults, manifest, schema};

const FROM: &str = "Graph for alerts and CloudApps for activities where spec.source gives it";

/// Field, the value where nothing is given, and the words of its description.
fn table() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("displayName", json!("soc"), "metadata.name"),
        ("startFrom", json!("48h"), "48h"),
        ("suspend", json!(false), "false"),
        ("source.auth.tokenSecretRef.key", json!("token"), "token"),
        (
            "source.auth.clientCredentials.clientSecretRef.key",
            json!("clientSecret"),
            "clientSecret",
        ),
        (
            "source.auth.clientCredentials.authorityUrl",
            json!("https://login.microsoftonline.com"),
            "`https://login.microsoftonline.com`",
        ),
        ("source.cloudApps.requestsPerMinute", Value::Null, "its share of the tenant's 30"),
        ("source.cloudApps.pollInterval", json!("4s"), "4s"),
        ("source.cloudApps.overlap", json!("5m"), "5m"),
        (
            "source.auth.clientCredentials.workloadIdentity.audience",
            json!("api://AzureADTokenExchange"),
            "`api://AzureADTokenExchange`",
        ),
        ("source.graph.cloud", json!("Global"), "Global"),
        ("source.graph.url", json!("https://graph.microsoft.com"), "the cloud's own"),
        (
            "source.graph.serviceSources",
            json!(["microsoftDefenderForCloudApps", "microsoftAppGovernance"]),
            "microsoftDefenderForCloudApps and microsoftAppGovernance",
        ),
        (
            "source.graph.tables",
            json!(["CloudAppEvents", "IdentityLogonEvents"]),
            "CloudAppEvents and IdentityLogonEvents",
        ),
        ("source.graph.requestsPerMinute", Value::Null, "its share of 30"),
        ("source.graph.pollInterval", json!("30s"), "30s"),
        ("source.graph.overlap", json!("30m"), "30m"),
        ("source.caBundleRef", Value::Null, "the public roots"),
        ("source.caBundleRef.kind", json!("ConfigMap"), "ConfigMap"),
        ("source.caBundleRef.key", json!("ca.crt"), "ca.crt"),
        ("source.proxy.noProxy", json!([]), "none"),
        ("source.proxy.credentialsSecretRef.usernameKey", json!("username"), "username"),
        ("source.proxy.credentialsSecretRef.passwordKey", json!("password"), "password"),
        ("format.type", json!("GenericCEF"), "GenericCEF"),
        ("format.timeFormat", json!("RFC5424"), "RFC5424"),
        ("format.includePri", json!(true), "true"),
        ("format.priority", json!(109), "109"),
        ("format.includeSystemName", json!(true), "true"),
        ("format.systemName", json!("soc"), "metadata.name"),
        ("format.dialect", json!("Legacy"), "Legacy"),
        ("syslog.port", json!(514), "514"),
        ("syslog.protocol", json!("TCP"), "TCP"),
        ("syslog.receiver", Value::Null, "what most receivers take"),
        ("syslog.header", json!("Legacy"), "Legacy"),
        ("syslog.framing", json!("Newline"), "Newline"),
        ("syslog.maxMessageBytes", json!(8000), "2048 for UDP, 8000 for TCP and TLS"),
        ("syslog.confirmGrace", json!("250ms"), "250ms"),
        ("syslog.tls.caBundleRef", Value::Null, "the public roots"),
        ("syslog.tls.caBundleRef.kind", json!("ConfigMap"), "ConfigMap"),
        ("syslog.tls.caBundleRef.key", json!("ca.crt"), "ca.crt"),
        ("syslog.tls.serverName", json!("siem.example.com"), "host"),
        ("eventTypes.alerts.enabled", json!(true), "true"),
        ("eventTypes.alerts.from", Value::Null, FROM),
        (
            "eventTypes.alerts.filter",
            json!({"severities": [], "services": [], "policies": []}),
            "everything",
        ),
        ("eventTypes.activities.enabled", json!(true), "true"),
        ("eventTypes.activities.from", Value::Null, FROM),
        (
            "eventTypes.activities.filter",
            json!({
                "services": [], "users": [], "eventTypes": [], "ipCategories": [], "countries": [], "policies": [],
            }),
            "everything",
        ),
        ("forwarder.image", json!("image:1"), "the operator's own release"),
        (
            "forwarder.resources",
            json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}),
            "requests of 10m CPU and 32Mi memory, a limit of 128Mi memory",
        ),
        ("forwarder.logLevel", json!("info"), "info"),
        ("forwarder.persistence.enabled", json!(false), "false"),
        ("forwarder.persistence.size", json!("1Gi"), "1Gi"),
        ("forwarder.persistence.storageClassName", Value::Null, "the cluster's default class"),
        ("forwarder.networkPolicy.enabled", json!(false), "false"),
    ]
}

/// The least that says something at every place that a default belongs to.
fn agents() -> [Value; 3] {
    let agent = |auth: Value, syslog: Value| {
        json!({
            "apiVersion": "siemagent.dev/v1alpha1", "kind": "SiemAgent", "metadata": {"name": "soc"},
            "spec": {
                "source": {
                    "cloudApps": {"url": "https://contoso.us2.portal.cloudappsecurity.com"}, "auth": auth,
                    "proxy": {"url": "http://proxy:3128", "credentialsSecretRef": {"name": "proxy"}},
                    "caBundleRef": {"name": "ca"},
                },
                "syslog": syslog,
            },
        })
    };
    let application = json!({"clientCredentials": {
        "tenantId": "contoso.com", "clientId": "00000000-0000-0000-0000-000000000000", "clientSecretRef": {"name": "a"},
    }});
    let tls = json!({"host": "siem.example.com", "protocol": "TLS", "tls": {"caBundleRef": {"name": "ca"}}});
    let identity = json!({"clientCredentials": {
        "tenantId": "contoso.com", "clientId": "00000000-0000-0000-0000-000000000000", "workloadIdentity": {},
    }});
    let mut graph = agent(identity, tls.clone());
    graph["spec"]["source"]["graph"] = json!({});
    [
        agent(json!({"tokenSecretRef": {"name": "defender"}}), json!({"host": "siem.example.com"})),
        agent(application, tls.clone()),
        graph,
    ]
}

fn effective(agent: &Value) -> Value {
    let agent = manifest::read(&agent.to_string()).unwrap();
    serde_json::to_value(defaults::effective(&agent, "image:1")).unwrap()
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.pointer(&format!("/{}", path.replace('.', "/")))
}

fn description(path: &str) -> String {
    let mut schema = schema::object_schema();
    let field = schema::property(&mut schema, &format!("spec.{path}")).unwrap();
    field["description"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_default_is_used_and_described() {
    let effective = agents().map(|agent| effective(&agent));
    for (path, value, words) in table() {
        let text = description(path);
        assert!(text.contains(&format!("Default: {words}")), "{path}: {text}");
        if !value.is_null() {
            let found = effective.iter().find_map(|spec| at(spec, path));
            assert_eq!(found, Some(&value), "{path}");
        }
    }
}

/// Objects whose fields have defaults of their own, fields of which a rule demands one, and what an older shape had.
const WITHOUT: [&str; 18] = [
    "eventTypes",
    "eventTypes.activities",
    "eventTypes.alerts",
    "format",
    "forwarder",
    "forwarder.networkPolicy",
    "forwarder.persistence",
    "source.auth.clientCredentials",
    "source.auth.clientCredentials.clientSecretRef",
    "source.auth.tokenSecretRef",
    "source.auth.clientCredentials.workloadIdentity",
    "source.cloudApps",
    "source.graph",
    "source.overlap",
    "source.pollInterval",
    "source.requestsPerMinute",
    "source.url",
    "syslog.tls",
];

#[test]
fn each_optional_field_describes_its_default_and_each_value_is_in_the_table() {
    fn walk(schema: &Value, path: &str, found: &mut BTreeSet<String>, silent: &mut Vec<String>) {
        let required = schema["required"].to_string();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.contains(&format!("\"{name}\""));
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let text = field["description"].as_str().unwrap_or_default();
            if text.contains("Default: ") && !text.contains("Default: none") {
                found.insert(path.clone());
            } else if !is_required
                && !text.contains("Default: ")
                && !WITHOUT.contains(&path.as_str())
            {
                silent.push(path.clone());
            }
            // Kubernetes' own types are described there.
            let is_ours = !["affinity", "resources", "tolerations", "raw"].contains(&name.as_str());
            if is_ours {
                walk(field, &path, found, silent);
            }
        }
    }
    let (mut found, mut silent) = (BTreeSet::new(), Vec::new());
    walk(&schema::object_schema()["properties"]["spec"], "", &mut found, &mut silent);
    assert_eq!(silent, Vec::<String>::new(), "no default is described");
    let known = table().into_iter().filter(|(.., words)| *words != "none");
    let known: BTreeSet<String> = known.map(|(path, ..)| path.to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn the_schema_stores_no_default_but_those_of_discriminators() {
    fn walk(schema: &Value, path: &str, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                if object.contains_key("type") && object.contains_key("default") {
                    found.push(format!("{path}={}", object["default"]));
                }
                for (name, child) in object {
                    let path = if name == "properties" {
                        path.to_owned()
                    } else {
                        format!("{path}.{name}")
                    };
                    walk(child, &path, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, path, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&schema::object_schema(), "", &mut found);
    found.sort();
    let expected = [
        ".spec.format.type=\"GenericCEF\"",
        ".spec.syslog.protocol=\"TCP\"",
        ".status={\"observedGeneration\":-1}",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_receiver_sets_what_is_not_given_and_nothing_else() {
    let [agent, ..] = agents();
    for preset in PRESETS {
        let mut plain = agent.clone();
        plain["spec"]["syslog"]["receiver"] = json!(preset.receiver);
        let preset = serde_json::to_value((
            preset.header,
            preset.time_format,
            preset.framing,
            preset.max_message_bytes,
            preset.dialect,
            preset.port.unwrap_or(514),
        ));
        let of = |agent: &Value| {
            let spec = effective(agent);
            let (syslog, format) = (&spec["syslog"], &spec["format"]);
            json!([
                syslog["header"],
                format["timeFormat"],
                syslog["framing"],
                syslog["maxMessageBytes"],
                format["dialect"],
                syslog["port"],
            ])
        };
        assert_eq!(of(&plain), preset.unwrap());
        let mut given = plain.clone();
        let syslog = given["spec"]["syslog"].as_object_mut().unwrap();
        syslog.extend(json!({"header": "RFC5424", "framing": "OctetCounting", "maxMessageBytes": 1000, "port": 1}).as_object().unwrap().clone());
        given["spec"]["format"] = json!({"timeFormat": "RFC3164WithYear", "dialect": "Strict"});
        assert_eq!(
            of(&given),
            json!(["RFC5424", "RFC3164WithYear", "OctetCounting", 1000, "Strict", 1])
        );
        // What a header of the standards needs is left out on purpose, and so the header is.
        given["spec"]["syslog"].as_object_mut().unwrap().remove("header");
        given["spec"]["format"] = json!({"includePri": false});
        assert_eq!(of(&given)[0], "Legacy");
        given["spec"]["format"] = json!({"type": "ArcSight"});
        assert_eq!(
            (of(&given)[0].clone(), of(&given)[1].clone()),
            (json!("Legacy"), json!("RFC5424"))
        );
        given["spec"]["syslog"] =
            json!({"host": "h", "protocol": "UDP", "receiver": preset_name(&plain)});
        assert_eq!((of(&given)[2].clone(), of(&given)[3].clone()), (Value::Null, json!(2048)));
    }
}

fn preset_name(agent: &Value) -> Value {
    agent["spec"]["syslog"]["receiver"].clone()
}
