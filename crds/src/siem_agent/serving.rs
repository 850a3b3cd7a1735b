//! Which source serves which stream of an agent, and by what name that source is known. Pure.
//!
//! The name says to whom a position belongs. Two of one kind with different names are different tenants; a source of another
//! kind is taken for another way to the same tenant.

use super::status::{Stream, StreamSource};
use super::{EventTypes, SiemAgentSpec, Source};

/// What the names of Graph's tenants begin with; those of the portal's are URLs.
const GRAPH: &str = "graph:";

impl SiemAgentSpec {
    /// The source that serves a stream; `None` for one that is not exported, or whose source is not given.
    pub fn source_of(&self, stream: Stream) -> Option<StreamSource> {
        self.source.serving(&self.event_types, stream)
    }

    /// The streams that a source serves.
    pub fn served_by(&self, source: StreamSource) -> impl Iterator<Item = Stream> + '_ {
        [Stream::Alerts, Stream::Activities]
            .into_iter()
            .filter(move |stream| self.source_of(*stream) == Some(source))
    }

    /// The name of the source that serves a stream.
    pub fn source_name(&self, stream: Stream) -> Option<String> {
        self.source.name(self.source_of(stream)?)
    }
}

impl Source {
    /// The source that serves a stream; `None` for one that is not exported, or whose source is not given.
    pub fn serving(&self, types: &EventTypes, stream: Stream) -> Option<StreamSource> {
        let (enabled, from, by_default) = match stream {
            Stream::Alerts => {
                let of = &types.alerts;
                (of.enabled, of.from, [StreamSource::Graph, StreamSource::CloudApps])
            }
            Stream::Activities => {
                let of = &types.activities;
                (of.enabled, of.from, [StreamSource::CloudApps, StreamSource::Graph])
            }
        };
        let found = match from {
            Some(from) => Some(from).filter(|source| self.has(*source)),
            None => by_default.into_iter().find(|source| self.has(*source)),
        };
        found.filter(|_| enabled)
    }

    /// Whether a source is given.
    pub fn has(&self, source: StreamSource) -> bool {
        match source {
            StreamSource::CloudApps => self.cloud_apps.is_some(),
            StreamSource::Graph => self.graph.is_some(),
        }
    }

    /// By what name positions of a source are known: the portal's URL without a slash at its end, or Graph's tenant.
    pub fn name(&self, source: StreamSource) -> Option<String> {
        match source {
            StreamSource::CloudApps => {
                Some(self.cloud_apps.as_ref()?.url.trim_end_matches('/').to_owned())
            }
            StreamSource::Graph => {
                self.graph.as_ref()?;
                let tenant = &self.auth.client_credentials.as_ref()?.tenant_id;
                Some(graph_name(tenant))
            }
        }
    }

    /// The name of the source that stands for the whole agent, where one name must do: the portal's before Graph's.
    pub fn main_name(&self) -> String {
        let names = [StreamSource::CloudApps, StreamSource::Graph].map(|source| self.name(source));
        names.into_iter().flatten().next().unwrap_or_default()
    }
}

/// The name of Graph as a source, for a tenant.
pub fn graph_name(tenant_id: &str) -> String {
    format!("{GRAPH}{}", tenant_id.to_ascii_lowercase())
}

/// The kind of the source that has this name.
pub fn kind_of(name: &str) -> StreamSource {
    if name.starts_with(GRAPH) { StreamSource::Graph } else { StreamSource::CloudApps }
}
