//! How to reach the SIEM: host, port, transport and grace, checked. Pure.

use std::time::Duration;

use rustls_pki_types::ServerName;

use crate::tls::material::Material;

/// How to reach the SIEM.
#[derive(Debug, Clone)]
pub struct Settings {
    /// DNS name or address literal, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// UDP, TCP or TLS with what it needs.
    pub transport: Transport,
    /// How long a connection must stay healthy after the peer's kernel has acknowledged.
    pub grace: Duration,
}

/// The transport and its own settings.
#[derive(Debug, Clone)]
pub enum Transport {
    /// One datagram a frame; lossy.
    Udp,
    /// A TCP connection.
    Tcp,
    /// TLS 1.2 or newer over TCP.
    Tls {
        /// The name that the server's certificate must carry.
        server_name: ServerName<'static>,
        /// Where certificates and keys lie; read again at every connect.
        material: Material,
    },
}
