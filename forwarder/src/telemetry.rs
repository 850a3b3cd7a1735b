//! Logs: JSON or text, to standard error, and to rotating files where the user asks for them.
//!
//! No record's content and no credential ever gets here: what may be logged is decided where it is logged, and the
//! types of secrets have nothing to print.

mod files;

use std::path::Path;
use std::sync::Arc;

use siem_agent_crds::siem_agent::LogLevel;
use siem_agent_edge::log::OneLine;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use files::Files;

/// The form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// Changes the level of a running program.
#[derive(Debug, Clone)]
pub struct LevelHandle {
    level: reload::Handle<Targets, Registry>,
    files: Option<Arc<Files>>,
}

/// The folder of logs cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write logs to {folder}")]
pub struct Error {
    folder: String,
    #[source]
    source: std::io::Error,
}

impl LevelHandle {
    /// From here on so much is logged.
    pub fn set(&self, level: LogLevel) {
        // The subscriber lives as long as the program.
        let _ = self.level.reload(filter(level));
    }

    /// Complains about log files that cannot be written, as long as the program runs.
    pub async fn watch_files(self) {
        if let Some(files) = self.files {
            files.watch().await;
        }
    }
}

/// Starts logging.
///
/// # Errors
/// [`Error`] when the folder cannot be written.
pub fn start(
    level: LogLevel,
    format: LogFormat,
    folder: Option<&Path>,
) -> Result<LevelHandle, Error> {
    let (limit, handle) = reload::Layer::new(filter(level));
    let to_stderr = match format {
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(OneLine(std::io::stderr)).boxed()
        }
        LogFormat::Text => {
            fmt::layer().with_writer(OneLine(std::io::stderr)).with_ansi(false).boxed()
        }
    };
    let files = folder.map(|folder| {
        let failed = |source| Error { folder: folder.display().to_string(), source };
        Files::open(folder).map(Arc::new).map_err(failed)
    });
    let files = files.transpose()?;
    let to_files =
        files.clone().map(|files| fmt::layer().with_writer(OneLine(files)).with_ansi(false));
    // A second start, as in a test, keeps the first.
    let _ = tracing_subscriber::registry().with(limit).with(to_stderr).with(to_files).try_init();
    Ok(LevelHandle { level: handle, files })
}

/// Below warnings only what this program says, unless everything is wanted.
fn filter(level: LogLevel) -> Targets {
    let ours = |level: LevelFilter| {
        let libraries = Targets::new().with_default(level.min(LevelFilter::WARN));
        libraries.with_target("siem_agent_forwarder", level).with_target("siem_agent_edge", level)
    };
    match level {
        LogLevel::Error => ours(LevelFilter::ERROR),
        LogLevel::Warn => ours(LevelFilter::WARN),
        LogLevel::Info => ours(LevelFilter::INFO),
        LogLevel::Debug => ours(LevelFilter::DEBUG),
        LogLevel::Trace => Targets::new().with_default(LevelFilter::TRACE),
    }
}
