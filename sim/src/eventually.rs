//! Waits until something is so. One place decides how often is looked.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::forwarder::LOOK;

/// Looks until it finds what it looks for, and gives that.
///
/// # Errors
/// What was in the way at the last look, when it does not come about in time.
pub async fn eventually<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let until = Instant::now() + patience;
    loop {
        let found = look().await;
        if found.is_ok() || Instant::now() > until {
            return found;
        }
        sleep(LOOK).await;
    }
}
