//! What the forwarder takes: to start, while idle, at the full rate of a backlog, and with the largest answers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use siem_agent_crds::report::Stream;
use siem_agent_sim::clock;
use siem_agent_sim::defender::{Defender, Options, Request};
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use tokio::time::{Instant, sleep};

use crate::process::{cpu_seconds, memory};
use crate::scene::Scene;
use crate::source::Source;
use crate::{latency, say};

const N_STARTS: usize = 9;
/// As many records as an answer has at most.
const LARGEST_PAGE: usize = 5_000;
/// By then each table knows the time at Graph, and reads new rows beside its backlog.
const LIVE_AFTER: Duration = Duration::from_secs(10);
/// Graph gives no result above 50 MB; what rows differ by leaves room.
const LARGEST_ANSWER: usize = 48_500_000;

/// How soon the program polls.
pub(crate) async fn start(source: Source, program: &Path) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..N_STARTS {
        let mut scene = Scene::new(source, program, Options::default()).await?;
        let began = clock::millis();
        scene.forwarder.start().await?;
        let until = Instant::now() + PATIENCE;
        let first = loop {
            let requests = scene.defender.requests();
            if let Some(first) = requests.iter().find(|request| request.what != "token") {
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

/// What it takes where nothing happens.
pub(crate) async fn idle(source: Source, program: &Path, watched: Duration) -> Result<()> {
    let history = (100, Duration::from_secs(3600));
    let options = Options { history, ..Options::default() };
    let mut scene = Scene::new(source, program, options).await?;
    scene.forwarder.start().await?;
    scene.caught_up().await?;
    let pid = scene.pid()?;
    let before = cpu_seconds(pid)?;
    let began = Instant::now();
    sleep(watched).await;
    let share = (cpu_seconds(pid)? - before) / began.elapsed().as_secs_f64();
    say("idle: share of a core", &format!("{:.3} %", share * 100.0), "below 0.1 %")?;
    let (rss, own) = (memory(pid, "VmRSS:")?, memory(pid, "RssAnon:")?);
    say("idle: resident memory", &format!("{rss:.1} MiB"), "at most 12 MiB")?;
    say("idle: resident memory that is no file's", &format!("{own:.1} MiB"), "-")
}

/// Two days of records, more than can be read in the time, in pages of 5,000. At Graph new rows come meanwhile.
pub(crate) async fn backlog(source: Source, program: &Path, watched: Duration) -> Result<()> {
    let n_records = usize::try_from(watched.as_secs())? * LARGEST_PAGE * 3 / 5;
    let history = (n_records, Duration::from_secs(48 * 3600));
    let rate = if source == Source::Graph { 10.0 } else { 0.0 };
    let options = Options { history, rate, ..Options::default() };
    let mut scene = Scene::new(source, program, options).await?;
    // The simulator makes Graph's rows when they are asked for first.
    source.shows(&scene.defender);
    scene.forwarder.start().await?;
    let began = clock::millis();
    sleep(watched).await;
    let ended = clock::millis();
    let delivered = scene.forwarder.metric("siem_forwarder_records_delivered_total").await?;
    let requests = answered(source, &scene, began, ended);
    let share = requests.len() as f64 / (watched.as_secs_f64() / 60.0 * 30.0);
    say("two days of backlog: share of the budget used", &format!("{share:.2}"), "at least 0.9")?;
    let rate = delivered / watched.as_secs_f64();
    say("two days of backlog: delivered and confirmed", &format!("{rate:.0}/s"), "-")?;
    if source == Source::Graph {
        // What was ingested before both tables had begun to read what is new is part of the backlog.
        let counted = began + i64::try_from(LIVE_AFTER.as_millis())?;
        latency::print(source, &mut scene, counted, "two days of backlog: ").await?;
    }
    let peak = memory(scene.pid()?, "VmHWM:")?;
    say("full rate: resident memory at its peak", &format!("{peak:.1} MiB"), source.memory())
}

/// Rows of Graph so large that 5,000 of them are nearly all that Graph gives at once.
pub(crate) async fn large_answers(program: &Path, watched: Duration) -> Result<()> {
    let source = Source::Graph;
    let n_records = usize::try_from(watched.as_secs())? * LARGEST_PAGE / 5;
    let history = (n_records.max(2 * LARGEST_PAGE), Duration::from_secs(48 * 3600));
    let options = Options { history, ..Options::default() };
    let few = Defender::start(Options { history: (2_000, history.1), ..options.clone() }).await?;
    let rows = few.graph_records(Stream::Activities);
    let n_bytes = rows.iter().map(String::len).sum::<usize>() / rows.len().max(1);
    let raw_event_bytes = (LARGEST_ANSWER / LARGEST_PAGE).saturating_sub(n_bytes);
    let mut scene = Scene::new(source, program, Options { raw_event_bytes, ..options }).await?;
    source.shows(&scene.defender);
    scene.forwarder.start().await?;
    let began = clock::millis();
    sleep(watched).await;
    let answered = answered(source, &scene, began, clock::millis());
    let largest = answered.iter().map(|request| request.n_bytes).max().context("an answer")?;
    let what = format!("answers of up to {:.1} MB: resident memory", largest as f64 / 1e6);
    let pid = scene.pid()?;
    let peak = memory(pid, "VmHWM:")?;
    say(&format!("{what} at its peak"), &format!("{peak:.1} MiB"), source.memory())
}

/// The requests that the source answered in this time and that count against its budget.
fn answered(source: Source, scene: &Scene, from: i64, until: i64) -> Vec<Request> {
    let requests = scene.defender.requests().into_iter();
    let answered = requests.filter(|request| source.counts(request) && request.status == 200);
    answered.filter(|request| (from..=until).contains(&request.at)).collect()
}
