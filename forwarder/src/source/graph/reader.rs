//! What reads a stream of Graph: alerts as a list, activities by hunting.

use siem_agent_crds::position::Position;

use super::alerts::Alerts;
use super::{Graph, hunting};
use crate::delivery::Delivered;
use crate::event::Stream;
use crate::record::Mark;
use crate::source::listing::reader as listing;
use crate::source::{self, Due, Failed, Listed, Offer, PageRead, Start};
use crate::time::Millis;

/// Reads one stream.
#[derive(Debug)]
pub enum Reader {
    /// Alerts.
    Alerts(Box<listing::Reader<Alerts>>),
    /// Activities.
    Activities(Box<hunting::Reader>),
}

impl Reader {
    pub(super) fn new(graph: &Graph, stream: Stream, start: &Start) -> Self {
        let settings = &graph.settings;
        match stream {
            Stream::Alerts => {
                let reader = listing::Reader::new(graph.alerts(), &settings.pace, start);
                Self::Alerts(Box::new(reader))
            }
            Stream::Activities => {
                let (tables, pace) = (&settings.tables, &settings.pace);
                let reader = hunting::Reader::new(graph.hunting(), tables, pace, start);
                Self::Activities(Box::new(reader))
            }
        }
    }
}

/// The same of either.
macro_rules! either {
    ($reader:expr, $of:ident => $does:expr) => {
        match $reader {
            Reader::Alerts($of) => $does,
            Reader::Activities($of) => $does,
        }
    };
}

impl source::Reader for Reader {
    fn due(&mut self) -> Due {
        either!(self, of => of.due())
    }

    fn begin(&mut self) {
        either!(self, of => of.begin());
    }

    async fn ask(&mut self, offer: Offer) -> Result<(), Failed> {
        either!(self, of => of.ask(offer).await)
    }

    async fn next(&mut self) -> Result<Option<Vec<Listed>>, Failed> {
        either!(self, of => of.next().await)
    }

    fn abandon(&mut self) {
        either!(self, of => of.abandon());
    }

    fn skip(&mut self, mark: &Mark) {
        either!(self, of => of.skip(mark));
    }

    fn delivered(&mut self, delivered: Delivered) {
        either!(self, of => of.delivered(delivered));
    }

    fn page_read(&mut self) -> PageRead {
        either!(self, of => of.page_read())
    }

    fn failed(&mut self) {
        either!(self, of => source::Reader::failed(of.as_mut()));
    }

    fn through(&self) -> Millis {
        either!(self, of => of.through())
    }

    fn last_event(&self) -> Option<Millis> {
        either!(self, of => of.last_event())
    }

    fn position(&self) -> Position {
        either!(self, of => of.position())
    }

    fn kept(&self) -> Position {
        either!(self, of => of.kept())
    }
}
