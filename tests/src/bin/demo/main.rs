//! `cargo demo`: the main job on this machine. The API server, the operator, a node, a simulated portal and a receiver;
//! a SiemAgent is applied with kubectl, its token is broken and repaired; lines of CEF as they arrive, the agent's status
//! beside them, and a summary: produced, delivered, lost, repeated. Exit code 0 only when nothing is lost.
//!
//! With `--standalone` the forwarder alone, as on a plain server.

mod screen;
mod count;
mod cluster;

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use siem_agent_crds::duration::GoDuration;
use siem_agent_tests::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_tests::forwarder::Forwarder;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::count::{Arrived, Count, count, receive};
use crate::screen::Screen;

/// How long what was produced may take to arrive after the last of it.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// Shows the main job on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Cli {
    /// Without Kubernetes: the forwarder as it runs on a plain server.
    #[arg(long)]
    standalone: bool,
    /// Ends by itself after so long, though not before the token was broken and repaired. Default: at Ctrl-C
    #[arg(long = "for", value_name = "DURATION")]
    for_: Option<GoDuration>,
    /// Activities a second.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Sends to this receiver instead, tcp://host:port; what arrives is then what the forwarder says was delivered.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
}

/// What is on show.
pub(crate) enum Stage {
    Standalone(Forwarder),
    Cluster(Box<Cluster>),
}

impl Stage {
    async fn look(&mut self, screen: &Screen) -> Result<()> {
        match self {
            Self::Standalone(_) => Ok(()),
            Self::Cluster(cluster) => cluster.look(screen).await,
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Standalone(_) => true,
            Self::Cluster(cluster) => cluster.is_over(),
        }
    }

    /// Whether nothing can flow just now, on purpose.
    pub(crate) fn is_held_up(&self) -> bool {
        match self {
            Self::Standalone(_) => false,
            Self::Cluster(cluster) => cluster.is_held_up(),
        }
    }

    fn how(&self) -> String {
        match self {
            Self::Standalone(_) => String::new(),
            Self::Cluster(cluster) => cluster.how(),
        }
    }

    pub(crate) async fn metric(&self, begins: &str) -> Result<Option<f64>> {
        match self {
            Self::Standalone(forwarder) => forwarder.metric(begins).await.map(Some),
            Self::Cluster(cluster) => cluster.metric(begins).await,
        }
    }

    async fn mend(&mut self, screen: &Screen) -> Result<()> {
        match self {
            Self::Standalone(_) => Ok(()),
            Self::Cluster(cluster) => cluster.mend(screen).await,
        }
    }

    async fn end(self, screen: &Screen) -> Result<()> {
        match self {
            Self::Standalone(mut forwarder) => forwarder.terminate().await.map(drop),
            Self::Cluster(cluster) => cluster.end(screen).await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Cli { standalone, for_, rate, to } = Cli::parse();
    let to = to.as_deref().map(target).transpose()?;
    let screen = Screen::new()?;
    let programs: &[_] =
        if standalone { &["siem-forwarder"] } else { &["siem-forwarder", "siem-operator"] };
    screen.say(&format!("building {}…", programs.join(" and ")))?;
    let bins = programs.iter().flat_map(|program| ["--bin", program]);
    let built = Command::new("cargo").args(["build", "--quiet", "--workspace"]).args(bins).status();
    ensure!(built.context("run cargo")?.success(), "{} does not build", programs.join(" or "));

    let history = (100, Duration::from_secs(3600));
    let mut defender =
        Defender::start(Options { rate, history, budget: 0, ..Options::default() }).await?;
    let (syslog, arrived) = match to {
        Some(target) => (target, None),
        None => {
            let listener =
                TcpListener::bind("127.0.0.1:0").await.context("listen for the receiver")?;
            let syslog = format!("{{host: 127.0.0.1, port: {}}}", listener.local_addr()?.port());
            let arrived = Arrived::default();
            tokio::spawn(receive(listener, arrived.clone(), screen.clone()));
            (syslog, Some(arrived))
        }
    };
    let mut stage = if standalone {
        let mut forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, &syslog, "")?;
        forwarder.start().await?;
        Stage::Standalone(forwarder)
    } else {
        Stage::Cluster(Box::new(Cluster::start(&screen, &defender.url(), &syslog).await?))
    };

    // Up to here Ctrl-C simply ends everything.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let end = for_.map(|duration| Instant::now() + duration.0);
    let is_late = || end.is_some_and(|end| Instant::now() >= end);
    let mut interrupted = false;
    loop {
        if interrupted || (stage.is_over() && is_late()) {
            break;
        }
        stage.look(&screen).await?;
        screen.show(&stage.how(), &count(&defender, arrived.as_ref(), &stage).await?)?;
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            _ = interrupt.recv() => interrupted = true,
        }
    }
    if interrupted {
        screen.say("ending: what was produced is delivered first; Ctrl-C again ends at once")?;
    }
    defender.quiet();
    stage.mend(&screen).await?;
    let until = Instant::now() + DRAIN;
    let mut hurried = false;
    let last = loop {
        stage.look(&screen).await?;
        let count = count(&defender, arrived.as_ref(), &stage).await?;
        screen.show(&stage.how(), &count)?;
        if count.missing() == 0 || hurried || Instant::now() >= until {
            break count;
        }
        tokio::select! {
            () = sleep(Duration::from_millis(200)) => {}
            _ = interrupt.recv() => hurried = true,
        }
    };
    screen.finish();
    if !hurried {
        stage.end(&screen).await?;
    }
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
