//! A receiver that is killed and stopped under load: what a break of the connection may cost.
//!
//! Nothing may be lost, and over each break no more may arrive twice than rate x (grace + the age of the oldest
//! unacknowledged byte): what was acknowledged within the grace, and what was not at all. That product is counted, not
//! multiplied, as all that has arrived and is not told as delivered. A page comes in one go, and what has waited for the
//! receiver comes faster still, so the rate of a second says nothing of the moment of the break; and a machine that is slow
//! makes both sides of the comparison grow alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use siem_agent_crds::report::Stream;
use tokio::time::{Instant, sleep};

use siem_agent_sim::arrival::{Receiver, all_arrived, id};
use siem_agent_sim::defender::Defender;
use siem_agent_sim::forwarder::{Forwarder, LOOK, PATIENCE};

/// How soon a first arrival is noticed: what follows it is on its way still. The runtime's own sleep lasts whole
/// milliseconds, in which a receiver reads all there is.
const HASTE: Duration = Duration::from_micros(50);

/// When the portal lists each record.
type Listed = BTreeMap<(Stream, String), i64>;

/// What the forwarder told before a break. What it has confirmed since then only adds to what may repeat.
#[derive(Debug, Default)]
struct Told {
    n_delivered: usize,
    /// Every record that is listed before is delivered.
    through: BTreeMap<Stream, f64>,
}

/// A break, as it looks when the receiver has ended and nothing can arrive any more.
#[derive(Debug)]
struct Break {
    /// So many lines the receiver has written in all its lives.
    n_lines: usize,
    /// So many records have arrived and are not told as delivered.
    n_unconfirmed: usize,
}

/// The receiver is killed and stopped in turn, each time after something was confirmed and while more arrives. Gives how
/// many records are lost: at the first break at which some are for certain, or none after all of them.
///
/// # Errors
/// When some do not arrive in the end all the same, or more arrive twice over a break than stood unconfirmed.
pub async fn n_lost_over(
    n_breaks: usize,
    defender: &mut Defender,
    receiver: &mut impl Receiver,
    forwarder: &mut Forwarder,
) -> Result<usize> {
    forwarder.start().await?;
    let mut breaks = Vec::new();
    let mut n_delivered = 0;
    for round in 0..n_breaks {
        let until = Instant::now() + PATIENCE;
        let told = loop {
            let told = told(forwarder).await?;
            if told.n_delivered > n_delivered {
                break told;
            }
            ensure!(
                Instant::now() < until,
                "nothing is confirmed in round {round}: {}",
                forwarder.log()?
            );
            sleep(LOOK).await;
        };
        n_delivered = told.n_delivered;
        let n_bytes = n_bytes(receiver)?;
        while self::n_bytes(receiver)? == n_bytes {
            ensure!(
                Instant::now() < until,
                "nothing arrives in round {round}: {}",
                forwarder.log()?
            );
            // A look at a condition, bounded by `until`; the portal answers from a thread of its own meanwhile.
            thread::sleep(HASTE);
        }
        receiver.end(if round % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM })?;
        let lines = receiver.lines()?;
        let arrived: BTreeSet<&str> = lines.iter().filter_map(|line| id(line)).collect();
        let n_lost = n_lost(&defender.listed(), &told, &arrived);
        if n_lost > 0 {
            return Ok(n_lost);
        }
        // All that is delivered is among what has arrived, since nothing is lost.
        let n_unconfirmed = arrived.len().saturating_sub(told.n_delivered);
        breaks.push(Break { n_lines: lines.len(), n_unconfirmed });
        receiver.again().await?;
    }
    defender.quiet();
    all_arrived(defender, receiver, forwarder).await?;
    let resent = forwarder.metric("siem_forwarder_records_resent_total").await?;
    ensure!(resent > 0.0, "breaks under load make it send some again");
    let repeats = repeats(&receiver.lines()?, &breaks);
    for (round, (n_repeats, at)) in repeats.iter().zip(&breaks).enumerate() {
        ensure!(
            *n_repeats <= at.n_unconfirmed,
            "{n_repeats} repeats over break {round}, at which {} stood unconfirmed",
            at.n_unconfirmed
        );
    }
    let n_repeats: usize = repeats.iter().sum();
    ensure!(
        n_repeats as f64 <= resent,
        "{n_repeats} repeats, though only {resent} were sent again"
    );
    Ok(0)
}

fn n_bytes(receiver: &impl Receiver) -> Result<u64> {
    Ok(fs::metadata(receiver.file())?.len())
}

async fn told(forwarder: &Forwarder) -> Result<Told> {
    let mut told = Told::default();
    // One answer, so that its numbers belong together.
    let metrics = forwarder.get("metrics").await?;
    for (name, value) in metrics.lines().filter_map(|line| line.rsplit_once(' ')) {
        if name.starts_with("siem_forwarder_records_delivered_total") {
            told.n_delivered += value.parse::<usize>()?;
        }
        for stream in [Stream::Alerts, Stream::Activities] {
            let through = "siem_forwarder_delivered_through_timestamp_seconds";
            if name == format!("{through}{{stream=\"{}\"}}", stream.as_str()) {
                told.through.insert(stream, (value.parse::<f64>()? * 1_000.0).round());
            }
        }
    }
    Ok(told)
}

/// How many records are told as delivered and have not arrived: the only one that could have taken them has ended.
fn n_lost(listed: &Listed, told: &Told, arrived: &BTreeSet<&str>) -> usize {
    let through = |stream| told.through.get(stream).copied().unwrap_or(f64::MIN);
    let delivered = listed.iter().filter(|((stream, _), at)| (**at as f64) < through(stream));
    delivered.filter(|((_, id), _)| !arrived.contains(id.as_str())).count()
}

/// How many records came again over each break: the one that ended the life of the receiver in which they had arrived.
fn repeats(lines: &[String], breaks: &[Break]) -> Vec<usize> {
    let mut repeats = vec![0; breaks.len()];
    let mut lives = BTreeMap::new();
    for (number, line) in lines.iter().enumerate() {
        let life = breaks.partition_point(|at| at.n_lines <= number);
        let before = id(line).and_then(|id| lives.insert(id, life));
        if let Some(n_repeats) = before.and_then(|life: usize| repeats.get_mut(life)) {
            *n_repeats += 1;
        }
    }
    repeats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_belongs_to_the_break_that_ended_the_life_of_the_copy_before() {
        let lines = ["a", "b", "b", "c", "a", "c", "d"].map(|id| format!("externalId={id} x"));
        let breaks = [2, 4].map(|n_lines| Break { n_lines, n_unconfirmed: 0 });
        assert_eq!(repeats(&lines, &breaks), [2, 1]);
    }

    #[test]
    fn what_is_told_and_missing_is_lost_and_what_is_newer_is_on_its_way() {
        let listed = [("a", 10), ("b", 20), ("c", 30)];
        let listed = listed.map(|(id, at)| ((Stream::Activities, id.to_owned()), at)).into();
        let told = Told { n_delivered: 2, through: [(Stream::Activities, 30.0)].into() };
        assert_eq!(n_lost(&listed, &told, &["a", "b"].into()), 0);
        assert_eq!(n_lost(&listed, &told, &["a", "c"].into()), 1);
        assert_eq!(n_lost(&listed, &Told::default(), &BTreeSet::new()), 0);
    }
}
