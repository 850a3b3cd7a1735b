//! What only tests stand on: other receivers, proxies, breaks, and the words to look at a namespace with.

mod api_client;
pub mod hostile;
pub mod breaks;
pub mod installed;
pub mod proxy;
pub mod receiver;
pub mod mounted;
pub mod program;
pub mod syslog_ng;
pub mod prometheus_operator;
pub mod typed;
pub mod admission;
pub mod turn;
pub mod scene;
pub mod stage;
pub mod cut;
pub mod gateway;
pub mod discovery;
pub mod prometheus;
pub mod alert_rules;
