//! The checkpoint that the operator keeps for a forwarder that has lost its own state.
//!
//! It lies in the ConfigMap `<name>-checkpoint` under the one key [`KEY`], JSON, and is mounted into the forwarder's pod
//! as a folder: the forwarder finds it at `<Paths::checkpoint>/checkpoint.json`. The volume is optional, so an absent
//! folder or file means that nothing is known. Kept apart from `report` because the two change for different reasons:
//! a report is spoken between two running programs, this outlives both. Versioned; an unknown field is refused.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::report::Stream;

/// The version of the stored form.
pub const VERSION: u32 = 1;
/// The one key of the ConfigMap, and so the one file in the mounted folder.
pub const KEY: &str = "checkpoint.json";
/// A ConfigMap holds 1 MiB; a digest takes 19 bytes of it. What does not fit may be delivered twice, never lost.
pub const MAX_ALERT_IDS: usize = 40_000;
/// A watermark may lie this far ahead of a clock before it is mistrusted: two clocks always differ a little.
pub const CLOCK_TOLERANCE: GoDuration = GoDuration::from_secs(5 * 60);

/// Where a forwarder without state of its own goes on.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// Always [`VERSION`].
    pub version: u32,
    /// `metadata.uid` of the SiemAgent: an agent that was deleted and made again starts anew.
    pub agent_uid: String,
    /// The source's URL without a slash at its end: another source starts anew.
    pub source: String,
    /// Everything of alerts up to this time is delivered, milliseconds since the epoch; absent while that stream was never
    /// exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<i64>,
    /// Everything of activities up to this time is delivered, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activities: Option<i64>,
    /// The streams that were exported when this was written: one that was not, and is again, reaches back `startFrom` at
    /// most.
    #[serde(default)]
    pub exported: Vec<Stream>,
    /// Digests of the ids of the alerts that were delivered within the last day, 16 hexadecimal digits each, sorted: the
    /// first eight bytes of the id's SHA-256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alert_ids: Vec<String>,
}

/// Why a stored checkpoint is not believed. The forwarder then starts as if there were none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The text is not of this form.
    #[error("the checkpoint cannot be read: {0}")]
    Malformed(String),
    /// Another program wrote it.
    #[error("the checkpoint has version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// It belongs to an agent of the same name that is gone.
    #[error("the checkpoint belongs to another agent of the same name")]
    OtherAgent,
    /// `spec.source.url` was another one.
    #[error("the checkpoint belongs to another source")]
    OtherSource,
    /// A watermark that cannot be true would lose whatever lies before it.
    #[error("the checkpoint lies ahead of the server's time")]
    Ahead,
}

impl Checkpoint {
    /// Reads the stored text, and believes it only for this agent and source and up to this time, which should be the
    /// server's own.
    ///
    /// # Errors
    /// [`Refusal`]: it says why.
    pub fn read(
        text: &str,
        agent_uid: &str,
        source: &str,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let version = serde_json::from_str::<OfVersion>(text)
            .map_err(|error| Refusal::Malformed(error.to_string()))?
            .version;
        if version != VERSION {
            return Err(Refusal::Version(version));
        }
        let checkpoint: Self =
            serde_json::from_str(text).map_err(|error| Refusal::Malformed(error.to_string()))?;
        if !checkpoint.alert_ids.iter().all(|id| Self::is_digest(id)) {
            return Err(Refusal::Malformed("an alert's digest is not of 16 digits".to_owned()));
        }
        if checkpoint.agent_uid != agent_uid {
            return Err(Refusal::OtherAgent);
        }
        if checkpoint.source != source {
            return Err(Refusal::OtherSource);
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
        serde_json::to_string(self)
    }

    /// Whether a watermark lies further ahead of this time than clocks differ.
    pub fn is_ahead_of(&self, now: Timestamp) -> bool {
        let tolerance = i64::try_from(CLOCK_TOLERANCE.0.as_millis()).unwrap_or(0);
        let latest = now.as_millisecond().saturating_add(tolerance);
        [self.alerts, self.activities].into_iter().flatten().any(|watermark| watermark > latest)
    }
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
        Checkpoint {
            version: VERSION,
            agent_uid: "uid".to_owned(),
            source: "https://a.example".to_owned(),
            alerts: Some(NOW.as_millisecond()),
            activities: None,
            exported: vec![Stream::Alerts],
            alert_ids: vec!["00112233445566ff".to_owned()],
        }
    }

    fn read(text: &str) -> Result<Checkpoint, Refusal> {
        Checkpoint::read(text, "uid", "https://a.example", NOW)
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
        assert_eq!(with(|checkpoint| checkpoint.version = 2), Refusal::Version(2));
        assert_eq!(with(|checkpoint| checkpoint.agent_uid.push('x')), Refusal::OtherAgent);
        assert_eq!(with(|checkpoint| checkpoint.source.push('x')), Refusal::OtherSource);
        let ahead = |checkpoint: &mut Checkpoint| {
            checkpoint.activities = Some(NOW.as_millisecond() + 300_001);
        };
        assert_eq!(with(ahead), Refusal::Ahead);
        let not_hex = |checkpoint: &mut Checkpoint| checkpoint.alert_ids.push("x".repeat(16));
        assert!(matches!(with(not_hex), Refusal::Malformed(_)));
        for text in ["", "{}", "{\"version\":1}", "{\"version\":1,\"extra\":1}"] {
            assert!(matches!(read(text), Err(Refusal::Malformed(_))), "{text}");
        }
        assert_eq!(read("{\"version\":3,\"extra\":1}"), Err(Refusal::Version(3)));
    }
}
