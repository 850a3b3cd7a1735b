//! Nothing that a test starts outlives its process, whatever becomes of the values that own it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::leash::{self, Leashed};

const LEFT: &str = "left behind: ";

fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Leaves a process and a folder behind, as a panic in a thread or a `static` does.
#[test]
fn what_is_forgotten_goes_on_until_the_process_ends() -> Result<()> {
    let folder = tempfile::tempdir()?.keep();
    leash::folder(&folder)?;
    let released = Leashed::spawn(Command::new("sleep").arg("600"))?;
    let forgotten = Leashed::spawn(Command::new("sleep").arg("600"))?;
    let pid = released.pid();
    drop(released);
    ensure!(!runs(pid), "a dropped one has ended");
    ensure!(runs(forgotten.pid()));
    println!("{LEFT}{} {}", forgotten.pid(), folder.display());
    std::mem::forget(forgotten);
    Ok(())
}

#[tokio::test]
async fn nothing_outlives_the_process() -> Result<()> {
    let out = Command::new(std::env::current_exe()?)
        .args(["--exact", "leash::what_is_forgotten_goes_on_until_the_process_ends", "--nocapture"])
        .output()?;
    let out = String::from_utf8(out.stdout)?;
    let (_, left) = out.split_once(LEFT).with_context(|| format!("it printed: {out}"))?;
    let (pid, rest) = left.split_once(' ').context("a process id")?;
    let pid = pid.parse()?;
    let folder = PathBuf::from(rest.lines().next().context("a folder")?);
    eventually(PATIENCE, async || {
        ensure!(!(runs(pid) || folder.exists()), "still there: {left}");
        Ok(())
    })
    .await
}
