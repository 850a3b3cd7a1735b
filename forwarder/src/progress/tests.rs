//! What is reported, in whatever order it comes.

use super::*;

fn identity() -> Identity {
    let agent = report::AgentIdentity {
        namespace: String::new(),
        name: String::new(),
        uid: None,
        display_name: String::new(),
        creation_timestamp: None,
    };
    Identity {
        agent,
        pod_uid: None,
        config_hash: String::new(),
        started_at: Timestamp::UNIX_EPOCH,
        source: String::new(),
    }
}

fn nothing_known() -> Arc<Progress> {
    Progress::new(identity(), [(Stream::Activities, StreamSource::CloudApps)])
}

#[test]
fn a_token_is_reported_as_the_worst_that_holds_of_any_stream_in_whatever_order_it_comes() {
    use Stream::{Activities, Alerts};
    use report::TokenState::{Forbidden, Invalid, Missing, Unknown, Valid};
    let at = |second| Timestamp::constant(second, 0);
    let served = [Alerts, Activities].map(|stream| (stream, StreamSource::CloudApps));
    let progress = Progress::new(identity(), served);
    let token = || {
        let token = progress.report(at(99)).token;
        let second = token.last_change_time.map(Timestamp::as_second);
        let shown = progress.metrics.encode(&progress).unwrap();
        let valid = shown.lines().find_map(|line| line.strip_prefix("siem_forwarder_token_valid "));
        let expected = match token.state {
            Valid => Some("1.0"),
            Invalid | Forbidden | Missing => Some("0.0"),
            Unknown => None,
        };
        assert_eq!(valid, expected);
        (token.state, token.reason.unwrap_or_default(), second)
    };
    let is = |state, reason: &str, second| (state, reason.to_owned(), second);
    assert_eq!(token(), is(Unknown, "", None));
    let forbid = |stream, why: &str, second| {
        progress.stream_forbidden(stream, why.to_owned(), at(second));
    };
    let answers = |stream, second| progress.answered(stream, at(second));
    // Before the other stream has been asked at all, and after.
    forbid(Alerts, "no", 1);
    assert_eq!(token(), is(Forbidden, "the token may not read alerts: no", Some(1)));
    answers(Activities, 2);
    assert_eq!(token(), is(Forbidden, "the token may not read alerts: no", Some(1)));
    forbid(Activities, "no", 3);
    let both = "the token may not read alerts and activities: no";
    assert_eq!(token(), is(Forbidden, both, Some(1)));
    answers(Alerts, 4);
    assert_eq!(token(), is(Forbidden, "the token may not read activities: no", Some(1)));
    answers(Activities, 5);
    assert_eq!(token(), is(Valid, "", Some(5)));
    forbid(Activities, "later", 6);
    assert_eq!(token(), is(Forbidden, "the token may not read activities: later", Some(6)));
    forbid(Alerts, "no", 7);
    let each = "the token may not read alerts: no; the token may not read activities: later";
    assert_eq!(token(), is(Forbidden, each, Some(6)));
    // A refusal of the token itself says more.
    progress.token_refused(Alerts, Invalid, "dead".to_owned(), at(8));
    assert_eq!(token(), is(Invalid, "dead", Some(8)));
    progress.token_refused(Alerts, Missing, "gone".to_owned(), at(9));
    assert_eq!(token(), is(Missing, "gone", Some(9)));
    answers(Alerts, 10);
    assert_eq!(token(), is(Forbidden, "the token may not read activities: later", Some(10)));
    answers(Activities, 11);
    assert_eq!(token(), is(Valid, "", Some(11)));
}

#[test]
fn an_outage_that_shows_in_two_ways_began_once() {
    let progress = nothing_known();
    let at = |second| Timestamp::constant(second, 0);
    let fails = |state, second| {
        progress.source_failed(Stream::Activities, state, "m".to_owned(), at(second));
    };
    fails(report::SourceState::Unreachable, 1);
    fails(report::SourceState::Throttled, 2);
    fails(report::SourceState::Unreachable, 3);
    assert_eq!(progress.report(at(99)).source.since, Some(at(1)));
}

#[test]
fn an_outage_of_one_of_two_sources_names_it() {
    let at = |second| Timestamp::constant(second, 0);
    for (activities, expected) in
        [(StreamSource::CloudApps, "CloudApps: away"), (StreamSource::Graph, "away")]
    {
        let served = [(Stream::Alerts, StreamSource::Graph), (Stream::Activities, activities)];
        let progress = Progress::new(identity(), served);
        let away = "away".to_owned();
        let state = report::SourceState::Unreachable;
        progress.source_failed(Stream::Activities, state, away, at(1));
        progress.read_whole(Stream::Alerts, at(2));
        let source = progress.report(at(3)).source;
        assert_eq!((source.state, source.reason.as_deref()), (state, Some(expected)));
    }
}

#[test]
fn an_outage_goes_on_while_every_page_breaks_off() {
    let progress = nothing_known();
    let at = |second| Timestamp::constant(second, 0);
    let said = || {
        let source = progress.report(at(99)).source;
        (source.state, source.since)
    };
    let breaks_off = |second| {
        progress.answered(Stream::Activities, at(second));
        let state = report::SourceState::Unreachable;
        progress.source_failed(Stream::Activities, state, "cut".to_owned(), at(second + 1));
    };
    progress.answered(Stream::Activities, at(1));
    assert_eq!(said(), (report::SourceState::Reachable, Some(at(1))));
    breaks_off(10);
    breaks_off(20);
    assert_eq!(said(), (report::SourceState::Unreachable, Some(at(11))));
    progress.read_whole(Stream::Activities, at(30));
    assert_eq!(said(), (report::SourceState::Reachable, Some(at(30))));
}
