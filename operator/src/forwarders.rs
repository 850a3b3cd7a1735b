//! What the forwarders say of themselves: `order` decides who is asked next, `report` is one question and what is known of
//! the answers, `sighting` what is known of one agent's.

pub(crate) mod order;
pub(crate) mod report;
pub(crate) mod sighting;
