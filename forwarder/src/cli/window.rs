//! A bounded window of a stream, from whichever source serves it: asked for page by page, within the budget, and given up
//! where the source fails again and again. It keeps no position.

use std::time::Duration;

use tokio::time::sleep;

use super::Failure;
use crate::event::{Event, Stream};
use crate::pipeline::Budgets;
use crate::pipeline::on_failure::{self, Decision};
use crate::record::RecordKey;
use crate::settings::{Served, Settings};
use crate::source::Read;
use crate::source::cloud_apps::CloudApps;
use crate::source::graph::Graph;
use crate::source::http::api::Arrived;
use crate::source::http::error::Error;
use crate::source::http::split::Piece;
use crate::source::listing::cursor::Cursor;
use crate::source::listing::walk::{Admission, Walk};
use crate::source::listing::{List, Next};
use crate::source::purpose::Purpose;
use crate::time::Millis;
use siem_agent_crds::siem_agent::StreamSource;

/// A source that fails so often in a row is not waited for.
const MAX_FAILURES: u32 = 8;

/// The window of one stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) stream: Stream,
    pub(super) from: Millis,
    pub(super) to: Millis,
}

/// Who takes the events of a window.
pub(super) trait Taker: Send {
    /// Some records: events that were not given before, and how many cannot be read.
    async fn take(&mut self, events: Vec<Event>, n_rejected: u64) -> Result<(), Error>;

    /// A page has ended: what was taken is settled.
    async fn end_page(&mut self) -> Result<(), Error>;
}

/// Everything of the window, from the source that serves its stream.
pub(super) async fn read(
    settings: &Settings,
    budgets: &Budgets,
    window: Window,
    taker: &mut impl Taker,
) -> Result<(), Failure> {
    let Some(served) = settings.served.iter().find(|served| served.stream == window.stream) else {
        return Ok(());
    };
    let Served { source, .. } = served;
    match (source, &settings.sources.cloud_apps, &settings.sources.graph) {
        (StreamSource::CloudApps, Some(of), _) => {
            let list = CloudApps::new(of.clone()).list(window.stream);
            whole(&list, *source, budgets, window, taker).await
        }
        (StreamSource::Graph, _, Some(of)) => {
            let graph = Graph::new(of.clone());
            if window.stream == Stream::Alerts {
                return whole(&graph.alerts(), *source, budgets, window, taker).await;
            }
            for list in graph.tables() {
                whole(&list, *source, budgets, window, taker).await?;
            }
            Ok(())
        }
        (StreamSource::CloudApps | StreamSource::Graph, ..) => Ok(()),
    }
}

async fn whole<L: List>(
    list: &L,
    source: StreamSource,
    budgets: &Budgets,
    window: Window,
    taker: &mut impl Taker,
) -> Result<(), Failure> {
    let Window { stream, from, to } = window;
    let limit = list.limits().largest_page;
    let mut query = Some(list.question(from, Some(to), limit));
    let nothing_before = Cursor::starting_at(from);
    let mut walk = Walk::new(&nothing_before, from, 0, 0, None);
    let mut n_failures = 0;
    let gates = budgets.of(source);
    while let Some(asked) = query.take() {
        gates.of(stream).enter(stream, Purpose::Poll).await;
        let seen = &mut Seen { walk: &mut walk, nothing_before: &nothing_before };
        match page(list, &asked, seen, taker).await {
            Ok(next) => {
                n_failures = 0;
                query = next;
            }
            Err(error) => {
                let decision = on_failure::decide(error.failure(), n_failures, fastrand::f64());
                n_failures += 1;
                let is_endless =
                    matches!(error, Error::Endless(_) | Error::Nowhere | Error::ForeignLink);
                match decision {
                    Decision::Retry(wait) | Decision::PauseAll(wait)
                        if n_failures < MAX_FAILURES && !is_endless =>
                    {
                        sleep(wait.max(Duration::from_millis(1))).await;
                    }
                    _ => {
                        let words = list.api().words(&error);
                        return Err(Failure::World(format!("{stream}: {words}")));
                    }
                }
                query = Some(asked);
            }
        }
    }
    Ok(())
}

/// What was given already.
struct Seen<'a> {
    walk: &'a mut Walk,
    nothing_before: &'a Cursor,
}

/// One page, taken whole; gives the question for the next.
async fn page<L: List>(
    list: &L,
    query: &L::Query,
    seen: &mut Seen<'_>,
    taker: &mut impl Taker,
) -> Result<Option<L::Query>, Error> {
    let mut page = list.ask(query, list.api().offer()).await?;
    let mut n_listed = 0;
    let ended = loop {
        let pieces = match page.next().await {
            Ok(Arrived::Pieces(pieces)) => pieces,
            Ok(Arrived::End(end)) => break Ok(end),
            Err(error) => break Err(error),
        };
        n_listed += pieces.len();
        let (mut events, mut n_rejected) = (Vec::new(), 0);
        for piece in &pieces {
            let read = match piece {
                Piece::Record(json) => list.read(json).ok(),
                Piece::TooLarge => None,
            };
            let (event, key, listed) = match read {
                None => {
                    n_rejected += 1;
                    continue;
                }
                Some(Read::Filtered { key, listed }) => (None, key, listed),
                Some(Read::Event(event)) => {
                    let key = RecordKey::of(event.id().as_bytes());
                    let listed = list.listed(&event).unwrap_or_else(|| event.timestamp());
                    (Some(event), key, Some(listed))
                }
            };
            let admission = seen.walk.admit(seen.nothing_before, key, listed);
            events.extend(event.filter(|_| admission != Admission::Repeated));
        }
        taker.take(events, n_rejected).await?;
    };
    taker.end_page().await?;
    let end = ended?;
    if !list.has_next(query, &end, n_listed) {
        return Ok(None);
    }
    let Next { query, cursor } = list.next(query, &end, seen.walk.highest(), n_listed)?;
    seen.walk.go_on(cursor.as_deref().map(str::as_bytes)).map_err(Error::Endless)?;
    Ok(Some(query))
}
