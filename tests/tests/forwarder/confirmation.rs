//! When a record counts as delivered: not before the connection has been healthy for as long as it has to be.

use std::time::Duration;

use anyhow::{Result, ensure};
use siem_agent_sim::arrival::{missing, mount, quick};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, LOOK, PATIENCE};
use siem_agent_sim::pki::Authority;
use siem_agent_tests::receiver::{Framing, Receiver, Tls, acceptor};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

const DELIVERED: &str = "siem_forwarder_records_delivered_total";

/// Waits until so many records are told as delivered.
async fn until_delivered(forwarder: &Forwarder, n_records: usize) -> Result<()> {
    eventually(PATIENCE, async || {
        ensure!(
            forwarder.metric(DELIVERED).await? >= n_records as f64,
            "{n_records} are not delivered: {}",
            forwarder.log()?
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_is_delivered_before_the_grace_of_the_manifest_is_over() -> Result<()> {
    let defender = Defender::start(quick(0.0, 100)).await?;
    let receiver = Receiver::start(Framing::Newline, None).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}, confirmGrace: 5s}}", receiver.port());
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;
    let until = Instant::now() + PATIENCE;
    // Certainly before the first arrival: this test may wake late, and the receiver in it as well.
    let mut before = Instant::now();
    loop {
        let next = Instant::now();
        sleep(LOOK).await;
        if !receiver.frames().is_empty() {
            break;
        }
        ensure!(Instant::now() < until, "nothing arrives: {}", forwarder.log()?);
        before = next;
    }
    until_delivered(&forwarder, 1).await?;
    let waited = before.elapsed();
    ensure!(waited >= Duration::from_millis(4_900), "delivered after {waited:?}");
    until_delivered(&forwarder, defender.produced().len()).await?;
    ensure!(receiver.ids().values().all(|count| *count == 1), "nothing is repeated");
    Ok(())
}

/// TLS 1.3 lets a server refuse a client's certificate when the handshake looks complete, and acknowledge until then.
#[tokio::test]
async fn with_a_client_certificate_a_short_connection_confirms_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("test authority")?;
    let client = authority.write(&authority.client("forwarder")?, folder.path())?;
    let tls =
        Tls { identity: authority.loopback_server()?, clients: Some(authority.certificate()) };
    let defender = Defender::start(quick(0.0, 100)).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let syslog = format!(
        "{{host: 127.0.0.1, port: {}, protocol: TLS, \
         tls: {{caBundleRef: {{name: ca}}, clientCertificateSecretRef: {{name: client}}}}}}",
        listener.local_addr()?.port()
    );
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    mount(&forwarder, "ca", &[("ca.crt", &client.ca)])?;
    mount(&forwarder, "client", &[("tls.crt", &client.certificate), ("tls.key", &client.key)])?;
    let acceptor = acceptor(&tls)?;
    let ((), first) = tokio::try_join!(forwarder.start(), async {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        let mut read = vec![timeout(PATIENCE, stream.read_u8()).await??];
        // It never ends by itself; that the time is over is how it is meant to end.
        let _ = timeout(Duration::from_millis(300), stream.read_to_end(&mut read)).await;
        Ok(String::from_utf8(read)?)
    })?;
    ensure!(first.contains("externalId="), "the first connection carried {} bytes", first.len());
    let delivered = forwarder.metric(DELIVERED).await?;
    ensure!(delivered < 1.0, "{delivered} delivered over a short connection");
    let receiver = Receiver::on(listener, Framing::Newline, Some(tls))?;
    let n_records = defender.produced().len();
    until_delivered(&forwarder, n_records).await?;
    let missing = missing(&defender, &receiver.ids());
    ensure!(missing.is_empty(), "{} of {n_records} are not sent again", missing.len());
    Ok(())
}
