//! Opens the port that others ask: on both families of addresses where there are both.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// As tokio's own.
const BACKLOG: i32 = 1024;

/// Listens. `[::]` accepts IPv4 as well, whatever the machine's default, and is `0.0.0.0` where the machine has no IPv6.
///
/// # Errors
/// When the address is invalid, taken or not this machine's.
pub async fn listen(address: &str) -> io::Result<TcpListener> {
    match address.parse::<SocketAddr>() {
        Ok(any) if any.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            dual_or_v4(any, dual_stack, |any| open(any, None))
        }
        Ok(_) | Err(_) => TcpListener::bind(address).await,
    }
}

/// A port that is taken is taken on IPv4 too.
fn dual_or_v4<T>(
    any: SocketAddr,
    dual_stack: impl Fn(SocketAddr) -> io::Result<T>,
    v4: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match dual_stack(any) {
        Err(error)
            if !matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied) =>
        {
            v4(SocketAddr::from((Ipv4Addr::UNSPECIFIED, any.port())))
        }
        opened => opened,
    }
}

fn dual_stack(any: SocketAddr) -> io::Result<TcpListener> {
    open(any, Some(false))
}

fn open(address: SocketAddr, only_v6: Option<bool>) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(only_v6) = only_v6 {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn any_address_is_any_address_of_both_families() {
        let listener = listen("[::]:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        let taken = listen(&format!("[::]:{port}")).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        let invalid = listen("nowhere").await.unwrap_err();
        assert_eq!(invalid.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_machine_without_ipv6_listens_on_ipv4() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9464));
        // EAFNOSUPPORT, as a kernel that was started with ipv6.disable=1 answers.
        let without = |_| Err(io::Error::from_raw_os_error(97));
        assert_eq!(dual_or_v4(any, without, Ok).unwrap().to_string(), "0.0.0.0:9464");
        let taken = |_| Err(ErrorKind::AddrInUse.into());
        assert!(dual_or_v4(any, taken, Ok).is_err());
    }
}
