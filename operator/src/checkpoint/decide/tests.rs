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
    StreamPosition { through, position: Position::with_ids(ids), source: None }
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
    assert!(Checkpoint::read(&text, "u", NOW).is_ok(), "{text}");
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

const PORTAL: &str = "https://t.example";
const GRAPH: &str = "graph:contoso.com";

/// An agent with these sources and streams.
fn agent_of(source: &str, event_types: &str) -> SiemAgent {
    let text = format!(
        "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: soc, namespace: ns, uid: u}}\nspec:\n  source: {{{source}, \
         auth: {{clientCredentials: {{tenantId: Contoso.com, clientId: 00000000-0000-0000-0000-000000000000, clientSecretRef: {{name: a}}}}}}}}\n  \
         syslog: {{host: h}}\n  eventTypes: {{{event_types}}}\n"
    );
    siem_agent_crds::manifest::read(&text).unwrap()
}

/// A report of both streams, each with the name of its source.
fn told(main: &str, alerts: (i64, &str), activities: (i64, &str)) -> Report {
    let mut told = report(alerts.0, 1, &[]);
    told.checkpoint.source = main.to_owned();
    let position = |(through, source): (i64, &str)| StreamPosition {
        source: (source != main).then(|| source.to_owned()),
        ..at(through, &[])
    };
    told.checkpoint.positions = BTreeMap::from([
        (Stream::Alerts, position(alerts)),
        (Stream::Activities, position(activities)),
    ]);
    told
}

/// The source and watermark of alerts and activities.
fn kept(checkpoint: &Checkpoint) -> [Option<(&str, i64)>; 2] {
    [Stream::Alerts, Stream::Activities]
        .map(|stream| Some((checkpoint.source_of(stream)?, checkpoint.through(stream)?)))
}

#[test]
fn each_position_is_of_the_source_that_serves_its_stream() {
    let portal = "cloudApps: {url: 'https://t.example'}";
    let both = agent_of(&format!("{portal}, graph: {{}}"), "");
    let report = told(PORTAL, (MILLIS - 1, GRAPH), (MILLIS - 2, PORTAL));
    let first = next(&both, None, &report, NOW).unwrap();
    assert_eq!(first.source, PORTAL);
    assert_eq!(kept(&first), [Some((GRAPH, MILLIS - 1)), Some((PORTAL, MILLIS - 2))]);
    assert_eq!(first.positions[&Stream::Activities].source, None);
    // What another source says of a stream is not taken, and the rest is.
    let old = told(PORTAL, (MILLIS, PORTAL), (MILLIS, PORTAL));
    let text = first.write().unwrap();
    let second = next(&both, Some(&text), &old, NOW).unwrap();
    assert_eq!(kept(&second), [Some((GRAPH, MILLIS - 1)), Some((PORTAL, MILLIS))]);
    let other = told("graph:fabrikam.com", (MILLIS, "graph:fabrikam.com"), (MILLIS, GRAPH));
    assert_eq!(next(&both, Some(&text), &other, NOW), None);
}

#[test]
fn a_stream_that_changes_its_source_keeps_its_position_until_the_other_has_one() {
    let only_portal = agent_of("cloudApps: {url: 'https://t.example'}", "");
    let only_graph = agent_of("graph: {}", "");
    let of_portal = told(PORTAL, (MILLIS - 10, PORTAL), (MILLIS - 10, PORTAL));
    let stored = next(&only_portal, None, &of_portal, NOW).unwrap().write().unwrap();
    // The forwarder of the configuration before speaks still.
    assert_eq!(next(&only_graph, Some(&stored), &of_portal, NOW), None);
    // Alerts have come from Graph, activities not yet; an earlier watermark is the other source's word.
    let half = told(GRAPH, (MILLIS - 20, GRAPH), (MILLIS - 5, PORTAL));
    let moved = next(&only_graph, Some(&stored), &half, NOW).unwrap();
    assert_eq!(moved.source, GRAPH);
    assert_eq!(kept(&moved), [Some((GRAPH, MILLIS - 20)), Some((PORTAL, MILLIS - 10))]);
    assert_eq!(moved.positions[&Stream::Alerts].source, None);
    let stored = moved.write().unwrap();
    let whole = told(GRAPH, (MILLIS - 30, GRAPH), (MILLIS - 4, GRAPH));
    let moved = next(&only_graph, Some(&stored), &whole, NOW).unwrap();
    assert_eq!(kept(&moved), [Some((GRAPH, MILLIS - 20)), Some((GRAPH, MILLIS - 4))]);
    // And back.
    let stored = moved.write().unwrap();
    let back = told(PORTAL, (MILLIS - 8, PORTAL), (MILLIS - 4, GRAPH));
    let back = next(&only_portal, Some(&stored), &back, NOW).unwrap();
    assert_eq!(kept(&back), [Some((PORTAL, MILLIS - 8)), Some((GRAPH, MILLIS - 4))]);
    assert_eq!(back.source, PORTAL);
}

#[test]
fn a_stream_that_is_not_exported_keeps_a_position_of_any_source_it_may_return_to() {
    let portal = "cloudApps: {url: 'https://t.example'}";
    let no_activities = agent_of("graph: {}", "activities: {enabled: false}");
    let with = |activities: &str| told(GRAPH, (MILLIS, GRAPH), (MILLIS - 1, activities));
    let activities = |agent: &SiemAgent, source: &str| {
        next(agent, None, &with(source), NOW)
            .unwrap()
            .source_of(Stream::Activities)
            .map(str::to_owned)
    };
    // Its own, and a portal that is not given any more; not another tenant of Graph.
    for source in [GRAPH, PORTAL] {
        assert_eq!(activities(&no_activities, source).as_deref(), Some(source));
    }
    let long = format!("https://{}", "x".repeat(LONGEST_NAME));
    for source in ["graph:fabrikam.com", "", &long] {
        assert_eq!(activities(&no_activities, source), None);
    }
    let mut both = agent_of(&format!("{portal}, graph: {{}}"), "");
    both.spec.event_types.activities.enabled = false;
    assert_eq!(activities(&both, PORTAL).as_deref(), Some(PORTAL));
    assert_eq!(activities(&both, "https://u.example"), None);
}

#[test]
fn the_version_before_is_written_only_where_it_can_say_all() {
    let both = agent_of("cloudApps: {url: 'https://t.example'}, graph: {}", "");
    let mut report = told(PORTAL, (MILLIS, PORTAL), (MILLIS, PORTAL));
    report.checkpoint.version = VERSION_1;
    let only_portal = agent_of("cloudApps: {url: 'https://t.example'}", "");
    assert_eq!(next(&only_portal, None, &report, NOW).unwrap().version, VERSION_1);
    let current = told(PORTAL, (MILLIS, GRAPH), (MILLIS, PORTAL));
    let stored = next(&both, None, &current, NOW).unwrap().write().unwrap();
    let beside = next(&both, Some(&stored), &report, NOW).unwrap();
    assert_eq!(beside.version, VERSION);
    assert_eq!(kept(&beside), [Some((GRAPH, MILLIS)), Some((PORTAL, MILLIS))]);
}
