//! The process's own limits: as many open files as the machine allows, and no image of its memory on disk.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files to what the machine allows. What cannot be raised stays.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Less is enough as well: connections are counted against what there is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Leaves no core dump, and lets no process of the same user read this one's memory: both would show secrets. First of all,
/// before any is read (prctl(2), `PR_SET_DUMPABLE`).
pub fn forbid_dumps() {
    // Neither can fail: a limit may always be lowered, and 0 is a value that every kernel knows.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = prctl::set_dumpable(false);
}

/// How many descriptors the process may have.
pub(crate) fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_leaves_no_image_of_its_memory() {
        forbid_dumps();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        assert_eq!(prctl::get_dumpable(), Ok(false));
    }
}
