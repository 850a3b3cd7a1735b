//! The forwarder's ServiceAccount: bound to no role, and its token is mounted nowhere. Pure.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::validated::Validated;
use crate::names::{self, Owned};

pub(super) fn service_account(validated: &Validated<'_>) -> ServiceAccount {
    ServiceAccount {
        metadata: names::metadata(validated.agent, Owned::ServiceAccount),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
