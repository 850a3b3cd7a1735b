//! Where the operator runs: the platform whose rules its pods follow, and its own namespace. Pure.

/// Whose rules for pods hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Platform {
    Kubernetes,
    /// Its security context constraints choose users and groups, and refuse pods that choose themselves.
    OpenShift,
}

/// Where the operator runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) platform: Platform,
    pub(crate) namespace: String,
}
