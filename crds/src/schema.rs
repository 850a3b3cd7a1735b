//! The CustomResourceDefinition: the schema of the types, cleaned for the API server, with the rules that span fields.
//!
//! Programs read the committed file, as users do; a test makes it anew from the types and compares.
//!
//! The rules stand in one table, so that each can be held against its manifest in `fixtures/`. They use no URL
//! functions, because the server's differ from every offline evaluation; URLs are checked by patterns.

mod bounds;
mod merge;

use kube::CustomResourceExt as _;
use serde_json::{Map, Value, json};

use crate::siem_agent::SiemAgent;
use crate::{address, duration};

/// Keys of `filter.raw` that the forwarder sets itself.
const OWN_FILTERS: [&str; 8] =
    ["date", "created", "skip", "limit", "sortField", "sortDirection", "isScan", "filters"];
/// Kubernetes' own types, whose descriptions would make up most of the CRD.
const FOREIGN: [&str; 3] = ["affinity", "resources", "tolerations"];

/// Fields by which `kubectl get --field-selector` finds agents.
const SELECTABLE: [&str; 2] = [".spec.source.cloudApps.url", ".spec.syslog.host"];

/// The only fields whose default stands in the stored object: other fields are understood by them.
const DISCRIMINATORS: [(&str, &str); 2] =
    [("spec.format.type", "GenericCEF"), ("spec.syslog.protocol", "TCP")];

/// (object, field that was there in an older shape, its type, what it is called now)
const MOVED: [(&str, &str, &str, &str); 4] = [
    ("spec.source", "url", "string", "spec.source.cloudApps.url"),
    ("spec.source", "requestsPerMinute", "integer", "spec.source.cloudApps.requestsPerMinute"),
    ("spec.source", "pollInterval", "string", "spec.source.cloudApps.pollInterval"),
    ("spec.source", "overlap", "string", "spec.source.cloudApps.overlap"),
];

/// That the source which a stream is asked of is given.
const SERVED_ALERTS: &str = "!has(self.eventTypes) || !has(self.eventTypes.alerts) || !has(self.eventTypes.alerts.from) || \
     (self.eventTypes.alerts.from == 'Graph' ? has(self.source.graph) : has(self.source.cloudApps))";
const SERVED_ACTIVITIES: &str = "!has(self.eventTypes) || !has(self.eventTypes.activities) || !has(self.eventTypes.activities.from) || \
     (self.eventTypes.activities.from == 'Graph' ? has(self.source.graph) : has(self.source.cloudApps))";

/// (path below the root, rule, message)
const RULES: &[(&str, &str, &str)] = &[
    (
        "",
        "self.metadata.name.size() <= 50",
        "metadata.name may have at most 50 characters, because every owned object is named after it",
    ),
    (
        "spec.source.auth",
        "has(self.tokenSecretRef) != has(self.clientCredentials)",
        "spec.source.auth needs exactly one of tokenSecretRef and clientCredentials",
    ),
    (
        "spec.source",
        // What an older shape had in its place has a message of its own.
        "has(self.cloudApps) || has(self.graph) || has(self.url)",
        "spec.source needs cloudApps, whose url is the tenant's API URL, or graph",
    ),
    (
        "spec.source",
        "!has(self.graph) || !has(self.auth.tokenSecretRef)",
        "spec.source.auth.tokenSecretRef is a token of the portal, which Graph does not take: give spec.source.auth.clientCredentials",
    ),
    (
        "spec.source.auth.clientCredentials",
        "has(self.clientSecretRef) != has(self.workloadIdentity)",
        "spec.source.auth.clientCredentials needs exactly one proof of who it is: clientSecretRef or workloadIdentity",
    ),
    (
        "spec.source.graph.cloud",
        "self in ['Global', 'USGovernment', 'USGovernmentDoD']",
        "spec.source.graph.cloud must be Global, USGovernment or USGovernmentDoD; Graph in China has neither security/alerts_v2 nor advanced hunting: use cloudApps there",
    ),
    (
        "spec",
        SERVED_ALERTS,
        "spec.eventTypes.alerts.from names a source that spec.source does not give",
    ),
    (
        "spec",
        SERVED_ACTIVITIES,
        "spec.eventTypes.activities.from names a source that spec.source does not give",
    ),
    (
        "spec",
        // Beside Graph, which serves alerts unless they are asked of cloudApps.
        "!has(self.source.cloudApps) || !has(self.source.graph) || !has(self.eventTypes) || \
         (has(self.eventTypes.alerts) && (!has(self.eventTypes.alerts.enabled) || self.eventTypes.alerts.enabled) && has(self.eventTypes.alerts.from) && self.eventTypes.alerts.from == 'CloudApps') || \
         !has(self.eventTypes.activities) || ((!has(self.eventTypes.activities.enabled) || self.eventTypes.activities.enabled) && (!has(self.eventTypes.activities.from) || self.eventTypes.activities.from == 'CloudApps'))",
        "spec.source.cloudApps serves neither stream: leave it out, or say so in spec.eventTypes",
    ),
    (
        "spec",
        "!has(self.source.cloudApps) || !has(self.source.graph) || !has(self.eventTypes) || !has(self.eventTypes.alerts) || \
         ((!has(self.eventTypes.alerts.enabled) || self.eventTypes.alerts.enabled) && (!has(self.eventTypes.alerts.from) || self.eventTypes.alerts.from == 'Graph')) || \
         (has(self.eventTypes.activities) && (!has(self.eventTypes.activities.enabled) || self.eventTypes.activities.enabled) && has(self.eventTypes.activities.from) && self.eventTypes.activities.from == 'Graph')",
        "spec.source.graph serves neither stream: leave it out, or say so in spec.eventTypes",
    ),
    (
        "spec",
        "!has(self.eventTypes) || !has(self.eventTypes.activities) || !has(self.eventTypes.activities.filter) || !has(self.eventTypes.activities.filter.policies) || size(self.eventTypes.activities.filter.policies) == 0 || \
         (has(self.eventTypes.activities.from) ? self.eventTypes.activities.from != 'Graph' : has(self.source.cloudApps))",
        "spec.eventTypes.activities.filter.policies needs cloudApps as their source: no row of Graph says its policies",
    ),
    (
        "spec",
        "!has(self.eventTypes) || !has(self.eventTypes.activities) || !has(self.eventTypes.activities.filter) || !has(self.eventTypes.activities.filter.where) || \
         (has(self.eventTypes.activities.from) ? self.eventTypes.activities.from == 'Graph' : !has(self.source.cloudApps))",
        "spec.eventTypes.activities.filter.where is a condition of KQL: it needs Graph as the source of activities",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.source.auth.clientCredentials) || !has(self.source.auth.clientCredentials.workloadIdentity)",
        "spec.source.auth.clientCredentials.workloadIdentity cannot be combined with spec.placement.sidecarOf: the pod's identity is the host's",
    ),
    (
        "spec.eventTypes",
        "!has(self.alerts) || !has(self.alerts.enabled) || self.alerts.enabled || !has(self.activities) || !has(self.activities.enabled) || self.activities.enabled",
        "spec.eventTypes needs at least one of alerts and activities enabled",
    ),
    (
        "spec.syslog",
        "self.protocol != 'UDP' || !has(self.framing)",
        "spec.syslog.framing must be unset for UDP: each datagram is one message",
    ),
    (
        "spec.syslog",
        "self.protocol == 'TLS' || !has(self.tls)",
        "spec.syslog.tls needs spec.syslog.protocol TLS",
    ),
    (
        "spec.syslog",
        "self.protocol != 'UDP' || !has(self.maxMessageBytes) || self.maxMessageBytes <= 65507",
        "spec.syslog.maxMessageBytes may be at most 65507 for UDP",
    ),
    (
        "spec",
        "!has(self.syslog.header) || self.syslog.header == 'Legacy' || !has(self.format) || !has(self.format.includePri) || self.format.includePri",
        "spec.format.includePri must be true with spec.syslog.header RFC5424 or RFC3164",
    ),
    (
        "spec",
        "!has(self.syslog.header) || self.syslog.header == 'Legacy' || !has(self.format) || !has(self.format.includeSystemName) || self.format.includeSystemName",
        "spec.format.includeSystemName must be true with spec.syslog.header RFC5424 or RFC3164",
    ),
    (
        "spec",
        "!has(self.format) || self.format.type != 'ArcSight' || !has(self.syslog.header) || self.syslog.header == 'Legacy'",
        "spec.syslog.header must be Legacy with spec.format.type ArcSight",
    ),
    (
        "spec",
        "!has(self.format) || self.format.type != 'ArcSight' || !has(self.format.timeFormat) || self.format.timeFormat == 'RFC5424'",
        "spec.format.timeFormat must be RFC5424 with spec.format.type ArcSight",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.nodeSelector) || size(self.forwarder.nodeSelector) == 0",
        "spec.forwarder.nodeSelector cannot be combined with spec.placement.sidecarOf: where the host's pod runs is the host's to say",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.tolerations) || size(self.forwarder.tolerations) == 0",
        "spec.forwarder.tolerations cannot be combined with spec.placement.sidecarOf: where the host's pod runs is the host's to say",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.affinity) || !(has(self.forwarder.affinity.nodeAffinity) || has(self.forwarder.affinity.podAffinity) || has(self.forwarder.affinity.podAntiAffinity))",
        "spec.forwarder.affinity cannot be combined with spec.placement.sidecarOf: where the host's pod runs is the host's to say",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.priorityClassName)",
        "spec.forwarder.priorityClassName cannot be combined with spec.placement.sidecarOf: the priority is the host's pod's",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.podLabels) || size(self.forwarder.podLabels) == 0",
        "spec.forwarder.podLabels cannot be combined with spec.placement.sidecarOf: the labels are the host's pod's",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.podAnnotations) || size(self.forwarder.podAnnotations) == 0",
        "spec.forwarder.podAnnotations cannot be combined with spec.placement.sidecarOf: the annotations are the host's pod's",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.persistence) || !has(self.forwarder.persistence.enabled) || !self.forwarder.persistence.enabled",
        "spec.forwarder.persistence cannot be combined with spec.placement.sidecarOf: the state lies in an emptyDir of the host's pod, and the operator keeps a checkpoint",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.networkPolicy) || !has(self.forwarder.networkPolicy.enabled) || !self.forwarder.networkPolicy.enabled",
        "spec.forwarder.networkPolicy cannot be combined with spec.placement.sidecarOf: who may reach the host's pod is the host's to say",
    ),
    (
        "spec",
        "!has(self.placement) || !has(self.placement.sidecarOf) || !has(self.forwarder) || !has(self.forwarder.podOverrides)",
        "spec.forwarder.podOverrides cannot be combined with spec.placement.sidecarOf: the pod is the host's",
    ),
];

/// (path, pattern, words): a rule, because the words of a pattern are only itself.
const ADDRESSES: &[(&str, &str, &str)] = &[
    (
        "spec.source.cloudApps.url",
        address::URL,
        "spec.source.cloudApps.url must be https://HOST or https://HOST:PORT, or http:// to 127.x.y.z, [::1] or localhost; without user info, path, query and fragment",
    ),
    (
        "spec.source.graph.url",
        address::URL,
        "spec.source.graph.url must be https://HOST or https://HOST:PORT, or http:// to 127.x.y.z, [::1] or localhost; without user info, path, query and fragment",
    ),
    (
        "spec.source.auth.clientCredentials.authorityUrl",
        address::URL,
        "spec.source.auth.clientCredentials.authorityUrl must be https://HOST or https://HOST:PORT, or http:// to 127.x.y.z, [::1] or localhost; without user info, path, query and fragment",
    ),
    (
        "spec.source.proxy.url",
        address::PROXY_URL,
        "spec.source.proxy.url must be http://HOST:PORT or https://HOST:PORT; without path, query, fragment and user info: credentialsSecretRef has that",
    ),
    (
        "spec.source.proxy.noProxy[]",
        address::NO_PROXY,
        "spec.source.proxy.noProxy may hold *, a domain (example.com, *.example.com), an address, each also with :PORT, and a network (10.0.0.0/8, 10.*, 2001:db8::/32); no scheme, no path, no list in one entry, and no * elsewhere",
    ),
    (
        "spec.syslog.host",
        address::HOST,
        "spec.syslog.host must be a DNS name or an IP address, without scheme and port: spec.syslog.port has that",
    ),
];

/// (path of a duration, least, most, words)
const DURATIONS: &[(&str, &str, &str, &str)] = &[
    (
        "spec.source.cloudApps.pollInterval",
        "1s",
        "1h",
        "spec.source.cloudApps.pollInterval must lie between 1s and 1h",
    ),
    (
        "spec.source.cloudApps.overlap",
        "0s",
        "24h",
        "spec.source.cloudApps.overlap may be at most 24h",
    ),
    (
        "spec.source.graph.pollInterval",
        "1s",
        "1h",
        "spec.source.graph.pollInterval must lie between 1s and 1h",
    ),
    ("spec.source.graph.overlap", "0s", "24h", "spec.source.graph.overlap may be at most 24h"),
    (
        "spec.startFrom",
        "0s",
        "4320h",
        "spec.startFrom may be at most 4320h, as long as the API keeps events",
    ),
    ("spec.syslog.confirmGrace", "0s", "1m", "spec.syslog.confirmGrace may be at most 1m"),
];

/// The CRD as it is applied, in JSON: the committed `siemagents.yaml` without its white space, which programs read sooner.
const CRD: &str = include_str!("schema/crd.json");

/// The CRD as it is applied, in YAML: the text of the committed `siemagents.yaml`.
#[expect(clippy::expect_used, reason = "the CRD is this crate's own, and a test compares it")]
pub fn yaml() -> String {
    let crd: Value = serde_json::from_str(CRD).expect("the committed CRD is JSON");
    serde_saphyr::to_string(&crd).expect("JSON is YAML")
}

/// The CRD made from the types, in JSON: what the committed one has to say.
#[expect(
    clippy::expect_used,
    reason = "the CRD is made of this crate's own types, and a test makes it"
)]
pub fn generate() -> Value {
    let mut crd = serde_json::to_value(SiemAgent::crd()).expect("a CRD is JSON");
    let schema =
        crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").expect("a CRD has a schema");
    clean(schema);
    for name in FOREIGN {
        if let Some(foreign) = property(schema, &format!("spec.forwarder.{name}")) {
            let own = foreign.get("description").cloned();
            strip_descriptions(foreign);
            if let (Value::Object(foreign), Some(own)) = (foreign, own) {
                foreign.insert("description".to_owned(), own);
            }
        }
    }
    for stream in ["alerts", "activities"] {
        if let Some(raw) = property(schema, &format!("spec.eventTypes.{stream}.filter.raw")) {
            refuse_own_filters(raw, stream);
        }
    }
    // A rule refuses the others, in words.
    if let Some(Value::Object(cloud)) = property(schema, "spec.source.graph.cloud") {
        cloud.remove("enum");
        cloud.insert("maxLength".to_owned(), 32.into());
    }
    for (path, default) in DISCRIMINATORS {
        if let Some(Value::Object(field)) = property(schema, path) {
            field.insert("default".to_owned(), default.into());
        }
    }
    for (path, field, kind, now) in MOVED {
        refuse_moved(schema, path, field, kind, now);
    }
    for part in ["metadata", "spec"] {
        let path = format!("spec.forwarder.podOverrides.{part}");
        if let Some(Value::Object(part)) = property(schema, &path) {
            part.remove("additionalProperties");
            part.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
            part.insert("maxProperties".to_owned(), 64.into());
        }
    }
    for (path, rule, message) in RULES {
        add_rule(schema, path, rule, message);
    }
    for (path, pattern, message) in ADDRESSES {
        let pattern = pattern.replace('\\', r"\\");
        add_rule(schema, path, &format!("self.matches('{pattern}')"), message);
    }
    for (path, least, most, message) in DURATIONS {
        let pattern = duration::PATTERN;
        let rule = format!(
            "!self.matches('{pattern}') || (duration(self) >= duration('{least}') && duration(self) <= duration('{most}'))"
        );
        add_rule(schema, path, &rule, message);
    }
    if let Some(Value::Object(resources)) = property(schema, "spec.forwarder.resources")
        && let Some(Value::Object(properties)) = resources.get_mut("properties")
    {
        // Devices of a ResourceClaim, which the pod would have to name as well: nothing that a forwarder uses.
        properties.remove("claims");
    }
    bounds::bound(schema);
    merge::merge(schema);
    if let Some(Value::Object(status)) = property(schema, "status") {
        status.insert("default".to_owned(), json!({"observedGeneration": -1}));
    }
    if let Some(Value::Object(version)) = crd.pointer_mut("/spec/versions/0") {
        let fields = SELECTABLE.map(|path| json!({"jsonPath": path}));
        version.insert("selectableFields".to_owned(), fields.to_vec().into());
    }
    crd
}

/// The schema of one object.
#[expect(clippy::expect_used, reason = "the CRD is this crate's own, and a test compares it")]
pub fn object_schema() -> Value {
    let mut crd: Value = serde_json::from_str(CRD).expect("the committed CRD is JSON");
    crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").map(Value::take).unwrap_or_default()
}

/// The schema at a dotted path of properties; `[]` after a name leads to the elements of a list.
pub fn property<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.').filter(|name| !name.is_empty()).try_fold(schema, |schema, name| {
        let list = name.strip_suffix("[]");
        let schema = schema.get_mut("properties")?.get_mut(list.unwrap_or(name))?;
        if list.is_some() { schema.get_mut("items") } else { Some(schema) }
    })
}

fn add_rule(schema: &mut Value, path: &str, rule: &str, message: &str) {
    if let Some(at) = property(schema, path) {
        rule_at(at, rule, message);
    }
}

fn rule_at(schema: &mut Value, rule: &str, message: &str) {
    if let Value::Object(at) = schema {
        let rules = at.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.push(json!({"rule": rule, "message": message}));
        }
    }
}

/// An unknown field is dropped in silence by a server that is not asked to be strict; a known one can be refused in words.
fn refuse_moved(schema: &mut Value, path: &str, field: &str, kind: &str, now: &str) {
    if let Some(Value::Object(properties)) =
        property(schema, path).and_then(|object| object.get_mut("properties"))
    {
        let about = format!("Refused: it is {now} now.");
        properties.insert(field.to_owned(), json!({"description": about, "type": kind}));
    }
    add_rule(schema, path, &format!("!has(self.{field})"), &format!("{path}.{field} is {now} now"));
}

/// CEL sees no unknown fields: the refused keys are made known ones, of any content.
fn refuse_own_filters(raw: &mut Value, stream: &str) {
    let Value::Object(raw) = raw else { return };
    let known = OWN_FILTERS.map(|key| {
        let schema = json!({
            "description": "Refused: the forwarder sets it.",
            "x-kubernetes-preserve-unknown-fields": true,
            "type": "object",
        });
        (key.to_owned(), schema)
    });
    raw.insert("type".to_owned(), "object".into());
    raw.remove("additionalProperties");
    raw.insert("properties".to_owned(), Value::Object(Map::from_iter(known)));
    raw.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
    raw.insert("maxProperties".to_owned(), 32.into());
    let rule = OWN_FILTERS.map(|key| format!("!has(self.{key})")).join(" && ");
    let keys = OWN_FILTERS.join(", ");
    let message =
        format!("spec.eventTypes.{stream}.filter.raw must not set {keys}: the forwarder sets them");
    raw.insert("x-kubernetes-validations".to_owned(), json!([{"rule": rule, "message": message}]));
}

/// Takes out what the API server warns of or understands otherwise: null as a value, formats that it does not know; and
/// every default, which is a function of `defaults`.
fn clean(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.remove("nullable");
            object.remove("default");
            if object
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"))
            {
                object.remove("format");
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            object.values_mut().for_each(clean);
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn strip_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            object.values_mut().for_each(strip_descriptions);
        }
        Value::Array(values) => values.iter_mut().for_each(strip_descriptions),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
