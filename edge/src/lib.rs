//! The edges that operator and forwarder share: the server of the admin port, its listener, the limit of
//! descriptors, the log's writer.
//!
//! Knows neither program, and nothing of agents, records or Kubernetes.

pub mod admin;
pub mod descriptors;
pub mod listen;
pub mod log;
