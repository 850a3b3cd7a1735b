//! The command line, and the only place that reads arguments and the environment.

mod run;
mod check;
mod crd;
mod render;
mod init;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use siem_agent_crds::printable::printable;

use crate::error_chain::chain;

/// The forwarder's image that goes with this release.
const FORWARDER_IMAGE: &str =
    concat!("ghcr.io/siem-agent-operator/siem-forwarder:", env!("CARGO_PKG_VERSION"));

/// Keeps forwarders running that export alerts and activities of Microsoft Defender for Cloud Apps as CEF over syslog.
#[derive(Debug, Parser)]
#[command(name = "siem-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watches SiemAgents and does what they say, until SIGTERM.
    Run(RunArguments),
    /// Tries what an installation needs, a line each; `helm test` runs it in a pod.
    Check(check::CheckArguments),
    /// Prints the CustomResourceDefinition.
    Crd,
    /// Prints the exact objects that would be applied for a SiemAgent.
    Render(RenderArguments),
    /// Prints a SiemAgent from the questions of the portal's wizard, or from the old agent's start line.
    Init(Box<init::InitArguments>),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// A namespace to watch; may be given several times. Default: all
    #[arg(long = "namespace", value_name = "NS")]
    namespaces: Vec<String>,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDR", default_value = "[::]:8080")]
    listen: String,
    /// The forwarder's image where a SiemAgent pins none.
    #[arg(long, value_name = "IMAGE", default_value = FORWARDER_IMAGE)]
    forwarder_image: String,
    /// A tenant's request budget and the namespaces that may export it, as `{"url": …, "requestsPerMinute": …,
    /// "namespaces": […]}`, of Microsoft Graph with `tenantId` in place of `url`; once for each tenant. Default: 30 requests a minute, and every namespace may.
    #[arg(long = "tenant", value_name = "JSON")]
    tenants: Vec<String>,
    /// What is logged; RUST_LOG, where it is set, says more exactly what.
    #[arg(long, value_enum, default_value_t)]
    log_level: crate::telemetry::LogLevel,
    /// The form of the logs.
    #[arg(long, value_enum, default_value_t)]
    log_format: crate::telemetry::LogFormat,
}

#[derive(Debug, Args)]
struct RenderArguments {
    /// The SiemAgent; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Prints the SiemAgent itself instead, with every default filled in.
    #[arg(long)]
    effective: bool,
    /// The forwarder's image where the SiemAgent pins none.
    #[arg(long, value_name = "IMAGE", default_value = FORWARDER_IMAGE)]
    forwarder_image: String,
    /// As on OpenShift, which chooses users and groups itself. A running operator asks the API server where it is.
    #[arg(long)]
    openshift: bool,
    /// The operator's namespace, from which a NetworkPolicy lets it reach its forwarder.
    #[arg(long, value_name = "NS", default_value = "siem-system")]
    operator_namespace: String,
}

/// How a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// What was given is wrong: exit code 2.
    #[error("{0}")]
    Given(String),
    /// The world is at fault: exit code 1.
    #[error("{0}")]
    World(String),
}

impl Failure {
    fn world(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::World(chain(error))
    }
}

/// Reads the command line and does what it says. Exit code 2: what was given is wrong; 1: the world is.
pub(crate) fn main() -> ExitCode {
    siem_agent_edge::limits::forbid_dumps();
    let outcome = match Cli::parse().command {
        Command::Run(arguments) => run::run(arguments),
        Command::Check(arguments) => return check::run(arguments),
        Command::Crd => crd::run(),
        Command::Render(arguments) => render::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    complain(&failure.to_string());
    ExitCode::from(match failure {
        Failure::Given(_) => 2,
        Failure::World(_) => 1,
    })
}

#[expect(clippy::print_stderr, reason = "words for the person in front of the command line")]
fn complain(text: &str) {
    for line in text.lines() {
        eprintln!("siem-operator: {}", printable(line));
    }
}

/// Writes a command's result.
fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::world(&error))
}

#[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The text of a file, or of standard input for `-`.
fn read(path: &std::path::Path) -> Result<String, Failure> {
    let is_stdin = path.as_os_str() == "-";
    let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let read = if is_stdin {
        std::io::stdin().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    read.map_err(|error| Failure::Given(format!("cannot read {name}: {error}")))?;
    text(&bytes)
        .ok_or_else(|| Failure::Given(format!("{name} is no text: neither UTF-8 nor UTF-16")))
}

/// UTF-8, or UTF-16 with its mark, as Windows exports tasks and PowerShell redirects.
fn text(bytes: &[u8]) -> Option<String> {
    let units = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, odd) = rest.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        odd.is_empty().then(|| String::from_utf16(&units).ok())?
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => units(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => units(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}
