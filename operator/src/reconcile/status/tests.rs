//! What stays as it was, what time does, and (in `table`) the contract's table of causes.

mod decide;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use siem_agent_crds::condition::ConditionType;
use siem_agent_crds::config::AgentIdentity;
use siem_agent_crds::report::{
    CheckpointReport, Report, SourceReport, SourceState, Stream, StreamReport, TargetReport,
    TargetState, TokenReport,
};
use siem_agent_crds::siem_agent::{PAUSED_ANNOTATION, State};

use super::decide::is_premature;
use super::*;
use crate::agent::Agent;
use crate::budget::{Allowed, Claimant, Heard, Shares};
use crate::forwarders::sighting::Failing;
use crate::key::Key;
use crate::objects::validated::{Traits, Validated};
use crate::objects::{self, Prepared};
use crate::platform::Platform;
use crate::reconcile::validate::Cause;
use crate::tenants::Tenants;

const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn ago(seconds: i64) -> Timestamp {
    NOW - SignedDuration::from_secs(seconds)
}

fn condition<'a>(status: &'a SiemAgentStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// A world that a row changes.
struct World {
    agent: SiemAgent,
    problems: Option<Vec<Problem>>,
    queued: Option<Wait>,
    /// What waits while it is paused.
    paused: Option<Vec<String>>,
    workload: Workload,
    sighting: Sighting,
    twins: Vec<Twin>,
    allowed: Allowed,
    unsettled: Option<Duration>,
}

fn world() -> World {
    let text = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\n\
                metadata: {name: soc, namespace: ns, uid: u, generation: 3}\n\
                spec: {source: {cloudApps: {url: 'https://t.example'}, auth: {tokenSecretRef: {name: a}}}, syslog: {host: siem.example}}\n";
    let agent = siem_agent_crds::manifest::read(text).unwrap();
    let report = report(&objects(&agent).config_hash);
    World {
        agent,
        problems: None,
        queued: None,
        paused: None,
        workload: Workload::Running,
        sighting: Sighting {
            report: Some(Arc::new(report)),
            is_current: true,
            last_read: Some(NOW),
            failing: None,
            valid: Some(NOW),
        },
        twins: Vec::new(),
        allowed: Allowed::default(),
        unsettled: None,
    }
}

fn objects(agent: &SiemAgent) -> Objects<Applied> {
    let image = "image:1".to_owned();
    let platform = Platform::Kubernetes;
    let operator_namespace = "siem-system".to_owned();
    let validated = Validated {
        agent,
        image,
        mark: None,
        platform,
        operator_namespace,
        host: Traits::default(),
        allowed: Allowed::default(),
    };
    let objects: Objects<Prepared> = objects::objects(&validated).unwrap();
    objects.into_applied()
}

fn report(config_hash: &str) -> Report {
    let stream = StreamReport {
        enabled: true,
        delivered_through: Some(ago(4)),
        last_event_time: Some(ago(100)),
        lag_seconds: Some(4.0),
        forbidden: None,
        delivered_total: 5,
        rejected_total: 0,
    };
    Report {
        version: 1,
        program_version: "0".to_owned(),
        agent: AgentIdentity::default(),
        pod_uid: None,
        config_hash: config_hash.to_owned(),
        started_at: ago(1_000),
        now: NOW,
        source: SourceReport { state: SourceState::Reachable, reason: None, since: Some(ago(900)) },
        target: TargetReport { state: TargetState::Up, reason: None, since: Some(ago(900)) },
        token: TokenReport {
            state: TokenState::Valid,
            reason: None,
            last_check_time: Some(ago(4)),
            last_change_time: Some(ago(900)),
        },
        streams: BTreeMap::from([(Stream::Alerts, stream.clone()), (Stream::Activities, stream)]),
        checkpoint: CheckpointReport::default(),
    }
}

#[test]
fn whoever_shares_a_tenant_is_told_with_whom() {
    let message = |world: &World| {
        let status = world.with_facts(|facts| status(facts, NOW));
        status.condition(ConditionType::Ready).unwrap().message.clone()
    };
    let mut world = world();
    let alone = message(&world);
    let claimant = |namespace: &str| {
        let mut agent = world.agent.clone();
        agent.metadata.namespace = Some(namespace.to_owned());
        let heard = Heard { token: TokenState::Valid, valid: Some(NOW) };
        let agent = Agent::for_test(agent);
        Claimant::of(&agent, Some(heard), &Tenants::default(), NOW).next().unwrap()
    };
    let shares = Shares::of(&[claimant("ns"), claimant("other")], &Tenants::default());
    world.allowed = shares.allowed(&Key::new("ns", "soc")).unwrap().clone();
    let told = "; the tenant's requests are shared with 1 other agent, in the namespace other";
    assert_eq!(message(&world), format!("{alone}{told}"));
    world.tell(|report| {
        report.source = SourceReport {
            state: SourceState::Throttled,
            reason: Some("too many".to_owned()),
            since: Some(ago(600)),
        };
    });
    assert_eq!(message(&world), format!("too many{told}"));
}

impl World {
    fn after(mut self, previous: SiemAgentStatus) -> Self {
        self.agent.status = Some(previous);
        self
    }

    fn tell(&mut self, change: impl FnOnce(&mut Report)) {
        let mut report = self.sighting.report.as_deref().unwrap().clone();
        change(&mut report);
        self.sighting.report = Some(Arc::new(report));
    }

    /// Rolled out: the report is of the changed configuration.
    fn disable_alerts(&mut self) {
        self.agent.spec.event_types.alerts.enabled = false;
        let config_hash = objects(&self.agent).config_hash;
        self.tell(|report| report.config_hash = config_hash);
    }

    fn with_facts<T>(&self, use_: impl FnOnce(&Facts<'_>) -> T) -> T {
        let outcome = match &self.problems {
            Some(problems) => Outcome::Stalled(problems.clone()),
            None => match (&self.queued, &self.paused) {
                (Some(wait), _) => Outcome::Queued(wait.clone()),
                (None, Some(pending)) => Outcome::Paused(pending.clone()),
                (None, None) => Outcome::Applied(objects(&self.agent)),
            },
        };
        let facts = Facts {
            agent: &self.agent,
            outcome: &outcome,
            workload: &self.workload,
            sighting: &self.sighting,
            twins: &self.twins,
            allowed: &self.allowed,
            has_deployment: true,
            unsettled: self.unsettled,
        };
        use_(&facts)
    }

    fn status_at(&self, now: Timestamp) -> SiemAgentStatus {
        self.with_facts(|facts| status(facts, now))
    }

    fn decide(&self) -> Decision {
        self.with_facts(|facts| decide(facts, NOW))
    }

    fn is_premature(&self) -> bool {
        self.with_facts(|facts| is_premature(facts, NOW))
    }

    fn status(&self) -> SiemAgentStatus {
        self.status_at(NOW)
    }
}

/// What it was before: all well.
fn well() -> SiemAgentStatus {
    let mut well = world().status_at(ago(600));
    well.conditions.iter_mut().for_each(|condition| {
        condition.last_transition_time = Time(ago(5_000));
    });
    well
}

fn target_down(report: &mut Report, seconds: i64) {
    report.target = TargetReport {
        state: TargetState::Down,
        reason: Some("connection refused".to_owned()),
        since: Some(ago(seconds)),
    };
}

fn forbid(report: &mut Report, stream: Stream) {
    let stream = report.streams.get_mut(&stream).unwrap();
    stream.forbidden = Some("the API says: no".to_owned());
}

fn source(report: &mut Report, state: SourceState) {
    report.source = SourceReport { state, reason: Some("m".to_owned()), since: Some(ago(120)) };
}

#[test]
fn the_portals_word_turns_after_two_hours_and_after_twelve() {
    let hour = 3_600;
    for (seconds, expected) in [
        (90, State::Connected),
        (2 * hour - 1, State::Connected),
        (2 * hour + 1, State::ConnectionError),
        (12 * hour - 1, State::ConnectionError),
        (12 * hour + 1, State::Disconnected),
    ] {
        let mut siem = world().after(well());
        siem.tell(|report| target_down(report, seconds));
        let mut portal = world().after(well());
        portal.tell(|report| {
            source(report, SourceState::Unreachable);
            report.source.since = Some(ago(seconds));
        });
        let mut silent = world().after(well());
        silent.sighting.last_read = Some(ago(seconds));
        silent.sighting.failing = Some(Failing { since: ago(seconds), reason: "m".to_owned() });
        let mut dead = world().after(well());
        dead.sighting.last_read = Some(ago(seconds));
        dead.workload =
            Workload::Failing { reason: "CrashLoopBackOff".to_owned(), message: "m".to_owned() };
        for world in [siem, portal, silent, dead] {
            assert_eq!(world.status().state, Some(expected), "{seconds}");
        }
    }
    // Back at once.
    let mut previous = well();
    previous.state = Some(State::Disconnected);
    assert_eq!(world().after(previous).status().state, Some(State::Connected));
}

#[test]
fn an_outage_is_counted_through_a_restart_of_the_forwarder_and_of_the_operator() {
    let mut down = world().after(well());
    down.tell(|report| target_down(report, 61));
    let before = down.status_at(NOW);
    let later = NOW + SignedDuration::from_hours(3);
    let mut restarted = world().after(before);
    restarted.tell(|report| {
        target_down(report, 0);
        report.target.since = Some(later);
        report.started_at = later;
    });
    restarted.sighting.last_read = Some(later);
    let status = restarted.status_at(later);
    assert_eq!(status.condition(ConditionType::Ready).unwrap().reason, "TargetUnreachable");
    assert_eq!(status.state, Some(State::ConnectionError));
}

#[test]
fn a_forbidden_stream_is_named_everywhere_at_once_and_the_other_is_said_to_flow() {
    let mut world = world().after(well());
    world.tell(|report| forbid(report, Stream::Alerts));
    let status = world.status();
    let of = |type_: &str| {
        let condition = condition(&status, type_).unwrap();
        (condition.reason.as_str(), condition.message.as_str())
    };
    let message = "the token may not read alerts: the API says: no; it may read activities";
    assert_eq!(of("Ready"), ("StreamForbidden", message));
    assert_eq!(of("TokenValid"), ("Forbidden", message));
    assert_eq!(of("Delivering"), ("StreamForbidden", message));
    let token = status.token.as_ref().unwrap();
    let reason = "the token may not read alerts: the API says: no";
    assert_eq!((token.state, token.reason.as_deref()), (TokenState::Forbidden, Some(reason)));
    let reasons = |status: &SiemAgentStatus| {
        [Stream::Alerts, Stream::Activities].map(|stream| status.stream(stream)?.reason.clone())
    };
    assert_eq!(reasons(&status), [Some("StreamForbidden".to_owned()), None]);
    assert!(is_news(&well(), &status));
    // The other one too, in this order; then the first heals, and then the other.
    let steps: [(&[Stream], &str, &str); 4] = [
        (&[Stream::Alerts, Stream::Activities], "TokenForbidden", "alerts and activities"),
        (&[Stream::Activities], "StreamForbidden", "read activities: "),
        (&[Stream::Alerts], "StreamForbidden", "read alerts: "),
        (&[], "Delivering", "delivered"),
    ];
    let mut previous = status.clone();
    for (forbidden, reason, words) in steps {
        let mut world = self::world().after(previous.clone());
        world.tell(|report| forbidden.iter().for_each(|stream| forbid(report, *stream)));
        let next = world.status();
        let ready = next.condition(ConditionType::Ready).unwrap();
        assert_eq!(ready.reason, reason, "{forbidden:?}");
        assert!(ready.message.contains(words), "{ready:?}");
        assert_eq!(reasons(&next).iter().flatten().count(), forbidden.len());
        assert!(is_news(&previous, &next), "{forbidden:?}");
        previous = next;
    }
}

#[test]
fn an_outage_that_follows_another_trouble_is_not_as_old_as_that() {
    let mut forbidden = world().after(well());
    forbidden.tell(|report| forbid(report, Stream::Alerts));
    let first = forbidden.status_at(ago(5 * 3_600));
    // Delivering has been False for five hours, and the SIEM is away for a minute and a half, look by look.
    let mut previous = first;
    for seconds in [90, 105] {
        let mut world = world().after(previous);
        world.tell(|report| {
            report.started_at = ago(6 * 3_600);
            forbid(report, Stream::Alerts);
            target_down(report, seconds);
        });
        previous = world.status();
        assert_eq!(previous.condition(ConditionType::Ready).unwrap().reason, "TargetUnreachable");
        assert_eq!(previous.state, Some(State::Connected), "{seconds}");
    }
}

#[test]
fn a_transition_time_moves_only_with_the_status() {
    let before = well();
    let mut down = world().after(before.clone());
    down.tell(|report| target_down(report, 61));
    let status = down.status();
    let time = |status: &SiemAgentStatus, type_: &str| {
        condition(status, type_).unwrap().last_transition_time.0
    };
    assert_eq!(time(&status, "Ready"), NOW);
    assert_eq!(time(&status, "TokenValid"), ago(5_000));
    let mut other = world().after(status);
    other.tell(|report| source(report, SourceState::Unreachable));
    let later = other.status_at(NOW + SignedDuration::from_mins(1));
    assert_eq!(later.condition(ConditionType::Ready).unwrap().reason, "SourceUnreachable");
    assert_eq!(time(&later, "Ready"), NOW);
}

#[test]
fn what_only_tells_that_all_goes_on_is_no_news() {
    let before = well();
    let mut world = world().after(before.clone());
    world.tell(|report| {
        report.token.last_check_time = Some(NOW);
        for stream in report.streams.values_mut() {
            stream.delivered_through = Some(NOW);
            stream.last_event_time = Some(NOW);
            stream.delivered_total += 100;
            stream.lag_seconds = Some(30.0);
        }
    });
    assert!(!is_news(&before, &world.status()));
    world.agent.metadata.generation = Some(4);
    assert!(is_news(&before, &world.status()));
    let mut down = self::world().after(before.clone());
    down.tell(|report| target_down(report, 61));
    let told = down.status();
    assert!(is_news(&before, &told));
    let mut same = self::world().after(told.clone());
    same.tell(|report| {
        target_down(report, 75);
        report.target.reason = Some("timed out".to_owned());
    });
    assert!(!is_news(&told, &same.status()));
    assert!(is_news(&SiemAgentStatus::default(), &before));
}

#[test]
fn the_lag_grows_when_nothing_is_heard_and_is_absent_while_suspended() {
    let lag = |world: &World, minutes: i64| {
        let now = NOW + SignedDuration::from_mins(minutes);
        world.status_at(now).lag
    };
    let mut silent = world().after(well());
    silent.sighting.failing = Some(Failing { since: NOW, reason: "m".to_owned() });
    assert_eq!(lag(&silent, 0).as_deref(), Some("<1m"));
    assert_eq!(lag(&silent, 4).as_deref(), Some("<5m"));
    assert_eq!(lag(&silent, 400).as_deref(), Some(">=6h"));
    // Nothing but the status is left of what was known.
    silent.sighting = Sighting::default();
    assert_eq!(lag(&silent, 400).as_deref(), Some(">=6h"));
    silent.agent.spec.suspend = true;
    assert_eq!(lag(&silent, 400), None);
}

#[test]
fn twins_are_warned_about_and_stay_ready() {
    let mut world = world().after(well());
    let mut other = world.agent.clone();
    other.metadata.name = Some("other".to_owned());
    let [own, other] = [world.agent.clone(), other].map(Agent::for_test);
    world.twins = crate::twins::Twins::of([&own, &other]).twins(&own.key).to_vec();
    let status = world.status();
    let ready = status.condition(ConditionType::Ready).unwrap();
    assert_eq!(ready.status, "True");
    assert!(ready.message.contains("warning: ns/other exports the same"), "{}", ready.message);
    assert!(is_news(&well(), &status));
}

#[test]
fn a_trouble_that_says_nothing_of_the_connection_leaves_the_portals_word() {
    for word in [State::Created, State::Connected, State::ConnectionError, State::Disconnected] {
        let mut previous = well();
        previous.state = Some(word);
        for token in [TokenState::Missing, TokenState::Invalid, TokenState::Forbidden] {
            let mut world = world().after(previous.clone());
            world.tell(|report| report.token.state = token);
            assert_eq!(world.status().state, Some(word), "{token:?}");
        }
        let mut stalled = world().after(previous);
        let problem = Problem { cause: Cause::InvalidSpec, text: "t".to_owned() };
        stalled.problems = Some(vec![problem]);
        assert_eq!(stalled.status().state, Some(word));
    }
}

#[test]
fn what_a_terminal_would_obey_is_left_out_and_a_long_text_is_cut() {
    assert_eq!(clip("a\u{1b}[2J\r\nb"), "a [2J  b");
    let long = clip(&"ü".repeat(10_000));
    assert!(long.len() <= 1_003 && long.ends_with("ü…"), "{long}");
}

#[test]
fn a_pause_is_a_condition_and_changes_that_wait_are_not_observed() {
    let mut world = world().after(well());
    let pause = (PAUSED_ANNOTATION.to_owned(), "true".to_owned());
    world.agent.metadata.annotations = Some(BTreeMap::from([pause]));
    let paused = |world: &World| {
        let status = world.status_at(NOW);
        let condition = status.condition(ConditionType::Paused).unwrap().clone();
        assert!(status.is(ConditionType::Ready) && status.is(ConditionType::Paused));
        assert_eq!(condition.observed_generation, Some(status.observed_generation));
        (status.observed_generation, condition.message)
    };
    let (generation, message) = paused(&world);
    assert_eq!(generation, 3);
    assert!(message.ends_with("keeps exporting"), "{message}");
    // Another spec, which is not applied.
    world.agent.metadata.generation = Some(4);
    world.paused = Some(vec!["ConfigMap soc-config".to_owned()]);
    let (generation, message) = paused(&world);
    assert_eq!(generation, 3);
    assert!(message.ends_with("; pending: ConfigMap soc-config"), "{message}");
    world.agent.metadata.annotations = None;
    world.paused = None;
    assert!(world.status_at(NOW).condition(ConditionType::Paused).is_none());
}
