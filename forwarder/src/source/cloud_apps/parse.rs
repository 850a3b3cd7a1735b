//! One record's JSON becomes an [`Event`], or a [`Reject`] that says what kind of trouble it is without its content.
//! Pure.
//!
//! Only what the export cannot do without is demanded: an `_id` and a `timestamp`. A field of an unexpected kind counts
//! as absent; it never costs the record, and a bad record never costs its neighbours. Of keys that come twice the last
//! one counts, nothing is too deep and no number is too large.

mod fields;

use serde_json::value::RawValue;

use crate::event::{Activity, Alert, Entity, EntityKind, Event, Stream};
use crate::json::text;
use crate::reject::RejectReason;
use crate::source::parse::{self, Reject, YEAR_10000, identifier, object};
use crate::time::Millis;

/// Reads one record.
///
/// # Errors
/// [`Reject`] when it has no usable `_id` or `timestamp`, or is no JSON object.
pub fn record(stream: Stream, json: &[u8]) -> Result<Event, Reject> {
    parse::record(json, |json| match stream {
        Stream::Alerts => alert(json).map(|alert| Event::Alert(Box::new(alert))),
        Stream::Activities => activity(json).map(|activity| Event::Activity(Box::new(activity))),
    })
}

fn activity(json: &str) -> Result<Activity, RejectReason> {
    let read: fields::Activity<'_> = object(json)?;
    let names = [read.user.name, read.failed_user.name, read.actor.name, read.actor.id];
    let object = |object: fields::Object<'_>| text(object.name).unwrap_or_default();
    Ok(Activity {
        id: identifier(text(read.id))?,
        timestamp: millis(read.timestamp).ok_or(RejectReason::MissingTimestamp)?,
        created: millis(read.created),
        event_type: text(read.event_type),
        category: text(read.metadata.category),
        operation: text(read.metadata.operation),
        description: text(read.description),
        user: names.into_iter().find_map(text),
        app_name: text(read.app_name),
        app_id: text(read.app_id),
        client_ip: text(read.device.client_ip),
        user_agent: text(read.device.user_agent),
        objects: read.main.objects.0.into_iter().map(object).collect(),
    })
}

fn alert(json: &str) -> Result<Alert, RejectReason> {
    let read: fields::Alert<'_> = object(json)?;
    Ok(Alert {
        id: identifier(text(read.id))?,
        timestamp: millis(read.timestamp).ok_or(RejectReason::MissingTimestamp)?,
        kind: text(read.kind),
        policy_type: text(read.policy.kind),
        policy_label: text(read.policy.label),
        title: text(read.title),
        description: text(read.description),
        severity: text(read.severity),
        threat_score: text(read.score),
        url: text(read.url),
        audits: read.audits.0.into_iter().filter_map(text).collect(),
        entities: read.entities.0.into_iter().map(entity).collect(),
    })
}

/// Only what is exported of an entity is kept.
fn entity(read: fields::Entity<'_>) -> Entity {
    let kind = kind(read.kind);
    if kind == EntityKind::Other {
        return Entity::default();
    }
    let only = |kinds: &[EntityKind], json| kinds.contains(&kind).then(|| text(json)).flatten();
    Entity {
        kind,
        id: only(&[EntityKind::Service, EntityKind::PolicyRule, EntityKind::Ip], read.id),
        label: text(read.label),
        primary_address: only(&[EntityKind::Account], read.primary_address),
        email: only(&[EntityKind::Account], read.email),
        policy_type: only(&[EntityKind::PolicyRule], read.policy_type),
    }
}

fn kind(json: Option<&RawValue>) -> EntityKind {
    let named = |name: &str| match name {
        "account" => EntityKind::Account,
        "user" => EntityKind::User,
        "service" => EntityKind::Service,
        "policyRule" => EntityKind::PolicyRule,
        "ip" => EntityKind::Ip,
        _ => EntityKind::Other,
    };
    let json = json.map_or("", RawValue::get);
    match json.strip_prefix('"').and_then(|json| json.strip_suffix('"')) {
        Some(name) if !name.contains('\\') => named(name),
        // A name may be written in escapes, too.
        Some(_) | None => {
            serde_json::from_str(json).map_or(EntityKind::Other, |name: String| named(&name))
        }
    }
}

/// A number, or digits in text, from 0 to before the year 10000.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked right after")]
fn millis(json: Option<&RawValue>) -> Option<Millis> {
    let is_text = json?.get().starts_with('"');
    let text = text(json)?;
    let text = text.trim();
    let millis = match text.parse::<Millis>() {
        Ok(millis) if !is_text || text.bytes().all(|byte| byte.is_ascii_digit()) => millis,
        Err(_) if !is_text => {
            text.parse::<f64>().ok().filter(|number| number.is_finite())?.trunc() as Millis
        }
        Ok(_) | Err(_) => return None,
    };
    (0..YEAR_10000).contains(&millis).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse::MAX_ID_BYTES;

    fn reason(json: &[u8]) -> RejectReason {
        record(Stream::Activities, json).unwrap_err().reason
    }

    #[test]
    fn only_an_id_and_a_time_are_demanded() {
        let event =
            record(Stream::Activities, br#"{"_id": 7, "timestamp": "1793000113000"}"#).unwrap();
        assert_eq!((event.id(), event.timestamp()), ("7", 1_793_000_113_000));
        assert_eq!(reason(br#"{"timestamp": 1}"#), RejectReason::MissingId);
        assert_eq!(reason(br#"{"_id": "null", "timestamp": 1}"#), RejectReason::MissingId);
        let long = format!(r#"{{"_id": "{}", "timestamp": 1}}"#, "x".repeat(MAX_ID_BYTES + 1));
        assert_eq!(reason(long.as_bytes()), RejectReason::TooLarge);
        for time in ["null", "-1", "253402300800000", "\"soon\"", "\"1e3\"", "[]", "true"] {
            let json = format!(r#"{{"_id": "a", "timestamp": {time}}}"#);
            assert_eq!(reason(json.as_bytes()), RejectReason::MissingTimestamp, "{time}");
        }
        assert_eq!(reason(b"[1]"), RejectReason::NotAnObject);
        assert_eq!(reason(b"{\"_id\": "), RejectReason::Malformed);
    }

    #[test]
    fn a_field_of_another_kind_never_costs_the_record() {
        let json = br#"{"_id": "a", "timestamp": 1, "device": 5, "user": [], "mainInfo": "x", "appName": {}, "appId": "11161"}"#;
        let Event::Activity(activity) = record(Stream::Activities, json).unwrap() else {
            panic!("an activity")
        };
        assert_eq!(
            (activity.client_ip, activity.app_name, activity.app_id.as_deref()),
            (None, None, Some("11161"))
        );
        let json = br#"{"_id": "a", "timestamp": 1, "entities": [5, null, {"type": "ip", "id": "192.0.2.1"}, {"type": "\u0069p"}]}"#;
        let Event::Alert(alert) = record(Stream::Alerts, json).unwrap() else { panic!("an alert") };
        let kinds: Vec<_> = alert.entities.iter().map(|entity| entity.kind).collect();
        let (ip, other) = (EntityKind::Ip, EntityKind::Other);
        assert_eq!(kinds, [other, other, ip, ip]);
    }

    #[test]
    fn a_number_that_json_does_not_have_is_absent_where_it_is_used_and_costs_nothing_elsewhere() {
        for number in ["NaN", "Infinity", "-Infinity", "nan", "-inf", "+Infinity", "-NaN"] {
            let json = format!(
                r#"{{"location":{{"longitude":{number},"x":[{number} ,1]}},"_id":"a-NaN","timestamp":1,"description":"\" NaN","appName":{number}}}"#
            );
            let Event::Activity(activity) = record(Stream::Activities, json.as_bytes()).unwrap()
            else {
                panic!("an activity")
            };
            assert_eq!(activity.id, "a-NaN");
            assert_eq!(activity.description.as_deref(), Some("\" NaN"));
            assert_eq!(activity.app_name, None, "{number}");
            let json = format!(
                r#"{{"_id":"a","timestamp":1,"threatScore":{number},"entities":[{number}]}}"#
            );
            let Event::Alert(alert) = record(Stream::Alerts, json.as_bytes()).unwrap() else {
                panic!("an alert")
            };
            assert_eq!((alert.threat_score, alert.entities.len()), (None, 1));
            let json = format!(r#"{{"_id":"a","timestamp":{number}}}"#);
            assert_eq!(reason(json.as_bytes()), RejectReason::MissingTimestamp);
        }
        for json in ["{\"_id\":NaNa}", "{NaN:1}", "{\"_id\":\"a\",\"x\":undefined}"] {
            assert_eq!(reason(json.as_bytes()), RejectReason::Malformed, "{json}");
        }
    }

    /// One pass reads numbers where an object is expected; the second chance takes those that no number can hold.
    #[test]
    fn a_number_beyond_all_measure_and_a_key_that_comes_twice_cost_nothing_at_any_depth() {
        let read = |json: &str| record(Stream::Activities, json.as_bytes()).unwrap();
        for place in ["user", "device", "mainInfo", "x", "appId"] {
            for number in ["1e999", "-1E+9999", "123456789012345678901234567890"] {
                let json = format!(r#"{{"_id":"a","timestamp":1,"{place}":{number}}}"#);
                let Event::Activity(activity) = read(&json) else { panic!("an activity") };
                let app = (place == "appId").then_some(number);
                assert_eq!(activity.app_id.as_deref(), app, "{json}");
            }
        }
        let json = r#"{"_id":"a","timestamp":1,"user":{"userName":"x","userName":"y"},"device":5,"device":{"clientIP":"192.0.2.1"},
            "mainInfo":{"eventObjects":[{"name":"one"},7,{"name":"a","name":"b"}]},"user":{"userName":"z","other":[1e999]}}"#;
        let Event::Activity(activity) = read(json) else { panic!("an activity") };
        assert_eq!(activity.user.as_deref(), Some("z"));
        assert_eq!(activity.client_ip.as_deref(), Some("192.0.2.1"));
        assert_eq!(activity.objects, ["one", "", "b"]);
    }

    #[test]
    fn what_is_nearly_json_is_read() {
        let text = |json: &[u8]| match record(Stream::Activities, json).unwrap() {
            Event::Activity(activity) => activity.description.unwrap(),
            _ => unreachable!(),
        };
        assert_eq!(text(br#"{"_id":"a","timestamp":1,"description":"x\ud800y"}"#), "x\u{FFFD}y");
        assert_eq!(
            text(br#"{"_id":"a","timestamp":1,"description":"\ud83d\ude00\udc00"}"#),
            "\u{1F600}\u{FFFD}"
        );
        assert_eq!(
            text(b"{\"_id\":\"a\",\"timestamp\":1,\"description\":\"x\xffy\"}"),
            "x\u{FFFD}y"
        );
        assert_eq!(
            text(br#"{"_id":"a","timestamp":1,"description":"one","description":"two"}"#),
            "two"
        );
        let deep = format!(
            r#"{{"_id":"a","timestamp":1,"rawDataJson":{}{},"description":"d","Description":"D"}}"#,
            "[".repeat(1_000),
            "]".repeat(1_000)
        );
        assert_eq!(text(deep.as_bytes()), "d");
    }
}
