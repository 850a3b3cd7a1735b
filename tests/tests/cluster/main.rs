//! The operator on a real API server, and what such tests stand on.
//!
//! All share one control plane and have a namespace each. What changes the cluster for others, such as its CRD, has a
//! control plane of its own; what wants the machine for itself takes a turn alone ([`siem_agent_tests::turn`]).

mod leash;
mod control_plane;
mod kwok;
mod node;
mod reconcile;
mod paused;
mod sidecar;
mod versions;
mod operator_robust;
mod operator_hostile;
mod operator_live;
mod operator_many;
mod graph;
mod helm;
mod alerts;
