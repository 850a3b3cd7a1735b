//! From the simulated portal through the forwarder to a real rsyslogd: everything arrives, byte for byte, whatever dies.

mod stock;

use std::fs;
use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival::{Receiver as _, all_arrived, each_arrives_as_rendered, mount, quick};
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Fault, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, LOOK, PATIENCE};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::pki::Authority;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::breaks::n_lost_over;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// One receiver configuration: every id arrives once, each line is what `render` prints.
async fn arrives_as_rendered(
    input: Input,
    syslog: &str,
    prepare: impl FnOnce(&Forwarder) -> Result<()>,
) -> Result<()> {
    let defender = Defender::start(quick(0.0, 300)).await?;
    let rsyslog = Rsyslog::start(input).await?;
    let syslog = syslog.replace("PORT", &rsyslog.port.to_string());
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    prepare(&forwarder)?;
    each_arrives_as_rendered(&defender, &rsyslog, &mut forwarder).await
}

#[tokio::test]
async fn rsyslog_receives_every_line_over_udp() -> Result<()> {
    arrives_as_rendered(
        Input::Udp,
        "{host: 127.0.0.1, port: PORT, protocol: UDP, maxMessageBytes: 8192}",
        |_| Ok(()),
    )
    .await
}

#[tokio::test]
async fn rsyslog_receives_every_line_over_tcp_with_newlines() -> Result<()> {
    arrives_as_rendered(Input::Tcp, "{host: localhost, port: PORT}", |_| Ok(())).await
}

#[tokio::test]
async fn rsyslog_receives_every_line_over_tcp_with_octet_counts() -> Result<()> {
    arrives_as_rendered(Input::Tcp, "{host: 127.0.0.1, port: PORT, framing: OctetCounting}", |_| {
        Ok(())
    })
    .await
}

async fn over_tls(driver: &'static str, mutual: bool, framing: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("test authority")?;
    let server = authority.write(&authority.loopback_server()?, &folder.path().join("server"))?;
    let client = authority.write(&authority.client("forwarder")?, &folder.path().join("client"))?;
    let certificate = if mutual { ", clientCertificateSecretRef: {name: client}" } else { "" };
    let syslog = format!(
        "{{host: 127.0.0.1, port: PORT, protocol: TLS{framing}, tls: {{caBundleRef: {{name: ca}}{certificate}}}}}"
    );
    arrives_as_rendered(Input::Tls { driver, files: server, mutual }, &syslog, |forwarder| {
        mount(forwarder, "ca", &[("ca.crt", &client.ca)])?;
        mount(forwarder, "client", &[("tls.crt", &client.certificate), ("tls.key", &client.key)])
    })
    .await
}

#[tokio::test]
async fn rsyslog_receives_every_line_over_tls_by_gtls() -> Result<()> {
    over_tls("gtls", false, "").await
}

/// Nothing on the way has an IPv4 address, nor a name.
#[tokio::test]
async fn portal_and_rsyslog_are_reached_by_their_ipv6_addresses() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("test authority")?;
    let server = authority.loopback_server()?;
    let files = authority.write(&server, &folder.path().join("server"))?;
    let tls = Input::Tls { driver: "ossl", files: files.clone(), mutual: false };
    for (input, protocol) in [(Input::Tcp, "TCP"), (tls, "TLS")] {
        let listen = (Ipv6Addr::LOCALHOST, 0).into();
        let portal = Options { listen, tls: Some(server.clone()), ..quick(0.0, 300) };
        let defender = Defender::start(portal).await?;
        let url = format!("https://[::1]:{}", defender.address().port());
        let rsyslog = Rsyslog::start_at(Ipv6Addr::LOCALHOST, input).await?;
        let bundle = if protocol == "TLS" { ", tls: {caBundleRef: {name: ca}}" } else { "" };
        let syslog =
            format!("{{host: \"::1\", port: {}, protocol: {protocol}{bundle}}}", rsyslog.port);
        let manifest = Manifest::new("soc").url(&url).quick().and_source("caBundleRef: {name: ca}");
        let mut forwarder = Forwarder::new(&url, DEMO_TOKEN, &syslog, "")?;
        fs::write(forwarder.manifest(), manifest.syslog(&syslog).to_string())?;
        mount(&forwarder, "ca", &[("ca.crt", &files.ca)])?;
        each_arrives_as_rendered(&defender, &rsyslog, &mut forwarder).await?;
    }
    Ok(())
}

#[tokio::test]
async fn rsyslog_receives_every_line_over_tls_by_openssl() -> Result<()> {
    over_tls("ossl", false, ", framing: OctetCounting").await
}

#[tokio::test]
async fn rsyslog_receives_every_line_over_mutual_tls() -> Result<()> {
    over_tls("gtls", true, "").await
}

/// Stops and kills the receiver under 500 activities a second; gives how many records are lost.
async fn n_lost_over_tcp(n_breaks: usize, failpoints: Option<&str>) -> Result<usize> {
    n_lost(n_breaks, Input::Tcp, "{host: 127.0.0.1, port: PORT}", failpoints, |_| Ok(())).await
}

async fn n_lost_over_tls(n_breaks: usize, failpoints: Option<&str>) -> Result<usize> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("test authority")?;
    let files = authority.write(&authority.loopback_server()?, &folder.path().join("server"))?;
    let ca = files.ca.clone();
    let syslog = "{host: 127.0.0.1, port: PORT, protocol: TLS, tls: {caBundleRef: {name: ca}}}";
    n_lost(
        n_breaks,
        Input::Tls { driver: "gtls", files, mutual: false },
        syslog,
        failpoints,
        |forwarder| mount(forwarder, "ca", &[("ca.crt", &ca)]),
    )
    .await
}

async fn n_lost(
    n_breaks: usize,
    input: Input,
    syslog: &str,
    failpoints: Option<&str>,
    prepare: impl FnOnce(&Forwarder) -> Result<()>,
) -> Result<usize> {
    let mut defender = Defender::start(quick(500.0, 0)).await?;
    let mut rsyslog = Rsyslog::start(input).await?;
    let syslog = syslog.replace("PORT", &rsyslog.port.to_string());
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.set_failpoints(failpoints);
    prepare(&forwarder)?;
    n_lost_over(n_breaks, &mut defender, &mut rsyslog, &mut forwarder).await
}

#[tokio::test]
async fn a_receiver_stopped_and_killed_again_and_again_loses_nothing_over_tcp() -> Result<()> {
    let n_lost = n_lost_over_tcp(20, None).await?;
    ensure!(n_lost == 0, "{n_lost} lost");
    Ok(())
}

#[tokio::test]
async fn a_receiver_stopped_and_killed_again_and_again_loses_nothing_over_tls() -> Result<()> {
    let n_lost = n_lost_over_tls(20, None).await?;
    ensure!(n_lost == 0, "{n_lost} lost");
    Ok(())
}

/// Sends as other programs do: what is written counts as delivered.
const WITHOUT_THE_RULE: Option<&str> = Some("confirm_when_written=return");
/// Every third break or so loses something, and the first such one ends the test.
const ENOUGH: usize = 100;

#[tokio::test]
async fn without_the_rule_of_confirmation_the_same_breaks_lose_records_over_tcp() -> Result<()> {
    let n_lost = n_lost_over_tcp(ENOUGH, WITHOUT_THE_RULE).await?;
    ensure!(n_lost > 0, "a test of delivery that cannot fail proves nothing");
    Ok(())
}

#[tokio::test]
async fn without_the_rule_of_confirmation_the_same_breaks_lose_records_over_tls() -> Result<()> {
    let n_lost = n_lost_over_tls(ENOUGH, WITHOUT_THE_RULE).await?;
    ensure!(n_lost > 0, "a test of delivery that cannot fail proves nothing");
    Ok(())
}

#[tokio::test]
async fn faults_of_the_api_lose_nothing_and_are_not_a_bad_token() -> Result<()> {
    let defender = Defender::start(quick(0.0, 200)).await?;
    for fault in
        ["429:1", "500", "502", "cut:3000", "broken", "html", "401:Invalid JSON Web Key Set"]
    {
        defender.fault(fault.parse::<Fault>().map_err(anyhow::Error::msg)?);
    }
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port);
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    ensure!(
        forwarder.status().await?["token"]["state"] == "Valid",
        "no fault of the API is a bad token"
    );
    Ok(())
}

#[tokio::test]
async fn a_dead_token_is_told_and_a_changed_one_tried_at_once() -> Result<()> {
    let planted = "UExBTlRFRC1TRUNSRVQtdGhhdC1tdXN0LW5ldmVyLWJlLXNlZW4tYW55d2hlcmUtYXQtYWxs";
    let defender = Defender::start(quick(0.0, 50)).await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port);
    let mut forwarder = Forwarder::new(&defender.url(), planted, &syslog, "")?;
    forwarder.start().await?;
    eventually(PATIENCE, async || {
        ensure!(
            forwarder.status().await?["token"]["state"] == "Invalid",
            "a refused token is reported"
        );
        Ok(())
    })
    .await?;
    ensure!(
        forwarder.status().await?["token"]["reason"] == "Invalid token",
        "in the API's own words"
    );
    ensure!(
        forwarder.get("metrics").await?.contains("siem_forwarder_token_valid 0"),
        "and in the metric"
    );
    let n_asked = defender.requests().len();
    ensure!(n_asked <= 2, "{n_asked} requests with a dead token");
    let pid = forwarder.pid().context("it runs")?;
    for shown in [
        forwarder.log()?,
        forwarder.get("status").await?,
        forwarder.get("metrics").await?,
        fs::read_to_string(format!("/proc/{pid}/cmdline"))?,
        fs::read_to_string(format!("/proc/{pid}/environ"))?,
    ] {
        ensure!(!shown.contains(planted), "the token is seen nowhere");
    }
    forwarder.set_token(DEMO_TOKEN)?;
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    ensure!(forwarder.status().await?["token"]["state"] == "Valid", "the new token is valid");
    Ok(())
}

#[tokio::test]
async fn a_forbidden_stream_leaves_the_other_running() -> Result<()> {
    let defender = Defender::start(quick(0.0, 100)).await?;
    defender.forbid(Stream::Activities, true);
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port);
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;
    let until = Instant::now() + PATIENCE;
    let n_alerts =
        defender.produced().iter().filter(|(stream, _)| *stream == Stream::Alerts).count();
    while rsyslog.lines()?.len() < n_alerts {
        ensure!(Instant::now() < until, "alerts go on: {}", forwarder.log()?);
        sleep(LOOK).await;
    }
    let status = forwarder.status().await?;
    let token = status["token"].to_string();
    ensure!(token.contains("Forbidden") && token.contains("activities"), "{token}");
    ensure!(
        status["streams"]["activities"]["forbidden"].is_string(),
        "the stream says why it stands: {status}"
    );
    Ok(())
}

#[tokio::test]
async fn a_bad_record_is_counted_once_and_its_neighbours_arrive() -> Result<()> {
    let defender = Defender::start(quick(0.0, 10)).await?;
    defender.inject(Stream::Activities, r#"{"timestamp": 1793000113000, "description": "no id"}"#);
    let forged = r#"{"_id": "forger", "timestamp": 1793000113000, "device": 5, "description": "x\nCEF:0|MCAS|SIEM_Agent|0|FORGED|f|9|externalId=forged"}"#;
    defender.inject(Stream::Activities, forged);
    let long = format!(
        r#"{{"_id": "long", "timestamp": 1793000113000, "description": "{}"}}"#,
        "y".repeat(1 << 20)
    );
    defender.inject(Stream::Activities, &long);
    defender.produce(10);
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port);
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;
    all_arrived(&defender, &rsyslog, &forwarder).await?;
    // Two more polls look at the same records again.
    let n_asked = defender.requests().len();
    eventually(PATIENCE, async || {
        ensure!(
            defender.requests().len() >= n_asked + 4,
            "it stopped asking: {}",
            forwarder.log()?
        );
        Ok(())
    })
    .await?;
    let lines = rsyslog.lines()?;
    ensure!(lines.iter().all(|line| line.starts_with("<109>")), "no line is forged");
    ensure!(lines.iter().all(|line| line.len() < 8_000), "long lines are trimmed");
    let rejected = forwarder.metric("siem_forwarder_records_rejected_total").await?;
    ensure!((rejected - 1.0).abs() < f64::EPSILON, "{rejected} rejects");
    ensure!(
        forwarder.metric("siem_forwarder_records_trimmed_total").await? >= 1.0,
        "the long one is counted"
    );
    Ok(())
}

/// An identifier is never shortened: such a record is skipped once, and the cursor passes it.
#[tokio::test]
async fn a_record_that_fits_no_message_is_counted_once_and_its_neighbours_arrive() -> Result<()> {
    let defender = Defender::start(quick(0.0, 0)).await?;
    let ids = ["before".to_owned(), "=".repeat(3_999), "behind".to_owned()];
    for id in &ids {
        let record =
            format!(r#"{{"_id": "{id}", "timestamp": 1793000113000, "description": "x"}}"#);
        defender.inject(Stream::Activities, &record);
    }
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port);
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;
    let until = Instant::now() + PATIENCE;
    let too_long = r#"reason="message_too_long"} 1"#;
    // Two polls more look at the same records again.
    while rsyslog.lines()?.len() < 2
        || !forwarder.get("metrics").await?.contains(too_long)
        || defender.requests().len() < 6
    {
        ensure!(Instant::now() < until, "{}", forwarder.log()?);
        sleep(LOOK).await;
    }
    ensure!(rsyslog.lines()?.len() == 2, "its neighbours arrive once");
    let rejected = forwarder.metric("siem_forwarder_records_rejected_total").await?;
    ensure!((rejected - 1.0).abs() < f64::EPSILON, "{rejected} rejects");
    let log = forwarder.log()?;
    ensure!(log.matches("record skipped that cannot be shortened so far").count() == 1, "{log}");
    ensure!(!log.contains("===="), "nothing of the record is logged");
    Ok(())
}

/// Whatever listens there reads on and talks without end: nothing of that is taken for a confirmation, and an end in order
/// is not held up.
#[tokio::test]
async fn a_peer_that_keeps_talking_is_told_to_be_no_receiver() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let talking = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let mut nowhere = tokio::io::sink();
                let talk = async { while writer.write_all(&[b'x'; 16_384]).await.is_ok() {} };
                tokio::join!(talk, tokio::io::copy(&mut reader, &mut nowhere)).1
            });
        }
    });
    let defender = Defender::start(quick(0.0, 100)).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {port}, confirmGrace: 5s}}");
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;
    eventually(PATIENCE, async || {
        let target = forwarder.status().await?["target"].to_string();
        ensure!(target.contains("no syslog receiver"), "{target}: {}", forwarder.log()?);
        Ok(())
    })
    .await?;
    ensure!(forwarder.metric("siem_forwarder_records_delivered_total").await? < 1.0);
    ensure!(forwarder.terminate().await?.success(), "it ends in order");
    let log = forwarder.log()?;
    ensure!(!log.contains("did not confirm in time"), "{log}");
    talking.abort();
    Ok(())
}

/// A server of another protocol that answers the first line, or greets, is no receiver however well it acknowledges.
#[tokio::test]
async fn a_server_that_answers_is_never_taken_for_a_receiver() -> Result<()> {
    let answers: [(&str, bool); 3] = [
        ("220 mail.example.com ESMTP\r\n", true),
        ("-ERR unknown command\r\n", false),
        ("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", false),
    ];
    for (answer, greets) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.into_split();
                    if greets {
                        writer.write_all(answer.as_bytes()).await?;
                    }
                    let mut line = [0; 4_096];
                    while reader.read(&mut line).await? > 0 {
                        writer.write_all(answer.as_bytes()).await?;
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        let defender = Defender::start(quick(0.0, 50)).await?;
        let syslog = format!("{{host: 127.0.0.1, port: {port}, confirmGrace: 5s}}");
        let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
        forwarder.start().await?;
        eventually(PATIENCE, async || {
            ensure!(
                forwarder.status().await?["target"].to_string().contains("no syslog receiver"),
                "{answer}: {}",
                forwarder.log()?
            );
            Ok(())
        })
        .await?;
        let delivered = forwarder.metric("siem_forwarder_records_delivered_total").await?;
        ensure!(delivered < 1.0, "{delivered} delivered to {answer}");
        server.abort();
    }
    Ok(())
}

#[tokio::test]
async fn nothing_is_fetched_while_the_target_takes_nothing() -> Result<()> {
    let defender = Defender::start(quick(0.0, 20_000)).await?;
    let rsyslog = Rsyslog::start(Input::Tcp).await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", rsyslog.port);
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    rsyslog.signal(Signal::SIGSTOP)?;
    forwarder.start().await?;
    // Its kernel takes the connection and some of the records, then no more.
    for up in ["siem_forwarder_target_up 1", "siem_forwarder_target_up 0"] {
        eventually(PATIENCE, async || {
            ensure!(
                forwarder.get("metrics").await?.contains(up),
                "`{up}` does not come: {}",
                forwarder.log()?
            );
            Ok(())
        })
        .await?;
    }
    let n_asked = defender.requests().len();
    ensure!(n_asked <= 4, "{n_asked} requests for what cannot be delivered");
    // Longer than a peer that answers nothing is waited for: this one's kernel answers.
    let until = Instant::now() + Duration::from_secs(25);
    while Instant::now() < until {
        let target = forwarder.status().await?["target"]["state"].take();
        ensure!(target == "Stalled", "{target}: {}", forwarder.log()?);
        sleep(Duration::from_secs(1)).await;
    }
    rsyslog.signal(Signal::SIGCONT)?;
    let counts = all_arrived(&defender, &rsyslog, &forwarder).await?;
    ensure!(counts.values().all(|count| *count == 1), "nothing is repeated");
    let resent = forwarder.metric("siem_forwarder_records_resent_total").await?;
    ensure!(resent < 1.0, "{resent} sent again");
    Ok(())
}

/// A receiver that pauses holds the page up until it is given up, and asked for again: the portal is well all the time.
#[tokio::test]
async fn a_receiver_that_pauses_is_no_fault_of_the_portal() -> Result<()> {
    let defender = Defender::start(quick(0.0, 10_000)).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let syslog = format!("{{host: 127.0.0.1, port: {}}}", listener.local_addr()?.port());
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;
    let (mut stream, _) = listener.accept().await?;
    // Longer than a page is held.
    sleep(Duration::from_secs(20)).await;
    let before = forwarder.status().await?["source"].take();
    assert_eq!(before["state"], "Reachable");
    let reading =
        tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
    let until = Instant::now() + PATIENCE;
    let n_records = defender.produced().len() as f64;
    while forwarder.metric("siem_forwarder_records_delivered_total").await? < n_records {
        ensure!(Instant::now() < until, "not all is delivered: {}", forwarder.log()?);
        sleep(LOOK).await;
    }
    let log = forwarder.log()?;
    ensure!(
        log.contains("the SIEM stalled in the middle of a page"),
        "the page was given up: {log}"
    );
    assert_eq!(forwarder.status().await?["source"], before, "reachable ever since");
    reading.abort();
    Ok(())
}
