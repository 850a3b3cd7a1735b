//! The places as tasks share them: a ticket is a connection's place, and gives it back when it is dropped.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::places::{Full, Places};

type Shared = Mutex<Places<Arc<Notify>>>;

/// All places.
#[derive(Debug)]
pub(crate) struct Tickets(Arc<Shared>);

/// One place.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: u64,
    displaced: Arc<Notify>,
    places: Arc<Shared>,
}

impl Tickets {
    pub(crate) fn new(n_places: usize, n_bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Places::new(n_places, n_bytes))))
    }

    /// A place for a connection from this address, where there is one.
    pub(crate) fn enter(&self, peer: IpAddr) -> Option<Ticket> {
        let displaced = Arc::new(Notify::new());
        let now = Instant::now().into_std();
        let (id, other) = lock(&self.0).enter(peer, Arc::clone(&displaced), now).ok()?;
        if let Some(other) = other {
            other.notify_one();
        }
        Some(Ticket { id, displaced, places: Arc::clone(&self.0) })
    }
}

impl Ticket {
    /// The answer has so many bytes.
    pub(crate) fn answer(&self, n_bytes: usize) -> Result<(), Full> {
        let now = Instant::now().into_std();
        let others = lock(&self.places).answer(self.id, n_bytes, now)?;
        others.iter().for_each(|other| other.notify_one());
        Ok(())
    }

    /// The answer is in the kernel's hands.
    pub(crate) fn close(&self) {
        lock(&self.places).close(self.id);
    }

    /// When the connection is given up.
    pub(crate) fn deadline(&self) -> Instant {
        lock(&self.places).deadline(self.id).map_or_else(Instant::now, Instant::from_std)
    }

    /// Ready once the place belongs to somebody else.
    pub(crate) async fn displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        drop(lock(&self.places).leave(self.id));
    }
}

#[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
fn lock(places: &Shared) -> MutexGuard<'_, Places<Arc<Notify>>> {
    places.lock().expect("nothing panics while the lock is held")
}
