//! What the tests stand on: the simulated portal, real receivers, and the forwarder as a program.

pub mod arrival;
pub mod clock;
pub mod pki;
pub mod installed;
pub mod defender;
pub mod proxy;
pub mod receiver;
pub mod forwarder;
pub mod mounted;
pub mod program;
pub mod rsyslog;
pub mod syslog_ng;
pub mod leash;
pub mod programs;
pub mod images;
pub mod kubectl;
pub mod helm;
pub mod prometheus_operator;
pub mod typed;
pub mod control_plane;
pub mod admission;
pub mod operator;
pub mod scene;
pub mod cut;
pub mod node;
pub mod kwok;
