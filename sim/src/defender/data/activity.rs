//! Activities, in the shapes in which the API gives them: ids of every kind, missing fields, HTML, keys of two cases.

use serde_json::{Value, json};

use super::names::{AGENTS, APPS, FILES, PLACES, POLICIES, TYPES, address, user};
use super::{Draw, hostile};

pub(super) fn make(number: u64, created: i64, draw: &mut Draw, evil: bool) -> (String, Value) {
    let (app, app_name) = draw.pick(&APPS);
    let (kind, value, category) = draw.pick(&TYPES);
    let (country, city) = draw.pick(&PLACES);
    let (agent, device) = draw.pick(&AGENTS);
    let id = id(number, created, app, draw);
    let object = if evil && draw.one_in(4) { hostile::text(draw) } else { draw.pick(&FILES) };
    let who = user(draw);
    let ip = address(draw);
    // Most activities are saved within minutes; some come a day late.
    let delay = if draw.one_in(50) { 24 * 3_600_000 } else { draw.below(340_000) };
    let happened = created - i64::try_from(delay).unwrap_or(0);
    let parameters =
        json!([{"Name": "Identity", "Value": object}, {"Name": "Confirm", "Value": false}]);
    let mut record = json!({
        "_id": id, "tenantId": 31_415_926, "aadTenantId": "0b5f0c4e-1f9e-4d6b-8a57-8d0f3a7c9e21",
        "appId": app, "saasId": app, "appName": app_name,
        "timestamp": happened, "timestampRaw": happened, "instantiation": created - 2_000,
        "created": created, "createdRaw": created,
        "eventType": 983_101, "eventTypeValue": value, "eventTypeName": kind,
        "eventRouting": {"scubaUnpacker": false, "lograbber": true, "auditing": true},
        "device": {"clientIP": ip, "userAgent": agent, "countryCode": country},
        "location": {"countryCode": country, "city": city, "anonymousProxy": false, "category": draw.below(7)},
        "user": {"userName": who, "userTags": [POLICIES[0].0]},
        "userAgent": {"family": "CHROME", "type": "Browser", "deviceType": device},
        "internals": {"otherIPs": [ip]},
        "mainInfo": {"eventObjects": [
            {"objType": 7, "role": 3, "tags": [], "name": object, "id": "Identity"},
            {"objType": 6, "role": 1, "tags": [], "name": "", "id": draw.hex(8)},
            {"objType": 21, "role": 4, "tags": [], "name": who, "resolved": true, "saasId": 11161, "id": who},
        ], "type": "basic"},
        "confidenceLevel": 20, "source": 2, "srcAppId": app,
        "rawDataJson": {"Operation": category, "Level": "1", "level": 2, "Parameters": parameters,
            "Padding": "x".repeat(draw.below(1_500))},
        "resolvedActor": {"id": draw.uuid(), "saasId": "11161", "name": who, "role": "4", "resolved": true},
        "classifications": [], "uid": id, "description_id": "EVENT_DESCRIPTION_BASIC_EVENT",
        "description_metadata": {"event_category": category, "target_object": object, "colon": ": ", "dash": ""},
        "description": format!("{category}: {object}"),
        "genericEventType": "ENUM_ACTIVITY_GENERIC_TYPE_BASIC", "severity": "INFO",
    });
    loosen(&mut record, draw);
    (id, record)
}

/// What real records lack, or have in another type than most.
fn loosen(record: &mut Value, draw: &mut Draw) {
    match draw.below(24) {
        0 => record["device"] = Value::Null,
        1 => record["user"] = json!({"userName": "null"}),
        2 => record["description_metadata"] = json!("odd"),
        3 => record["appId"] = json!(record["appId"].to_string()),
        4 => {
            record["failedUserData"] = json!({"userName": "no.such.user@contoso.com"});
            record["user"] = Value::Null;
        }
        5 => record["timestamp"] = json!(record["timestamp"].to_string()),
        6 => record["mainInfo"] = json!({}),
        7 => record["location"] = json!({"countryCode": null}),
        8 => record["policies"] = json!([draw.pick(&POLICIES).0, draw.pick(&POLICIES).0]),
        9 => {
            record["description"] =
                json!("<p>Log&nbsp;on: <b>a&amp;b</b><br/>see <a href=\"#/policy\">policy</a></p>");
        }
        10 => record["eventTypeName"] = Value::Null,
        11 => record["appName"] = json!(""),
        _ => {}
    }
}

/// The shapes of ids that the API has given over the years. Each holds the record's number, so that none comes twice.
fn id(number: u64, created: i64, app: u32, draw: &mut Draw) -> String {
    match draw.below(5) {
        0 => format!("{created}_{}{number:012x}", draw.uuid().split_at(24).0),
        1 => format!("31415926_{app}_{}{number:012x}", draw.uuid().split_at(24).0),
        2 => format!("{}{number:012x}_31415926_{created}_20940", draw.uuid().split_at(24).0),
        3 => format!("{}{number:016x}", draw.hex(48)),
        _ => format!("AV{}-_{number:08x}", draw.hex(8)),
    }
}
