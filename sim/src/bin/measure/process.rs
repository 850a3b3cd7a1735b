//! What a process has taken of the machine, as Linux counts it.

use std::fs;

use anyhow::{Context as _, Result};

const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time (proc(5), fields 14 and 15 of `stat`).
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("stat names the program")?.1;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}

/// A line of `/proc/<pid>/status`, MiB.
pub(crate) fn memory(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a memory line")?;
    let kilobytes = line.split_whitespace().next().context("a figure")?;
    Ok(kilobytes.parse::<f64>()? / 1_024.0)
}
