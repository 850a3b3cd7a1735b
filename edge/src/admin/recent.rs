//! An answer that is made a few times a second at most, however often it is asked for.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

/// An answer may be this old.
const AGE: Duration = Duration::from_millis(100);

/// The last answer of its kind, for a moment.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<Option<Bytes>>>);

impl Recent {
    /// The answer that was made within the last tenth of a second, or a new one. Needs a runtime.
    ///
    /// # Errors
    /// Those of `make`; nothing is kept then.
    pub fn or_make<E>(&self, make: impl FnOnce() -> Result<String, E>) -> Result<Bytes, E> {
        let mut last = self.lock();
        if let Some(bytes) = last.as_ref() {
            return Ok(bytes.clone());
        }
        let bytes = Bytes::from(make()?);
        *last = Some(bytes.clone());
        let later = self.clone();
        // Not kept longer: nobody may ask for a while.
        drop(tokio::spawn(async move {
            sleep(AGE).await;
            *later.lock() = None;
        }));
        Ok(bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Bytes>> {
        // Making the answer panicked, so no answer is kept.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_requests_makes_ten_answers_a_second() {
        let recent = Recent::default();
        let mut n_made = 0;
        for _ in 0..1_000 {
            let made = recent.or_make(|| {
                n_made += 1;
                Ok::<_, ()>(n_made.to_string())
            });
            assert!(made.is_ok());
            sleep(Duration::from_millis(1)).await;
        }
        assert!((9..=11).contains(&n_made), "{n_made}");
        sleep(2 * AGE).await;
        assert!(recent.lock().is_none(), "it was kept though nobody asks");
        assert_eq!(recent.or_make(|| Err::<String, _>("unwritable")), Err("unwritable"));
    }
}
