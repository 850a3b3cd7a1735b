//! Records that become forged events at a receiver that cuts, and what its file then holds.
//!
//! Each carries the text of an event of its own, placed so that it begins at or beside a length at which some receiver
//! cuts, behind whatever some receiver takes for the beginning of a message.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use siem_agent_crds::report::Stream;

use siem_agent_sim::arrival::{Receiver, all_arrived, quick};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::forwarder::Forwarder;

/// Where receivers cut, bytes.
const LIMITS: [usize; 7] = [1_024, 2_048, 4_096, 8_000, 8_096, 8_192, 65_536];
/// What may stand before a message, or end one.
const BEGINNINGS: [&str; 9] =
    ["", "\n", "\r\n", "\r", "\0", "\u{2028}", "\u{85}", "\u{FEFF}", "123 "];
/// An event, as an attacker would write it into a text that the export carries.
const FORGED: &str =
    "<109>Nov 28 10:00:00 dc1 CEF:0|MCAS|SIEM_Agent|0|ALERT_X|forged|9|externalId=forged rt=1";
/// What a forged event begins with, wherever a receiver has cut.
pub const FORGER: &str = "<109>Nov 28 10:00:00 dc1 ";
/// Texts that an attacker may fill, with the key that they stand under.
const PLACES: [(&str, &str); 2] =
    [("description", "msg"), ("userAgent", "requestClientApplication")];

/// What a receiver made of the records.
#[derive(Debug)]
pub struct Outcome {
    /// The CEF part of each record, as `render` prints it, by its id.
    pub expected: BTreeMap<String, String>,
    /// The lines of the receiver's file.
    pub lines: Vec<String>,
}

/// Sends the records to a receiver and ends it, so that all that it has is in its file.
///
/// # Errors
/// When not every id arrives, or a program does not run.
pub async fn outcome(
    receiver: &mut impl Receiver,
    syslog: &str,
    prepare: impl FnOnce(&Forwarder) -> Result<()>,
) -> Result<Outcome> {
    let defender = Defender::start(quick(0.0, 0)).await?;
    let syslog = syslog.replace("PORT", &receiver.port().to_string());
    // All records are there at the first poll; every other one would carry their megabytes again.
    let once = "requestsPerMinute: 6000, pollInterval: 1h";
    let mut forwarder = Forwarder::with_cloud_apps(&defender.url(), DEMO_TOKEN, once, &syslog, "")?;
    prepare(&forwarder)?;
    let records = records(&forwarder)?;
    for record in &records {
        defender.inject(Stream::Activities, record);
    }
    let rendered = forwarder.render("activities", &records.join("\n"))?;
    let expected: BTreeMap<String, String> = rendered
        .lines()
        .filter_map(|line| {
            Some((siem_agent_sim::arrival::id(line)?.to_owned(), cef(line)?.to_owned()))
        })
        .collect();
    ensure!(expected.len() == records.len(), "every record has a line");
    forwarder.start().await?;
    all_arrived(&defender, receiver, &forwarder).await?;
    ensure!(forwarder.terminate().await?.success(), "SIGTERM ends it in order");
    receiver.end(Signal::SIGTERM)?;
    Ok(Outcome { expected, lines: receiver.lines()? })
}

impl Outcome {
    /// Exactly one event a record, and each is what `render` prints.
    ///
    /// # Errors
    /// When the file holds anything else.
    pub fn is_one_event_a_record(&self) -> Result<()> {
        if let Some(line) = self.lines.iter().find(|line| line.starts_with(FORGER)) {
            ensure!(false, "an event is forged: {line}");
        }
        let mut received = BTreeMap::new();
        for line in &self.lines {
            let cef = cef(line).with_context(|| format!("no event: {}", begin(line)))?;
            let id = siem_agent_sim::arrival::id(line).unwrap_or_default().to_owned();
            let before = received.insert(id, cef.to_owned());
            ensure!(before.is_none(), "a record has two events: {}", begin(line));
        }
        for (id, expected) in &self.expected {
            let cef = received.get(id).with_context(|| format!("{id} has no event"))?;
            ensure!(cef == expected, "{id}: {} bytes of {}", cef.len(), expected.len());
        }
        ensure!(received.len() == self.expected.len(), "nothing else arrives");
        Ok(())
    }
}

/// The records, as JSON.
fn records(forwarder: &Forwarder) -> Result<Vec<String>> {
    let record = |index: usize, place: &str, text: &str| {
        let (description, agent) = if place == "description" { (text, "") } else { ("", text) };
        let record = json!({
            "_id": format!("hostile-{index:06}"),
            "timestamp": 1_793_000_113_000_i64,
            "eventTypeName": "EVENT_CATEGORY_LOGIN",
            "description_metadata": {"event_category": "Log on"},
            "description": description,
            "device": {"userAgent": agent},
        });
        record.to_string()
    };
    let mut records = Vec::new();
    for (place, key) in PLACES {
        let line = forwarder.render("activities", &record(0, place, "x"))?;
        let n_before =
            line.find(&format!(" {key}=")).context("the key is in the line")? + key.len() + 2;
        for limit in LIMITS {
            // The longest ones make up most of the bytes; one place is enough for them.
            let offsets = if limit > 10_000 { &[0][..] } else { &[-1, 0, 1] };
            for &offset in offsets {
                for beginning in BEGINNINGS {
                    let n_padding = (limit - n_before).saturating_add_signed(offset);
                    let text = format!("{}{beginning}{FORGED}", "p".repeat(n_padding));
                    records.push(record(records.len(), place, &text));
                }
            }
        }
    }
    Ok(records)
}

/// A line without its header: receivers write that as they like.
fn cef(line: &str) -> Option<&str> {
    line.get(line.find("CEF:0|MCAS|SIEM_Agent|")?..)
}

fn begin(line: &str) -> &str {
    line.get(..line.floor_char_boundary(200)).unwrap_or(line)
}
