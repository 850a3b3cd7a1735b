//! What the kernel knows of a connection: how many bytes the peer has acknowledged, and whether it is still whole.
//!
//! `tcpi_bytes_acked` (Linux, `struct tcp_info`) counts every byte that the peer's kernel acknowledged, the SYN
//! included; it never falls, and stays readable after a reset. A peer that has sent FIN keeps acknowledging (the state
//! is CLOSE_WAIT), so an acknowledgement counts only while the state is ESTABLISHED.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::GetSockOpt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::health::Look;

/// `TCP_INFO`.
#[derive(Debug, Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(
    TcpInfo,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info,
    nix::sys::socket::sockopt::GetStruct<libc::tcp_info>
);

/// `TCP_ESTABLISHED` of the kernel's `enum` in `include/net/tcp_states.h`.
const ESTABLISHED: u8 = 1;

/// A second handle to the socket, to ask the kernel about it while the first reads and writes.
#[derive(Debug)]
pub(super) struct Kernel {
    socket: OwnedFd,
    baseline: u64,
}

impl Kernel {
    /// Starts counting on a connection on which nothing has been written.
    pub(super) fn watch(stream: &TcpStream) -> io::Result<Self> {
        let socket = stream.as_fd().try_clone_to_owned()?;
        let baseline = TcpInfo.get(&socket)?.tcpi_bytes_acked;
        Ok(Self { socket, baseline })
    }

    pub(super) fn look(&self) -> io::Result<Look> {
        let info = TcpInfo.get(&self.socket)?;
        Ok(Look {
            bytes_acked: info.tcpi_bytes_acked.saturating_sub(self.baseline),
            established: info.tcpi_state == ESTABLISHED,
            unanswered: info.tcpi_unacked > 0 || info.tcpi_probes > 0,
            silent_for: Duration::from_millis(info.tcpi_last_ack_recv.into()),
        })
    }
}

/// Counts what a socket takes, under TLS as well as without.
#[derive(Debug)]
pub(super) struct Counting {
    stream: TcpStream,
    written: Arc<AtomicU64>,
}

impl Counting {
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<AtomicU64>) {
        let written = Arc::new(AtomicU64::new(0));
        (Self { stream, written: Arc::clone(&written) }, written)
    }

    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n_bytes)) = &result {
            self.written.fetch_add(*n_bytes as u64, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
