//! The edges that operator and forwarder share: the server of the admin port, its listener, the limits of the process,
//! the log's writer.
//!
//! Knows neither program, and nothing of agents, records or Kubernetes.

pub mod admin;
pub mod limits;
pub mod listen;
pub mod log;
