//! The defaults that depend on no other field, by the name of their field. Pure.
//!
//! They are filled in as a spec is read. `crate::defaults` has those that follow the receiver.

use crate::duration::GoDuration;

/// Facility 13 (log audit), severity 5: what the vendor's agent sends.
pub(crate) const PRIORITY: u8 = 109;

pub(crate) fn priority() -> i32 {
    PRIORITY.into()
}
pub(crate) fn yes() -> bool {
    true
}
pub(crate) fn start_from() -> GoDuration {
    GoDuration::from_secs(48 * 3600)
}
pub(crate) fn poll_interval() -> GoDuration {
    GoDuration::from_secs(4)
}
pub(crate) fn overlap() -> GoDuration {
    GoDuration::from_secs(300)
}
pub(crate) fn confirm_grace() -> GoDuration {
    GoDuration::from_millis(250)
}
pub(crate) fn token_key() -> String {
    "token".to_owned()
}
pub(crate) fn client_secret_key() -> String {
    "clientSecret".to_owned()
}
pub(crate) fn username_key() -> String {
    "username".to_owned()
}
pub(crate) fn password_key() -> String {
    "password".to_owned()
}
pub(crate) fn ca_key() -> String {
    "ca.crt".to_owned()
}
pub(crate) fn audience() -> String {
    "api://AzureADTokenExchange".to_owned()
}
pub(crate) fn service_sources() -> Vec<String> {
    ["microsoftDefenderForCloudApps", "microsoftAppGovernance"].map(str::to_owned).to_vec()
}
pub(crate) fn graph_poll_interval() -> GoDuration {
    GoDuration::from_secs(30)
}
pub(crate) fn graph_overlap() -> GoDuration {
    GoDuration::from_secs(30 * 60)
}
pub(crate) fn volume_size() -> String {
    "1Gi".to_owned()
}
