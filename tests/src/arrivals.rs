//! What arrived at a receiver, held against what the simulated portal has.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::defender::Defender;
use crate::forwarder::{Forwarder, LOOK, PATIENCE};

/// The id in a line.
pub fn id(line: &str) -> Option<&str> {
    line.split("externalId=").nth(1)?.split(' ').next()
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

/// Waits until every produced id stands in the receiver's lines; gives how often each does.
///
/// # Errors
/// When some are missing for too long; with what the forwarder said.
pub async fn all_arrived(
    defender: &Defender,
    lines: impl Fn() -> Result<Vec<String>>,
    forwarder: &Forwarder,
) -> Result<BTreeMap<String, usize>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let counts = counts(&lines()?);
        let missing = missing(defender, &counts);
        let Some(first) = missing.first() else { return Ok(counts) };
        ensure!(
            Instant::now() < until,
            "{} lost, such as {first}\n{}",
            missing.len(),
            forwarder.log()?
        );
        sleep(LOOK).await;
    }
}
