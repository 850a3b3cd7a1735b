//! The edges that operator and forwarder share: the server of the admin port, its listener, the limits of the process
//! and its metrics, the log's writer, the wall clock, errors as text.
//!
//! Knows neither program, and nothing of agents, records or Kubernetes.

pub mod admin;
pub mod clock;
pub mod error_chain;
pub mod limits;
pub mod listen;
pub mod log;
pub mod process;
