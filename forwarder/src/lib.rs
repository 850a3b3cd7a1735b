//! The forwarder, in the order of its flow:
//!
//! ```text
//! settings -> source -> parse -> map -> format -> syslog -> delivery -> checkpoint -> store -> progress -> admin
//!                \________________________ run ________________________/
//! ```
//!
//! `run` is the loop of each stream, `pipeline` one agent's export around it. A file that says "Pure" does no I/O, reads no clock
//! and uses only such files.

pub mod settings;
pub mod plan;
pub mod source;
pub mod json;
pub mod reject;
pub mod event;
pub mod map;
pub mod format;
pub mod syslog;
pub mod delivery;
pub(crate) mod duplex;
pub mod time;
pub mod record;
pub mod checkpoint;
pub mod store;
pub mod resume;
pub mod saver;
pub mod retry;
pub mod pipeline;
pub mod progress;
pub mod admin;
pub mod files;
pub mod state_folder;
pub mod cli;
pub mod telemetry;
pub mod tls;
pub mod pem;
pub mod secret;
