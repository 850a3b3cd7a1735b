//! A connection of any kind, both ways: TCP, TLS, or a tunnel through a proxy.

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that reads and writes.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
