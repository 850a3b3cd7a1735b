//! The operator: keeps a forwarder running for every `SiemAgent`.
//!
//! ```text
//! watches -> queue -> reconcile (gather -> plan -> apply -> status)
//! pods    -> reports -> reconcile, checkpoint
//! ```
//!
//! Only the wiring of modules is here; `cli` is where a run begins.

use std::process::ExitCode;

mod cli;
mod controller;
mod context;
mod lock;
mod key;
mod agent;
mod store;
mod records;
mod caches;
mod partial;
mod drift;
mod host;
mod hosts;
mod apply;
mod rollouts;
mod turns;
mod rollout;
mod platform;
mod release;
mod checkpoint;
mod checkpoint_due;
mod checkpoint_writer;
mod client_metrics;
mod shallow;
mod workqueue;
mod observed;
mod objects;
mod reconcile;
mod names;
mod observed_object;
mod quantity;
mod lineage;
mod workload;
mod tenants;
mod budget;
mod same;
mod twins;
mod forwarders;
mod report_polls;
mod events;
mod api;
mod crd_check;
mod leader_election;
mod metrics;
mod admin;
mod telemetry;
mod error_chain;

fn main() -> ExitCode {
    cli::main()
}
