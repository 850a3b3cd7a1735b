//! The contract between the programs and with the API server: everything serialisable lives here.
//! Pure, every file of it.
//!
//! - [`siem_agent`]: the `SiemAgent` resource, group `siemagent.dev`, version `v1alpha1`; [`schema`] makes its CRD.
//! - [`defaults`]: every default of a spec, and the spec with all of them filled in; [`receiver`] has the receivers' presets.
//! - [`condition`]: the words of its conditions: types, statuses, reasons.
//! - [`manifest`]: reads a manifest offline and refuses what the API server would refuse.
//! - [`config`]: the forwarder's configuration file; the operator writes it, the forwarder reads it.
//! - [`report`]: what a forwarder says about itself on `/status`; the operator reads it.
//! - [`checkpoint`]: what the operator keeps of it, for a forwarder that has lost its state.
//! - [`position`]: how far a stream is, as only its source reads it.
//! - [`exposition`]: the two text forms of both programs' metrics.
//! - [`printable`]: text from outside, as both programs print it for people.
//! - [`proxy_address`]: what both programs take after `--proxy`.
//!
//! No client, no async, no I/O. From the first release on, fields of `v1alpha1` are only added, never
//! removed or given another meaning.

mod address;
pub mod duration;
pub mod siem_agent;
pub mod defaults;
pub mod receiver;
pub mod condition;
pub mod schema;
pub mod manifest;
pub mod config;
pub mod report;
pub mod checkpoint;
pub mod position;
pub mod exposition;
pub mod printable;
pub mod proxy_address;

pub use siem_agent::{SiemAgent, SiemAgentSpec, SiemAgentStatus};
