//! Logs: the form, and what is logged of this program and of its libraries.

use siem_agent_edge::log::OneLine;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// The form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// What is logged of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum LogLevel {
    /// Someone must act.
    Error,
    /// Someone may need to.
    Warn,
    /// State changed.
    #[default]
    Info,
    /// Each reconcile with its outcome, and why a status is held.
    Debug,
    /// What the libraries log as well.
    Trace,
}

impl LogLevel {
    /// What this program says, and the libraries' complaints; but for the API's client, which repeats an answer that it
    /// cannot read as a whole.
    fn directives(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn,kube_client=error",
            Self::Info => "warn,kube_client=error,siem_operator=info",
            Self::Debug => "warn,kube_client=error,siem_operator=debug",
            Self::Trace => "trace,kube_client=error",
        }
    }
}

/// Starts logging. `directives` are those of `RUST_LOG`, such as `warn,siem_operator=debug`, and win over the level.
///
/// # Errors
/// When they are none.
pub(crate) fn start(
    format: LogFormat,
    level: LogLevel,
    directives: Option<&str>,
) -> Result<(), ParseError> {
    let filter: Targets = directives.unwrap_or_else(|| level.directives()).parse()?;
    let layer = match format {
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(OneLine(std::io::stderr)).boxed()
        }
        LogFormat::Text => {
            fmt::layer().with_writer(OneLine(std::io::stderr)).with_ansi(false).boxed()
        }
    };
    // A second start keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(())
}
