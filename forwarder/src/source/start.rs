//! Where a source begins to read a stream. Pure.

use siem_agent_crds::position::StreamPosition;

use crate::record::RecordKey;
use crate::time::Millis;

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At this time: nothing of it was read yet.
    Anew(Millis),
    /// Where it was.
    At {
        /// As it was stored. Nothing later than its time is believed.
        at: StreamPosition,
        /// Nothing before this time is ever asked for, where the position does not say.
        floor: Millis,
        /// What lies before this time is left out.
        not_before: Option<Millis>,
    },
    /// Where another way to the same tenant was, less the overlap.
    Switched {
        /// Everything up to this time is delivered.
        through: Millis,
        /// Nothing before this time is ever asked for.
        floor: Millis,
        /// What was delivered last, by the ids that both ways know, with the time by which the other listed it: what came
        /// while a backlog was read lies far beyond `through`.
        seen: Vec<(RecordKey, Millis)>,
        /// What lies before this time is left out.
        not_before: Option<Millis>,
    },
}
