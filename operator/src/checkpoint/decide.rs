//! The checkpoint that is kept for each forwarder: when it is worth a write, and what it says then. Pure; `writer`
//! writes it.
//!
//! A stream's watermark never goes back, and never lies ahead of this operator's clock or of what the same report calls
//! delivered; a kept one that does is replaced. The position beside it is kept as it came: only its source reads it.
//! Each position names its source. Of a stream that has changed its source the position of the source before is kept until
//! the present one has reported one, because that is where the present one begins.
//! A write is due only when events were delivered since the last one, which the ConfigMap itself remembers in an
//! annotation, so that an operator that was started again knows it too.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DynamicObject;
use serde::Deserialize;
use siem_agent_crds::SiemAgent;
use siem_agent_crds::checkpoint::{CLOCK_TOLERANCE, Checkpoint, KEY, VERSION, VERSION_1};
use siem_agent_crds::position::{MAX_BYTES, Position, StreamPosition};
use siem_agent_crds::report::{Report, Stream};
use siem_agent_crds::siem_agent::{StreamSource, kind_of};

use crate::names::{self, Owned};

/// No source's name is longer: a URL's 512 characters are the most.
const LONGEST_NAME: usize = 512;

/// How many records the forwarder had delivered since its start when the checkpoint was written.
pub(crate) const DELIVERED_ANNOTATION: &str = "siemagent.dev/delivered";

/// When the checkpoint was written.
pub(crate) const SAVED_ANNOTATION: &str = "siemagent.dev/saved";

/// Which start of the forwarder, and how much it has delivered since.
pub(crate) fn marker(report: &Report) -> String {
    format!("{}/{}", report.started_at.as_second(), n_delivered(report))
}

/// Whether a report has events that were delivered since this marker was written.
pub(crate) fn is_due(marker: Option<&str>, report: &Report) -> bool {
    let delivered = n_delivered(report);
    let written = marker.and_then(|marker| {
        let (start, delivered) = marker.split_once('/')?;
        Some((start.parse::<i64>().ok()?, delivered.parse::<u64>().ok()?))
    });
    match written {
        // Fewer than before is not possible within one start: the marker is then not this forwarder's.
        Some((start, written)) if start == report.started_at.as_second() => delivered != written,
        Some(_) | None => delivered > 0,
    }
}

fn n_delivered(report: &Report) -> u64 {
    report.streams.values().fold(0, |sum, stream| sum.saturating_add(stream.delivered_total))
}

/// The later watermark of a checkpoint's ConfigMap, milliseconds since the epoch; the watch keeps nothing else of its text.
pub(crate) fn latest(object: &DynamicObject) -> Option<i64> {
    #[derive(Deserialize)]
    struct Watermarks {
        #[serde(default)]
        positions: BTreeMap<Stream, Watermark>,
        /// Of version 1, as the next one.
        alerts: Option<i64>,
        activities: Option<i64>,
    }
    #[derive(Deserialize)]
    struct Watermark {
        through: i64,
    }
    let text = object.data.get("data")?.get(KEY)?.as_str()?;
    let Watermarks { positions, alerts, activities } = serde_json::from_str(text).ok()?;
    let latest = positions.values().map(|at| at.through).max();
    latest.max(alerts).max(activities)
}

/// Whether a kept watermark lies ahead of this time, so that nobody may resume from it.
pub(crate) fn is_ahead(latest: Option<i64>, now: Timestamp) -> bool {
    latest.is_some_and(|latest| latest > latest_possible(now))
}

fn latest_possible(now: Timestamp) -> i64 {
    let tolerance = i64::try_from(CLOCK_TOLERANCE.0.as_millis()).unwrap_or(0);
    now.as_millisecond().saturating_add(tolerance)
}

/// The watermark that a report gives for a stream, as far as it can be true.
fn watermark(report: &Report, stream: Stream, told: i64) -> Option<i64> {
    let delivered = report.streams.get(&stream).and_then(|stream| stream.delivered_through);
    let told = Some(told).filter(|told| *told >= 0)?;
    Some(delivered.map_or(told, |delivered| told.min(delivered.as_millisecond())))
}

/// Whether a position is kept: it is of the source that serves its stream. Of a stream that is not exported it may be of any
/// source that is given, or of a kind that is not given any more.
fn is_taken(agent: &SiemAgent, stream: Stream, source: &str) -> bool {
    let spec = &agent.spec;
    if let Some(name) = spec.source_name(stream) {
        return source == name;
    }
    let is_given = StreamSource::ALL
        .into_iter()
        .any(|given| spec.source.name(given).as_deref() == Some(source));
    is_given || (!spec.source.has(kind_of(source)) && (1..=LONGEST_NAME).contains(&source.len()))
}

/// What to keep, given what is kept. `None` for a report without a position of a present source, or from the future.
pub(crate) fn next(
    agent: &SiemAgent,
    stored: Option<&str>,
    report: &Report,
    now: Timestamp,
) -> Option<Checkpoint> {
    let main = agent.spec.source.main_name();
    let uid = agent.metadata.uid.as_deref()?;
    let told = &report.checkpoint;
    // Named where it is not of the main source.
    let of = |source: &str, through: i64, position: Position| {
        let source = (source != main).then(|| source.to_owned());
        StreamPosition { through, position, source }
    };
    let position = |(stream, at): (&Stream, &StreamPosition)| {
        let source = at.source.as_deref().unwrap_or(&told.source);
        let through = watermark(report, *stream, at.through)?;
        is_taken(agent, *stream, source)
            .then(|| (*stream, of(source, through, at.position.clone())))
    };
    let mut next = Checkpoint {
        version: VERSION,
        agent_uid: uid.to_owned(),
        source: main.clone(),
        exported: report
            .streams
            .iter()
            .filter(|(_, told)| told.enabled)
            .map(|(of, _)| *of)
            .collect(),
        positions: told.positions.iter().filter_map(position).collect(),
    };
    if next.positions.is_empty() || next.is_ahead_of(now) {
        return None;
    }
    // What cannot be believed is replaced.
    if let Some(stored) = stored.and_then(|text| Checkpoint::read(text, uid, now).ok()) {
        for (stream, at) in stored.positions {
            let at = of(at.source.as_deref().unwrap_or(&stored.source), at.through, at.position);
            let is_kept = next
                .positions
                .get(&stream)
                .is_none_or(|told| told.source == at.source && told.through < at.through);
            if is_kept {
                next.positions.insert(stream, at);
            }
        }
    }
    // A forwarder that is not brought to this release yet must be able to read it.
    if told.version == VERSION_1 && next.positions.values().all(|at| at.source.is_none()) {
        next.version = VERSION_1;
    }
    // Clocks may differ by a little; what is kept still never lies ahead of this one.
    for at in next.positions.values_mut() {
        at.through = at.through.min(now.as_millisecond());
    }
    // A position that does not fit beside the others is left out; its time is kept.
    let mut n_bytes_left = MAX_BYTES;
    for at in next.positions.values_mut() {
        match n_bytes_left.checked_sub(at.position.text().len()) {
            Some(left) => n_bytes_left = left,
            None => at.position = Position::default(),
        }
    }
    Some(next)
}

/// The ConfigMap that holds it.
///
/// # Errors
/// None in practice: a checkpoint is JSON.
pub(crate) fn config_map(
    agent: &SiemAgent,
    checkpoint: &Checkpoint,
    marker: String,
    now: Timestamp,
) -> Result<ConfigMap, serde_json::Error> {
    let mut metadata = names::metadata(agent, Owned::Checkpoint);
    let saved = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    metadata.annotations = Some(BTreeMap::from([
        (DELIVERED_ANNOTATION.to_owned(), marker),
        (SAVED_ANNOTATION.to_owned(), saved),
    ]));
    Ok(ConfigMap {
        metadata,
        data: Some(BTreeMap::from([(KEY.to_owned(), checkpoint.write()?)])),
        ..ConfigMap::default()
    })
}

#[cfg(test)]
mod tests;
