//! Every golden record in the default settings, through the patterns by which receivers tell CEF from other messages.
//!
//! A receiver whose pattern does not match files the record somewhere else, and no one notices.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

#[path = "reader/records.rs"]
mod records;

use std::fs;
use std::path::Path;

use fancy_regex::Regex;
use siem_agent_crds::config::{Config, Paths};
use siem_agent_crds::manifest;
use siem_agent_forwarder::event::Event;
use siem_agent_forwarder::syslog::line;
use siem_agent_forwarder::{map, settings};

/// The `format` of the CEF source in Microsoft's log forwarder (`security_events.conf`).
const MICROSOFT: &str = r"(?<time>(?:\w+ +){2,3}(?:\d+:){2}\d+|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}.[\w\-\:\+]{3,12}):?\s*(?:(?<host>[^: ]+) ?:?)?\s*(?<ident>.*CEF.+?(?=0\|)|%ASA[0-9\-]{8,10})\s*:?(?<message>0\|.*|.*)";
/// Records whose values speak of CEF themselves: its greedy pattern takes the last mention for the beginning. A pipe has
/// no escape in an extension, so no sender can spare it that; the record is taken for CEF all the same.
const SPEAK_OF_CEF: [&str; 5] = [
    "activity/forged",
    "activity/ipv6-and-fallbacks",
    "alert/forged",
    "cloud-app-event/hostile",
    "graph-alert/hostile",
];

/// What the least manifest gives.
fn defaults() -> Config {
    let text = fs::read_to_string("../crds/fixtures/legal/minimal.yaml").unwrap();
    let agent = manifest::read(&text).map_err(|problems| problems.to_string()).unwrap();
    let nowhere = Paths {
        secrets: "".into(),
        config_maps: "".into(),
        state: "".into(),
        checkpoint: None,
        live: None,
        identity: None,
    };
    Config::for_agent(&agent, nowhere)
}

/// The name and the line of every golden record.
fn lines() -> Vec<(String, String)> {
    let config = defaults();
    let (format, layout) = (settings::format(&config), settings::layout(&config));
    let line = |(name, _, event): (String, _, Event)| {
        let record = map::record(&event, format.dialect, &format.version);
        (name, line(record, event.timestamp(), &layout).unwrap())
    };
    records::all(Path::new("fixtures")).into_iter().map(line).collect()
}

#[test]
fn microsofts_log_forwarder_takes_every_line_for_cef() {
    let pattern = Regex::new(MICROSOFT).unwrap();
    for (name, line) in lines() {
        let found = pattern.captures(&line).unwrap().expect(&name);
        let part = |group: &str| found.name(group).map_or("", |part| part.as_str());
        let time = line.split(['>', ' ']).nth(1).unwrap();
        assert_eq!((part("time"), part("host")), (time, "soc"), "{name}");
        if SPEAK_OF_CEF.contains(&name.as_str()) {
            assert!(part("ident").starts_with("CEF:0|MCAS|SIEM_Agent|"), "{name}: {line}");
        } else {
            assert_eq!(part("ident"), "CEF:", "{name}: {line}");
            assert!(part("message").starts_with("0|MCAS|SIEM_Agent|"), "{name}: {line}");
        }
        let whole = found.get(0).unwrap();
        assert_eq!(whole.end(), line.len(), "{name}: nothing is left over");
    }
}

#[test]
fn splunk_connect_for_syslog_takes_every_line_for_cef() {
    // Its filter is that the message holds this text; it reads vendor and product up to the pipes, and the time off the
    // header, because it distrusts an `rt` of more than eleven digits. A real syslog-ng does so in the tests of delivery.
    for (name, line) in lines() {
        let at = line.find("CEF:0").expect(&name);
        let fields: Vec<&str> = line[at..].splitn(8, '|').collect();
        assert_eq!(fields[..3], ["CEF:0", "MCAS", "SIEM_Agent"], "{name}");
        assert!(line.starts_with("<109>") && line[..at].ends_with("Z soc "), "{name}: {line}");
    }
}
