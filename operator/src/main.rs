//! The operator: keeps a forwarder running for every `SiemAgent`.
//!
//! ```text
//! watches -> queue -> reconcile (gather -> validate -> build -> apply -> status)
//! pods    -> reports -> reconcile, checkpoint
//! ```
//!
//! Only the wiring of modules is here; `cli` is where a run begins.

#![expect(dead_code, reason = "the wiring that uses the pure core comes with the next commit")]

use std::process::ExitCode;

mod cli;
mod controller;
mod queue;
mod reconcile;
mod names;
mod digest;
mod quantity;
mod workload;
mod budget;
mod reports;
mod checkpoint;
mod pace;
mod events;
mod api;
mod crd_check;
mod leadership;
mod metrics;
mod telemetry;
mod clock;
mod error_chain;

fn main() -> ExitCode {
    cli::main()
}
