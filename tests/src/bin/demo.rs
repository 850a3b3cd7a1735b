//! `cargo demo`: the simulated portal, the forwarder and a receiver on this machine; lines as they arrive, a count
//! beside them, and a summary: produced, delivered, lost, repeated. Exit code 0 only when nothing is lost.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use siem_agent_crds::duration::GoDuration;
use siem_agent_tests::arrival::id;
use siem_agent_tests::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_tests::forwarder::Forwarder;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// How long what was produced may take to arrive after the last of it.
const DRAIN: Duration = Duration::from_secs(30);
/// A line of CEF is shown this far.
const SHOWN: usize = 150;

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

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Cli { standalone: _, for_, rate, to } = Cli::parse();
    let screen = Screen::new()?;
    screen.say("building siem-forwarder…")?;
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--workspace", "--bin", "siem-forwarder"])
        .status();
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
            tokio::spawn(receive(listener, arrived.clone(), screen.clone()));
            format!("{{host: 127.0.0.1, port: {port}}}")
        }
    };
    let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
    forwarder.start().await?;

    let end = for_.map(|duration| Instant::now() + duration.0);
    let mut interrupted = false;
    while !interrupted && end.is_none_or(|end| Instant::now() < end) {
        screen.show(&count(&defender, &arrived, &forwarder, to.is_some()).await?)?;
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
    let last = loop {
        let count = count(&defender, &arrived, &forwarder, to.is_some()).await?;
        screen.show(&count)?;
        if count.missing() == 0 || Instant::now() >= until {
            break count;
        }
        sleep(Duration::from_millis(200)).await;
    };
    screen.finish();
    forwarder.terminate().await?;
    let Count { n_produced, n_delivered, n_repeated, .. } = last;
    let n_lost = last.missing();
    screen.say(&format!(
        "summary: produced {n_produced}, delivered {n_delivered}, lost {n_lost}, repeated {n_repeated}"
    ))?;
    Ok(if n_lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn target(url: &str) -> Result<String> {
    let address = url.strip_prefix("tcp://").context("--to must be tcp://host:port")?;
    let (host, port) = address.rsplit_once(':').context("--to must be tcp://host:port")?;
    let port: u16 = port.parse().context("--to must be tcp://host:port")?;
    Ok(format!("{{host: \"{host}\", port: {port}}}"))
}

/// What the receiver of this demo has seen.
#[derive(Debug, Clone, Default)]
struct Arrived(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// How often each id has arrived.
    counts: BTreeMap<String, usize>,
    /// Since when each that has not is awaited.
    awaited: BTreeMap<String, Instant>,
}

/// How delivery stands.
struct Count {
    n_produced: usize,
    n_delivered: usize,
    /// Missing for so long that nobody need wait any more.
    n_lost: usize,
    n_repeated: usize,
    lag: f64,
}

impl Count {
    /// Lost, or on the way.
    fn missing(&self) -> usize {
        self.n_produced.saturating_sub(self.n_delivered)
    }
}

/// At a receiver of the user's only the forwarder can count, and what it sent again may have arrived twice.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are small whole numbers"
)]
async fn count(
    defender: &Defender,
    arrived: &Arrived,
    forwarder: &Forwarder,
    elsewhere: bool,
) -> Result<Count> {
    let produced = defender.produced();
    let lag = forwarder.metric("siem_forwarder_delivery_lag_seconds{stream=\"activities\"").await?;
    let n_produced = produced.len();
    if elsewhere {
        let delivered = forwarder.metric("siem_forwarder_records_delivered_total").await?;
        let resent = forwarder.metric("siem_forwarder_records_resent_total").await?;
        let (n_delivered, n_repeated) = (delivered as usize, resent as usize);
        return Ok(Count { n_produced, n_delivered, n_lost: 0, n_repeated, lag });
    }
    let mut arrived = arrived.0.lock().unwrap_or_else(PoisonError::into_inner);
    let Seen { counts, awaited } = &mut *arrived;
    let now = Instant::now();
    awaited.retain(|id, _| !counts.contains_key(id));
    for (_, id) in produced {
        if !counts.contains_key(&id) {
            awaited.entry(id).or_insert(now);
        }
    }
    let n_lost = awaited.values().filter(|since| now.duration_since(**since) > DRAIN).count();
    let n_repeated = counts.values().map(|count| count - 1).sum();
    Ok(Count { n_produced, n_delivered: n_produced - awaited.len(), n_lost, n_repeated, lag })
}

/// Takes every connection, and shows and counts the lines.
async fn receive(listener: TcpListener, arrived: Arrived, screen: Screen) {
    while let Ok((stream, _)) = listener.accept().await {
        let (arrived, screen) = (arrived.clone(), screen.clone());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(id) = id(&line) {
                    let mut arrived = arrived.0.lock().unwrap_or_else(PoisonError::into_inner);
                    *arrived.counts.entry(id.to_owned()).or_insert(0) += 1;
                }
                // A closed terminal does not stop the count.
                let _ = screen.say(&line.chars().take(SHOWN).collect::<String>());
            }
        });
    }
}

/// A bar below the lines on a terminal; elsewhere plain lines.
#[derive(Debug, Clone)]
struct Screen(Option<ProgressBar>);

impl Screen {
    fn new() -> Result<Self> {
        if !stdout().is_terminal() {
            return Ok(Self(None));
        }
        let style = ProgressStyle::with_template("{bar:30.green} {msg:.cyan.bold}")?;
        Ok(Self(Some(ProgressBar::new(0).with_style(style))))
    }

    fn say(&self, line: &str) -> Result<()> {
        match &self.0 {
            Some(bar) => bar.println(line),
            None => writeln!(stdout(), "{line}")?,
        }
        Ok(())
    }

    fn show(&self, count: &Count) -> Result<()> {
        let Count { n_produced, n_delivered, n_lost, n_repeated, lag } = count;
        let text = format!(
            "produced {n_produced}  delivered {n_delivered}  lost {n_lost}  repeated {n_repeated}  lag {lag:.1} s"
        );
        let Some(bar) = &self.0 else { return self.say(&text) };
        bar.set_length(u64::try_from(*n_produced)?);
        bar.set_position(u64::try_from(*n_delivered)?);
        bar.set_message(text);
        Ok(())
    }

    fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.abandon();
        }
    }
}
