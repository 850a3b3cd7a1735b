//! The process's limit of open files.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to what the machine allows. What cannot be raised stays.
pub fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Less is enough as well: connections are counted against what there is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// How many descriptors the process may have.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}
