//! What is kept of reports, and when.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use siem_agent_crds::config::AgentIdentity;
use siem_agent_crds::position::Position;
use siem_agent_crds::report::{
    CheckpointReport, SourceReport, SourceState, Stream, StreamReport, TargetReport, TargetState,
    TokenReport, TokenState,
};

use super::*;

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);
const MILLIS: i64 = 1_700_000_000_000;

fn agent() -> SiemAgent {
    let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc, namespace: ns, uid: u}\n\
                spec: {source: {cloudApps: {url: 'https://t.example/'}, auth: {tokenSecretRef: {name: a}}}, syslog: {host: h}}\n";
    siem_agent_crds::manifest::read(text).unwrap()
}

fn at(through: i64, ids: &[&str]) -> StreamPosition {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    StreamPosition { through, position: Position::with_ids(ids) }
}

/// The watermarks of alerts and activities.
fn watermarks(checkpoint: &Checkpoint) -> (Option<i64>, Option<i64>) {
    (checkpoint.through(Stream::Alerts), checkpoint.through(Stream::Activities))
}

fn alerts(checkpoint: &Checkpoint) -> Option<i64> {
    checkpoint.through(Stream::Alerts)
}

fn set(checkpoint: &mut Checkpoint, stream: Stream, through: i64) {
    checkpoint.positions.get_mut(&stream).unwrap().through = through;
}

fn report(alerts: i64, delivered: u64, ids: &[&str]) -> Report {
    let stream = StreamReport {
        enabled: true,
        delivered_through: None,
        last_event_time: None,
        lag_seconds: None,
        forbidden: None,
        delivered_total: delivered,
        rejected_total: 0,
    };
    Report {
        version: 1,
        program_version: "0".to_owned(),
        agent: AgentIdentity::default(),
        pod_uid: None,
        config_hash: String::new(),
        started_at: NOW,
        now: NOW,
        source: SourceReport { state: SourceState::Reachable, reason: None, since: None },
        target: TargetReport { state: TargetState::Up, reason: None, since: None },
        token: TokenReport {
            state: TokenState::Valid,
            reason: None,
            last_check_time: None,
            last_change_time: None,
        },
        streams: BTreeMap::from([(Stream::Alerts, stream)]),
        checkpoint: CheckpointReport {
            version: VERSION,
            source: "https://t.example".to_owned(),
            positions: BTreeMap::from([
                (Stream::Alerts, at(alerts, ids)),
                (Stream::Activities, at(MILLIS, &[])),
            ]),
        },
    }
}

const ONE: &str = "0000000000000001";
const TWO: &str = "0000000000000002";

#[test]
fn a_watermark_never_goes_back_and_its_position_is_kept_with_it() {
    let agent = agent();
    let first = next(&agent, None, &report(MILLIS, 1, &[ONE]), NOW).unwrap();
    let text = first.write().unwrap();
    let behind = next(&agent, Some(&text), &report(MILLIS - 1, 1, &[TWO]), NOW).unwrap();
    assert_eq!(behind.positions[&Stream::Alerts], at(MILLIS, &[ONE]));
    let later = NOW + SignedDuration::from_secs(1);
    let ahead = next(&agent, Some(&text), &report(MILLIS + 1, 1, &[TWO]), later).unwrap();
    assert_eq!(ahead.positions[&Stream::Alerts], at(MILLIS + 1, &[TWO]));
}

#[test]
fn nothing_kept_lies_ahead_of_this_clock_or_of_what_was_delivered() {
    let agent = agent();
    // Clocks that differ a little.
    let kept = next(&agent, None, &report(MILLIS + 60_000, 1, &[]), NOW).unwrap();
    assert_eq!(alerts(&kept), Some(MILLIS));
    // A report that contradicts itself.
    let mut told = report(MILLIS - 10, 1, &[]);
    let through = Timestamp::from_millisecond(MILLIS - 50).unwrap();
    told.streams.get_mut(&Stream::Alerts).unwrap().delivered_through = Some(through);
    assert_eq!(alerts(&next(&agent, None, &told, NOW).unwrap()), Some(MILLIS - 50));
    // Numbers that are no times.
    for nonsense in [-1, i64::MIN] {
        let kept = next(&agent, None, &report(nonsense, 1, &[]), NOW).unwrap();
        assert_eq!(alerts(&kept), None);
    }
    assert_eq!(next(&agent, None, &report(i64::MAX, 1, &[]), NOW), None);
}

#[test]
fn a_kept_checkpoint_that_lies_ahead_is_replaced() {
    let agent = agent();
    let mut kept = next(&agent, None, &report(MILLIS, 1, &[ONE]), NOW).unwrap();
    for ahead in [MILLIS + 301_000, i64::MAX] {
        set(&mut kept, Stream::Activities, ahead);
        let text = kept.write().unwrap();
        let object: DynamicObject = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {KEY: text},
        }))
        .unwrap();
        assert!(is_ahead(latest(&object), NOW), "{ahead}");
        let replaced = next(&agent, Some(&text), &report(MILLIS - 7, 1, &[]), NOW).unwrap();
        assert_eq!(watermarks(&replaced), (Some(MILLIS - 7), Some(MILLIS)));
    }
    // One that lies ahead by no more than clocks differ is cut down.
    set(&mut kept, Stream::Activities, MILLIS + 60_000);
    let text = kept.write().unwrap();
    let cut = next(&agent, Some(&text), &report(MILLIS - 7, 1, &[]), NOW).unwrap();
    assert_eq!(watermarks(&cut), (Some(MILLIS), Some(MILLIS)));
    assert!(!is_ahead(Some(MILLIS), NOW) && !is_ahead(None, NOW));
}

#[test]
fn reports_from_the_future_or_of_another_source_are_not_kept() {
    let agent = agent();
    assert_eq!(next(&agent, None, &report(MILLIS + 400_000, 1, &[]), NOW), None);
    let mut other = report(MILLIS, 1, &[]);
    other.checkpoint.source = "https://u.example".to_owned();
    assert_eq!(next(&agent, None, &other, NOW), None);
}

#[test]
fn what_is_stored_of_another_agent_or_source_or_of_the_future_is_replaced() {
    let agent = agent();
    let stored = next(&agent, None, &report(MILLIS, 1, &[]), NOW).unwrap();
    let changes: [fn(&mut Checkpoint); 3] = [
        |stored| stored.agent_uid = "earlier".to_owned(),
        |stored| stored.source = "https://u.example".to_owned(),
        |stored| set(stored, Stream::Alerts, MILLIS + 10_000_000),
    ];
    for change in changes {
        let mut stored = stored.clone();
        change(&mut stored);
        let text = stored.write().unwrap();
        let kept = next(&agent, Some(&text), &report(MILLIS - 5, 1, &[]), NOW).unwrap();
        assert_eq!(alerts(&kept), Some(MILLIS - 5));
    }
}

#[test]
fn a_write_is_due_only_when_events_were_delivered_since_the_last() {
    let at = |delivered| report(MILLIS, delivered, &[]);
    assert!(!is_due(None, &at(0)));
    assert!(is_due(None, &at(1)));
    let written = marker(&at(7));
    assert!(!is_due(Some(&written), &at(7)));
    assert!(is_due(Some(&written), &at(8)));
    let mut restarted = at(0);
    restarted.started_at = Timestamp::from_second(1_700_000_100).unwrap();
    assert!(!is_due(Some(&written), &restarted));
    restarted.streams.get_mut(&Stream::Alerts).unwrap().delivered_total = 1;
    assert!(is_due(Some(&written), &restarted));
    assert!(is_due(Some("nonsense"), &at(1)));
}

#[test]
fn positions_that_do_not_fit_beside_each_other_are_left_out_and_their_times_kept() {
    let mut told = report(MILLIS, 1, &[ONE]);
    let long = Position::of(&"p".repeat(MAX_BYTES / 2));
    for at in told.checkpoint.positions.values_mut() {
        at.position = long.clone();
    }
    let kept = next(&agent(), None, &told, NOW).unwrap();
    assert_eq!(watermarks(&kept), (Some(MILLIS), Some(MILLIS)));
    let fits = |stream| kept.positions[&stream].position == long;
    assert_eq!([fits(Stream::Alerts), fits(Stream::Activities)], [true, false]);
}

#[test]
fn what_is_no_digest_is_not_written_for_the_version_before() {
    let mut told = report(MILLIS, 1, &[ONE, "\u{202e}x"]);
    told.checkpoint.version = VERSION_1;
    let text = next(&agent(), None, &told, NOW).unwrap().write().unwrap();
    assert!(Checkpoint::read(&text, "u", "https://t.example", NOW).is_ok(), "{text}");
}

#[test]
fn a_forwarder_of_the_version_before_is_given_what_it_can_read() {
    let agent = agent();
    let mut told = report(MILLIS, 1, &[ONE]);
    let current = next(&agent, None, &told, NOW).unwrap().write().unwrap();
    told.checkpoint.version = VERSION_1;
    let kept = next(&agent, Some(&current), &told, NOW).unwrap().write().unwrap();
    let expected = format!(
        r#"{{"version":1,"agentUid":"u","source":"https://t.example","alerts":{MILLIS},"activities":{MILLIS},"exported":["alerts"],"alertIds":["{ONE}"]}}"#
    );
    assert_eq!(kept, expected);
    let object = |text: &str| -> DynamicObject {
        let data = serde_json::json!({KEY: text});
        let object = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": data});
        serde_json::from_value(object).unwrap()
    };
    assert_eq!(latest(&object(&kept)), Some(MILLIS));
    assert_eq!(latest(&object(&current)), Some(MILLIS));
    let again = next(&agent, Some(&kept), &report(MILLIS + 1, 2, &[TWO]), NOW).unwrap();
    assert_eq!(again.version, VERSION);
}
