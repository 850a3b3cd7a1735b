//! The forwarder against the simulated portal: whatever the API, the identity provider or a proxy does, what is
//! delivered is what was shown, within the budget, and trouble is called by its name.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

mod world;
mod faults;
mod forms;
mod token;
mod hostile;
mod identity;
mod way;
mod records;
mod metrics;
mod admin;
mod graph;
