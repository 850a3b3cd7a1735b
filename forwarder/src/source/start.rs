//! Where a source begins to read a stream. Pure.

use siem_agent_crds::position::StreamPosition;

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
}
