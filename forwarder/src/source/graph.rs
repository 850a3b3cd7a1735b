//! Microsoft Graph: everything of it, and nothing else. Alerts by `security/alerts_v2`, activities by advanced hunting. Only
//! this folder knows its paths and its questions.

mod alerts;
pub mod filter;
mod hunting;
mod reader;
pub mod settings;

use std::sync::Arc;

use http::StatusCode;
use siem_agent_edge::clock;

use super::http::api::{Api, Arrived};
use super::http::error::Error;
use super::listing::List as _;
use super::{Failed, Offer, Source, Start};
use crate::event::Stream;
use alerts::Alerts;
use hunting::Hunting;
use hunting::query::Query;
use hunting::rows::Rows;

pub use reader::Reader;
pub use settings::Settings;

/// How Graph says that a result has more than 50 MB.
const TOO_LARGE: &str = "exceeded the allowed result size";

/// Graph as a source.
#[derive(Debug)]
pub struct Graph {
    url: Arc<str>,
    api: Arc<Api>,
    settings: Settings,
}

impl Graph {
    /// A source that has asked nothing yet.
    pub fn new(settings: Settings) -> Self {
        let Settings { url, scope, auth, proxy, ca_bundle, .. } = settings.clone();
        let api = Arc::new(Api::new(auth, scope, proxy, ca_bundle, meaning));
        Self { url: url.into(), api, settings }
    }

    /// Graph's alerts as a list.
    pub(crate) fn alerts(&self) -> Alerts {
        Alerts {
            url: Arc::clone(&self.url),
            api: Arc::clone(&self.api),
            service_sources: self.settings.service_sources.clone(),
            filter: self.settings.alerts.clone(),
        }
    }

    /// Where hunting queries are sent.
    fn hunting(&self) -> Hunting {
        let filter = Arc::new(self.settings.activities.clone());
        Hunting { url: Arc::clone(&self.url), api: Arc::clone(&self.api), filter }
    }

    /// Each hunting table as a list.
    pub(crate) fn tables(&self) -> impl Iterator<Item = Rows> + '_ {
        self.settings.tables.iter().map(|table| Rows::new(self.hunting(), *table))
    }

    /// Whom it asks.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }
}

/// What a refusal means at Graph alone.
fn meaning(status: StatusCode, words: &str, detail: String) -> Result<Error, String> {
    match status {
        StatusCode::BAD_REQUEST if words.contains(TOO_LARGE) => {
            Ok(Error::ResultTooLarge { detail })
        }
        // Too many requests or a spent share of the CPU: its words say which.
        StatusCode::TOO_MANY_REQUESTS => Ok(Error::Throttled { retry_after: None, detail }),
        _ => Err(detail),
    }
}

impl Source for Graph {
    type Reader = Reader;

    fn offer(&self) -> Offer {
        self.api.offer()
    }

    fn reader(&self, stream: Stream, start: &Start) -> Reader {
        Reader::new(self, stream, start)
    }

    async fn check(&self, stream: Stream, offer: Offer) -> Result<(), Failed> {
        let now = clock::millis(clock::now());
        let read = async {
            let mut page = match (stream, self.settings.tables.first()) {
                (Stream::Activities, Some(table)) => {
                    self.hunting().ask(&Query::probe(*table, now), offer).await?
                }
                (Stream::Alerts | Stream::Activities, _) => {
                    let alerts = self.alerts();
                    alerts.ask(&alerts.question(now, None, 1), offer).await?
                }
            };
            while let Arrived::Pieces(_) = page.next().await? {}
            Ok(())
        };
        read.await.map_err(|error: Error| self.api.failed(&error))
    }
}
