//! Log files: one a day (UTC) for fourteen days, their user's alone. A folder that refuses costs lines, never the program.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use siem_agent_edge::clock;
use tokio::time::sleep;
use tracing::warn;

use crate::files;

/// Files kept in the folder.
const MAX_FILES: usize = 14;
const PREFIX: &str = "siem-forwarder.";
const SUFFIX: &str = ".log";
/// A folder that refuses is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// And complained about once in this time.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The folder of logs, with today's file open.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    today: Option<(Date, File)>,
    failed: Option<io::Error>,
    n_lost: u64,
}

impl Files {
    /// Makes the folder where it is absent, and today's file.
    ///
    /// # Errors
    /// When either cannot be made.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        files::create_folder(folder)?;
        let files = Self { folder: folder.to_owned(), state: Mutex::default() };
        let day = today();
        files.lock().today = Some((day, files.of(day)?));
        Ok(files)
    }

    /// Says at most once a minute that lines are lost, in the log itself: standard error has them all.
    pub(super) async fn watch(&self) {
        loop {
            sleep(LOOK).await;
            let trouble = {
                let mut state = self.lock();
                state.failed.take().map(|error| (error, std::mem::take(&mut state.n_lost)))
            };
            if let Some((error, n_lost)) = trouble {
                warn!(folder = %self.folder.display(), reason = %error, n_lost, "log files cannot be written");
                sleep(COMPLAINT).await;
            }
        }
    }

    /// The file of a day; those of the days long before are removed.
    fn of(&self, day: Date) -> io::Result<File> {
        let file = files::append_own(&self.folder.join(format!("{PREFIX}{day}{SUFFIX}")))?;
        let mut ours: Vec<PathBuf> = fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_ours))
            .collect();
        // Their names are in the order of their days.
        ours.sort();
        let n_old = ours.len().saturating_sub(MAX_FILES);
        for path in ours.into_iter().take(n_old) {
            // The next day tries again.
            let _ = fs::remove_file(path);
        }
        Ok(file)
    }

    fn append(&self, state: &mut State, line: &[u8]) -> io::Result<()> {
        let day = today();
        let file = match &mut state.today {
            Some((of, file)) if *of == day => file,
            other => &mut other.insert((day, self.of(day)?)).1,
        };
        file.write_all(line)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Files {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        if let Err(error) = self.append(&mut state, line) {
            state.failed = Some(error);
            state.n_lost += 1;
            // The next line tries a new file.
            state.today = None;
        }
        // Whoever logs has no use for it.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn today() -> Date {
    clock::now().to_zoned(TimeZone::UTC).date()
}

fn is_ours(name: &str) -> bool {
    let day = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    day.is_some_and(|day| day.parse::<Date>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_weeks_are_kept_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        for day in 1..=20 {
            let name = format!("siem-forwarder.2020-01-{day:02}.log");
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::write(folder.path().join("siem-forwarder.notes.log"), "").unwrap();
        let files = Files::open(folder.path()).unwrap();
        (&files).write_all(b"one\n").unwrap();
        (&files).write_all(b"two\n").unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left.len(), MAX_FILES + 1, "{left:?}");
        assert_eq!(left[0], "siem-forwarder.2020-01-08.log");
        let newest = format!("siem-forwarder.{}.log", today());
        assert_eq!(fs::read_to_string(folder.path().join(newest)).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_file_that_refuses_loses_lines_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(&folder.path().join("logs")).unwrap();
        // `/dev/full` takes nothing: the disk is full.
        let full = File::options().write(true).open("/dev/full").unwrap();
        files.lock().today = Some((today(), full));
        (&files).write_all(b"lost\n").unwrap();
        assert_eq!(files.lock().n_lost, 1);
        assert!(files.lock().failed.is_some());
        (&files).write_all(b"kept\n").unwrap();
        let newest = folder.path().join(format!("logs/siem-forwarder.{}.log", today()));
        assert_eq!(fs::read_to_string(newest).unwrap(), "kept\n");
    }
}
