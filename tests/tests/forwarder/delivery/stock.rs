//! A stock rsyslog, no limit of it raised: what records that are made for its limits become there.

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::arrival::mount;
use siem_agent_sim::forwarder::Forwarder;
use siem_agent_sim::pki::Authority;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::hostile;

/// Every limit is the receiver's own, every setting of ours the default.
#[tokio::test]
async fn a_stock_rsyslog_has_one_event_a_record_whatever_is_in_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("test authority")?;
    let files = authority.write(&authority.loopback_server()?, &folder.path().join("server"))?;
    let tls = |framing: &str| {
        format!(
            "{{host: 127.0.0.1, port: PORT, protocol: TLS{framing}, tls: {{caBundleRef: {{name: ca}}}}}}"
        )
    };
    let gtls = Input::Tls { driver: "gtls", files: files.clone(), mutual: false };
    for (input, syslog) in [
        (Input::Udp, "{host: 127.0.0.1, port: PORT, protocol: UDP}".to_owned()),
        (Input::Tcp, "{host: 127.0.0.1, port: PORT}".to_owned()),
        (Input::Tcp, "{host: 127.0.0.1, port: PORT, receiver: Rsyslog}".to_owned()),
        (Input::Tcp, "{host: 127.0.0.1, port: PORT, framing: OctetCounting}".to_owned()),
        (gtls.clone(), tls("")),
        (gtls, tls(", framing: OctetCounting")),
    ] {
        let mut rsyslog = Rsyslog::start_stock(input).await?;
        let prepare = |forwarder: &Forwarder| mount(forwarder, "ca", &[("ca.crt", &files.ca)]);
        let outcome = hostile::outcome(&mut rsyslog, &syslog, prepare).await?;
        outcome.is_one_event_a_record().context(syslog)?;
    }
    Ok(())
}

/// What `check` warns of, and what shows that the records of the test above can forge.
#[tokio::test]
async fn above_the_limit_of_a_stock_rsyslog_the_same_records_forge_events() -> Result<()> {
    for framing in ["Newline", "OctetCounting"] {
        let mut rsyslog = Rsyslog::start_stock(Input::Tcp).await?;
        let syslog =
            format!("{{host: 127.0.0.1, port: PORT, framing: {framing}, maxMessageBytes: 65536}}");
        let outcome = hostile::outcome(&mut rsyslog, &syslog, |_| Ok(())).await?;
        let is_forged = |line: &String| line.starts_with(hostile::FORGER);
        ensure!(outcome.lines.iter().any(is_forged), "{framing}: a test that cannot fail");
        ensure!(outcome.is_one_event_a_record().is_err());
    }
    Ok(())
}
