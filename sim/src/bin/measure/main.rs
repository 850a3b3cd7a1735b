//! `cargo measure`: what the forwarder takes and how quick it is, measured on the program that images hold, run by the
//! operator's file as in a pod, against a simulated source and a real rsyslogd over TLS. Prints figures beside their
//! goals; judges nothing.

mod source;
mod scene;
mod process;
mod latency;
mod figures;

use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use siem_agent_sim::images::shipped;

use source::Source;

/// Measures the forwarder against a simulated source and a real rsyslogd over TLS: start, idle cost, memory, use of the
/// budget and latency, each beside its goal.
#[derive(Debug, Parser)]
#[command(name = "cargo measure")]
struct Cli {
    /// What the forwarder reads: the portal (CloudApps) or Microsoft Graph. Default: both, one after the other.
    #[arg(long, value_enum)]
    source: Option<Source>,
    /// How long each figure is watched, seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Measures this program, such as one of another release, instead of the one that images hold.
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Cli { source, seconds, program } = Cli::parse();
    let watched = Duration::from_secs(seconds);
    let program = match program {
        Some(program) => program,
        None => shipped("siem-forwarder").await?,
    };
    for source in source.map_or_else(|| vec![Source::CloudApps, Source::Graph], |one| vec![one]) {
        writeln!(stdout(), "{}", source.title())?;
        figures::start(source, &program).await?;
        figures::idle(source, &program, watched).await?;
        figures::backlog(source, &program, watched).await?;
        if source == Source::Graph {
            figures::large_answers(&program, watched).await?;
        }
        latency::of_new_records(source, &program, watched).await?;
    }
    Ok(())
}

/// Prints a figure beside its goal.
fn say(what: &str, figure: &str, goal: &str) -> Result<()> {
    Ok(writeln!(stdout(), "{what:<62} {figure:>14}   goal: {goal}")?)
}
