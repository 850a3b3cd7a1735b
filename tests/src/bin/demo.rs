//! `cargo demo`: the simulated portal, the forwarder and a receiver on this machine; lines as they arrive, a count
//! beside them, and a summary: produced, delivered, lost, repeated. Exit code 0 only when nothing is lost.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use siem_agent_crds::duration::GoDuration;
use siem_agent_tests::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_tests::forwarder::Forwarder;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// How long what was produced may take to arrive after the last of it.
const DRAIN: Duration = Duration::from_secs(30);

/// Shows the main job on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Cli {
    /// Without Kubernetes; the only way so far.
    #[arg(long)]
    standalone: bool,
    /// Ends by itself after so long. Default: at Ctrl-C
    #[arg(long = "for", value_name = "DURATION")]
    for_: Option<GoDuration>,
    /// Activities a second.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Sends to this receiver instead, tcp://host:port; what arrives is then what the forwarder says was delivered.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
}

/// How often each id has arrived.
type Arrived = Arc<Mutex<BTreeMap<String, usize>>>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Cli { standalone: _, for_, rate, to } = Cli::parse();
    say("building siem-forwarder…")?;
    let built =
        Command::new("cargo").args(["build", "--quiet", "--bin", "siem-forwarder"]).status();
    ensure!(built.context("run cargo")?.success(), "siem-forwarder does not build");

    let history = (100, Duration::from_secs(3600));
    let mut defender =
        Defender::start(Options { rate, history, budget: 0, ..Options::default() }).await?;
    let arrived = Arrived::default();
    let syslog = match &to {
        Some(url) => target(url)?,
        None => {
            let listener =
                TcpListener::bind("127.0.0.1:0").await.context("listen for the receiver")?;
            let port = listener.local_addr()?.port();
            tokio::spawn(receive(listener, Arc::clone(&arrived)));
            format!("{{host: 127.0.0.1, port: {port}}}")
        }
    };
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;

    let end = for_.map(|duration| Instant::now() + duration.0);
    let mut interrupted = false;
    while !interrupted && end.is_none_or(|end| Instant::now() < end) {
        count(&defender, &arrived, &forwarder, to.is_some()).await?;
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                interrupted = true;
            }
        }
    }
    defender.quiet();
    let until = Instant::now() + DRAIN;
    while count(&defender, &arrived, &forwarder, to.is_some()).await? > 0 && Instant::now() < until
    {
        sleep(Duration::from_millis(200)).await;
    }
    let n_lost = count(&defender, &arrived, &forwarder, to.is_some()).await?;
    forwarder.terminate().await?;
    say(if n_lost == 0 { "nothing was lost" } else { "some records were lost" })?;
    Ok(if n_lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn target(url: &str) -> Result<String> {
    let address = url.strip_prefix("tcp://").context("--to must be tcp://host:port")?;
    let (host, port) = address.rsplit_once(':').context("--to must be tcp://host:port")?;
    let port: u16 = port.parse().context("--to must be tcp://host:port")?;
    Ok(format!("{{host: \"{host}\", port: {port}}}"))
}

/// One line of counts; gives how many have not arrived.
async fn count(
    defender: &Defender,
    arrived: &Arrived,
    forwarder: &Forwarder,
    elsewhere: bool,
) -> Result<usize> {
    let produced = defender.produced();
    let lag = forwarder.metric("siem_forwarder_delivery_lag_seconds{stream=\"activities\"").await?;
    let (n_delivered, n_missing, n_repeated) = if elsewhere {
        let told = forwarder.metric("siem_forwarder_records_delivered_total").await?;
        let resent = forwarder.metric("siem_forwarder_records_resent_total").await?;
        let n_missing = (produced.len() as f64 - told).max(0.0);
        (format!("{told:.0}"), format!("{n_missing:.0}").parse()?, format!("up to {resent:.0}"))
    } else {
        let arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let n_missing = produced.iter().filter(|(_, id)| !arrived.contains_key(id)).count();
        let n_repeated: usize = arrived.values().map(|count| count - 1).sum();
        (arrived.len().to_string(), n_missing, n_repeated.to_string())
    };
    let n_produced = produced.len();
    let text = format!(
        "produced {n_produced}  delivered {n_delivered}  on the way {n_missing}  repeated {n_repeated}  lag {lag:.1} s"
    );
    say(&if stdout().is_terminal() { format!("\u{1b}[1;36m{text}\u{1b}[0m") } else { text })?;
    Ok(n_missing)
}

/// Takes every connection, and shows and counts the lines.
async fn receive(listener: TcpListener, arrived: Arrived) {
    while let Ok((stream, _)) = listener.accept().await {
        let arrived = Arc::clone(&arrived);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let id = line.split("externalId=").nth(1).and_then(|rest| rest.split(' ').next());
                if let Some(id) = id {
                    let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
                    *arrived.entry(id.to_owned()).or_insert(0) += 1;
                }
                // A closed terminal does not stop the count.
                let _ = say(&line.chars().take(150).collect::<String>());
            }
        });
    }
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(stdout(), "{text}")?)
}
