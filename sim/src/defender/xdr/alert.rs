//! Alerts of `alerts_v2`, with what real ones lack by turns, and those of other products between them. Pure.

use serde_json::{Value, json};

use super::super::draw::Draw;
use super::super::ticks::{self, MILLISECOND};
use super::{draw, print, read, text, time};

/// The product whose alerts the portal has.
const CLOUD_APPS: &str = "microsoftDefenderForCloudApps";
/// Members that an enumeration got after it was published.
const YOUNG_SOURCES: [&str; 2] = ["microsoftSentinel", "microsoftInsiderRiskManagement"];
/// What they read for a client that does not say that it knows them.
const UNKNOWN: &str = "unknownFutureValue";

const CATEGORIES: [&str; 6] = [
    "InitialAccess",
    "Exfiltration",
    "DefenseEvasion",
    "SuspiciousActivity",
    "Discovery",
    "ThreatManagement",
];
const DETECTORS: [&str; 4] = [
    "AnomalousToken",
    "ImpossibleTravel",
    "8d1f2c1e-76f8-4b9a-a0b8-3f0c4d1a2b3c",
    "MCAS_ALERT_MassDownload",
];

/// An alert.
#[derive(Debug, Clone)]
pub(in crate::defender) struct Alert {
    /// The tenant's own id, where it is one of the tenant's.
    pub(in crate::defender) own: Option<String>,
    /// By which alerts of one time are ordered.
    pub(in crate::defender) key: String,
    /// Times in ticks.
    pub(in crate::defender) created: i64,
    pub(in crate::defender) updated: i64,
    pub(in crate::defender) json: Value,
}

impl Alert {
    /// A field's text, by its name.
    pub(in crate::defender) fn text(&self, field: &str) -> Option<&str> {
        self.json.get(field).and_then(Value::as_str)
    }

    /// As it is sent to a client that knows every member of an enumeration, or only the old ones.
    pub(in crate::defender) fn print(&self, knows_all: bool) -> String {
        let is_young =
            self.text("serviceSource").is_some_and(|source| YOUNG_SOURCES.contains(&source));
        if knows_all || !is_young {
            return print(&self.json);
        }
        let mut json = self.json.clone();
        json["serviceSource"] = json!(UNKNOWN);
        json["detectionSource"] = json!(UNKNOWN);
        print(&json)
    }
}

/// The alert of a record that is listed at this time, and by turns one of another product.
pub(super) fn make(json: &str, listed: i64) -> Vec<Alert> {
    let mut draw = draw(json);
    let record = read(json);
    let mut alerts = vec![own(&record, listed, &mut draw)];
    if draw.one_in(6) {
        alerts.push(other(listed, &mut draw));
    }
    alerts
}

fn own(record: &Value, listed: i64, draw: &mut Draw) -> Alert {
    let id = record.get("_id").and_then(Value::as_str).map(str::to_owned);
    let (created, created_text) = time(listed, draw);
    let updated = created + i64::try_from(draw.below(20)).unwrap_or(0) * 100 * MILLISECOND;
    let (happened, _) = time(listed - i64::try_from(draw.below(400_000)).unwrap_or(0), draw);
    let app_governance = draw.one_in(10);
    let severity = match record.get("severityValue").and_then(Value::as_i64) {
        Some(0) => "low",
        Some(1) => "medium",
        Some(2) => "high",
        Some(_) => "informational",
        None => "unknown",
    };
    let policy = entity(record, "policyRule").and_then(|policy| text(policy, "/id"));
    let category = draw.pick(&CATEGORIES);
    let resolved = record.get("resolutionStatusValue") == Some(&json!(2));
    let mut alert = json!({
        "providerAlertId": id, "incidentId": draw.below(10_000).to_string(),
        "status": if resolved { "resolved" } else { draw.pick(&["new", "inProgress"]) },
        "severity": severity,
        "classification": draw.pick(&["unknown", "truePositive", "falsePositive"]),
        "determination": draw.pick(&["unknown", "malware", "notMalicious"]),
        "serviceSource": if app_governance { "microsoftAppGovernance" } else { CLOUD_APPS },
        "detectionSource": if app_governance { "appGovernancePolicy" } else { "cloudAppSecurity" },
        "productName": if app_governance { "App Governance" } else { "Microsoft Defender for Cloud Apps" },
        "detectorId": draw.pick(&DETECTORS), "alertPolicyId": policy,
        "tenantId": "0b5f0c4e-1f9e-4d6b-8a57-8d0f3a7c9e21",
        "title": record.get("title"), "description": record.get("description"),
        "recommendedActions": "", "category": category, "categories": [category],
        "assignedTo": if draw.one_in(3) { json!("soc@contoso.com") } else { Value::Null },
        "alertWebUrl": id.as_ref().map(|id| format!("https://security.microsoft.com/alerts/ca{id}?tid=0b5f0c4e")),
        "incidentWebUrl": "https://security.microsoft.com/incidents/15",
        "actorDisplayName": null, "threatDisplayName": null, "threatFamilyName": null,
        "mitreTechniques": ["T1078"], "createdDateTime": created_text,
        "lastUpdateDateTime": ticks::print(updated, ticks::n_digits(updated).max(2)),
        "resolvedDateTime": resolved.then(|| ticks::print(updated, 7)),
        "firstActivityDateTime": ticks::print(happened, 7),
        "lastActivityDateTime": ticks::print(happened, ticks::n_digits(happened)),
        "comments": [], "systemTags": [], "additionalData": null, "customDetails": null,
        "evidence": evidence(record, &created_text, draw),
    });
    if let (Some(id), Some(alert)) = (&id, alert.as_object_mut()) {
        alert.insert("id".to_owned(), json!(format!("ca{id}")));
    }
    loosen(&mut alert, draw);
    let key = id.clone().unwrap_or_else(|| draw.hex(16));
    Alert { own: id, key, created, updated, json: alert }
}

/// What real alerts lack, or have as null.
fn loosen(alert: &mut Value, draw: &mut Draw) {
    let optional = [
        "alertPolicyId",
        "detectorId",
        "category",
        "firstActivityDateTime",
        "lastActivityDateTime",
        "alertWebUrl",
    ];
    match draw.below(16) {
        0 => alert[draw.pick(&optional)] = Value::Null,
        1 => {
            let name = draw.pick(&optional);
            if let Some(alert) = alert.as_object_mut() {
                alert.remove(name);
            }
        }
        2 => alert["alertPolicyId"] = Value::Null,
        3 => alert["evidence"] = Value::Null,
        4 => alert["description"] = Value::Null,
        5 => alert["classification"] = Value::Null,
        _ => {}
    }
}

fn entity<'a>(record: &'a Value, kind: &str) -> Option<&'a Value> {
    let entities = record.get("entities")?.as_array()?;
    entities.iter().find(|entity| entity.get("type").and_then(Value::as_str) == Some(kind))
}

fn evidence(record: &Value, created: &str, draw: &mut Draw) -> Value {
    let entities = match record.get("entities") {
        Some(Value::Array(entities)) => entities.as_slice(),
        None | Some(Value::Null) => &[],
        // What is wrong at the portal is wrong here as well.
        Some(other) => return other.clone(),
    };
    let mut evidence = Vec::new();
    for entity in entities {
        let (id, label) = (text(entity, "/id"), text(entity, "/label"));
        let fields = match text(entity, "/type") {
            Some("account" | "user") => user(entity, draw),
            Some("ip") => json!({"@odata.type": "#microsoft.graph.security.ipEvidence",
                "ipAddress": id, "countryLetterCode": "NL", "location": null}),
            Some("service") => json!({
                "@odata.type": "#microsoft.graph.security.cloudApplicationEvidence",
                "appId": entity.get("id"), "displayName": label, "instanceId": 0,
                "instanceName": label, "saasAppId": entity.get("id")}),
            Some("file") => json!({"@odata.type": "#microsoft.graph.security.fileEvidence",
                "fileDetails": {"fileName": label, "filePath": null}, "mdeDeviceId": null}),
            Some("device") => json!({"@odata.type": "#microsoft.graph.security.deviceEvidence",
                "deviceDnsName": label}),
            _ => continue,
        };
        let mut one = json!({"createdDateTime": created, "verdict": "suspicious", "tags": [],
            "remediationStatus": "none", "remediationStatusDetails": null, "roles": [], "detailedRoles": []});
        if let (Some(one), Value::Object(fields)) = (one.as_object_mut(), fields) {
            one.extend(fields);
        }
        evidence.push(one);
    }
    json!(evidence)
}

fn user(entity: &Value, draw: &mut Draw) -> Value {
    let name = text(entity, "/em").or_else(|| text(entity, "/label"));
    let (account, domain) = name.and_then(|name| name.split_once('@')).unzip();
    let mut user = json!({"accountName": account, "domainName": domain, "userSid": null,
        "azureAdUserId": entity.get("id"), "userPrincipalName": name, "displayName": entity.get("label")});
    match draw.below(8) {
        0 => user["userPrincipalName"] = Value::Null,
        1 => user = json!({"accountName": name, "domainName": null}),
        _ => {}
    }
    json!({"@odata.type": "#microsoft.graph.security.userEvidence", "userAccount": user})
}

/// An alert of another product, from the same time.
fn other(listed: i64, draw: &mut Draw) -> Alert {
    let (created, text) = time(listed, draw);
    let (prefix, source) = draw.pick(&[
        ("da", "microsoftDefenderForEndpoint"),
        ("da", "microsoftDefenderForEndpoint"),
        ("sn", YOUNG_SOURCES[0]),
        ("ir", YOUNG_SOURCES[1]),
    ]);
    let id = format!("{prefix}{}_1", draw.uuid());
    let json = json!({
        "id": id, "providerAlertId": id, "status": "new", "severity": "high",
        "classification": null, "determination": null, "assignedTo": null,
        "serviceSource": source, "detectionSource": source, "title": "Of another product",
        "description": "Never asked for", "createdDateTime": text, "lastUpdateDateTime": text,
        "evidence": [],
    });
    Alert { own: None, key: id, created, updated: created, json }
}
