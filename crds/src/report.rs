//! What a forwarder says about itself on `/status`. The operator turns it into the agent's status.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::checkpoint::{self, Checkpoint, MAX_ALERT_IDS};
pub use crate::config::AgentIdentity;
use crate::position::{Position, StreamPosition};
use crate::printable::printable;
pub use crate::siem_agent::{Stream, TokenState};

/// The version of the report.
pub const VERSION: u32 = 1;

/// Everything that a forwarder says.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Always [`VERSION`].
    pub version: u32,
    /// The program's version.
    pub program_version: String,
    /// Whom it serves.
    pub agent: AgentIdentity,
    /// The pod that it runs in: addresses are reused.
    pub pod_uid: Option<String>,
    /// SHA-256 of the configuration's text, in hexadecimal.
    pub config_hash: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it said this.
    pub now: Timestamp,
    /// The API.
    pub source: SourceReport,
    /// The SIEM.
    pub target: TargetReport,
    /// The token.
    pub token: TokenReport,
    /// The enabled streams.
    pub streams: BTreeMap<Stream, StreamReport>,
    /// What to keep for a forwarder that has lost its state.
    pub checkpoint: CheckpointReport,
}

impl Report {
    /// Every text in it through [`printable`]: some are the words of a portal or a receiver, and all come from a peer
    /// where the operator has it from.
    pub fn make_printable(&mut self) {
        let Self { program_version, agent, pod_uid, config_hash, source, target, token, .. } = self;
        let AgentIdentity { namespace, name, uid, display_name, creation_timestamp: _ } = agent;
        let forbidden = self.streams.values_mut().map(|stream| &mut stream.forbidden);
        let optional = [pod_uid, uid, &mut source.reason, &mut target.reason, &mut token.reason];
        let optional = optional.into_iter().chain(forbidden).flatten();
        let texts = [program_version, namespace, name, display_name, config_hash];
        let checkpoint = &mut self.checkpoint;
        let sources = checkpoint.positions.values_mut().filter_map(|at| at.source.as_mut());
        for text in optional.chain(texts).chain(sources).chain([&mut checkpoint.source]) {
            if let Cow::Owned(printed) = printable(text) {
                *text = printed;
            }
        }
    }
}

/// What is known of the API.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SourceReport {
    /// In one word.
    pub state: SourceState,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// The API in one word.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Reachable,
    /// It cannot be asked, or fails.
    Unreachable,
    /// It wants fewer requests.
    Throttled,
}

/// What is known of the SIEM.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TargetReport {
    /// In one word.
    pub state: TargetState,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// The SIEM in one word.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Not tried yet.
    Unknown,
    /// Connected.
    Up,
    /// Connected, but it takes nothing of what it is sent.
    Stalled,
    /// Unreachable or refusing.
    Down,
    /// Datagrams: nothing can be known.
    Datagram,
}

/// What is known of the token.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TokenReport {
    /// In one word, the worst that holds of any enabled stream: Forbidden where the token may not read one of them.
    pub state: TokenState,
    /// Why, in the API's own words.
    pub reason: Option<String>,
    /// When it was last tried.
    pub last_check_time: Option<Timestamp>,
    /// When the state last changed.
    pub last_change_time: Option<Timestamp>,
}

/// One stream.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StreamReport {
    /// Whether it is exported.
    pub enabled: bool,
    /// Everything that the API has shown up to this time is delivered.
    pub delivered_through: Option<Timestamp>,
    /// When the newest delivered event happened.
    pub last_event_time: Option<Timestamp>,
    /// Now minus delivered through, seconds.
    pub lag_seconds: Option<f64>,
    /// The API's words where the token may not read this stream.
    pub forbidden: Option<String>,
    /// Records delivered since the start, each once.
    pub delivered_total: u64,
    /// Records that could not be mapped since the start.
    pub rejected_total: u64,
}

/// In words, which streams the token may not read, and why in the API's own words. `None` where it may read them all.
pub fn forbidden_streams<'a>(
    forbidden: impl IntoIterator<Item = (Stream, &'a str)>,
) -> Option<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for (stream, reason) in forbidden {
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, streams)) => streams.push(stream.as_str()),
            None => by_reason.push((reason, vec![stream.as_str()])),
        }
    }
    let texts: Vec<_> = by_reason
        .into_iter()
        .map(|(reason, streams)| {
            format!("the token may not read {}: {reason}", streams.join(" and "))
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What to keep for a forwarder that has lost its state.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", from = "Told")]
pub struct CheckpointReport {
    /// Of the checkpoint that the forwarder reads.
    pub version: u32,
    /// The name of the source of every position that names none itself.
    pub source: String,
    /// How far each stream is. Of what is read, a position that no checkpoint can hold, or that is not printable, is left
    /// empty.
    pub positions: BTreeMap<Stream, StreamPosition>,
}

impl Default for CheckpointReport {
    fn default() -> Self {
        Self { version: checkpoint::VERSION, source: String::new(), positions: BTreeMap::new() }
    }
}

/// As a forwarder says it: of this version, or of the one before, which said neither its version nor positions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(default = "of_version_1")]
    version: u32,
    source: String,
    #[serde(default)]
    positions: BTreeMap<Stream, StreamPosition>,
    #[serde(default)]
    alerts: Option<i64>,
    #[serde(default)]
    activities: Option<i64>,
    /// Of what is read, others than digests are left out, as are more than a checkpoint holds.
    #[serde(default, deserialize_with = "digests")]
    alert_ids: Vec<String>,
}

fn of_version_1() -> u32 {
    checkpoint::VERSION_1
}

impl From<Told> for CheckpointReport {
    fn from(told: Told) -> Self {
        let Told { version, source, mut positions, alerts, activities, alert_ids } = told;
        if version == checkpoint::VERSION_1 {
            positions = checkpoint::positions_of_version_1(alerts, activities, alert_ids);
        }
        for at in positions.values_mut().filter(|at| !at.position.can_be_kept()) {
            at.position = Position::default();
        }
        Self { version, source, positions }
    }
}

/// Reads the digests of a report without holding more of them than a checkpoint can.
fn digests<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Digests;

    impl<'de> Visitor<'de> for Digests {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of digests")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut digests = Vec::new();
            while let Some(digest) = seq.next_element::<String>()? {
                if Checkpoint::is_digest(&digest) && digests.len() < MAX_ALERT_IDS {
                    digests.push(digest);
                }
            }
            Ok(digests)
        }
    }

    deserializer.deserialize_seq(Digests)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_reports_digests_no_more_is_read_than_a_checkpoint_holds() {
        let mut ids: Vec<_> = (0..=MAX_ALERT_IDS).map(|n| format!("{n:016x}")).collect();
        ids.insert(1, "no digest".to_owned());
        ids.insert(2, "x".repeat(100_000));
        let report: CheckpointReport =
            serde_json::from_value(json!({"source": "s", "alerts": 1, "alertIds": ids})).unwrap();
        let ids = report.positions[&Stream::Alerts].position.ids();
        assert_eq!(ids.len(), MAX_ALERT_IDS);
        assert!(ids.iter().all(|id| Checkpoint::is_digest(id)));
    }

    #[test]
    fn a_report_of_version_1_is_read() {
        let text = include_str!("../fixtures/report-version-1.json");
        let report: Report = serde_json::from_str(text).unwrap();
        let CheckpointReport { version, source, positions } = report.checkpoint;
        assert_eq!((version, source.as_str()), (checkpoint::VERSION_1, "https://a.example"));
        assert_eq!(positions[&Stream::Alerts].through, 1_699_999_999_000);
        assert_eq!(positions[&Stream::Alerts].position.ids(), ["00112233445566ff"]);
        assert_eq!(positions[&Stream::Activities].through, 1_700_000_000_000);
    }

    #[test]
    fn a_position_that_cannot_be_kept_is_left_empty() {
        let read = |position: serde_json::Value| {
            let told = json!({"version": 2, "source": "s", "positions": {"alerts": {"through": 5, "position": position}}});
            let mut read: CheckpointReport = serde_json::from_value(told).unwrap();
            read.positions.remove(&Stream::Alerts).unwrap()
        };
        let good = json!({"version": 9, "any": [1]});
        assert_eq!(read(good.clone()).position, Position::of(&good));
        for bad in [json!("\u{1b}[2J\u{e9}"), json!("x".repeat(1_000_000))] {
            assert_eq!(
                read(bad),
                StreamPosition { through: 5, position: Position::default(), source: None }
            );
        }
    }
}
