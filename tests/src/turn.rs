//! Turns of the tests of one binary: most run beside each other, a few want the machine for themselves.
//!
//! Who waits to be alone keeps nobody out: it begins when all others have ended or wait themselves. So a test may take
//! several turns beside others, in any order. Who is alone takes no other turn: it would wait for itself.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

const LOOK: Duration = Duration::from_millis(50);

static RUNNING: Mutex<Running> = Mutex::new(Running { n_beside: 0, is_alone: false });

struct Running {
    n_beside: usize,
    is_alone: bool,
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A turn; it ends with this value.
#[derive(Debug)]
pub struct Turn {
    is_alone: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = running();
        if self.is_alone {
            running.is_alone = false;
        } else {
            running.n_beside -= 1;
        }
    }
}

/// Waits until nobody is alone.
pub async fn beside() -> Turn {
    loop {
        {
            let mut running = running();
            if !running.is_alone {
                running.n_beside += 1;
                return Turn { is_alone: false };
            }
        }
        sleep(LOOK).await;
    }
}

/// Waits until nobody else has a turn.
pub async fn alone() -> Turn {
    loop {
        {
            let mut running = running();
            if !running.is_alone && running.n_beside == 0 {
                running.is_alone = true;
                return Turn { is_alone: true };
            }
        }
        sleep(LOOK).await;
    }
}
