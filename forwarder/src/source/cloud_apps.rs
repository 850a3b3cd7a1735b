//! The Defender for Cloud Apps API: everything of it, and nothing else. Only this folder knows its paths, its questions
//! and the names of its records' fields.

pub mod envelope;
pub mod error;
pub mod parse;
pub mod portal;
pub mod query;
pub mod walk;
pub mod cursor;
pub mod notices;
pub(crate) mod position;
pub mod reader;
pub mod settings;
pub mod schedule;
pub mod server_clock;
pub mod stream_state;

use std::sync::Arc;

use siem_agent_edge::clock;

use super::{Failed, Offer, Source, Start};
use crate::event::Stream;
use crate::plan::Plan;
use error::Error;
use portal::{Arrived, Portal};
use query::Query;

pub use reader::Reader;
pub use settings::Settings;

/// The API as a source.
#[derive(Debug)]
pub struct CloudApps {
    portal: Arc<Portal>,
    plan: Plan,
}

impl CloudApps {
    /// A source that has asked nothing yet.
    pub fn new(settings: Settings, plan: Plan) -> Self {
        Self { portal: Arc::new(Portal::new(settings)), plan }
    }
}

impl Source for CloudApps {
    type Reader = Reader;

    fn offer(&self) -> Offer {
        self.portal.offer()
    }

    fn reader(&self, stream: Stream, start: &Start) -> Reader {
        Reader::new(Arc::clone(&self.portal), &self.plan, stream, start)
    }

    async fn check(&self, stream: Stream, offer: Offer) -> Result<(), Failed> {
        let query = Query::probe(stream, clock::millis(clock::now()));
        let read = async {
            let mut page = self.portal.fetch(&query, offer).await?;
            while let Arrived::Pieces(_) = page.next().await? {}
            Ok(())
        };
        read.await.map_err(|error: Error| self.portal.failed(&error))
    }
}
