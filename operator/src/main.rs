//! The operator: keeps a forwarder running for every `SiemAgent`.
//!
//! ```text
//! watches -> queue -> reconcile (gather -> validate -> build -> apply -> status)
//! pods    -> reports -> reconcile, checkpoint
//! ```
//!
//! Only the wiring of modules is here; `cli` is where a run begins.

use std::process::ExitCode;

mod cli;
mod controller;
mod world;
mod key;
mod agent;
mod caches;
mod memory;
mod turns;
mod rollout;
mod release;
mod keeper;
mod counting;
mod shallow;
mod queue;
mod reconcile;
mod names;
mod live;
mod digest;
mod quantity;
mod lineage;
mod workload;
mod tenants;
mod budget;
mod same;
mod twins;
mod reports;
mod poll_order;
mod polling;
mod checkpoint;
mod pace;
mod events;
mod api;
mod crd_check;
mod leadership;
mod metrics;
mod telemetry;
mod error_chain;

fn main() -> ExitCode {
    cli::main()
}
