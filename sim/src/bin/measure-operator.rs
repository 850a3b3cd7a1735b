//! `cargo measure-operator`: how quick the operator is and what it takes, measured on the program that images hold, on a
//! real API server. Prints figures beside their goals; judges nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use siem_agent_sim::control_plane::{ControlPlane, Request, User};
use siem_agent_sim::fleet::{AT_ONCE, apply, apply_all, largest, manifest, manifests, n_made};
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::helm::CHART;
use siem_agent_sim::images::shipped;
use siem_agent_sim::kwok::{Kwok, Takes};
use siem_agent_sim::operator::{Operator, Place};
use tokio::time::{Instant, sleep};

const N_URLS: usize = 100;
/// The golden objects of an agent name their owner by this.
const UID: &str = "00000000-0000-0000-0000-000000000000";

/// Measures the operator.
#[derive(Debug, Parser)]
#[command(name = "cargo measure-operator")]
struct Cli {
    /// How many agents.
    #[arg(long, default_value_t = 500)]
    agents: usize,
    /// How often the operator and the bare client are timed, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many agents of the largest legal size.
    #[arg(long, default_value_t = 1_000)]
    largest: usize,
    /// How long it is watched while idle, seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Measures this program, such as one of another release, instead of the one that images hold.
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { agents: n_agents, rounds: n_rounds, largest: n_largest, seconds, program } =
        Cli::parse();
    let program = match program {
        Some(program) => program,
        None => shipped("siem-operator").await?,
    };
    let plane = ControlPlane::start().await?;
    plane.install_crd().await?;
    speed(&plane, &program, n_agents, n_rounds).await?;
    rest(&plane, &program, n_agents, Duration::from_secs(seconds)).await?;
    weight(&plane, &program, n_largest).await
}

#[expect(clippy::print_stdout, reason = "figures for the person who asked for them")]
fn say(what: &str, figure: &str, goal: &str) {
    println!("{what:<60} {figure:>16}   goal: {goal}");
    // A closed terminal does not stop the measurement.
    let _ = std::io::stdout().flush();
}

/// From the first agent's request to the last object, both by the server's own log.
async fn speed(
    plane: &ControlPlane,
    program: &Path,
    n_agents: usize,
    n_rounds: usize,
) -> Result<()> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..n_rounds {
        // Each is first in turn: the server grows slower as it fills.
        if round % 2 == 0 {
            ours.push(by_operator(plane, program, n_agents).await?);
            bare.push(by_bare_client(plane, program, n_agents).await?);
        } else {
            bare.push(by_bare_client(plane, program, n_agents).await?);
            ours.push(by_operator(plane, program, n_agents).await?);
        }
    }
    let (ours, bare) = (median(ours), median(bare));
    let what = format!("{n_agents} agents, apply to all objects, median of {n_rounds}");
    say(&what, &format!("{:.2} s", ours.as_secs_f64()), "-");
    say("the same objects by a bare client", &format!("{:.2} s", bare.as_secs_f64()), "-");
    let share = bare.as_secs_f64() / ours.as_secs_f64();
    say("its speed beside the bare client's", &format!("{share:.2}"), "at least 0.9");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn by_operator(plane: &ControlPlane, program: &Path, n_agents: usize) -> Result<Duration> {
    let namespace = plane.namespace().await?;
    let place = Place::new(plane, &namespace).await?;
    let operator =
        Operator::start_program(program, &place, &["--forwarder-image", "image:1"]).await?;
    until_quiet(plane).await?;
    let position = plane.audit_position()?;
    apply_all(&plane.client().await?, &namespace, &manifests(n_agents, N_URLS)).await?;
    let took = until_all(plane, position, &place.user(), n_agents).await?;
    operator.terminate().await?;
    Ok(took)
}

async fn by_bare_client(plane: &ControlPlane, program: &Path, n_agents: usize) -> Result<Duration> {
    let namespace = plane.namespace().await?;
    let agents = manifests(n_agents, N_URLS);
    let objects = agents
        .iter()
        .map(|agent| rendered(program, agent, &namespace))
        .collect::<Result<Vec<_>>>()?;
    until_quiet(plane).await?;
    let position = plane.audit_position()?;
    let client = plane.client().await?;
    let applied = stream::iter(agents.iter().zip(&objects))
        .map(|(agent, objects)| bare(&client, &namespace, agent, objects));
    applied.buffer_unordered(AT_ONCE).try_for_each(async |()| Ok(())).await?;
    until_all(plane, position, User::Admin.name(), n_agents).await
}

/// An agent, and what it owns.
async fn bare(client: &Client, namespace: &str, agent: &Value, objects: &str) -> Result<()> {
    let agent = apply(client, namespace, agent).await?;
    let objects = objects.replace(UID, agent.metadata.uid.as_deref().unwrap_or_default());
    for object in serde_json::from_str::<Vec<Value>>(&objects)? {
        apply(client, namespace, &object).await?;
    }
    Ok(())
}

/// What the operator would apply for an agent, as a JSON list.
fn rendered(program: &Path, agent: &Value, namespace: &str) -> Result<String> {
    let mut agent = agent.clone();
    agent["metadata"]["namespace"] = json!(namespace);
    agent["metadata"]["uid"] = json!(UID);
    let mut child = Command::new(program)
        .args(["render", "--forwarder-image", "image:1", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("write to render")?;
    stdin.write_all(agent.to_string().as_bytes())?;
    drop(stdin);
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "render ended with {}", out.status);
    let text = String::from_utf8(out.stdout)?;
    let objects = text.split("---\n").filter(|text| !text.is_empty());
    let objects: Vec<Value> = objects.map(serde_saphyr::from_str).collect::<Result<_, _>>()?;
    Ok(serde_json::to_string(&objects)?)
}

/// Nobody changes anything for three seconds, heartbeats apart.
async fn until_quiet(plane: &ControlPlane) -> Result<()> {
    let until = Instant::now() + 10 * PATIENCE;
    loop {
        let position = plane.audit_position()?;
        sleep(Duration::from_secs(3)).await;
        let requests = plane.requests_since(position)?;
        let n = requests.iter().filter(|it| it.writes() && it.resource != "leases").count();
        if n == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "the control plane does not come to rest");
    }
}

/// Waits until a user has made all objects; from the first agent's request to the last object's.
async fn until_all(
    plane: &ControlPlane,
    position: u64,
    user: &str,
    n_agents: usize,
) -> Result<Duration> {
    let until = Instant::now() + 5 * PATIENCE;
    let requests = loop {
        sleep(10 * LOOK).await;
        let requests = plane.requests_since(position)?;
        if n_made(&requests, user) >= 3 * n_agents {
            break requests;
        }
        ensure!(Instant::now() < until, "only {} objects", n_made(&requests, user));
    };
    let time = |request: &Request| request.received.parse::<Timestamp>();
    let agents = requests.iter().filter(|it| it.resource == "siemagents" && it.verb == "patch");
    let began = agents.map(time).collect::<Result<Vec<_>, _>>()?.into_iter().min();
    let made = requests.iter().filter(|it| it.user == user && it.code == 201);
    let made = made.filter(|it| it.resource == "deployments").map(time);
    let ended = made.collect::<Result<Vec<_>, _>>()?.into_iter().max();
    let took = ended.context("an object")?.duration_since(began.context("an agent")?);
    Ok(Duration::try_from(took)?)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

/// What one user's agents of the largest legal size weigh, as they come and at a start with all of them there.
async fn weight(plane: &ControlPlane, program: &Path, n_agents: usize) -> Result<()> {
    let values = fs::read_to_string(Path::new(CHART).join("values.yaml"))?;
    let values: Value = serde_saphyr::from_str(&values)?;
    let limit = values["resources"]["limits"]["memory"].as_str().context("the chart's limit")?;
    let goal = format!("below {limit}, the chart's limit");
    let namespace = plane.namespace().await?;
    let place = Place::new(plane, &namespace).await?;
    let operator =
        Operator::start_program(program, &place, &["--forwarder-image", "image:1"]).await?;
    let url = |n: usize| format!("https://t{}.portal.cloudappsecurity.com", n % N_URLS);
    let agents: Vec<_> = (0..n_agents).map(|n| largest(&format!("a{n}"), &url(n))).collect();
    let n_bytes = agents.first().map_or(0, |agent| agent["spec"].to_string().len());
    let position = plane.audit_position()?;
    apply_all(&plane.client().await?, &namespace, &agents).await?;
    until_all(plane, position, &place.user(), n_agents).await?;
    let what = format!("{n_agents} agents of {} kB each: peak while they come", n_bytes / 1_000);
    say(&what, &mib(operator.peak_bytes()?), &goal);
    operator.terminate().await?;
    let operator =
        Operator::start_program(program, &place, &["--forwarder-image", "image:1"]).await?;
    sleep(PATIENCE).await;
    say("peak at a start with all of them there", &mib(operator.peak_bytes()?), &goal);
    say("resident a minute later", &mib(operator.resident_bytes()?), &goal);
    operator.terminate().await.map(drop)
}

/// With a pod for each agent: memory, what it asks while nothing happens, and how soon another one is ready.
async fn rest(
    plane: &ControlPlane,
    program: &Path,
    n_agents: usize,
    watched: Duration,
) -> Result<()> {
    let namespace = plane.namespace().await?;
    let place = Place::new(plane, &namespace).await?;
    let _kwok = Kwok::start(plane, &namespace, Takes::Every).await?;
    let operator = Operator::start_program(program, &place, &[]).await?;
    let url = |n: usize| format!("https://t{}.portal.cloudappsecurity.com", n % N_URLS);
    let kept = json!({"forwarder": {"networkPolicy": {"enabled": true}}});
    let agents: Vec<_> =
        (0..n_agents).map(|n| manifest(&format!("a{n}"), &url(n), kept.clone())).collect();
    let position = plane.audit_position()?;
    apply_all(&plane.client().await?, &namespace, &agents).await?;
    until_all(plane, position, &place.user(), n_agents).await?;
    until_quiet(plane).await?;
    // Until every report has been missed for long enough to say so.
    sleep(PATIENCE).await;
    until_quiet(plane).await?;
    let what = format!("{n_agents} agents with a pod each: resident memory");
    say(&what, &mib(operator.resident_bytes()?), "at most 28.7 MiB");
    // The program's own pages are shared by all that run it, and given back when the node needs them.
    say("of that its own data", &mib(operator.anonymous_bytes()?), "-");
    say("and pages of the program's file", &mib(operator.file_bytes()?), "-");
    say("at its peak, while all came at once", &mib(operator.peak_bytes()?), "at most 32 MiB");

    let position = plane.audit_position()?;
    sleep(watched).await;
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for request in plane.requests_since(position)?.iter().filter(|it| it.user == place.user()) {
        // A watch stands in the log when it is opened and when it ends.
        let what = format!("{} {}", request.verb, request.resource);
        if !request.opened {
            *asked.entry(what).or_insert(0) += 1;
        }
    }
    let what = format!("requests in {} s of idling", watched.as_secs());
    say(&what, &format!("{asked:?}"), "watches and the lease");

    let mut times = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        drop(Operator::start_program(program, &place, &[]).await?);
        times.push(began.elapsed());
    }
    let millis = median(times).as_millis();
    say("start to /readyz, median of 5", &format!("{millis} ms"), "below 1000 ms");
    Ok(())
}
