//! How far delivery is behind, in seconds and as a bucket. Pure.
//!
//! Seconds change with every look and belong to the metrics; the status has a bucket, and a bucket is left for a lower
//! one only when the lag is clearly below its edge, so that a lag on an edge does not cause a write a minute.

use jiff::Timestamp;
use siem_agent_crds::condition::{ConditionType, Reason};
use siem_agent_crds::report::Stream;
use siem_agent_crds::siem_agent::{SiemAgentStatus, StreamSource};

use super::Facts;

/// Upper edge in seconds, name.
const BUCKETS: [(f64, &str); 6] = [
    (60.0, "<1m"),
    (300.0, "<5m"),
    (900.0, "<15m"),
    (3_600.0, "<1h"),
    (21_600.0, "<6h"),
    (f64::INFINITY, ">=6h"),
];
/// To go down a bucket the lag must be below this part of its edge.
const CLEARLY: f64 = 0.8;
/// A lag above this is reported though everything is reachable.
const LAGGING_SECONDS: f64 = 900.0;

/// The larger lag of the enabled streams, as of now; `None` while suspended, and before anything is known.
pub(super) fn seconds(
    facts: &Facts<'_>,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Option<f64> {
    let streams = facts.agent.spec.event_types.enabled();
    streams.filter_map(|stream| of_stream(facts, stream, previous, now)).reduce(f64::max)
}

/// The lag of one stream, as of now; `None` while suspended, and before anything is known.
pub(super) fn of_stream(
    facts: &Facts<'_>,
    stream: Stream,
    previous: &SiemAgentStatus,
    now: Timestamp,
) -> Option<f64> {
    if facts.agent.is_suspended() {
        return None;
    }
    let sighting = facts.sighting;
    let reported = sighting.report.as_ref().and_then(|report| report.streams.get(&stream));
    // Both clocks that the report speaks of are the forwarder's; the time since then is ours.
    if let (Some(reported), Some(read)) = (reported, sighting.last_read) {
        let since = now.duration_since(read).as_secs_f64().max(0.0);
        return reported.lag_seconds.map(|lag| lag + since);
    }
    let reported = reported.and_then(|reported| reported.delivered_through);
    let before = || previous.stream(stream)?.delivered_through.as_ref().map(|time| time.0);
    let through = reported.or_else(before)?;
    Some(now.duration_since(through).as_secs_f64().max(0.0))
}

/// The bucket of a lag, given the bucket before.
pub(super) fn bucket(lag: f64, previous: Option<&str>) -> &'static str {
    let plain = BUCKETS.iter().position(|(edge, _)| lag < *edge).unwrap_or(BUCKETS.len() - 1);
    let before = BUCKETS.iter().position(|(_, name)| Some(*name) == previous);
    let index = match before {
        Some(before) if plain < before => {
            let clear = BUCKETS.iter().position(|(edge, _)| lag < edge * CLEARLY);
            clear.unwrap_or(before).min(before)
        }
        Some(_) | None => plain,
    };
    BUCKETS.get(index).map_or(">=6h", |(_, name)| name)
}

/// Whether the lag of a stream is worth a condition; a source that is asked seldom is behind by as much.
pub(super) fn is_lagging(facts: &Facts<'_>, previous: &SiemAgentStatus, now: Timestamp) -> bool {
    let was = previous
        .condition(ConditionType::Ready)
        .is_some_and(|ready| ready.reason == Reason::Lagging);
    let spec = &facts.agent.spec;
    spec.event_types.enabled().any(|stream| {
        let source = &spec.source;
        let poll = match spec.source_of(stream) {
            Some(StreamSource::Graph) => source.graph.as_ref().map(|graph| graph.poll_interval),
            Some(StreamSource::CloudApps) | None => {
                source.cloud_apps.as_ref().map(|portal| portal.poll_interval)
            }
        };
        let poll = poll.map_or(0.0, |poll| poll.0.as_secs_f64());
        let limit = LAGGING_SECONDS.max(2.0 * poll + 60.0);
        let limit = if was { limit * CLEARLY } else { limit };
        of_stream(facts, stream, previous, now).is_some_and(|lag| lag > limit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_left_upwards_at_its_edge_and_downwards_clearly_below() {
        let steps = [
            (None, 3.0, "<1m"),
            (None, 60.0, "<5m"),
            (Some("<1m"), 59.0, "<1m"),
            (Some("<1m"), 61.0, "<5m"),
            (Some("<5m"), 59.0, "<5m"),
            (Some("<5m"), 47.0, "<1m"),
            (Some(">=6h"), 3.0, "<1m"),
            (Some("<1m"), 1e9, ">=6h"),
            (Some("<15m"), 250.0, "<15m"),
            (Some("<15m"), 230.0, "<5m"),
            (Some("nonsense"), 400.0, "<15m"),
        ];
        for (previous, lag, expected) in steps {
            assert_eq!(bucket(lag, previous), expected, "{previous:?} {lag}");
        }
    }
}
