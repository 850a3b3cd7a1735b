//! Alerts with the entities, severities and descriptions that the API gives them.

use serde_json::{Value, json};

use super::names::{APPS, FILES, PLACES, POLICIES, address, user};
use super::{Draw, hostile};

/// Kinds of alerts by the portal's numbers.
const KINDS: [u32; 6] = [15_728_641, 15_728_642, 15_795_464, 15_859_716, 14_680_070, 15_859_713];

pub(super) fn make(number: u64, timestamp: i64, draw: &mut Draw, evil: bool) -> (String, Value) {
    // 24 hexadecimal digits, as the portal's own.
    let id = format!("{}{number:08x}", draw.hex(16));
    let (app, app_name) = draw.pick(&APPS);
    let (policy, title, policy_type) = draw.pick(&POLICIES);
    let (country, _) = draw.pick(&PLACES);
    let who = user(draw);
    let ip = address(draw);
    let object = if evil && draw.one_in(3) { hostile::text(draw) } else { draw.pick(&FILES) };
    let mut entities = vec![
        json!({"type": "policyRule", "id": policy, "label": title, "policyType": policy_type}),
        json!({"type": "account", "id": draw.uuid(), "inst": 0, "saas": app, "label": who, "em": who, "pa": who, "entityType": 2}),
        json!({"type": "ip", "id": ip, "label": ip, "triggeredAlert": true}),
        json!({"type": "country", "id": country, "label": country}),
    ];
    if !draw.one_in(8) {
        entities.push(json!({"type": "service", "id": app, "label": app_name}));
    }
    if policy_type == "FILE" {
        entities.push(json!({"type": "file", "id": draw.hex(24), "label": object}));
    }
    if draw.one_in(6) {
        entities.push(
            json!({"type": "device", "id": draw.uuid(), "label": "DC1", "entityRole": "Related"}),
        );
        entities.push(json!({"type": "groupTag", "id": POLICIES[2].0, "label": "All Users"}));
    }
    let description = match draw.below(4) {
        0 => format!(
            "<p>Activity policy '{title}' was triggered by '<a href=\"#/users/1\">{who}</a>'<br>{object}</p>"
        ),
        1 => format!("__siteIcon__ {title} &amp; more: {object}"),
        2 => String::new(),
        _ => format!("The user {who} performed an unusual activity: {object}"),
    };
    let mut record = json!({
        "_id": id, "contextId": "0b5f0c4e-1f9e-4d6b-8a57-8d0f3a7c9e21", "timestamp": timestamp,
        "title": title, "description": description, "isMarkdown": false, "entities": entities,
        "idValue": draw.pick(&KINDS), "isSystemAlert": policy_type == "ANOMALY_DETECTION",
        "severityValue": draw.below(4), "statusValue": draw.below(2),
        "resolutionStatusValue": if draw.one_in(5) { 2 } else { 0 }, "stories": [draw.below(6)],
        "intent": [draw.below(14)], "isPreview": false, "threatScore": draw.below(100),
        "audits": [format!("{timestamp}_{}", draw.uuid())], "comment": "",
        "URL": format!("https://contoso.portal.cloudappsecurity.com/#/alerts/{id}"),
    });
    match draw.below(12) {
        0 => record["audits"] = Value::Null,
        1 => record["threatScore"] = json!("57"),
        2 => record["URL"] = Value::Null,
        3 => record["entities"] = json!([]),
        _ => {}
    }
    (id, record)
}
