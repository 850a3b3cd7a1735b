//! What must arrive at a receiver, whichever it is: every id, each line as `render` prints it, whatever was killed.
//!
//! These are the judgements of the tests of delivery; they start nothing but what they are told to stop and start.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use siem_agent_crds::report::Stream;
use tokio::time::{Instant, sleep};

use crate::defender::{Defender, Options};
use crate::forwarder::{Forwarder, LOOK, PATIENCE};

/// A real syslog receiver that writes each message as one line of a file.
pub trait Receiver {
    /// Where it listens, on 127.0.0.1.
    fn port(&self) -> u16;

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// When it does not come up.
    fn again(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Ends it by a signal: SIGTERM as `systemctl stop`, or SIGKILL.
    ///
    /// # Errors
    /// When it does not run.
    fn end(&mut self, signal: Signal) -> Result<()>;

    /// The file.
    fn file(&self) -> PathBuf;

    /// The messages that it has written whole.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn lines(&self) -> Result<Vec<String>> {
        let bytes = match fs::read(self.file()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(bytes.get(..whole).unwrap_or_default());
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// A portal and a Graph without limits of requests, with this many activities a second and this many from the last hour.
pub fn quick(rate: f64, n_history: usize) -> Options {
    Options {
        rate,
        budget: 0,
        graph_budget: 0,
        hunting_budget: 0,
        history: (n_history, Duration::from_secs(3_600)),
        ..Options::default()
    }
}

/// Puts files into the forwarder's folder of secrets, as `<name>/<key>`.
///
/// # Errors
/// When one cannot be copied.
pub fn mount(forwarder: &Forwarder, name: &str, files: &[(&str, &Path)]) -> Result<()> {
    let mounted = forwarder.secrets().join(name);
    fs::create_dir_all(&mounted)?;
    for (key, path) in files {
        fs::copy(path, mounted.join(key))?;
    }
    Ok(())
}

/// The record's id in a line of either dialect: Strict moves one that is too long for `externalId` to `cs5`.
pub fn id(line: &str) -> Option<&str> {
    let of = |key| line.split(key).nth(1)?.split(' ').next();
    of(" cs5Label=eventId cs5=").or_else(|| of("externalId="))
}

/// How often each id stands in these lines.
pub fn counts(lines: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for id in lines.iter().filter_map(|line| id(line)) {
        *counts.entry(id.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// The produced ids that are not among these.
pub fn missing(defender: &Defender, counts: &BTreeMap<String, usize>) -> Vec<String> {
    let produced = defender.produced().into_iter().map(|(_, id)| id);
    produced.filter(|id| !counts.contains_key(id)).collect()
}

/// Waits until every produced id has arrived, as long as some do; gives how often each did.
///
/// # Errors
/// When some do not arrive in time.
pub async fn all_arrived(
    defender: &Defender,
    receiver: &impl Receiver,
    forwarder: &Forwarder,
) -> Result<BTreeMap<String, usize>> {
    let (mut until, mut n_arrived, mut n_bytes) = (Instant::now() + PATIENCE, 0, None);
    loop {
        let written = fs::metadata(receiver.file()).ok().map(|file| file.len());
        if written == n_bytes && Instant::now() < until {
            sleep(LOOK).await;
            continue;
        }
        n_bytes = written;
        let counts = counts(&receiver.lines()?);
        let missing = missing(defender, &counts);
        let Some(first) = missing.first() else { return Ok(counts) };
        if counts.len() > n_arrived {
            (until, n_arrived) = (Instant::now() + PATIENCE, counts.len());
        }
        ensure!(
            Instant::now() < until,
            "{} lost, such as {first}\n{}",
            missing.len(),
            forwarder.log()?
        );
        sleep(LOOK).await;
    }
}

/// An undisturbed run: every id arrives once, and the lines are those that `render` prints, byte for byte.
///
/// # Errors
/// When it is otherwise.
pub async fn each_arrives_as_rendered(
    defender: &Defender,
    receiver: &impl Receiver,
    forwarder: &mut Forwarder,
) -> Result<()> {
    forwarder.start().await?;
    let counts = all_arrived(defender, receiver, forwarder).await?;
    ensure!(counts.values().all(|count| *count == 1), "an undisturbed run repeats nothing");
    let mut rendered = Vec::new();
    for stream in [Stream::Alerts, Stream::Activities] {
        let records = defender.records(stream).join("\n");
        rendered.extend(forwarder.render(stream.as_str(), &records)?.lines().map(str::to_owned));
    }
    let mut received = receiver.lines()?;
    ensure!(received.len() == counts.len(), "nothing else arrives");
    rendered.sort();
    received.sort();
    ensure!(received == rendered, "what arrives is what render prints");
    ensure!(forwarder.terminate().await?.success(), "SIGTERM ends it in order");
    Ok(())
}
