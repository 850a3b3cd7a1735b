//! What sources that speak HTTP share: the client with its proxy and trust, the budget of requests, access tokens, and
//! what a refusal says. Nothing here knows one API's paths, questions or records.

pub mod address;
pub mod api;
pub mod auth;
pub mod client;
pub mod connect;
pub mod error;
pub mod gate;
pub mod mend;
pub mod proxy;
pub mod settings;
pub mod split;
pub(in crate::source) mod answer;
pub(in crate::source) mod echo;
pub(in crate::source) mod refusal;
mod no_proxy;
