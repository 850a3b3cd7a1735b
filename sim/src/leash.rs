//! Ends processes and removes folders and cgroups when the test process is gone, however it went: failed, aborted or killed.
//!
//! Separate from the values that own them, because a `static` is never dropped and a killed process drops nothing.
//! One shell, started once, reads what to end from a pipe that only this process holds open. It must never end
//! anything that this process did not start.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Reads `hold GROUP`, `release GROUP`, `folder PATH` and `cgroup PATH` until the pipe closes, and then ends the groups
/// held, removes the cgroups once nothing lives in them, and the folders, twice, because a process may still be writing
/// while it dies.
const HOLDER: &str = r#"
held=" "
cgroups=""
while read -r verb what; do
  case "$verb" in
    hold) held="$held$what " ;;
    release) held="${held%% "$what" *} ${held#* "$what" }" ;;
    folder) set -- "$@" "$what" ;;
    cgroup) cgroups="$cgroups $what" ;;
  esac
done
for group in $held; do kill -s KILL -- "-$group"; done
for cgroup in $cgroups; do
  tries=0
  while [ -d "$cgroup" ] && [ "$tries" -lt 100 ]; do
    find "$cgroup" -depth -type d -exec rmdir {} + || sleep 0.1
    tries=$((tries + 1))
  done
done
[ "$#" -eq 0 ] || rm -rf -- "$@" || { sleep 1; rm -rf -- "$@"; }
"#;

static HOLDER_INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// A process in a group of its own that ends with this value, and at the latest with this process.
#[derive(Debug)]
pub struct Leashed {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Leashed {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // The shell first: if it cannot be started nothing is left behind.
        tell(None)?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let leashed = Self { child, ended: None };
        tell(Some(&format!("hold {}", leashed.pid())))?;
        Ok(leashed)
    }

    /// The process id, which is also its group's.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// Sends a signal to the whole group.
    ///
    /// # Errors
    /// When none of it runs.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(killpg(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        // Also when the leader has ended: others of its group may live on. What has ended cannot be ended again.
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
        let _ = tell(Some(&format!("release {}", self.pid())));
    }
}

/// Has a folder removed when this process is gone.
///
/// # Errors
/// When the shell that does it cannot be started.
pub fn folder(path: &Path) -> Result<()> {
    tell(Some(&format!("folder {}", path.display())))
}

/// Has a cgroup and those below it removed when this process is gone. Its path must hold no spaces.
///
/// # Errors
/// When the shell that does it cannot be started.
pub(crate) fn cgroup(path: &Path) -> Result<()> {
    tell(Some(&format!("cgroup {}", path.display())))
}

fn tell(line: Option<&str>) -> Result<()> {
    if HOLDER_INPUT.get().is_none() {
        let mut holder = Command::new("sh")
            .args(["-c", HOLDER, "leash"])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the shell that ends what a test leaves behind")?;
        let input = holder.stdin.take().context("write to the shell")?;
        // Another thread's may have come first; this one then has nothing to end.
        let _ = HOLDER_INPUT.set(Mutex::new(input));
    }
    if let (Some(input), Some(line)) = (HOLDER_INPUT.get(), line) {
        let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(input, "{line}")
            .context("write to the shell that ends what a test leaves behind")?;
    }
    Ok(())
}
