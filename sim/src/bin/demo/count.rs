//! What was produced and what has arrived, by id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use siem_agent_sim::arrival::id;
use siem_agent_sim::defender::Defender;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::screen::Screen;
use crate::{DRAIN, Stage};

/// A line of CEF is shown this far.
const SHOWN: usize = 150;

/// What the receiver of this demo has seen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrived(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// How often each id has arrived.
    counts: BTreeMap<String, usize>,
    /// Since when each that has not is awaited.
    awaited: BTreeMap<String, Instant>,
}

/// How delivery stands.
pub(crate) struct Count {
    pub(crate) n_produced: usize,
    pub(crate) n_delivered: usize,
    /// Missing for so long that nobody need wait any more.
    pub(crate) n_lost: usize,
    pub(crate) n_repeated: usize,
    pub(crate) lag: Option<f64>,
}

impl Count {
    /// Lost, or on the way.
    pub(crate) fn missing(&self) -> usize {
        self.n_produced.saturating_sub(self.n_delivered)
    }
}

/// Without a receiver of our own only the forwarder can count, and what it sent again may have arrived twice. Nothing is
/// given up for lost while delivery is held up on purpose.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are small whole numbers"
)]
pub(crate) async fn count(
    defender: &Defender,
    arrived: Option<&Arrived>,
    stage: &Stage,
) -> Result<Count> {
    let produced = defender.produced();
    let n_produced = produced.len();
    let lag = stage.metric("siem_forwarder_delivery_lag_seconds{stream=\"activities\"").await?;
    let Some(arrived) = arrived else {
        let delivered = stage.metric("siem_forwarder_records_delivered_total").await?;
        let resent = stage.metric("siem_forwarder_records_resent_total").await?;
        let whole = |figure: Option<f64>| figure.unwrap_or_default() as usize;
        let (n_delivered, n_repeated) = (whole(delivered), whole(resent));
        return Ok(Count { n_produced, n_delivered, n_lost: 0, n_repeated, lag });
    };
    let mut arrived = arrived.0.lock().unwrap_or_else(PoisonError::into_inner);
    let Seen { counts, awaited } = &mut *arrived;
    let now = Instant::now();
    awaited.retain(|id, _| !counts.contains_key(id));
    for (_, id) in produced {
        if !counts.contains_key(&id) {
            awaited.entry(id).or_insert(now);
        }
    }
    if stage.is_held_up() {
        awaited.values_mut().for_each(|since| *since = now);
    }
    let n_lost = awaited.values().filter(|since| now.duration_since(**since) > DRAIN).count();
    let n_repeated = counts.values().map(|count| count - 1).sum();
    Ok(Count { n_produced, n_delivered: n_produced - awaited.len(), n_lost, n_repeated, lag })
}

/// Takes every connection, and shows and counts the lines.
pub(crate) async fn receive(listener: TcpListener, arrived: Arrived, screen: Screen) {
    while let Ok((stream, _)) = listener.accept().await {
        let (arrived, screen) = (arrived.clone(), screen.clone());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(id) = id(&line) {
                    let mut arrived = arrived.0.lock().unwrap_or_else(PoisonError::into_inner);
                    *arrived.counts.entry(id.to_owned()).or_insert(0) += 1;
                }
                // A closed terminal does not stop the count.
                let _ = screen.say(&line.chars().take(SHOWN).collect::<String>());
            }
        });
    }
}
