//! What breaks the real node for others.

mod node_restart;
