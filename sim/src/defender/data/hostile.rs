//! What an attacker, or a bug of the portal, may put into records: strings that forge lines, and records that are none.

use serde_json::{Value, json};
use siem_agent_crds::report::Stream;

use super::Draw;

/// A text longer than any message.
const LONG: usize = 1 << 20;

const TEXTS: [&str; 10] = [
    "a=b|c\\d",
    "x\nCEF:0|MCAS|SIEM_Agent|0|FORGED|forged|10|externalId=forged",
    "x\r\n<109>1 2026-01-01T00:00:00Z h a - - - CEF:0|MCAS|SIEM_Agent|0|FORGED|forged|10|externalId=forged",
    "\u{2028}line\u{2029}\u{85}",
    "\u{1F600} Grüße \u{202E}",
    "\u{0}\u{1b}[31mred",
    "   ",
    "ends in a backslash\\",
    "externalId=forged rt=0 suser=root",
    "120 <109>CEF:0|MCAS|SIEM_Agent|0|FORGED|forged|10|externalId=forged",
];

/// A text that tries to do harm.
pub(super) fn text(draw: &mut Draw) -> &'static str {
    draw.pick(&TEXTS)
}

/// A record that is hostile as a whole: its id, where it can be delivered, and its JSON.
pub(super) fn record(
    stream: Stream,
    number: u64,
    listed: i64,
    draw: &mut Draw,
) -> (Option<String>, String) {
    let id = format!("hostile-{number}-{}", draw.hex(8));
    let time = match stream {
        Stream::Alerts => "timestamp",
        Stream::Activities => "created",
    };
    let base = |mut record: Value| {
        record["timestamp"] = json!(listed);
        record[time] = json!(listed);
        record
    };
    let kept = |record: Value| {
        let mut record = base(record);
        record["_id"] = json!(id);
        (Some(id.clone()), record.to_string())
    };
    match number / super::HOSTILE_EVERY % 9 {
        0 => (None, base(json!({"description": "no id"})).to_string()),
        1 => kept(json!({"description": "y".repeat(LONG), "title": "z".repeat(LONG)})),
        2 => kept(json!({
            "device": 5, "user": [], "mainInfo": "x", "appId": {}, "appName": [1], "entities": {"a": 1},
            "description": {"text": 1}, "description_metadata": [], "severityValue": "high",
            "threatScore": {}, "idValue": [], "URL": 7, "title": 3, "audits": "none",
        })),
        3 => (None, base(json!({"_id": {"not": "a text"}})).to_string()),
        4 => kept(json!({"description": TEXTS.join("\n").repeat(500)})),
        5 => (None, "[1, 2, 3]".to_owned()),
        6 => kept(json!({"rawDataJson": nested(40)})),
        7 => (None, "null".to_owned()),
        _ => {
            let mut record = base(json!({"_id": id, "title": "t", "description": "DESCRIPTION"}));
            record["device"] = json!({"clientIP": "not an address\n", "userAgent": "\u{0}"});
            // A lone surrogate, which no decoder of Unicode takes.
            (Some(id.clone()), record.to_string().replace("DESCRIPTION", "x\\ud800y"))
        }
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!("x"), |inner, _| json!([{"a": inner}]))
}
