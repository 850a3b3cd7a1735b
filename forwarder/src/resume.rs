//! Where a forwarder resumes when it starts: at its own file, at what the operator keeps, or anew. Pure.
//!
//! The own file is exact and wins. What the operator keeps knows the watermarks and the last day's alerts, so resuming
//! there repeats at most the overlap and what was delivered since it was written. Another tenant starts anew; a source of
//! another kind is another way to the same tenant, and begins where the one before was, less its overlap. A stream
//! that was not exported for a while resumes at its cursor, but reaches back `startFrom` at most; one that was exported
//! and could not be, because everything was down, reaches back as far as it must.

use std::time::Duration;

use siem_agent_crds::checkpoint as kept;
use siem_agent_crds::siem_agent::kind_of;

use crate::checkpoint::Checkpoint;
use crate::event::Stream;
use crate::source::{Start, seen};
use crate::time::{Millis, millis};

/// What the operator keeps.
#[derive(Debug)]
pub enum Kept {
    /// Nothing, or nothing that can be believed.
    Nothing,
    /// This agent's checkpoint.
    Here(kept::Checkpoint),
}

/// What an export that starts anew starts from.
#[derive(Debug)]
pub struct Life<'a> {
    /// The name of the source that stands for the whole agent.
    pub source: &'a str,
    /// When the agent was made, where it was made in a cluster.
    pub created: Option<Millis>,
    /// The time.
    pub now: Millis,
    /// How far back before that time an export begins.
    pub start_from: Duration,
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
    /// Where another source of the same tenant was.
    Switched,
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
            Self::Switched => "where the source before it was, less the overlap",
            Self::Anew => "startFrom: nothing is known of an earlier export",
        }
    }
}

/// Where a stream begins, and why there.
#[derive(Debug, PartialEq, Eq)]
pub struct Begins {
    /// The stream.
    pub stream: Stream,
    /// Where.
    pub start: Start,
    /// Why.
    pub origin: Origin,
}

/// The checkpoint to start with, and where each of these streams begins, each with the name of its source.
pub fn resume<'a>(
    found: Option<Checkpoint>,
    kept: Kept,
    life: &Life<'_>,
    streams: impl Iterator<Item = (Stream, &'a str)>,
) -> (Checkpoint, Vec<Begins>) {
    let start_from = millis(life.start_from);
    let operators = match kept {
        Kept::Here(kept) => Some(from_kept(kept)),
        Kept::Nothing => None,
    };
    let is_known = found.is_some() || operators.is_some();
    // A stream that an agent did not have before is as new as the wish for it.
    let first = life.created.filter(|_| !is_known).unwrap_or(life.now);
    let floor = life.created.map_or(0, |created| created.saturating_sub(start_from));

    let begins: Vec<_> = streams
        .map(|(stream, source)| {
            let known = [(&found, Origin::File), (&operators, Origin::Operator)];
            let known = known.into_iter().filter_map(|(known, origin)| {
                let known = known.as_ref()?;
                let of = known.source_of(stream)?;
                let was_exported = known.exported().contains(&stream);
                // Two of one kind are two tenants.
                let is_ours = of == source || kind_of(of) != kind_of(source);
                is_ours.then_some((known.position(stream)?, of == source, was_exported, origin))
            });
            // Its own position is exact; a switch is where there is nothing better.
            let mut known: Vec<_> = known.collect();
            known.sort_by_key(|(_, is_same, ..)| !is_same);
            let Some((at, is_same, was_exported, origin)) = known.into_iter().next() else {
                let start = Start::Anew(first.saturating_sub(start_from));
                return Begins { stream, start, origin: Origin::Anew };
            };
            let earliest = life.now.saturating_sub(start_from);
            let not_before = (!was_exported && at.through < earliest).then_some(earliest);
            if !is_same {
                let (through, seen) = (at.through, seen::of(&at.position, at.through));
                let start = Start::Switched { through, floor, seen, not_before };
                return Begins { stream, start, origin: Origin::Switched };
            }
            let origin = not_before.map_or(origin, |_| Origin::SwitchedOn);
            Begins { stream, start: Start::At { at: at.clone(), floor, not_before }, origin }
        })
        .collect();
    let checkpoint = found.or(operators).unwrap_or_else(|| Checkpoint::new(life.source));
    let checkpoint = checkpoint.renamed(life.source);
    (checkpoint.exporting(begins.iter().map(|begins| begins.stream)), begins)
}

fn from_kept(kept: kept::Checkpoint) -> Checkpoint {
    let mut checkpoint = Checkpoint::new(kept.source).exporting(kept.exported);
    for (stream, at) in kept.positions {
        checkpoint.set(stream, at);
    }
    checkpoint
}

#[cfg(test)]
mod tests {
    use siem_agent_crds::position::{Position, StreamPosition};

    use super::*;

    const DAY: Millis = 86_400_000;
    const NOW: Millis = 1_000 * DAY;
    const SOURCE: &str = "https://contoso";

    fn life() -> Life<'static> {
        let start_from = Duration::from_secs(2 * 86_400);
        Life { source: SOURCE, created: Some(NOW - 10 * DAY), now: NOW, start_from }
    }

    fn file(source: &str, through: Millis) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(source).exporting([Stream::Alerts]);
        let position = Position::default();
        checkpoint.set(Stream::Alerts, StreamPosition { through, position, source: None });
        checkpoint
    }

    fn operators(exported: Vec<Stream>) -> Kept {
        let position = Position::with_ids(vec!["00000000000000ff".to_owned()]);
        let at = StreamPosition { through: NOW - 5 * DAY, position, source: None };
        Kept::Here(kept::Checkpoint {
            version: kept::VERSION,
            agent_uid: "uid".to_owned(),
            source: SOURCE.to_owned(),
            exported,
            positions: [Stream::Alerts, Stream::Activities]
                .map(|stream| (stream, at.clone()))
                .into(),
        })
    }

    fn begins(found: Option<Checkpoint>, kept: Kept) -> Vec<(Millis, Origin)> {
        let both = [Stream::Alerts, Stream::Activities];
        let served = both.into_iter().map(|stream| (stream, SOURCE));
        let (checkpoint, begins) = resume(found, kept, &life(), served);
        assert_eq!(checkpoint.exported().len(), 2);
        let time = |start| match start {
            Start::Anew(from) => from,
            Start::At { at, floor, not_before } => {
                assert_eq!(floor, NOW - 12 * DAY, "nothing before the agent's own start");
                not_before.unwrap_or(at.through)
            }
            Start::Switched { through, .. } => through,
        };
        begins.into_iter().map(|begins| (time(begins.start), begins.origin)).collect()
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
    }

    #[test]
    fn another_way_to_the_tenant_begins_where_the_first_one_was() {
        const GRAPH: &str = "graph:contoso";
        let position = Position::of(&serde_json::json!({"version": 1, "seen": [[5, 1]]}));
        let mut portal = Checkpoint::new(SOURCE).exporting([Stream::Alerts, Stream::Activities]);
        for stream in [Stream::Alerts, Stream::Activities] {
            let at =
                StreamPosition { through: NOW - DAY, position: position.clone(), source: None };
            portal.set(stream, at);
        }
        // Alerts come from Graph from now on.
        let served = [(Stream::Alerts, GRAPH), (Stream::Activities, SOURCE)];
        let (checkpoint, begins) = resume(Some(portal), Kept::Nothing, &life(), served.into_iter());
        assert_eq!(begins[0].origin, Origin::Switched);
        let Start::Switched { through, seen, .. } = &begins[0].start else { panic!("{begins:?}") };
        assert_eq!((*through, seen.len()), (NOW - DAY, 1));
        assert_eq!(begins[1].origin, Origin::File);
        // And back, with nothing else kept; the other tenant's Graph is another tenant.
        let life = Life { source: GRAPH, ..life() };
        let renamed = checkpoint.renamed(GRAPH);
        assert_eq!(renamed.source_of(Stream::Activities), Some(SOURCE));
        let served = [(Stream::Alerts, "graph:fabrikam"), (Stream::Activities, GRAPH)];
        let (_, begins) = resume(Some(renamed), Kept::Nothing, &life, served.into_iter());
        assert_eq!([begins[0].origin, begins[1].origin], [Origin::Switched, Origin::Switched]);
        let of_graph = StreamPosition {
            through: NOW - DAY,
            position: Position::default(),
            source: Some(GRAPH.to_owned()),
        };
        let mut graph = Checkpoint::new(SOURCE);
        graph.set(Stream::Alerts, of_graph);
        let served = [(Stream::Alerts, "graph:fabrikam")].into_iter();
        let (_, begins) = resume(Some(graph), Kept::Nothing, &life, served);
        assert_eq!(begins[0].origin, Origin::Anew);
    }

    #[test]
    fn alerts_that_the_operator_knows_are_not_sent_again() {
        let streams = [(Stream::Alerts, SOURCE)].into_iter();
        let (_, begins) = resume(None, operators(vec![Stream::Alerts]), &life(), streams);
        let [Begins { start: Start::At { at, .. }, .. }] = begins.as_slice() else {
            panic!("{begins:?}")
        };
        assert_eq!(at.position.ids(), ["00000000000000ff"]);
    }
}
