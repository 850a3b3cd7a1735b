//! Where a secret lies, and what it is. Pure: it is read at each use, in `secret`.

use std::path::{Path, PathBuf};

pub(crate) use super::clean::Kind;

/// A file that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

impl SecretFile {
    /// A file that is read at each use.
    pub fn new(path: PathBuf, kind: Kind) -> Self {
        Self { path, kind }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
