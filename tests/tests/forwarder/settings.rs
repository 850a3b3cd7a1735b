//! The command line: wrong settings give one clear error each, and every command does what it says.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

mod wrong;
mod state;
mod commands;
mod compare;
mod demo;
mod check;
mod in_pod;
mod golden;
mod refusals;
mod render;
mod tls;
