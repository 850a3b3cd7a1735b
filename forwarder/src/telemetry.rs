//! Logs: JSON or text, to standard error, and to rotating files where the user asks for them.
//!
//! No record's content and no credential ever gets here: what may be logged is decided where it is logged, and the
//! types of secrets have nothing to print.

use std::path::Path;

use siem_agent_crds::siem_agent::LogLevel;
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

/// Files kept in the folder of logs, one a day.
const MAX_FILES: usize = 14;

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
pub struct LevelHandle(reload::Handle<LevelFilter, Registry>);

/// The folder of logs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("create the folder of logs {folder}")]
    Folder {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No file can be made in it.
    #[error("write logs to {folder}")]
    Files {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: tracing_appender::rolling::InitError,
    },
}

impl LevelHandle {
    /// From here on so much is logged.
    pub fn set(&self, level: LogLevel) {
        // The subscriber lives as long as the program.
        let _ = self.0.reload(filter(level));
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
            fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
    };
    let to_files = folder
        .map(files)
        .transpose()?
        .map(|files| fmt::layer().with_writer(files).with_ansi(false));
    // A second start, as in a test, keeps the first.
    let _ = tracing_subscriber::registry().with(limit).with(to_stderr).with(to_files).try_init();
    Ok(LevelHandle(handle))
}

fn files(folder: &Path) -> Result<RollingFileAppender, Error> {
    let name = || folder.display().to_string();
    // The appender would make it as well, but complains on standard error that it is not there yet.
    std::fs::create_dir_all(folder).map_err(|source| Error::Folder { folder: name(), source })?;
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("siem-forwarder")
        .filename_suffix("log")
        .max_log_files(MAX_FILES)
        .build(folder)
        .map_err(|source| Error::Files { folder: name(), source })
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
