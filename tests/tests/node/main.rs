//! What only a real node can show. All share one, and leave it as it was.

mod real_node;
mod operator_on_node;
mod sidecar;
mod workload_identity;
