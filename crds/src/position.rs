//! How far a stream is, as the source of a forwarder wrote it: versioned JSON that only that source reads.
//!
//! It is passed on as it is: into the forwarder's state file, its report and the operator's checkpoint. Beside it stands
//! how current it is, so that whoever keeps it can say which of two is later, and whether it lies ahead of the time.
//! Version 1 of report and checkpoint had the digests of alerts' ids in its place: they are put into a position here.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most that a checkpoint holds of positions, all of them together: a ConfigMap holds 1 MiB, in which every quotation
/// mark is two bytes; 40,000 digests fit.
pub const MAX_BYTES: usize = 800_000;

/// A position; nobody but its source knows what is in it.
#[derive(Serialize, Deserialize, Clone)]
#[serde(transparent)]
pub struct Position(Box<RawValue>);

/// A position, and how current it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamPosition {
    /// Everything up to this time is delivered, milliseconds since the epoch.
    pub through: i64,
    /// Where its source resumes.
    #[serde(default)]
    pub position: Position,
    /// The name of its source, where that is another one than the whole checkpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What version 1 of report and checkpoint knew of a position.
#[derive(Serialize, Deserialize, Default)]
struct OfVersion1 {
    #[serde(default)]
    version: u32,
    #[serde(default)]
    ids: Vec<String>,
}

impl Position {
    /// The position that says this; an empty one of what is no JSON.
    pub fn of(what: &impl Serialize) -> Self {
        serde_json::value::to_raw_value(what).map_or_else(|_no_json| Self::default(), Self)
    }

    /// What it says to its source; `None` where that has another form.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.text()).ok()
    }

    /// Its JSON.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Whether a checkpoint can hold it: it is not longer than fits, and of printable ASCII throughout.
    pub fn can_be_kept(&self) -> bool {
        self.text().len() <= MAX_BYTES
            && self.text().bytes().all(|byte| (b' '..=b'~').contains(&byte))
    }

    /// The position of a stream of which version 1 knew these digests.
    pub fn with_ids(ids: Vec<String>) -> Self {
        Self::of(&OfVersion1 { version: 1, ids })
    }

    /// The digests that version 1 would know of it.
    pub fn ids(&self) -> Vec<String> {
        self.read().map_or_else(Vec::new, |OfVersion1 { ids, .. }| ids)
    }
}

impl Default for Position {
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Position {}

impl fmt::Debug for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Position({} bytes)", self.text().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_passes_through_as_it_is() {
        let text = r#"{"through":5,"position":{"version":7,"any":[1.50,{"x":null}]}}"#;
        let read: StreamPosition = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let without: StreamPosition = serde_json::from_str(r#"{"through":5}"#).unwrap();
        assert_eq!(without.position, Position::default());
    }

    #[test]
    fn digests_of_version_1_are_a_position() {
        let ids = vec!["00112233445566ff".to_owned()];
        let position = Position::with_ids(ids.clone());
        assert_eq!(position.text(), r#"{"version":1,"ids":["00112233445566ff"]}"#);
        assert_eq!(position.ids(), ids);
        assert_eq!(Position::of(&5).ids(), Vec::<String>::new());
    }
}
