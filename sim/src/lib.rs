//! What stands in for the world around the two programs: the portal, a receiver, Kubernetes with and without a real node.
//!
//! The binaries here are for people, the rest is what they and the tests start. Nothing of it ships.

pub mod arrival;
pub mod clock;
pub mod pki;
pub mod issuer;
pub mod defender;
pub mod forwarder;
pub mod eventually;
pub mod rsyslog;
pub mod leash;
pub mod programs;
pub mod images;
pub mod kubectl;
pub mod helm;
pub mod control_plane;
pub mod operator;
pub mod manifest;
pub mod fleet;
pub mod node;
pub mod kwok;
pub mod real_node;
