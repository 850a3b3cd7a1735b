//! From the simulated portal through the forwarder to a real syslog-ng: every id, byte for byte, over each transport and
//! both framings; and nothing lost while it is killed.

#[path = "../../../forwarder/tests/reader/records.rs"]
mod records;

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::arrival::{Receiver as _, each_arrives_as_rendered, mount, quick};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, PATIENCE};
use siem_agent_sim::pki::Authority;
use siem_agent_tests::breaks::n_lost_over;
use siem_agent_tests::hostile;
use siem_agent_tests::syslog_ng::{Driver, Input, SyslogNg};
use tempfile::TempDir;

/// Everything of one test over TLS: the files end with it.
struct Tls {
    _folder: TempDir,
    input: Input,
    client: siem_agent_sim::pki::Files,
}

impl Tls {
    fn new(driver: Driver, mutual: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("test authority")?;
        let server = folder.path().join("server");
        let files = authority.write(&authority.loopback_server()?, &server)?;
        let client =
            authority.write(&authority.client("forwarder")?, &folder.path().join("client"))?;
        Ok(Self { _folder: folder, input: Input::Tls { driver, files, mutual }, client })
    }

    fn mount(&self, forwarder: &Forwarder) -> Result<()> {
        mount(forwarder, "ca", &[("ca.crt", &self.client.ca)])?;
        let (certificate, key) = (&self.client.certificate, &self.client.key);
        mount(forwarder, "client", &[("tls.crt", certificate), ("tls.key", key)])
    }
}

async fn arrives(input: Input, syslog: &str, tls: Option<&Tls>) -> Result<()> {
    let defender = Defender::start(quick(0.0, 300)).await?;
    let syslog_ng = SyslogNg::start(input).await?;
    let syslog = syslog.replace("PORT", &syslog_ng.port().to_string());
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    if let Some(tls) = tls {
        tls.mount(&forwarder)?;
    }
    each_arrives_as_rendered(&defender, &syslog_ng, &mut forwarder).await
}

#[tokio::test]
async fn network_receives_every_line_over_udp() -> Result<()> {
    let syslog = "{host: 127.0.0.1, port: PORT, protocol: UDP, maxMessageBytes: 8192}";
    arrives(Input::Udp, syslog, None).await
}

#[tokio::test]
async fn network_receives_every_line_over_tcp() -> Result<()> {
    arrives(Input::Tcp(Driver::Network), "{host: 127.0.0.1, port: PORT}", None).await
}

#[tokio::test]
async fn syslog_receives_every_line_over_tcp() -> Result<()> {
    let syslog = "{host: 127.0.0.1, port: PORT, framing: OctetCounting}";
    arrives(Input::Tcp(Driver::Syslog), syslog, None).await
}

#[tokio::test]
async fn network_receives_every_line_over_tls() -> Result<()> {
    let tls = Tls::new(Driver::Network, false)?;
    let syslog = "{host: 127.0.0.1, port: PORT, protocol: TLS, tls: {caBundleRef: {name: ca}}}";
    arrives(tls.input.clone(), syslog, Some(&tls)).await
}

#[tokio::test]
async fn syslog_receives_every_line_over_tls() -> Result<()> {
    let tls = Tls::new(Driver::Syslog, false)?;
    let syslog = "{host: 127.0.0.1, port: PORT, protocol: TLS, framing: OctetCounting, tls: {caBundleRef: {name: ca}}}";
    arrives(tls.input.clone(), syslog, Some(&tls)).await
}

#[tokio::test]
async fn syslog_receives_every_line_over_mutual_tls() -> Result<()> {
    let tls = Tls::new(Driver::Syslog, true)?;
    let syslog = "{host: 127.0.0.1, port: PORT, protocol: TLS, framing: OctetCounting, tls: {caBundleRef: {name: ca}, clientCertificateSecretRef: {name: client}}}";
    arrives(tls.input.clone(), syslog, Some(&tls)).await
}

/// Every limit is the receiver's own, and so is its parser. `network()` reads lines: from counted frames too.
#[tokio::test]
async fn a_stock_syslog_ng_has_one_event_a_record_whatever_is_in_it() -> Result<()> {
    let (lines, counted) = ("", ", framing: OctetCounting");
    let tcp = |driver, framing| (Input::Tcp(driver), None, format!("protocol: TCP{framing}"));
    let over_tls = |driver, framing| {
        let tls = Tls::new(driver, false)?;
        let words = format!("protocol: TLS{framing}, tls: {{caBundleRef: {{name: ca}}}}");
        anyhow::Ok((tls.input.clone(), Some(tls), words))
    };
    for (input, tls, words) in [
        (Input::Udp, None, "protocol: UDP".to_owned()),
        tcp(Driver::Network, lines),
        tcp(Driver::Network, ", receiver: SyslogNg"),
        tcp(Driver::Network, counted),
        tcp(Driver::Syslog, counted),
        over_tls(Driver::Network, lines)?,
        over_tls(Driver::Network, counted)?,
        over_tls(Driver::Syslog, counted)?,
    ] {
        let mut syslog_ng = SyslogNg::start_stock(input.clone()).await?;
        let syslog = format!("{{host: 127.0.0.1, port: PORT, {words}}}");
        let prepare =
            |forwarder: &Forwarder| tls.as_ref().map_or(Ok(()), |tls| tls.mount(forwarder));
        let outcome = hostile::outcome(&mut syslog_ng, &syslog, prepare).await?;
        outcome.is_one_event_a_record().with_context(|| format!("{input:?}, {words}"))?;
    }
    Ok(())
}

async fn survives(input: Input, syslog: &str, tls: Option<&Tls>) -> Result<()> {
    let mut defender = Defender::start(quick(500.0, 500)).await?;
    let mut syslog_ng = SyslogNg::start(input).await?;
    let syslog = syslog.replace("PORT", &syslog_ng.port().to_string());
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    if let Some(tls) = tls {
        tls.mount(&forwarder)?;
    }
    let n_lost = n_lost_over(5, &mut defender, &mut syslog_ng, &mut forwarder).await?;
    ensure!(n_lost == 0, "{n_lost} lost");
    Ok(())
}

#[tokio::test]
async fn killed_under_traffic_it_loses_nothing_over_tcp() -> Result<()> {
    survives(Input::Tcp(Driver::Network), "{host: 127.0.0.1, port: PORT}", None).await
}

#[tokio::test]
async fn killed_under_traffic_it_loses_nothing_over_tls() -> Result<()> {
    let tls = Tls::new(Driver::Syslog, false)?;
    let syslog = "{host: 127.0.0.1, port: PORT, protocol: TLS, framing: OctetCounting, tls: {caBundleRef: {name: ca}}}";
    survives(tls.input.clone(), syslog, Some(&tls)).await
}

/// Splunk Connect for Syslog is a syslog-ng: its filter, and the header as it reads it, because it takes the time from
/// there.
#[tokio::test]
async fn its_parser_finds_time_and_host_and_its_filter_cef_in_every_golden_line() -> Result<()> {
    let syslog_ng = SyslogNg::start(Input::Sc4s).await?;
    let mut sender = TcpStream::connect(("127.0.0.1", syslog_ng.port()))?;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../forwarder/fixtures");
    let mut expected = Vec::new();
    for (_, path, event) in records::all(&fixtures) {
        // It keeps seconds in 32 bits.
        let (seconds, millis) = (event.timestamp() / 1_000, event.timestamp() % 1_000);
        expected.push(format!("{}{millis:03} soc 109", seconds % (1 << 32)));
        sender.write_all(&fs::read(path.with_extension("cef"))?)?;
    }
    eventually(PATIENCE, async || {
        ensure!(
            syslog_ng.lines()?.len() >= expected.len(),
            "{:?} of {expected:?}",
            syslog_ng.lines()?
        );
        Ok(())
    })
    .await?;
    ensure!(syslog_ng.lines()? == expected, "{:?} instead of {expected:?}", syslog_ng.lines()?);
    Ok(())
}
