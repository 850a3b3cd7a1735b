//! The metrics and the report: a fold over what happens. It decides nothing, and nothing that decides asks it.
//!
//! Times are kept as times, and lag is worked out when somebody asks, so that a program that stopped cannot show a
//! small lag for ever. Labels are typed and few; none comes from a record.

mod metrics;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use siem_agent_crds::position::{Position, StreamPosition};
use siem_agent_crds::report::{self, Report};
use siem_agent_crds::siem_agent::StreamSource;

use crate::delivery::sink::Sink;
use crate::delivery::target::{Observer, Role, Target};
use crate::event::Stream;
use crate::reject::RejectReason;
use crate::source::http::gate::Gate;
use crate::time::Millis;

pub use metrics::Metrics;

/// Who reports.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The agent.
    pub agent: report::AgentIdentity,
    /// The UID of the pod, where there is one: addresses are reused.
    pub pod_uid: Option<String>,
    /// SHA-256 of the configuration's text, in hexadecimal.
    pub config_hash: String,
    /// When the program started.
    pub started_at: Timestamp,
    /// The name of the source that stands for the whole agent.
    pub source: String,
}

/// The state behind metrics and report.
#[derive(Debug)]
pub struct Progress {
    /// Counters and the histogram.
    pub metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    tokens: Tokens,
    /// Which source serves which stream.
    served: BTreeMap<Stream, StreamSource>,
    sources: BTreeMap<Stream, SourceState>,
    budgets: BTreeMap<Stream, Arc<Gate>>,
    streams: BTreeMap<Stream, StreamState>,
    skew: Option<Millis>,
    sink: Option<Sink>,
    certificates: BTreeMap<Role, Timestamp>,
    checkpoint: report::CheckpointReport,
}

/// What is known of the credential.
#[derive(Debug)]
struct Tokens {
    /// What each source has said of it; what it said of a stream is with the stream.
    said: BTreeMap<StreamSource, (report::TokenState, Option<String>)>,
    last_check: Option<Timestamp>,
    /// What was reported last, and since when.
    reported: report::TokenState,
    last_change: Option<Timestamp>,
}

#[derive(Debug, Clone)]
struct SourceState {
    state: report::SourceState,
    reason: Option<String>,
    since: Timestamp,
}

#[derive(Debug, Default)]
struct StreamState {
    watermark: Option<Millis>,
    last_event: Option<Millis>,
    forbidden: Option<String>,
    n_delivered: u64,
    n_rejected: u64,
}

impl Progress {
    /// Nothing is known yet but which streams are wanted, and from which source.
    pub fn new(
        identity: Identity,
        served: impl IntoIterator<Item = (Stream, StreamSource)>,
    ) -> Arc<Self> {
        let served: BTreeMap<_, _> = served.into_iter().collect();
        let streams: BTreeMap<_, _> =
            served.keys().map(|stream| (*stream, StreamState::default())).collect();
        let metrics = Metrics::new(streams.keys().copied());
        let checkpoint =
            report::CheckpointReport { source: identity.source.clone(), ..Default::default() };
        let state = State {
            identity,
            tokens: Tokens::unknown(),
            served,
            sources: BTreeMap::new(),
            budgets: BTreeMap::new(),
            streams,
            skew: None,
            sink: None,
            certificates: BTreeMap::new(),
            checkpoint,
        };
        Arc::new(Self { metrics, state: Mutex::new(state) })
    }

    /// The same agent continues with another configuration, whose text has this SHA-256. What is known of token, source and
    /// certificates was learnt with the one before.
    pub fn configured(&self, identity: Identity) {
        let mut state = self.lock();
        let Identity { agent, config_hash, source, .. } = identity;
        state.checkpoint.source.clone_from(&source);
        (state.identity.agent, state.identity.config_hash) = (agent, config_hash);
        state.identity.source = source;
        state.tokens = Tokens::unknown();
        state.sources.clear();
        state.certificates.clear();
    }

    /// These streams are exported from here on, each within a budget. What is known of those that were stays.
    pub fn follow(&self, served: impl IntoIterator<Item = (Stream, StreamSource, Arc<Gate>)>) {
        let mut state = self.lock();
        (state.served, state.budgets) = served
            .into_iter()
            .map(|(stream, source, budget)| ((stream, source), (stream, budget)))
            .unzip();
        let mut known = std::mem::take(&mut state.streams);
        let followed = state.served.keys().copied();
        let streams: BTreeMap<_, _> =
            followed.map(|stream| (stream, known.remove(&stream).unwrap_or_default())).collect();
        self.metrics.follow(streams.keys().copied());
        // Nobody asks for a stream any more that is not followed.
        state.sources.retain(|stream, _| streams.contains_key(stream));
        state.streams = streams;
    }

    /// So much time of a stream is lost: the API does not hold it any more.
    pub fn gap(&self, stream: Stream, seconds: f64) {
        self.metrics.gap(stream, seconds);
    }

    /// Lets the report look at the target.
    pub fn watch(&self, sink: Sink) {
        self.lock().sink = Some(sink);
    }

    /// The sink will not be looked at any more, so that it can end.
    pub fn unwatch(&self) {
        self.lock().sink = None;
    }

    /// The source answered a request of this stream.
    pub fn answered(&self, stream: Stream, now: Timestamp) {
        let mut state = self.lock();
        if let Some(known) = state.streams.get_mut(&stream) {
            known.forbidden = None;
        }
        // Its body may still break off, as the one before did: only a whole page ends an outage.
        if !state.is_unreachable(stream) {
            state.source(stream, report::SourceState::Reachable, None, now);
        }
        state.token(stream, report::TokenState::Valid, None, now);
    }

    /// A page of this stream was read to its end.
    pub fn read_whole(&self, stream: Stream, now: Timestamp) {
        self.lock().source(stream, report::SourceState::Reachable, None, now);
    }

    /// The source of this stream refuses the token, or it is absent.
    pub fn token_refused(
        &self,
        stream: Stream,
        token: report::TokenState,
        reason: String,
        now: Timestamp,
    ) {
        self.lock().token(stream, token, Some(reason), now);
    }

    /// The token may not read this stream. The API has taken it all the same.
    pub fn stream_forbidden(&self, stream: Stream, reason: String, now: Timestamp) {
        let mut state = self.lock();
        state.source(stream, report::SourceState::Reachable, None, now);
        if let Some(known) = state.streams.get_mut(&stream) {
            known.forbidden = Some(reason);
        }
        state.token(stream, report::TokenState::Valid, None, now);
    }

    /// The source cannot be asked just now.
    pub fn source_failed(
        &self,
        stream: Stream,
        source: report::SourceState,
        reason: String,
        now: Timestamp,
    ) {
        self.lock().source(stream, source, Some(reason), now);
    }

    /// A position has moved.
    pub fn moved(&self, stream: Stream, through: Millis, last_event: Option<Millis>) {
        let mut state = self.lock();
        if let Some(stream) = state.streams.get_mut(&stream) {
            stream.watermark = Some(through);
            stream.last_event = last_event;
        }
        let at = StreamPosition { through, position: Position::default(), source: None };
        state.checkpoint.positions.entry(stream).or_insert(at).through = through;
    }

    /// Records were confirmed.
    pub fn delivered(&self, stream: Stream, n_records: u64) {
        self.metrics.delivered(stream, n_records);
        if let Some(stream) = self.lock().streams.get_mut(&stream) {
            stream.n_delivered += n_records;
        }
    }

    /// A record cannot be sent.
    pub fn rejected(&self, stream: Stream, reason: RejectReason) {
        self.metrics.rejected(stream, reason);
        if let Some(stream) = self.lock().streams.get_mut(&stream) {
            stream.n_rejected += 1;
        }
    }

    /// The server's clock minus ours, as it is believed.
    pub fn skewed(&self, skew: Millis) {
        self.lock().skew = Some(skew);
    }

    /// What is worth keeping of a position, and the name of its source where that is another one than the whole agent's.
    /// Reported only when records were delivered: writing out a day of alerts takes a while.
    pub fn remembered(&self, stream: Stream, kept: Position, source: Option<String>) {
        if let Some(at) = self.lock().checkpoint.positions.get_mut(&stream) {
            (at.position, at.source) = (kept, source);
        }
    }

    /// The whole report.
    pub fn report(&self, now: Timestamp) -> Report {
        let state = self.lock();
        let source = state.worst_source();
        let (token, token_reason) = state.worst_token();
        let target = state.sink.as_ref().map(Sink::target);
        let (target_state, target_reason, target_since) = match target {
            None | Some(Target::Connecting { .. }) => (report::TargetState::Unknown, None, None),
            Some(Target::Up { since }) => (report::TargetState::Up, None, Some(since)),
            Some(Target::Down { since, reason }) => {
                (report::TargetState::Down, Some(reason), Some(since))
            }
            Some(Target::Stalled { since }) => {
                let reason = "the target keeps the connection and takes nothing".to_owned();
                (report::TargetState::Stalled, Some(reason), Some(since))
            }
            Some(Target::Datagram) => (report::TargetState::Datagram, None, None),
        };
        let streams = state.streams.iter().map(|(stream, known)| {
            let time =
                |millis: Option<Millis>| millis.and_then(|ms| Timestamp::from_millisecond(ms).ok());
            let told = report::StreamReport {
                enabled: true,
                delivered_through: time(known.watermark),
                last_event_time: time(known.last_event),
                lag_seconds: state.lag_seconds(known, now),
                forbidden: known.forbidden.clone(),
                delivered_total: known.n_delivered,
                rejected_total: known.n_rejected,
            };
            (*stream, told)
        });
        Report {
            version: report::VERSION,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            agent: state.identity.agent.clone(),
            pod_uid: state.identity.pod_uid.clone(),
            config_hash: state.identity.config_hash.clone(),
            started_at: state.identity.started_at,
            now,
            source: report::SourceReport {
                state: source.as_ref().map_or(report::SourceState::Unknown, |source| source.state),
                reason: source.as_ref().and_then(|source| source.reason.clone()),
                since: source.map(|source| source.since),
            },
            target: report::TargetReport {
                state: target_state,
                reason: target_reason,
                since: target_since,
            },
            token: report::TokenReport {
                state: token,
                reason: token_reason,
                last_check_time: state.tokens.last_check,
                last_change_time: state.tokens.last_change,
            },
            streams: streams.collect(),
            checkpoint: state.checkpoint.clone(),
        }
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while the lock is held")
    }
}

impl Observer for Progress {
    fn resent(&self, n_records: usize) {
        self.metrics.resent(n_records as u64);
    }

    fn too_large(&self, stream: Stream) {
        self.rejected(stream, RejectReason::DatagramTooLarge);
    }

    fn disconnected(&self, reason: &'static str) {
        self.metrics.disconnected(reason);
    }

    fn certificate_ends(&self, role: Role, at: Option<Timestamp>) {
        let mut state = self.lock();
        match at {
            Some(at) => drop(state.certificates.insert(role, at)),
            None => drop(state.certificates.remove(&role)),
        }
    }
}

impl Tokens {
    fn unknown() -> Self {
        Self {
            said: BTreeMap::new(),
            last_check: None,
            reported: report::TokenState::Unknown,
            last_change: None,
        }
    }
}

impl State {
    fn token(
        &mut self,
        stream: Stream,
        state: report::TokenState,
        reason: Option<String>,
        now: Timestamp,
    ) {
        let source = self.serving(stream);
        self.tokens.last_check = Some(now);
        self.tokens.said.insert(source, (state, reason));
        let (reported, _) = self.worst_token();
        if self.tokens.reported != reported {
            self.tokens.reported = reported;
            self.tokens.last_change = Some(now);
        }
    }

    /// The token as it is reported: the worst that holds of it. A source that refuses it, or for which it is absent, reads no
    /// stream; with two of them the words begin with its name.
    fn worst_token(&self) -> (report::TokenState, Option<String>) {
        let refuses = |state: report::TokenState| {
            self.tokens.said.iter().find(move |(_, (said, _))| *said == state)
        };
        let worst = [report::TokenState::Missing, report::TokenState::Invalid];
        if let Some((source, (state, reason))) = worst.into_iter().find_map(refuses) {
            return (*state, reason.as_ref().map(|reason| self.named(*source, reason)));
        }
        let forbidden = self.streams.iter().filter_map(|(stream, known)| {
            Some((*stream, self.named(self.serving(*stream), known.forbidden.as_deref()?)))
        });
        let forbidden: Vec<_> = forbidden.collect();
        let forbidden = forbidden.iter().map(|(stream, reason)| (*stream, reason.as_str()));
        if let Some(reason) = report::forbidden_streams(forbidden) {
            return (report::TokenState::Forbidden, Some(reason));
        }
        // A source that has not said anything yet is not known to take it.
        let all_valid = self.served.values().all(|source| self.tokens.said.contains_key(source));
        if all_valid && !self.tokens.said.is_empty() {
            (report::TokenState::Valid, None)
        } else {
            (report::TokenState::Unknown, None)
        }
    }

    fn source(
        &mut self,
        stream: Stream,
        state: report::SourceState,
        reason: Option<String>,
        now: Timestamp,
    ) {
        // An outage that shows as a failure and as throttling in turn is one.
        let fails = |state| {
            matches!(state, report::SourceState::Unreachable | report::SourceState::Throttled)
        };
        let same =
            |known: &&SourceState| known.state == state || (fails(known.state) && fails(state));
        let since = self.sources.get(&stream).filter(same).map_or(now, |known| known.since);
        self.sources.insert(stream, SourceState { state, reason, since });
    }

    fn is_unreachable(&self, stream: Stream) -> bool {
        let known = self.sources.get(&stream);
        known.is_some_and(|known| known.state == report::SourceState::Unreachable)
    }

    fn serving(&self, stream: Stream) -> StreamSource {
        self.served.get(&stream).copied().unwrap_or(StreamSource::CloudApps)
    }

    /// Words of a source, which begin with its name where there are two.
    fn named(&self, source: StreamSource, reason: &str) -> String {
        if self.served.values().any(|other| *other != source) {
            format!("{}: {reason}", source.as_str())
        } else {
            reason.to_owned()
        }
    }

    /// One stream that fails is what people need to hear of.
    fn worst_source(&self) -> Option<SourceState> {
        let rank = |(_, source): &(&Stream, &SourceState)| match source.state {
            report::SourceState::Unreachable => 3,
            report::SourceState::Throttled => 2,
            report::SourceState::Reachable => 1,
            report::SourceState::Unknown => 0,
        };
        let (stream, worst) = self.sources.iter().max_by_key(rank)?;
        let reason = worst.reason.as_deref();
        let reason = reason.map(|reason| self.named(self.serving(*stream), reason));
        Some(SourceState { reason, ..*worst })
    }

    /// The source's clock is the clock.
    #[expect(clippy::cast_precision_loss, reason = "a lag has fewer than 52 bits")]
    fn lag_seconds(&self, stream: &StreamState, now: Timestamp) -> Option<f64> {
        let server_now = now.as_millisecond() + self.skew.unwrap_or(0);
        stream.watermark.map(|watermark| (server_now - watermark).max(0) as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests;
