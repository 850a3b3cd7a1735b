//! The forwarder as a program, between a simulated portal and real receivers.

mod settings;
mod source;
mod secrets;
mod delivery;
mod confirmation;
mod restart;
mod reload;
mod rotation;
mod syslog_ng;
