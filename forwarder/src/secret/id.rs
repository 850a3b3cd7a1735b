//! By what two secrets are distinguished without either being held or shown. Pure.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The SHA-256 of a secret. It is compared, and never shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretId([u8; 32]);

impl SecretId {
    /// The id of this value.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl fmt::Debug for SecretId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretId")
    }
}
