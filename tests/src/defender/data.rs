//! Realistic records from a seed: many apps and users, both kinds of addresses, missing fields, HTML, hostile strings.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Options, Record, Tenant};

const APPS: [(u32, &str); 6] = [
    (20893, "Microsoft Exchange Online"),
    (11161, "Microsoft 365"),
    (15600, "Microsoft OneDrive for Business"),
    (11114, "Salesforce"),
    (10489, "Box"),
    (33626, "Google Workspace"),
];
const TYPES: [(&str, &str); 5] = [
    ("EVENT_CATEGORY_LOGIN", "Log on"),
    ("EVENT_CATEGORY_DOWNLOAD_FILE", "Download file"),
    ("EVENT_CATEGORY_RUN_COMMAND", "Run command"),
    ("EVENT_CATEGORY_FAILED_LOGIN", "Failed log on"),
    ("EVENT_CATEGORY_UPLOAD_FILE", "Upload file"),
];
/// What an attacker may put into a file's name.
const HOSTILE: [&str; 8] = [
    "report.xlsx",
    "a=b|c\\d",
    "x\nCEF:0|MCAS|SIEM_Agent|0|FORGED|forged|10|externalId=forged",
    "x\r\n<109>1 2026-01-01T00:00:00Z h a - - - CEF:0|x",
    "\u{2028}line\u{2029}\u{85}",
    "\u{1F600} Grüße \u{202E}",
    "\u{0}\u{1b}[31mred",
    "   ",
];

/// Makes activities spread over a span that ends now, and an alert for every fiftieth.
pub(super) fn make(
    tenant: &mut Tenant,
    options: &Options,
    n_records: usize,
    span: Duration,
    now: i64,
) {
    let span = i64::try_from(span.as_millis()).unwrap_or(0);
    for index in 0..n_records {
        let number = tenant.n_made;
        tenant.n_made += 1;
        let random = mix(options.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let ago = span
            - i64::try_from(index).unwrap_or(0) * span
                / i64::try_from(n_records.max(1)).unwrap_or(1);
        // Whole tenths of a second, so that many share one time.
        let created = (now - ago) / 100 * 100;
        let late = i64::try_from(options.late.as_millis()).unwrap_or(0);
        let visible = if late > 0 && random.is_multiple_of(10) {
            created + i64::try_from(random >> 8).unwrap_or(i64::MAX) % late
        } else {
            created
        };
        let id = format!("{created}_{random:016x}_{number}");
        let json = activity(&id, created, random).to_string().into();
        tenant.activities.push(Record { id: Some(id), listed: created, visible, json });
        if number.is_multiple_of(50) {
            let id = format!("{:08x}{random:016x}", number & 0xFFFF_FFFF);
            let json = alert(&id, created, random).to_string().into();
            tenant.alerts.push(Record { id: Some(id), listed: created, visible: created, json });
        }
    }
}

fn activity(id: &str, created: i64, random: u64) -> Value {
    let (app, app_name) = pick(&APPS, random);
    let (kind, category) = pick(&TYPES, random >> 8);
    let object = pick(&HOSTILE, random >> 16);
    let user = format!("user{}@example.com", (random >> 24) % 500);
    let mut record = json!({
        "_id": id, "tenantId": 31_415_926, "appId": app, "saasId": app, "appName": app_name,
        "timestamp": created - i64::try_from(random % 300_000).unwrap_or(0), "created": created,
        "instantiation": created, "eventTypeName": kind,
        "device": {"clientIP": address(random >> 32), "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64; a=b)"},
        "location": {"countryCode": "NL", "city": "Utrecht"},
        "user": {"userName": user},
        "mainInfo": {"eventObjects": [{"name": object, "id": "x"}, {"name": "", "id": "y"}, {"name": user}]},
        "rawDataJson": {"Level": "1", "level": 2, "Parameters": [{"Name": "Identity", "Value": object}],
            "Padding": "x".repeat(usize::try_from(random % 1_500).unwrap_or(0))},
        "description_metadata": {"event_category": category},
        "description": format!("{category}: {object}"),
        "severity": "INFO",
    });
    match random % 11 {
        0 => record["device"] = Value::Null,
        1 => record["user"] = json!({"userName": "null"}),
        2 => record["description_metadata"] = json!("odd"),
        3 => record["appId"] = json!(app.to_string()),
        _ => {}
    }
    record
}

fn alert(id: &str, timestamp: i64, random: u64) -> Value {
    let (app, app_name) = pick(&APPS, random);
    let ip = address(random >> 32);
    json!({
        "_id": id, "timestamp": timestamp, "title": "Mass download",
        "description": "<p>Activity policy 'Mass download' was triggered by 'user@example.com'</p>",
        "entities": [
            {"id": "62b1b0c0aa11bb22cc33dd55", "label": "Mass download", "policyType": "AUDIT", "type": "policyRule"},
            {"id": app, "label": app_name, "type": "service"},
            {"id": "u", "label": "User", "pa": "user@example.com", "type": "account"},
            {"id": ip, "label": ip, "type": "ip"},
        ],
        "audits": [format!("{timestamp}_{random:x}")], "idValue": 15_728_641, "severityValue": random % 4,
        "statusValue": 0, "threatScore": random % 100,
        "URL": format!("https://contoso.portal.cloudappsecurity.com/#/alerts/{id}"),
    })
}

fn address(random: u64) -> String {
    let [.., a, b] = random.to_be_bytes();
    if random.is_multiple_of(3) {
        format!("2001:db8::{a:x}:{b:x}")
    } else {
        format!("203.0.{a}.{b}")
    }
}

fn pick<T: Copy, const N: usize>(from: &[T; N], random: u64) -> T {
    from[usize::try_from(random % N as u64).unwrap_or(0)]
}

/// The finalizer of SplitMix64: a well-mixed number from any other.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}
