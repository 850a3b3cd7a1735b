//! `cargo measure`: what the forwarder takes and how quick it is, measured on the program that images hold, run by the
//! operator's file as in a pod, against the simulated portal and a real rsyslogd over TLS. Prints figures beside their
//! goals; judges nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Write as _, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use jiff::Timestamp;
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival::{Receiver as _, id};
use siem_agent_sim::clock;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::forwarder::{Forwarder, LOOK, PATIENCE};
use siem_agent_sim::images::shipped;
use siem_agent_sim::pki::Authority;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// The API's own defaults.
const BY_DEFAULT: &str = "requestsPerMinute: 30";
const N_STARTS: usize = 9;
const TICKS_PER_SECOND: f64 = 100.0;

/// Measures the forwarder.
#[derive(Debug, Parser)]
#[command(name = "cargo measure")]
struct Cli {
    /// How long each figure is watched, seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Measures this program, such as one of another release, instead of the one that images hold.
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { seconds, program } = Cli::parse();
    let watched = Duration::from_secs(seconds);
    let program = match program {
        Some(program) => program,
        None => shipped("siem-forwarder").await?,
    };
    start(&program).await?;
    idle(&program, watched).await?;
    backlog(&program, watched).await?;
    latency(&program, watched).await
}

fn say(what: &str, figure: &str, goal: &str) -> Result<()> {
    Ok(writeln!(stdout(), "{what:<55} {figure:>14}   goal: {goal}")?)
}

/// A portal, a receiver and a forwarder over TLS that has not been started.
struct Scene {
    defender: Defender,
    rsyslog: Rsyslog,
    forwarder: Forwarder,
    _folder: TempDir,
}

async fn scene(program: &Path, options: Options) -> Result<Scene> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("measuring authority")?;
    let files = authority.write(&authority.loopback_server()?, &folder.path().join("server"))?;
    let ca = files.ca.clone();
    let defender = Defender::start(options).await?;
    let rsyslog =
        Rsyslog::start_stamped(Input::Tls { driver: "gtls", files, mutual: false }).await?;
    let syslog = format!(
        "{{host: 127.0.0.1, port: {}, protocol: TLS, tls: {{caBundleRef: {{name: ca}}}}}}",
        rsyslog.port
    );
    let mut forwarder =
        Forwarder::with_cloud_apps(&defender.url(), DEMO_TOKEN, BY_DEFAULT, &syslog, "")?;
    let mounted = forwarder.secrets().join("ca");
    fs::create_dir_all(&mounted)?;
    fs::copy(ca, mounted.join("ca.crt"))?;
    forwarder.set_program(program.to_owned());
    forwarder.run_by_config("uid")?;
    Ok(Scene { defender, rsyslog, forwarder, _folder: folder })
}

async fn start(program: &Path) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..N_STARTS {
        let mut scene = scene(program, Options::default()).await?;
        let began = clock::millis();
        scene.forwarder.start().await?;
        let until = Instant::now() + PATIENCE;
        let first = loop {
            if let Some(first) = scene.defender.requests().first() {
                break first.at;
            }
            ensure!(Instant::now() < until, "it does not poll: {}", scene.forwarder.log()?);
            sleep(LOOK).await;
        };
        times.push(first - began);
    }
    times.sort_unstable();
    let median = times.get(N_STARTS / 2).copied().unwrap_or_default();
    say("exec to first poll, median of 9", &format!("{median} ms"), "below 100 ms")
}

async fn idle(program: &Path, watched: Duration) -> Result<()> {
    let history = (100, Duration::from_secs(3600));
    let mut scene = scene(program, Options { history, ..Options::default() }).await?;
    scene.forwarder.start().await?;
    caught_up(&scene).await?;
    let pid = scene.forwarder.pid().context("it runs")?;
    let before = cpu_seconds(pid)?;
    let began = Instant::now();
    sleep(watched).await;
    let share = (cpu_seconds(pid)? - before) / began.elapsed().as_secs_f64();
    say("idle: share of a core", &format!("{:.3} %", share * 100.0), "below 0.1 %")?;
    let (rss, own) = (memory(pid, "VmRSS:")?, memory(pid, "RssAnon:")?);
    say("idle: resident memory", &format!("{rss:.1} MiB"), "at most 12 MiB")?;
    say("idle: resident memory that is no file's", &format!("{own:.1} MiB"), "-")
}

/// Two days of records, more than can be read in the time, in pages of 5,000.
async fn backlog(program: &Path, watched: Duration) -> Result<()> {
    let n_records = usize::try_from(watched.as_secs() * 60 * 50)?;
    let history = (n_records, Duration::from_secs(48 * 3600));
    let mut scene = scene(program, Options { history, ..Options::default() }).await?;
    scene.forwarder.start().await?;
    let began = clock::millis();
    sleep(watched).await;
    let requests = scene.defender.requests();
    let used = requests.iter().filter(|request| request.at >= began && request.status == 200);
    let share = used.count() as f64 / (watched.as_secs_f64() / 60.0 * 30.0);
    say("two days of backlog: share of the budget used", &format!("{share:.2}"), "at least 0.9")?;
    let delivered = scene.forwarder.metric("siem_forwarder_records_delivered_total").await?;
    let rate = delivered / watched.as_secs_f64();
    say("two days of backlog: delivered and confirmed", &format!("{rate:.0}/s"), "-")?;
    let peak = memory(scene.forwarder.pid().context("it runs")?, "VmHWM:")?;
    say("full rate: resident memory at its peak", &format!("{peak:.1} MiB"), "at most 20 MiB")
}

/// From `created` (alerts: `timestamp`) to rsyslogd, of what was made while it was watched.
async fn latency(program: &Path, watched: Duration) -> Result<()> {
    let options = Options { rate: 10.0, alert_rate: Some(0.5), ..Options::default() };
    let mut scene = scene(program, options).await?;
    scene.forwarder.start().await?;
    caught_up(&scene).await?;
    let began = clock::millis();
    sleep(watched).await;
    scene.defender.quiet();
    let mut made = BTreeMap::new();
    for (stream, field) in [(Stream::Activities, "created"), (Stream::Alerts, "timestamp")] {
        for json in scene.defender.records(stream) {
            let json: Value = serde_json::from_str(&json)?;
            let (Some(id), Some(at)) = (json["_id"].as_str(), json[field].as_i64()) else {
                continue;
            };
            if at >= began {
                made.insert(id.to_owned(), at);
            }
        }
    }
    let until = Instant::now() + PATIENCE;
    let mut latencies: Vec<i64> = loop {
        let lines = scene.rsyslog.lines()?;
        let received = lines.iter().filter_map(|line| {
            let at: Timestamp = line.split_once(' ')?.0.parse().ok()?;
            Some(at.as_millisecond() - made.get(id(line)?)?)
        });
        let latencies: Vec<i64> = received.collect();
        if latencies.len() >= made.len() {
            break latencies;
        }
        ensure!(Instant::now() < until, "{} of {} arrived", latencies.len(), made.len());
        sleep(LOOK).await;
    };
    latencies.sort_unstable();
    for (name, share) in [("median", 50), ("p99", 99)] {
        let millis = latencies.get(latencies.len() * share / 100).copied().unwrap_or_default();
        let figure = format!("{:.2} s", millis as f64 / 1_000.0);
        let goal = if share == 99 { "at most 6 s" } else { "-" };
        say(&format!("created to rsyslogd, {name} of {}", latencies.len()), &figure, goal)?;
    }
    Ok(())
}

async fn caught_up(scene: &Scene) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = scene.forwarder.status().await?;
        let lag = |stream: &str| status["streams"][stream]["lagSeconds"].as_f64();
        if ["alerts", "activities"].iter().all(|of| lag(of).is_some_and(|lag| lag < 10.0)) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "it does not catch up: {}", scene.forwarder.log()?);
        sleep(LOOK).await;
    }
}

/// User and system time (proc(5), fields 14 and 15 of `stat`).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("stat names the program")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}

/// A line of `/proc/<pid>/status`, MiB.
fn memory(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a memory line")?;
    let kilobytes = line.split_whitespace().next().context("a figure")?;
    Ok(kilobytes.parse::<f64>()? / 1_024.0)
}
