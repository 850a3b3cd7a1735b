//! A built program that is run to its end, or ended by us when it takes too long.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

use siem_agent_sim::forwarder::{LOOK, PATIENCE, program};

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// A child that does not outlive the test.
struct Leashed(Child);

impl Drop for Leashed {
    fn drop(&mut self) {
        // What has ended already cannot be ended again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `siem-forwarder` with these arguments and this standard input.
///
/// # Errors
/// When it cannot be started, or does not end by itself in time; with what it said.
pub async fn forwarder(arguments: &[&str], input: &str) -> Result<Ended> {
    forwarder_in(Path::new("."), arguments, input).await
}

/// The same, in this folder.
///
/// # Errors
/// As [`forwarder`].
pub async fn forwarder_in(folder: &Path, arguments: &[&str], input: &str) -> Result<Ended> {
    let mut command = Command::new(program("siem-forwarder")?);
    command.args(arguments).current_dir(folder);
    to_its_end(command, input.as_bytes()).await
}

/// Runs a program to its end, with this standard input.
///
/// # Errors
/// As [`forwarder`].
pub async fn to_its_end(mut command: Command, input: &[u8]) -> Result<Ended> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut child = Leashed(child);
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that does not read its input may end before all is written.
        let _ = stdin.map(|mut stdin| stdin.write_all(&input));
    });
    let (out, err) = (reader(stdout), reader(stderr));
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break Some(status);
        }
        if Instant::now() > until {
            break None;
        }
        sleep(LOOK).await;
    };
    drop(child);
    let (out, err) = (text(out), text(err));
    // It has ended or was let go when the other side of the pipe closed.
    let _ = writer.join();
    match status {
        Some(status) => Ok(Ended { code: status.code(), out, err }),
        None => bail!("{command:?} does not end: {out}{err}"),
    }
}

fn reader(from: Option<impl std::io::Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read before an error counts all the same.
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn text(reader: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
}
