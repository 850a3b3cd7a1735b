//! What an apply may find where it writes. Pure.

use crate::observed_object::ObservedObject;

/// What an apply may find in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An object that is ours, of this resourceVersion.
    Held(String),
    /// Nothing, as far as is known: the server itself refuses if there is something.
    Free,
    /// Nothing, as the server has just said. Nothing of anybody else's is overwritten all the same.
    SeenFree,
}

impl Place {
    /// This object, as it was.
    pub(crate) fn held(live: &ObservedObject) -> Self {
        Self::Held(live.resource_version.clone())
    }
}
