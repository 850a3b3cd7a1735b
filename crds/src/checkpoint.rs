//! The checkpoint that the operator keeps for a forwarder that has lost its own state.
//!
//! It lies in the ConfigMap `<name>-checkpoint` under the one key [`KEY`], JSON, and is mounted into the forwarder's pod
//! as a folder: the forwarder finds it at `<Paths::checkpoint>/checkpoint.json`. The volume is optional, so an absent
//! folder or file means that nothing is known. Kept apart from `report` because the two change for different reasons:
//! a report is spoken between two running programs, this outlives both. Versioned; an unknown field is refused. What a
//! position says is its source's affair; how current it is stands beside it, for whoever keeps it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::position::{Position, StreamPosition};
use crate::report::Stream;

/// The version of the stored form.
pub const VERSION: u32 = 2;
/// The form before it, which knew the times and the digests of one source, and is read and, for a forwarder that knows no
/// other, written.
pub const VERSION_1: u32 = 1;
/// The one key of the ConfigMap, and so the one file in the mounted folder.
pub const KEY: &str = "checkpoint.json";
/// A ConfigMap holds 1 MiB; a digest takes 19 bytes of it. What does not fit may be delivered twice, never lost.
pub const MAX_ALERT_IDS: usize = 40_000;
/// A watermark may lie this far ahead of a clock before it is mistrusted: two clocks always differ a little.
pub const CLOCK_TOLERANCE: GoDuration = GoDuration::from_secs(5 * 60);

/// Where a forwarder without state of its own resumes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// [`VERSION`], or [`VERSION_1`] for a forwarder that knows no other.
    pub version: u32,
    /// `metadata.uid` of the SiemAgent: an agent that was deleted and made again starts anew.
    pub agent_uid: String,
    /// The name of the source of every position that names none itself: the portal's URL without a slash at its end, or
    /// Graph's tenant. Another tenant starts anew.
    pub source: String,
    /// The streams that were exported when this was written: one that was not, and is again, reaches back `startFrom` at
    /// most.
    #[serde(default)]
    pub exported: Vec<Stream>,
    /// How far each stream is; one that was never exported is absent.
    #[serde(default)]
    pub positions: BTreeMap<Stream, StreamPosition>,
}

/// The form of version 1.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Version1 {
    version: u32,
    agent_uid: String,
    source: String,
    /// Milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alerts: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activities: Option<i64>,
    #[serde(default)]
    exported: Vec<Stream>,
    /// Digests of the ids of the alerts that were delivered within the last day, 16 hexadecimal digits each: the first
    /// eight bytes of the id's SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alert_ids: Vec<String>,
}

/// Why a stored checkpoint is not believed. The forwarder then starts as if there were none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The text is not of this form.
    #[error("the checkpoint cannot be read: {0}")]
    Malformed(String),
    /// Another program wrote it.
    #[error("the checkpoint has version {0}, this program reads version {VERSION} at most")]
    Version(u32),
    /// It belongs to an agent of the same name that is gone.
    #[error("the checkpoint belongs to another agent of the same name")]
    OtherAgent,
    /// A watermark that cannot be true would lose whatever lies before it.
    #[error("the checkpoint lies ahead of the server's time")]
    Ahead,
}

impl Checkpoint {
    /// Reads the stored text, and believes it only for this agent and up to this time, which should be the server's own. Whose
    /// source a position is of is for the reader to ask.
    ///
    /// # Errors
    /// [`Refusal`]: it says why.
    pub fn read(text: &str, agent_uid: &str, now: Timestamp) -> Result<Self, Refusal> {
        let version = serde_json::from_str::<OfVersion>(text)
            .map_err(|error| Refusal::Malformed(error.to_string()))?
            .version;
        let malformed = |error: serde_json::Error| Refusal::Malformed(error.to_string());
        let checkpoint: Self = match version {
            VERSION_1 => serde_json::from_str::<Version1>(text).map_err(malformed)?.current()?,
            VERSION => serde_json::from_str(text).map_err(malformed)?,
            other => return Err(Refusal::Version(other)),
        };
        if checkpoint.agent_uid != agent_uid {
            return Err(Refusal::OtherAgent);
        }
        if checkpoint.is_ahead_of(now) {
            return Err(Refusal::Ahead);
        }
        Ok(checkpoint)
    }

    /// Whether a text has the form of an alert's digest.
    pub fn is_digest(id: &str) -> bool {
        id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// The stored text.
    ///
    /// # Errors
    /// None in practice: the form is JSON.
    pub fn write(&self) -> Result<String, serde_json::Error> {
        match self.version {
            VERSION_1 => serde_json::to_string(&Version1::of(self)),
            _ => serde_json::to_string(self),
        }
    }

    /// The name of the source of a stream's position.
    pub fn source_of(&self, stream: Stream) -> Option<&str> {
        let at = self.positions.get(&stream)?;
        Some(at.source.as_deref().unwrap_or(&self.source))
    }

    /// How current a stream's position is.
    pub fn through(&self, stream: Stream) -> Option<i64> {
        self.positions.get(&stream).map(|at| at.through)
    }

    /// Whether a watermark lies further ahead of this time than clocks differ.
    pub fn is_ahead_of(&self, now: Timestamp) -> bool {
        let tolerance = i64::try_from(CLOCK_TOLERANCE.0.as_millis()).unwrap_or(0);
        let latest = now.as_millisecond().saturating_add(tolerance);
        self.positions.values().any(|at| at.through > latest)
    }
}

impl Version1 {
    fn current(self) -> Result<Checkpoint, Refusal> {
        if !self.alert_ids.iter().all(|id| Checkpoint::is_digest(id)) {
            return Err(Refusal::Malformed("an alert's digest is not of 16 digits".to_owned()));
        }
        Ok(Checkpoint {
            version: VERSION_1,
            agent_uid: self.agent_uid,
            source: self.source,
            exported: self.exported,
            positions: positions_of_version_1(self.alerts, self.activities, self.alert_ids),
        })
    }

    fn of(checkpoint: &Checkpoint) -> Self {
        let alerts = checkpoint.positions.get(&Stream::Alerts);
        Self {
            version: VERSION_1,
            agent_uid: checkpoint.agent_uid.clone(),
            source: checkpoint.source.clone(),
            alerts: alerts.map(|at| at.through),
            activities: checkpoint.through(Stream::Activities),
            exported: checkpoint.exported.clone(),
            alert_ids: alerts.map(digests).unwrap_or_default(),
        }
    }
}

/// What version 1 could hold of a position: its digests, of which a forwarder may have written anything.
fn digests(at: &StreamPosition) -> Vec<String> {
    let ids = at.position.ids().into_iter().filter(|id| Checkpoint::is_digest(id));
    ids.take(MAX_ALERT_IDS).collect()
}

/// The positions that version 1 of checkpoint and report knew.
pub(crate) fn positions_of_version_1(
    alerts: Option<i64>,
    activities: Option<i64>,
    alert_ids: Vec<String>,
) -> BTreeMap<Stream, StreamPosition> {
    let at =
        |through, ids| StreamPosition { through, position: Position::with_ids(ids), source: None };
    let alerts = alerts.map(|through| (Stream::Alerts, at(through, alert_ids)));
    let activities = activities.map(|through| (Stream::Activities, at(through, Vec::new())));
    alerts.into_iter().chain(activities).collect()
}

/// Read first, so that a later version is called that and not malformed.
#[derive(Deserialize)]
struct OfVersion {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn checkpoint() -> Checkpoint {
        let position = Position::of(&serde_json::json!({"any": "thing"}));
        let at = StreamPosition { through: NOW.as_millisecond(), position, source: None };
        Checkpoint {
            version: VERSION,
            agent_uid: "uid".to_owned(),
            source: "https://a.example".to_owned(),
            exported: vec![Stream::Alerts],
            positions: BTreeMap::from([(Stream::Alerts, at)]),
        }
    }

    fn read(text: &str) -> Result<Checkpoint, Refusal> {
        Checkpoint::read(text, "uid", NOW)
    }

    /// As the operator of the version before wrote it.
    const VERSION_1_TEXT: &str = include_str!("../fixtures/checkpoint-version-1.json");

    #[test]
    fn a_checkpoint_of_version_1_is_read_and_written_for_a_forwarder_that_knows_no_other() {
        let checkpoint = read(VERSION_1_TEXT).unwrap();
        assert_eq!(checkpoint.through(Stream::Alerts), Some(1_699_999_999_000));
        assert_eq!(checkpoint.through(Stream::Activities), Some(1_700_000_000_000));
        assert_eq!(checkpoint.positions[&Stream::Alerts].position.ids(), ["00112233445566ff"]);
        assert_eq!(checkpoint.write().unwrap(), VERSION_1_TEXT.trim_end());
        let current = Checkpoint { version: VERSION, ..checkpoint.clone() };
        assert_eq!(read(&current.write().unwrap()).unwrap(), current);
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&checkpoint().write().unwrap()).unwrap(), checkpoint());
    }

    #[test]
    fn what_cannot_be_believed_is_refused_by_its_reason() {
        let with = |change: fn(&mut Checkpoint)| {
            let mut changed = checkpoint();
            change(&mut changed);
            read(&changed.write().unwrap()).unwrap_err()
        };
        assert_eq!(with(|checkpoint| checkpoint.version = 3), Refusal::Version(3));
        assert_eq!(with(|checkpoint| checkpoint.agent_uid.push('x')), Refusal::OtherAgent);
        let ahead = |checkpoint: &mut Checkpoint| {
            let through = NOW.as_millisecond() + 300_001;
            let at = StreamPosition { through, position: Position::default(), source: None };
            checkpoint.positions.insert(Stream::Activities, at);
        };
        assert_eq!(with(ahead), Refusal::Ahead);
        let not_hex = VERSION_1_TEXT.replace("00112233445566ff", "xxxxxxxxxxxxxxxx");
        assert!(matches!(read(&not_hex), Err(Refusal::Malformed(_))));
        for text in ["", "{}", "{\"version\":1}", "{\"version\":1,\"extra\":1}", "{\"version\":2}"]
        {
            assert!(matches!(read(text), Err(Refusal::Malformed(_))), "{text}");
        }
        assert_eq!(read("{\"version\":3,\"extra\":1}"), Err(Refusal::Version(3)));
    }
}
