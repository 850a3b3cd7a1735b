//! Realistic records from a seed: the same seed makes the same records, and hostile ones only where they are asked for.

mod activity;
mod alert;
mod hostile;
mod names;

use siem_agent_crds::report::Stream;

use super::draw::Draw;

/// How much the records try to do harm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Hostility {
    /// Not at all.
    None,
    /// Names and descriptions hold what an attacker may put there: line breaks, forged lines, separators.
    #[default]
    Strings,
    /// Also whole records: no `_id`, wrong types, 1 MiB of text, no object at all.
    Records,
}

/// Of so many records one is hostile as a whole, where that is asked for.
const HOSTILE_EVERY: u64 = 40;

/// Makes records.
#[derive(Debug)]
pub(super) struct Factory {
    seed: u64,
    hostility: Hostility,
    n_made: u64,
}

impl Factory {
    pub(super) fn new(seed: u64, hostility: Hostility) -> Self {
        Self { seed, hostility, n_made: 0 }
    }

    /// A record that is listed at this time: its id, its JSON, and a number drawn for it.
    pub(super) fn make(&mut self, stream: Stream, listed: i64) -> (Option<String>, String, u64) {
        let number = self.n_made;
        self.n_made += 1;
        let mut draw = Draw::new(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let luck = draw.next();
        if self.hostility == Hostility::Records && number % HOSTILE_EVERY == HOSTILE_EVERY - 1 {
            let (id, json) = hostile::record(stream, number, listed, &mut draw);
            return (id, json, luck);
        }
        let hostile = self.hostility != Hostility::None;
        let (id, json) = match stream {
            Stream::Activities => activity::make(number, listed, &mut draw, hostile),
            Stream::Alerts => alert::make(number, listed, &mut draw, hostile),
        };
        (Some(id), json.to_string(), luck)
    }
}
