//! The records of `fixtures` whose lines are known, of every kind. It decides nothing of how they are written.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::fs;
use std::path::{Path, PathBuf};

use siem_agent_forwarder::event::{Event, Stream};
use siem_agent_forwarder::source::cloud_apps::parse;
use siem_agent_forwarder::source::parse::Reject;
use siem_agent_forwarder::source::xdr::{self, Table};

/// The folders of `fixtures` that hold records.
pub(crate) const KINDS: [&str; 5] =
    ["activity", "alert", "graph-alert", "cloud-app-event", "identity-logon-event"];

/// Each record with its file, and its name: the kind's folder and what is special about it.
pub(crate) fn all(fixtures: &Path) -> Vec<(String, PathBuf, Event)> {
    let mut all = Vec::new();
    for kind in KINDS {
        let before = all.len();
        for entry in fs::read_dir(fixtures.join(kind)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = format!("{kind}/{}", path.file_stem().unwrap().display());
                let event = event(kind, &fs::read(&path).unwrap());
                all.push((name, path, event));
            }
        }
        assert!(all.len() > before, "{kind} holds records");
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

fn event(kind: &str, json: &[u8]) -> Event {
    read(kind, json).unwrap().unwrap()
}

/// What its source makes of a record of this kind.
pub(crate) fn read(kind: &str, json: &[u8]) -> Result<Option<Event>, Reject> {
    match kind {
        "activity" => parse::record(Stream::Activities, json).map(Some),
        "alert" => parse::record(Stream::Alerts, json).map(Some),
        "graph-alert" => xdr::alert(json).map(Some),
        "cloud-app-event" => xdr::row(Table::CloudAppEvents, json),
        _ => xdr::row(Table::IdentityLogonEvents, json),
    }
}
