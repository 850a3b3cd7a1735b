//! A wire to the API server that a test can cut: a TCP relay that stalls, so that neither side learns of it.

use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A relay on 127.0.0.1.
#[derive(Debug)]
pub struct Wire {
    /// Where it listens.
    pub port: u16,
    is_whole: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    /// A whole wire to this port of 127.0.0.1.
    ///
    /// # Errors
    /// When loopback gives no port.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let own = listener.local_addr()?.port();
        let is_whole = Arc::new(watch::Sender::new(true));
        let seen = Arc::clone(&is_whole);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(relay(near_read, far_write, seen.subscribe()));
                tokio::spawn(relay(far_read, near_write, seen.subscribe()));
            }
        });
        Ok(Self { port: own, is_whole, task })
    }

    /// From here on nothing passes, in either direction, and nobody is told.
    pub fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    /// From here on everything passes, what was held up first.
    pub fn mend(&self) {
        self.is_whole.send_replace(true);
    }
}

async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut is_whole: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n_bytes @ 1..) = from.read(&mut buffer).await {
        let whole = is_whole.wait_for(|is_whole| *is_whole).await.is_ok();
        let Some(bytes) = buffer.get(..n_bytes).filter(|_| whole) else { return };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
