//! Where a forwarder goes on when it starts: at its own file, at what the operator keeps, or anew. Pure.
//!
//! The own file is exact and wins. What the operator keeps knows the watermarks and the last day's alerts, so going on
//! there repeats at most the overlap and what was delivered since it was written. Another source starts anew. A stream
//! that was not exported for a while goes on at its cursor, but reaches back `startFrom` at most; one that was exported
//! and could not be, because everything was down, reaches back as far as it must.

use std::time::Duration;

use siem_agent_crds::checkpoint as kept;

use crate::checkpoint::Checkpoint;
use crate::cursor::Cursor;
use crate::event::Stream;
use crate::record::RecordKey;
use crate::run::schedule::lateness;
use crate::time::{Millis, millis};

/// What the operator keeps.
#[derive(Debug)]
pub enum Kept {
    /// Nothing, or nothing that can be believed.
    Nothing,
    /// Something about another source.
    OtherSource,
    /// This agent's and source's checkpoint.
    Here(kept::Checkpoint),
}

/// What an export that starts anew starts from.
#[derive(Debug)]
pub struct Start<'a> {
    /// The source's URL.
    pub source: &'a str,
    /// When the agent was made, where it was made in a cluster.
    pub created: Option<Millis>,
    /// The time.
    pub now: Millis,
    /// How far back before that time an export begins.
    pub start_from: Duration,
    /// How late activities may come.
    pub overlap: Duration,
}

/// Why a stream begins where it does; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The own state file.
    File,
    /// What the operator keeps.
    Operator,
    /// A checkpoint, but it was switched off since, and reaches back `startFrom` only.
    SwitchedOn,
    /// Nothing was known of it.
    Anew,
}

impl Origin {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "the state file",
            Self::Operator => "the checkpoint that the operator keeps",
            Self::SwitchedOn => "startFrom: its checkpoint is older, and it was switched off since",
            Self::Anew => "startFrom: nothing is known of an earlier export",
        }
    }
}

/// The checkpoint to start with, and where each of these streams has it from.
pub fn resume(
    found: Option<Checkpoint>,
    kept: Kept,
    start: &Start<'_>,
    streams: impl Iterator<Item = Stream>,
) -> (Checkpoint, Vec<(Stream, Origin)>) {
    let start_from = millis(start.start_from);
    let was_elsewhere = matches!(kept, Kept::OtherSource)
        || found.as_ref().is_some_and(|found| found.source() != start.source);
    let found = found.filter(|found| found.source() == start.source);
    let operators = match kept {
        Kept::Here(kept) => {
            let floor = start.created.map_or(0, |created| created.saturating_sub(start_from));
            Some(from_kept(&kept, floor, start.overlap))
        }
        Kept::Nothing | Kept::OtherSource => None,
    };
    let is_known = was_elsewhere || found.is_some() || operators.is_some();
    // A stream that an agent did not have before is as new as the wish for it.
    let first = start.created.filter(|_| !is_known).unwrap_or(start.now);

    let mut checkpoint = found
        .clone()
        .or_else(|| operators.clone())
        .unwrap_or_else(|| Checkpoint::new(start.source));
    let mut origins = Vec::new();
    for stream in streams {
        let known = [(&found, Origin::File), (&operators, Origin::Operator)].into_iter().find_map(
            |(known, origin)| {
                let known = known.as_ref()?;
                Some((known.cursor(stream)?, known.exported().contains(&stream), origin))
            },
        );
        let origin = match known {
            Some((cursor, was_exported, origin)) => {
                let earliest = start.now.saturating_sub(start_from);
                let limited = !was_exported && cursor.watermark() < earliest;
                checkpoint.place(stream, cursor.clone());
                if limited {
                    checkpoint.skip_to(stream, earliest);
                }
                if limited { Origin::SwitchedOn } else { origin }
            }
            None => {
                checkpoint.place(stream, Cursor::starting_at(first.saturating_sub(start_from)));
                Origin::Anew
            }
        };
        origins.push((stream, origin));
    }
    let exported: Vec<_> = origins.iter().map(|(stream, _)| *stream).collect();
    (checkpoint.exporting(exported), origins)
}

/// The alerts' ids come without their times; they count as of the watermark, so they are remembered a day longer.
fn from_kept(kept: &kept::Checkpoint, floor: Millis, overlap: Duration) -> Checkpoint {
    let mut checkpoint =
        Checkpoint::new(kept.source.clone()).exporting(kept.exported.iter().copied());
    for (stream, watermark) in
        [(Stream::Alerts, kept.alerts), (Stream::Activities, kept.activities)]
    {
        let Some(watermark) = watermark else { continue };
        let ids = kept.alert_ids.iter().filter(|_| stream == Stream::Alerts);
        let seen = ids
            .filter_map(|id| u64::from_str_radix(id, 16).ok())
            .map(|bits| (RecordKey::from_bits(bits), watermark));
        let late = lateness(stream, overlap);
        checkpoint.place(stream, Cursor::restore(floor, None, watermark, late, None, seen));
    }
    checkpoint
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = 86_400_000;
    const NOW: Millis = 1_000 * DAY;
    const SOURCE: &str = "https://contoso";

    fn start() -> Start<'static> {
        let start_from = Duration::from_secs(2 * 86_400);
        let overlap = Duration::from_secs(300);
        Start { source: SOURCE, created: Some(NOW - 10 * DAY), now: NOW, start_from, overlap }
    }

    fn file(source: &str, watermark: Millis) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(source).exporting([Stream::Alerts]);
        checkpoint.place(Stream::Alerts, Cursor::starting_at(watermark));
        checkpoint
    }

    fn operators(exported: Vec<Stream>) -> Kept {
        Kept::Here(kept::Checkpoint {
            version: kept::VERSION,
            agent_uid: "uid".to_owned(),
            source: SOURCE.to_owned(),
            alerts: Some(NOW - 5 * DAY),
            activities: Some(NOW - 5 * DAY),
            exported,
            alert_ids: vec!["00000000000000ff".to_owned()],
        })
    }

    fn begins(found: Option<Checkpoint>, kept: Kept) -> Vec<(Millis, Origin)> {
        let both = [Stream::Alerts, Stream::Activities];
        let (checkpoint, origins) = resume(found, kept, &start(), both.into_iter());
        assert_eq!(checkpoint.exported().len(), 2);
        origins
            .into_iter()
            .map(|(stream, origin)| (checkpoint.cursor(stream).unwrap().watermark(), origin))
            .collect()
    }

    #[test]
    fn a_first_export_begins_before_the_agent_was_made() {
        let expected = (NOW - 12 * DAY, Origin::Anew);
        assert_eq!(begins(None, Kept::Nothing), [expected, expected]);
    }

    #[test]
    fn the_own_file_wins_over_what_the_operator_keeps() {
        let begins = begins(Some(file(SOURCE, NOW - DAY)), operators(vec![Stream::Activities]));
        assert_eq!(begins, [(NOW - DAY, Origin::File), (NOW - 5 * DAY, Origin::Operator)]);
    }

    #[test]
    fn a_stream_that_was_exported_goes_on_however_long_it_was_down() {
        let all = vec![Stream::Alerts, Stream::Activities];
        let expected = (NOW - 5 * DAY, Origin::Operator);
        assert_eq!(begins(None, operators(all)), [expected, expected]);
    }

    #[test]
    fn a_stream_switched_on_again_reaches_back_start_from_at_most() {
        let begins = begins(None, operators(vec![Stream::Alerts]));
        assert_eq!(
            begins,
            [(NOW - 5 * DAY, Origin::Operator), (NOW - 2 * DAY, Origin::SwitchedOn)]
        );
    }

    #[test]
    fn another_source_starts_anew_from_now() {
        let expected = (NOW - 2 * DAY, Origin::Anew);
        assert_eq!(
            begins(Some(file("https://fabrikam", NOW)), Kept::Nothing),
            [expected, expected]
        );
        assert_eq!(begins(None, Kept::OtherSource), [expected, expected]);
    }

    #[test]
    fn alerts_that_the_operator_knows_are_not_sent_again() {
        let streams = [Stream::Alerts].into_iter();
        let (checkpoint, _) = resume(None, operators(vec![Stream::Alerts]), &start(), streams);
        let seen: Vec<_> = checkpoint.cursor(Stream::Alerts).unwrap().seen().collect();
        assert_eq!(seen, [(RecordKey::from_bits(255), NOW - 5 * DAY)]);
    }
}
