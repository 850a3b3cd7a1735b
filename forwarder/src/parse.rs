//! One record's JSON becomes an [`Event`], or a [`Reject`] that says what kind of trouble it is without its content.
//!
//! Only what the export cannot do without is demanded: an `_id` and a `timestamp`. A field of an unexpected kind counts
//! as absent; it never costs the record, and a bad record never costs its neighbours.

pub mod split;

use serde_json::value::RawValue;

use crate::checkpoint::Millis;
use crate::event::{Activity, Alert, Entity, Event, Stream};
use crate::source::wire::{elements, pick, repair, text};

/// The first millisecond of the year 10000, which no time format of ours can write.
const YEAR_10000: Millis = 253_402_300_800_000;
/// An identifier is never shortened; this is what the longest field of CEF holds of one.
const MAX_ID_BYTES: usize = 4_000;

/// A record that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// What kind of trouble.
    pub reason: RejectReason,
}

/// Kinds of trouble, as a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// No usable `_id`.
    MissingId,
    /// No usable `timestamp`.
    MissingTimestamp,
    /// JSON, but no object.
    NotAnObject,
    /// No JSON.
    Malformed,
    /// Longer than any record of this API, or its `_id` is longer than any field of CEF.
    TooLarge,
}

impl RejectReason {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingId => "missing_id",
            Self::MissingTimestamp => "missing_timestamp",
            Self::NotAnObject => "not_an_object",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}

/// Reads one record.
///
/// # Errors
/// [`Reject`] when it has no usable `_id` or `timestamp`, or is no JSON object.
pub fn record(stream: Stream, json: &[u8]) -> Result<Event, Reject> {
    let read = |json: &str| match stream {
        Stream::Alerts => alert(json).map(|alert| Event::Alert(Box::new(alert))),
        Stream::Activities => activity(json).map(|activity| Event::Activity(Box::new(activity))),
    };
    let first = match std::str::from_utf8(json) {
        Ok(json) => read(json),
        Err(_utf8) => Err(RejectReason::Malformed),
    };
    let outcome = match first {
        // Bytes that are nearly JSON get a second chance.
        Err(RejectReason::Malformed) => read(&repair(json)),
        Err(_) | Ok(_) => first,
    };
    outcome.map_err(|reason| Reject { reason })
}

fn activity(json: &str) -> Result<Activity, RejectReason> {
    let names = [
        "_id",
        "timestamp",
        "created",
        "eventTypeName",
        "description_metadata",
        "description",
        "user",
        "failedUserData",
        "resolvedActor",
        "appName",
        "appId",
        "device",
        "mainInfo",
    ];
    let [
        id,
        time,
        created,
        kind,
        metadata,
        description,
        user,
        failed_user,
        actor,
        app_name,
        app_id,
        device,
        main,
    ] = pick(json, names).ok_or_else(|| trouble(json))?;
    let [category, operation] = inner(metadata, ["event_category", "operation_name"]);
    let [user_name] = inner(user, ["userName"]);
    let [failed_name] = inner(failed_user, ["userName"]);
    let [actor_name, actor_id] = inner(actor, ["name", "id"]);
    let [client_ip, user_agent] = inner(device, ["clientIP", "userAgent"]);
    let [objects] = inner(main, ["eventObjects"]);
    let names = elements(objects).into_iter().map(|object| {
        let [name] = inner(Some(object), ["name"]);
        text(name).unwrap_or_default()
    });
    Ok(Activity {
        id: identifier(id)?,
        timestamp: millis(time).ok_or(RejectReason::MissingTimestamp)?,
        created: millis(created),
        event_type: text(kind),
        category: text(category),
        operation: text(operation),
        description: text(description),
        user: [user_name, failed_name, actor_name, actor_id].into_iter().find_map(text),
        app_name: text(app_name),
        app_id: text(app_id),
        client_ip: text(client_ip),
        user_agent: text(user_agent),
        objects: names.collect(),
    })
}

fn alert(json: &str) -> Result<Alert, RejectReason> {
    let names = [
        "_id",
        "timestamp",
        "idValue",
        "policy",
        "title",
        "description",
        "severityValue",
        "threatScore",
        "URL",
        "audits",
        "entities",
    ];
    let [id, time, kind, policy, title, description, severity, score, url, audits, entities] =
        pick(json, names).ok_or_else(|| trouble(json))?;
    let [policy_type, policy_label] = inner(policy, ["policyType", "label"]);
    Ok(Alert {
        id: identifier(id)?,
        timestamp: millis(time).ok_or(RejectReason::MissingTimestamp)?,
        kind: text(kind),
        policy_type: text(policy_type),
        policy_label: text(policy_label),
        title: text(title),
        description: text(description),
        severity: text(severity),
        threat_score: text(score),
        url: text(url),
        audits: elements(audits).into_iter().filter_map(|audit| text(Some(audit))).collect(),
        entities: elements(entities).into_iter().map(entity).collect(),
    })
}

fn entity(json: &RawValue) -> Entity {
    let names = ["type", "id", "label", "pa", "em", "policyType"];
    let [kind, id, label, primary_address, email, policy_type] = inner(Some(json), names);
    Entity {
        kind: text(kind).unwrap_or_default(),
        id: text(id),
        label: text(label),
        primary_address: text(primary_address),
        email: text(email),
        policy_type: text(policy_type),
    }
}

/// Fields of a nested object; all absent when it is something else.
fn inner<'a, const N: usize>(
    json: Option<&'a RawValue>,
    names: [&str; N],
) -> [Option<&'a RawValue>; N] {
    json.and_then(|json| pick(json.get(), names)).unwrap_or([None; N])
}

fn identifier(json: Option<&RawValue>) -> Result<String, RejectReason> {
    let id = text(json).ok_or(RejectReason::MissingId)?;
    if id.len() > MAX_ID_BYTES { Err(RejectReason::TooLarge) } else { Ok(id) }
}

fn trouble(json: &str) -> RejectReason {
    match serde_json::from_str::<&RawValue>(json) {
        Ok(value) if !value.get().starts_with('{') => RejectReason::NotAnObject,
        Ok(_) | Err(_) => RejectReason::Malformed,
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
        let json = br#"{"_id": "a", "timestamp": 1, "entities": [5, null, {"type": "ip", "id": "192.0.2.1"}]}"#;
        let Event::Alert(alert) = record(Stream::Alerts, json).unwrap() else { panic!("an alert") };
        assert_eq!(alert.entities.len(), 3);
    }

    #[test]
    fn what_is_nearly_json_is_read() {
        let text = |json: &[u8]| match record(Stream::Activities, json).unwrap() {
            Event::Activity(activity) => activity.description.unwrap(),
            Event::Alert(_) => unreachable!(),
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
