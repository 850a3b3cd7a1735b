//! Takes a lock whose holder never panics.

use std::sync::{Mutex, MutexGuard};

/// The guard.
#[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while the lock is held")
}
