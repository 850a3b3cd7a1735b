//! The Defender for Cloud Apps API: everything of it, and nothing else. Only this folder knows its paths, its questions
//! and the names of its records' fields.

pub mod envelope;
#[cfg(test)]
mod laws;
pub mod list;
pub mod parse;
pub mod query;
pub mod settings;

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};
use siem_agent_edge::clock;

use super::http::api::{Api, Arrived};
use super::http::error::Error;
use super::listing::reader::Reader;
use super::{Failed, Offer, Source, Start};
use crate::event::Stream;
use crate::plan::Pace;
use list::Listing;
use query::Query;

pub use settings::Settings;

/// The application id of Microsoft Cloud App Security, with the permissions that an administrator consented to.
const SCOPE: &str = "05a65629-4c1b-48c1-a78b-804c4abdd4af/.default";

/// The API as a source.
#[derive(Debug)]
pub struct CloudApps {
    url: Arc<str>,
    api: Arc<Api>,
    streams: Vec<(Stream, Map<String, Value>)>,
    pace: Pace,
}

impl CloudApps {
    /// A source that has asked nothing yet.
    pub fn new(settings: Settings) -> Self {
        let Settings { url, auth, proxy, ca_bundle, streams, pace } = settings;
        let api = Api::new(auth, SCOPE.to_owned(), proxy, ca_bundle, means_nothing_else);
        Self { url: url.into(), api: Arc::new(api), streams, pace }
    }

    /// What the API lists of a stream.
    pub(crate) fn list(&self, stream: Stream) -> Listing {
        let filters = self.streams.iter().find(|(of, _)| *of == stream);
        let filters = filters.map(|(_, filters)| filters.clone()).unwrap_or_default();
        Listing { url: Arc::clone(&self.url), api: Arc::clone(&self.api), stream, filters }
    }

    /// Whom it asks.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }
}

/// All that this API's refusals mean is what those of most mean.
fn means_nothing_else(_: StatusCode, _: &str, detail: String) -> Result<Error, String> {
    Err(detail)
}

impl Source for CloudApps {
    type Reader = Reader<Listing>;

    fn offer(&self) -> Offer {
        self.api.offer()
    }

    fn reader(&self, stream: Stream, start: &Start) -> Reader<Listing> {
        Reader::new(self.list(stream), &self.pace, start)
    }

    async fn check(&self, stream: Stream, offer: Offer) -> Result<(), Failed> {
        let query = Query::probe(stream, clock::millis(clock::now()));
        let read = async {
            let mut page = self.list(stream).fetch(&query, offer).await?;
            while let Arrived::Pieces(_) = page.next().await? {}
            Ok(())
        };
        read.await.map_err(|error: Error| self.api.failed(&error))
    }
}
