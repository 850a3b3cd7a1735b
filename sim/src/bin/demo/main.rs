//! `cargo demo`: the main job on this machine. The API server, the operator, a node, a simulated portal and a receiver;
//! a SiemAgent is applied with kubectl, its token is broken and repaired; lines of CEF as they arrive, the agent's status
//! beside them, and a summary: produced, delivered, lost, repeated. Exit code 0 only when nothing is lost.
//!
//! Lines show in the first minute: until Kubernetes is built and stands, the forwarder alone is on show. With
//! `--standalone` that is all of it, as on a plain server.

mod screen;
mod source;
mod count;
mod cluster;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use siem_agent_crds::duration::GoDuration;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::forwarder::Forwarder;
use siem_agent_sim::programs::programs;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::count::{Arrived, Count, count, receive};
use crate::screen::Screen;
use crate::source::Source;

/// How long what was produced may take to arrive after the last of it.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);
/// How often the first part is counted, while builds have the word.
const GLANCE: Duration = Duration::from_secs(5);

/// Shows the main job on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Cli {
    /// Without Kubernetes: the forwarder as it runs on a plain server.
    #[arg(long)]
    standalone: bool,
    /// Which API the agent reads: both have the same events.
    #[arg(long, value_enum, default_value_t)]
    source: Source,
    /// Ends by itself after so long, though not before the token was broken and repaired. Default: at Ctrl-C
    #[arg(long = "for", value_name = "DURATION")]
    for_: Option<GoDuration>,
    /// Activities a second.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    /// Sends to this receiver instead, tcp://host:port; what arrives is then what the forwarder says was delivered.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// The programs are built already, as by a test, whose build has failpoints.
    #[arg(long, hide = true)]
    built: bool,
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

/// A portal, a receiver, and what has arrived there.
struct Ends {
    defender: Defender,
    /// `spec.syslog`.
    syslog: String,
    source: Source,
    /// `None` where the receiver is somebody else's.
    arrived: Option<Arrived>,
}

/// What is started anew for each part.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    source: Source,
    rate: f64,
    to: Option<&'a str>,
}

impl Ends {
    async fn start(screen: &Screen, wanted: Wanted<'_>) -> Result<Self> {
        let Wanted { source, rate, to } = wanted;
        let history = (100, Duration::from_secs(3600));
        let (budget, graph_budget, hunting_budget) = (0, 0, 0);
        let options =
            Options { rate, history, budget, graph_budget, hunting_budget, ..Options::default() };
        let defender = Defender::start(options).await?;
        if let Some(target) = to {
            let syslog = target.to_owned();
            return Ok(Self { defender, syslog, source, arrived: None });
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the receiver")?;
        let syslog = format!("{{host: 127.0.0.1, port: {}}}", listener.local_addr()?.port());
        let arrived = Arrived::default();
        tokio::spawn(receive(listener, arrived.clone(), screen.clone()));
        Ok(Self { defender, syslog, source, arrived: Some(arrived) })
    }

    async fn standalone(&self) -> Result<Stage> {
        let source = self.source.fields(&self.defender.url());
        let mut forwarder = Forwarder::with_source(&source, DEMO_TOKEN, &self.syslog, "")?;
        forwarder.start().await?;
        Ok(Stage::Standalone(forwarder))
    }

    async fn cluster(&self, screen: &Screen) -> Result<Stage> {
        let cluster =
            Cluster::start(screen, self.source, &self.defender.url(), &self.syslog).await?;
        Ok(Stage::Cluster(Box::new(cluster)))
    }

    async fn count(&self, stage: &Stage) -> Result<Count> {
        count(&self.defender, self.arrived.as_ref(), stage).await
    }
}

async fn build(screen: &Screen, program: &str) -> Result<()> {
    screen.say(&format!("building {program}…"))?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--workspace", "--bin", program]).kill_on_drop(true);
    ensure!(cargo.status().await.context("run cargo")?.success(), "{program} does not build");
    Ok(())
}

/// Shows the forwarder alone, with a portal and a receiver of its own, until the cluster stands. `None`: interrupted.
async fn until_the_cluster_stands(
    screen: &Screen,
    wanted: Wanted<'_>,
    built: bool,
    interrupt: &mut Signal,
) -> Result<Option<(Ends, Stage)>> {
    screen.say("first the forwarder alone, while Kubernetes is built and starts")?;
    let first = Ends::start(screen, wanted).await?;
    let stage = first.standalone().await?;
    let starting = async {
        if !built {
            build(screen, "siem-operator").await?;
        }
        programs(["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"]).await?;
        let ends = Ends::start(screen, wanted).await?;
        let stage = ends.cluster(screen).await?;
        anyhow::Ok((ends, stage))
    };
    tokio::pin!(starting);
    let started = loop {
        screen.show("without Kubernetes yet", &first.count(&stage).await?)?;
        tokio::select! {
            started = &mut starting => break Some(started),
            () = sleep(GLANCE) => {}
            _ = interrupt.recv() => break None,
        }
    };
    stage.end(screen).await?;
    if started.is_some() {
        screen.say("now the whole job, counted anew")?;
    }
    started.transpose()
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Cli { standalone, source, for_, rate, to, built } = Cli::parse();
    let to = to.as_deref().map(target).transpose()?;
    let screen = Screen::new()?;
    if !built {
        build(&screen, "siem-forwarder").await?;
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let wanted = Wanted { source, rate, to: to.as_deref() };
    let (mut ends, mut stage) = if standalone {
        let ends = Ends::start(&screen, wanted).await?;
        let stage = ends.standalone().await?;
        (ends, stage)
    } else {
        match until_the_cluster_stands(&screen, wanted, built, &mut interrupt).await? {
            Some(started) => started,
            None => return Ok(ExitCode::FAILURE),
        }
    };

    let end = for_.map(|duration| Instant::now() + duration.0);
    let is_late = || end.is_some_and(|end| Instant::now() >= end);
    let mut interrupted = false;
    loop {
        if interrupted || (stage.is_over() && is_late()) {
            break;
        }
        stage.look(&screen).await?;
        screen.show(&stage.how(), &ends.count(&stage).await?)?;
        tokio::select! {
            () = sleep(Duration::from_secs(1)) => {}
            _ = interrupt.recv() => interrupted = true,
        }
    }
    if interrupted {
        screen.say("ending: what was produced is delivered first; Ctrl-C again ends at once")?;
    }
    ends.defender.quiet();
    stage.mend(&screen).await?;
    let until = Instant::now() + DRAIN;
    let mut hurried = false;
    let last = loop {
        stage.look(&screen).await?;
        let count = ends.count(&stage).await?;
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
