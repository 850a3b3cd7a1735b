//! The command line, and the only place that reads arguments and the environment.

mod given;
mod load;
mod run;
mod render;
mod check;
mod replay;
mod compare;
mod token;
mod window;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use siem_agent_crds::printable::printable;
use siem_agent_edge::error_chain::chain;
use siem_agent_edge::limits;

use crate::event::Stream;
use crate::telemetry::LogFormat;
use given::{AgentArguments, ManifestArguments};

/// Exports alerts and activities of Microsoft Defender for Cloud Apps as CEF over syslog.
#[derive(Debug, Parser)]
#[command(name = "siem-forwarder", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follows the tenant and delivers until SIGTERM.
    Run(RunArguments),
    /// Prints the CEF lines of records on standard input: a page, an array, NDJSON or one record. Sends nothing.
    Render(RenderArguments),
    /// Tries everything that `run` needs and says what to do about a failure.
    Check(CheckArguments),
    /// Delivers a bounded window again, then exits; the checkpoint is left alone.
    Replay(ReplayArguments),
    /// Fetches one window from the sources of two manifests and says what only one of them has, and which keys differ. Exit
    /// code 0: every record of each has its line in the other.
    Compare(CompareArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// Runs as a sidecar of this workload: reads the configuration again whenever it changes, exports while that names this
    /// workload, and waits otherwise.
    #[arg(long, value_name = "KIND/NAME", requires = "config", conflicts_with = "manifest")]
    sidecar_of: Option<String>,
    /// The folder of the state. Default: /var/lib/siem-forwarder/NAMESPACE.NAME
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The admin port. Default: 127.0.0.1:9464; with --config what it says
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Writes rotating log files there as well.
    #[arg(long, alias = "logsDirectory", value_name = "DIR")]
    logs_directory: Option<PathBuf>,
    /// The form of the logs.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Debug, Args)]
struct RenderArguments {
    /// The `SiemAgent`, as `kubectl apply` takes it.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// alerts or activities. Default: by the record's own fields
    #[arg(long, value_parser = stream)]
    stream: Option<Stream>,
}

#[derive(Debug, Args)]
struct CheckArguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// Sends one test event to the SIEM.
    #[arg(long)]
    send_test_event: bool,
}

#[derive(Debug, Args)]
struct ReplayArguments {
    #[command(flatten)]
    agent: AgentArguments,
    /// The beginning of the window, such as 2026-11-20T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Timestamp,
    /// The end of the window.
    #[arg(long, value_name = "TIME")]
    to: Timestamp,
    /// alerts or activities. Default: what the agent enables
    #[arg(long, value_parser = stream)]
    stream: Option<Stream>,
}

#[derive(Debug, Args)]
struct CompareArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// The other `SiemAgent`, whose secrets lie in the same folder.
    #[arg(long, value_name = "FILE")]
    with: PathBuf,
    /// The beginning of the window, such as 2026-11-20T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Timestamp,
    /// The end of the window.
    #[arg(long, value_name = "TIME")]
    to: Timestamp,
    /// So many examples of each kind.
    #[arg(long, value_name = "N", default_value_t = 0)]
    examples: usize,
}

fn stream(text: &str) -> Result<Stream, String> {
    match text {
        "alerts" => Ok(Stream::Alerts),
        "activities" => Ok(Stream::Activities),
        _ => Err("must be alerts or activities".to_owned()),
    }
}

/// How a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The settings are wrong: exit code 2.
    #[error("{0}")]
    Settings(String),
    /// The world is at fault: exit code 1.
    #[error("{0}")]
    World(String),
}

impl Failure {
    fn settings(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Settings(chain(error))
    }

    fn world(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::World(chain(error))
    }
}

/// Reads the command line and does what it says. Exit code 2: the settings are wrong; 1: the world is.
pub fn main() -> ExitCode {
    limits::forbid_dumps();
    let outcome = match Cli::parse().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Compare(arguments) => compare::run(arguments),
    };
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(match failure {
                Failure::Settings(_) => 2,
                Failure::World(_) => 1,
            })
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "errors of the command line are for the person in front of it"
)]
fn complain(text: &str) {
    for line in text.lines() {
        eprintln!("siem-forwarder: {}", printable(line));
    }
}

/// One thread is enough for a forwarder, and costs the least memory.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::world(&error))
}
