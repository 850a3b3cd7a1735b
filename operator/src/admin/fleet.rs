//! The agents' own series, read when they are scraped; only the leader has them.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use siem_agent_crds::condition::ConditionStatus;
use siem_agent_crds::report::Stream;
use siem_agent_crds::siem_agent::{State, TokenState};
use siem_agent_edge::clock;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::context::Context;
use crate::forwarders::sighting::Sighting;
use crate::key::Key;

/// HELP of the lag, which names the metric that it is computed from.
const LAG_HELP: &str = "Seconds between now and siemagent_delivered_through_timestamp_seconds";

/// The fleet at the moment of the scrape.
#[derive(Debug)]
pub(super) struct Fleet(pub(super) Arc<Context>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAgent {
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStream {
    namespace: String,
    name: String,
    stream: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCondition {
    namespace: String,
    name: String,
    r#type: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    namespace: String,
    name: String,
    r#type: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    namespace: String,
    name: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfInfo {
    namespace: String,
    name: String,
    format: String,
    protocol: String,
    image: String,
}

/// One agent with what it has reported.
struct Member {
    agent: Agent,
    sighting: Sighting,
    has_twins: bool,
    /// When the checkpoint was saved, Unix seconds.
    saved: Option<f64>,
    /// How long delivered events have been missing from it, seconds.
    unsaved: f64,
}

impl Member {
    fn of(&self) -> OfAgent {
        let Key { namespace, name } = self.agent.key.clone();
        OfAgent { namespace, name }
    }

    fn of_stream(&self, stream: Stream) -> OfStream {
        let Key { namespace, name } = self.agent.key.clone();
        OfStream { namespace, name, stream: stream.as_str() }
    }

    fn streams(&self) -> impl Iterator<Item = Stream> {
        self.agent.spec.event_types.enabled()
    }

    /// The later of what the last report and the status say, Unix seconds. Nothing while suspended: nothing is late then.
    fn delivered_through(&self, stream: Stream) -> Option<f64> {
        if self.agent.is_suspended() {
            return None;
        }
        let told = self.sighting.report.as_ref().and_then(|report| report.streams.get(&stream));
        let kept = self.agent.status.as_ref().and_then(|status| status.stream(stream));
        let told = told.and_then(|told| told.delivered_through);
        let kept = kept.and_then(|kept| kept.delivered_through.as_ref()).map(|time| time.0);
        let through = told.max(kept)?;
        Some(seconds(through.as_millisecond()))
    }
}

impl Collector for Fleet {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let context = &self.0;
        let members: Vec<_> = context
            .agents()
            .iter()
            .filter_map(|agent| agent.0.as_ref().ok())
            .map(|agent| {
                let key = &agent.key;
                let saved = context.checkpoint(agent).and_then(|live| live.saved);
                Member {
                    agent: agent.clone(),
                    sighting: context.reports.sighting(key, &agent.uid, None),
                    has_twins: !context.twins(key).is_empty(),
                    saved: saved.map(|saved| seconds(saved.as_millisecond())),
                    unsaved: context.keeper.unsaved_for(key, Instant::now()).as_secs_f64(),
                }
            })
            .collect();
        let now = seconds(clock::now().as_millisecond());
        through(&mut encoder, &members, now)?;
        token(&mut encoder, &members)?;
        conditions(&mut encoder, &members)?;
        reasons(&mut encoder, &members)?;
        states(&mut encoder, &members)?;
        records(&mut encoder, &members)?;
        checkpoints(&mut encoder, &members)?;
        duplicates(&mut encoder, &members)?;
        info(&mut encoder, &members)
    }
}

fn gauges<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), fmt::Error> {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn through(
    encoder: &mut DescriptorEncoder<'_>,
    members: &[Member],
    now: f64,
) -> Result<(), fmt::Error> {
    let through: Vec<_> = members
        .iter()
        .flat_map(|member| {
            member.streams().filter_map(|stream| {
                Some((member.of_stream(stream), member.delivered_through(stream)?))
            })
        })
        .collect();
    let lag: Vec<_> =
        through.iter().map(|(labels, time)| (labels.clone(), (now - time).max(0.0))).collect();
    gauges(
        encoder,
        "siemagent_delivered_through_timestamp_seconds",
        "Unix time through which all that the API has shown is delivered",
        through,
    )?;
    gauges(encoder, "siemagent_delivery_lag_seconds", LAG_HELP, lag)
}

fn token(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    let valid = members.iter().filter_map(|member| {
        let token = member.agent.status.as_ref()?.token.as_ref()?;
        let valid = match token.state {
            TokenState::Valid => 1.0,
            TokenState::Invalid | TokenState::Forbidden | TokenState::Missing => 0.0,
            TokenState::Unknown => return None,
        };
        Some((member.of(), valid))
    });
    gauges(
        encoder,
        "siemagent_token_valid",
        "Whether the API takes the token and lets it read every enabled stream",
        valid,
    )
}

fn conditions(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    let each = members.iter().flat_map(|member| {
        let Key { namespace, name } = member.agent.key.clone();
        let conditions = member.agent.status.iter().flat_map(|status| status.conditions.clone());
        conditions.flat_map(move |condition| {
            let labels = |status: &ConditionStatus| {
                let labels = OfCondition {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    r#type: condition.type_.clone(),
                    status: status.as_str(),
                };
                (labels, f64::from(u8::from(condition.status == *status)))
            };
            ConditionStatus::ALL.iter().map(labels).collect::<Vec<_>>()
        })
    });
    gauges(
        encoder,
        "siemagent_condition",
        "1 for the status that a condition of the agent has",
        each.collect::<Vec<_>>(),
    )
}

/// Why each condition is as it is; one series a condition, so that there are few however many reasons there may be.
fn reasons(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    let each = members.iter().flat_map(|member| {
        let Key { namespace, name } = member.agent.key.clone();
        let conditions = member.agent.status.iter().flat_map(|status| status.conditions.clone());
        conditions.map(move |condition| {
            let labels = OfReason {
                namespace: namespace.clone(),
                name: name.clone(),
                r#type: condition.type_,
                reason: condition.reason,
            };
            (labels, 1.0)
        })
    });
    gauges(
        encoder,
        "siemagent_condition_reason",
        "1 for the reason that a condition of the agent has",
        each.collect::<Vec<_>>(),
    )
}

fn states(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    let each = members.iter().flat_map(|member| {
        let Key { namespace, name } = member.agent.key.clone();
        let current = member.agent.status.as_ref().and_then(|status| status.state);
        let known = current.is_some();
        State::ALL.into_iter().filter(move |_| known).map(move |state| {
            let labels =
                OfState { namespace: namespace.clone(), name: name.clone(), state: state.as_str() };
            (labels, f64::from(u8::from(current == Some(state))))
        })
    });
    gauges(
        encoder,
        "siemagent_state",
        "1 for the state that the agent is in, in the portal's words",
        each.collect::<Vec<_>>(),
    )
}

/// The forwarder's own counts since its start; they begin anew with it, as counters may.
fn records(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    for (name, help, rejected) in [
        ("siemagent_records_delivered", "Records delivered, each once", false),
        ("siemagent_records_rejected", "Records skipped because they cannot be sent", true),
    ] {
        let values: Vec<_> = members
            .iter()
            .flat_map(|member| {
                let report = member.sighting.report.as_ref();
                let streams = report.into_iter().flat_map(|report| report.streams.iter());
                streams.map(|(stream, told)| {
                    let n = if rejected { told.rejected_total } else { told.delivered_total };
                    (member.of_stream(*stream), n)
                })
            })
            .collect();
        if values.is_empty() {
            continue;
        }
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, n) in values {
            ConstCounter::new(n).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// What a forwarder that has lost its state would repeat.
fn checkpoints(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    let saved = members.iter().filter_map(|member| Some((member.of(), member.saved?)));
    gauges(
        encoder,
        "siemagent_checkpoint_saved_timestamp_seconds",
        "Unix time at which the operator last saved the agent's checkpoint",
        saved,
    )?;
    let exports = members
        .iter()
        .filter(|member| !member.agent.is_suspended() && member.sighting.report.is_some());
    // Of a paused agent none is saved, and nobody is to be paged for that.
    let unsaved = exports
        .filter(|member| !member.agent.is_paused())
        .map(|member| (member.of(), member.unsaved));
    gauges(
        encoder,
        "siemagent_checkpoint_unsaved_seconds",
        "How long delivered events have been missing from the agent's saved checkpoint; 0 where none are",
        unsaved,
    )
}

fn duplicates(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    let each = members.iter().map(|member| (member.of(), f64::from(u8::from(member.has_twins))));
    gauges(
        encoder,
        "siemagent_duplicate_export",
        "Whether another agent exports the same events to the same receiver",
        each,
    )
}

fn info(encoder: &mut DescriptorEncoder<'_>, members: &[Member]) -> Result<(), fmt::Error> {
    let each = members.iter().map(|member| {
        let Key { namespace, name } = member.agent.key.clone();
        let spec = &member.agent.spec;
        let image = member.agent.status.as_ref().and_then(|status| status.image.clone());
        let labels = OfInfo {
            namespace,
            name,
            format: format!("{:?}", spec.format.kind),
            protocol: format!("{:?}", spec.syslog.protocol),
            image: image.unwrap_or_default(),
        };
        (labels, 1.0)
    });
    gauges(encoder, "siemagent_info", "Settings of the agent as labels", each)
}

#[expect(clippy::cast_precision_loss, reason = "a time has fewer than 52 bits")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}
