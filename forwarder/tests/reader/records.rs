//! The records of `fixtures` whose lines are known, of every kind. It decides nothing of how they are written.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::fs;
use std::path::{Path, PathBuf};

use siem_agent_forwarder::event::{Event, Stream};
use siem_agent_forwarder::source::cloud_apps::parse;
use siem_agent_forwarder::source::xdr::{self, Table};

/// Each record with its file, and its name: the kind's folder and what is special about it.
pub(crate) fn all(fixtures: &Path) -> Vec<(String, PathBuf, Event)> {
    let mut all = Vec::new();
    for kind in ["activity", "alert", "graph-alert", "cloud-app-event", "identity-logon-event"] {
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
    match kind {
        "activity" => parse::record(Stream::Activities, json).unwrap(),
        "alert" => parse::record(Stream::Alerts, json).unwrap(),
        "graph-alert" => xdr::alert(json).unwrap(),
        "cloud-app-event" => xdr::row(Table::CloudAppEvents, json).unwrap().unwrap(),
        _ => xdr::row(Table::IdentityLogonEvents, json).unwrap().unwrap(),
    }
}
