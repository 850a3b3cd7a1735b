//! The configuration, checked once: nothing looks at the raw one again. Pure.
//!
//! Secrets and certificates appear here as places of files only; they are read, and read again, where they are used.

mod filters;

use std::path::{Path, PathBuf};
use std::time::Duration;

use siem_agent_crds::config::{Config, Live, Paths};
use siem_agent_crds::manifest::{self, Problem, Problems};
use siem_agent_crds::siem_agent::{self as spec, StreamSource};

use crate::delivery::settings::{self as sink, Transport};
use crate::event::Stream;
use crate::map::{Dialect, Format};
use crate::plan::{Pace, Plan};
use crate::secret::file::{Kind, SecretFile};
use crate::source::cloud_apps::settings as cloud_apps;
use crate::source::graph::settings as graph;
use crate::source::http::settings::{Auth, Credentials, Proof, Proxy};
use crate::syslog::{self, Framing, Header, Layout, TimeFormat};
use crate::tls::material::{ClientMaterial, Material};

/// What the portal's API allows a tenant, and what is ours of the hunting queries that Graph does, where neither the manifest
/// nor an operator gives a share.
const REQUESTS_PER_MINUTE: u32 = 30;

/// Where a server that is no pod has the token that says who it is, below the folder of the secrets.
const IDENTITY: &str = "workload-identity/token";

/// Everything the forwarder needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What events become.
    pub plan: Plan,
    /// Which source serves which of the enabled streams.
    pub served: Vec<Served>,
    /// Where records come from.
    pub sources: Sources,
    /// How far back an export begins, at most, when it starts anew.
    pub start_from: Duration,
    /// Where they go.
    pub sink: sink::Settings,
    /// Requests until the live file says otherwise.
    pub budget: Budget,
}

/// An enabled stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// It.
    pub stream: Stream,
    /// The source that serves it.
    pub source: StreamSource,
    /// By what name that source's positions are known.
    pub name: String,
}

/// The sources that serve a stream.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The portal's API.
    pub cloud_apps: Option<cloud_apps::Settings>,
    /// Microsoft Graph.
    pub graph: Option<graph::Settings>,
    /// The name of the one that stands for the whole agent.
    pub main: String,
}

impl Sources {
    /// How we say to each of them who we are.
    pub fn auths_mut(&mut self) -> impl Iterator<Item = &mut Auth> {
        let cloud_apps = self.cloud_apps.as_mut().map(|of| &mut of.auth);
        cloud_apps.into_iter().chain(self.graph.as_mut().map(|of| &mut of.auth))
    }

    /// The proxy on the way to each of them, and whom to trust there.
    pub fn ways(&self) -> impl Iterator<Item = (Option<&Proxy>, Option<&PathBuf>)> {
        let cloud_apps =
            self.cloud_apps.as_ref().map(|of| (of.proxy.as_ref(), of.ca_bundle.as_ref()));
        let graph = self.graph.as_ref().map(|of| (of.proxy.as_ref(), of.ca_bundle.as_ref()));
        cloud_apps.into_iter().chain(graph)
    }
}

/// Requests a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// To the portal's API.
    pub portal: u32,
    /// Hunting queries.
    pub hunting: u32,
}

impl Budget {
    /// The share that the operator gave; until it gives one of hunting, one query a minute.
    pub fn given(live: &Live) -> Self {
        Self { portal: live.requests_per_minute, hunting: live.hunting_per_minute.unwrap_or(1) }
    }
}

impl Settings {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`Problems`]: what the schema could not check.
    pub fn of(config: &Config) -> Result<Self, Problems> {
        let mut problems = manifest::filters(&config.source, &config.event_types);
        let served = served(config);
        let sources = sources(config, &served);
        let sink = sink(config, &mut problems);
        let given = |requests: Option<i32>| {
            requests.and_then(|it| u32::try_from(it).ok()).unwrap_or(REQUESTS_PER_MINUTE)
        };
        let (cloud_apps, graph) = (&config.source.cloud_apps, &config.source.graph);
        let settings = Self {
            plan: Plan { format: format(config), layout: layout(config) },
            served,
            sources,
            start_from: config.start_from.0,
            sink: sink.unwrap_or_else(|| sink::Settings {
                host: String::new(),
                port: 0,
                transport: Transport::Tcp,
                grace: config.syslog.confirm_grace.0,
            }),
            budget: Budget {
                portal: given(cloud_apps.as_ref().and_then(|it| it.requests_per_minute)),
                hunting: given(graph.as_ref().and_then(|it| it.requests_per_minute)),
            },
        };
        if problems.is_empty() { Ok(settings) } else { Err(Problems(problems)) }
    }

    /// The enabled streams.
    pub fn streams(&self) -> impl Iterator<Item = Stream> + '_ {
        self.served.iter().map(|served| served.stream)
    }
}

/// Which source serves which enabled stream, by the rules of the spec.
fn served(config: &Config) -> Vec<Served> {
    let (source, types) = (&config.source, &config.event_types);
    [Stream::Alerts, Stream::Activities]
        .into_iter()
        .filter_map(|stream| {
            let of = source.serving(types, stream)?;
            Some(Served { stream, source: of, name: source.name(of)? })
        })
        .collect()
}

/// The form of the messages that this configuration asks for.
pub fn layout(config: &Config) -> Layout {
    let format = &config.format;
    let pri = format.include_pri.then_some(format.priority);
    Layout {
        header: match config.syslog.header {
            spec::Header::Legacy => Header::Legacy,
            spec::Header::RFC5424 => Header::Rfc5424,
            spec::Header::RFC3164 => Header::Rfc3164,
        },
        time_format: match format.time_format {
            spec::TimeFormat::RFC5424 => TimeFormat::Rfc5424,
            spec::TimeFormat::RFC3164 => TimeFormat::Rfc3164,
            spec::TimeFormat::RFC3164WithYear => TimeFormat::Rfc3164WithYear,
        },
        pri,
        host: format.include_system_name.then(|| syslog::host_name(&format.system_name)),
        framing: match config.syslog.framing {
            None => Framing::Datagram,
            Some(spec::Framing::Newline) => Framing::Newline,
            Some(spec::Framing::OctetCounting) => Framing::OctetCounting,
        },
        max_message_bytes: config.syslog.max_message_bytes,
    }
}

/// What an event is mapped to by this configuration.
pub fn format(config: &Config) -> Format {
    Format {
        dialect: match config.format.dialect {
            spec::Dialect::Legacy => Dialect::Legacy,
            spec::Dialect::Strict => Dialect::Strict,
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn sources(config: &Config, served: &[Served]) -> Sources {
    let (source, paths, types) = (&config.source, &config.paths, &config.event_types);
    let streams_of = |of| served.iter().filter(move |it| it.source == of).map(|it| it.stream);
    let serves = |of| streams_of(of).next().is_some();
    let proxy = source.proxy.as_ref().map(|proxy| Proxy {
        url: proxy.url.trim_end_matches('/').to_owned(),
        no_proxy: proxy.no_proxy.clone(),
        credentials: proxy.credentials_secret_ref.as_ref().map(|reference| Credentials {
            username: secret(paths, &reference.name, &reference.username_key, Kind::Username),
            password: secret(paths, &reference.name, &reference.password_key, Kind::Password),
        }),
    });
    let ca_bundle = source.ca_bundle_ref.as_ref().map(|reference| bundle(reference, paths));
    let start_from = config.start_from.0;
    let cloud_apps = source.cloud_apps.as_ref().filter(|_| serves(StreamSource::CloudApps));
    let graph = source.graph.as_ref().filter(|_| serves(StreamSource::Graph));
    Sources {
        cloud_apps: cloud_apps.map(|of| cloud_apps::Settings {
            url: of.url.trim_end_matches('/').to_owned(),
            auth: auth(source, paths),
            proxy: proxy.clone(),
            ca_bundle: ca_bundle.clone(),
            streams: streams_of(StreamSource::CloudApps)
                .map(|stream| (stream, filters::portal(types, stream)))
                .collect(),
            pace: Pace { poll_interval: of.poll_interval.0, overlap: of.overlap.0, start_from },
        }),
        graph: graph.map(|of| graph::Settings {
            url: of.url.clone().unwrap_or_default().trim_end_matches('/').to_owned(),
            scope: format!("{}/.default", of.cloud.graph_url()),
            auth: auth(source, paths),
            proxy,
            ca_bundle,
            streams: streams_of(StreamSource::Graph).collect(),
            service_sources: of.service_sources.clone(),
            tables: filters::tables(of, types),
            alerts: filters::graph_alerts(&types.alerts.filter),
            activities: filters::graph_activities(&types.activities.filter),
            pace: Pace { poll_interval: of.poll_interval.0, overlap: of.overlap.0, start_from },
        }),
        main: source.main_name(),
    }
}

fn secret(paths: &Paths, name: &str, key: &str, kind: Kind) -> SecretFile {
    SecretFile::new(paths.secrets.join(name).join(key), kind)
}

fn auth(source: &spec::Source, paths: &Paths) -> Auth {
    // The rules of the schema have refused what is given neither way.
    let Some(application) = &source.auth.client_credentials else {
        let token = source.auth.token_secret_ref.as_ref();
        let file = token.map(|token| secret(paths, &token.name, &token.key, Kind::Token));
        return Auth::Token(file.unwrap_or_else(|| SecretFile::new(PathBuf::new(), Kind::Token)));
    };
    let proof = match &application.client_secret_ref {
        Some(of) => Proof::Secret(secret(paths, &of.name, &of.key, Kind::ClientSecret)),
        None => {
            let file = paths.identity.clone().unwrap_or_else(|| paths.secrets.join(IDENTITY));
            Proof::Assertion(SecretFile::new(file, Kind::Assertion))
        }
    };
    Auth::ClientCredentials {
        tenant_id: application.tenant_id.clone(),
        client_id: application.client_id.clone(),
        proof,
        authority: application
            .authority_url
            .as_deref()
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_owned(),
    }
}

fn sink(config: &Config, problems: &mut Vec<Problem>) -> Option<sink::Settings> {
    let syslog = &config.syslog;
    let transport = match syslog.protocol {
        spec::Protocol::UDP => Transport::Udp,
        spec::Protocol::TCP => Transport::Tcp,
        spec::Protocol::TLS => {
            let server_name = manifest::server_name(syslog.tls.as_ref(), syslog.bare_host())
                .map_err(|problem| problems.push(problem))
                .ok()?;
            let tls = syslog.tls.clone().unwrap_or_default();
            let client = tls.client_certificate_secret_ref.map(|reference| {
                let folder = config.paths.secrets.join(reference.name);
                ClientMaterial { certificates: folder.join("tls.crt"), key: folder.join("tls.key") }
            });
            let ca_bundle =
                tls.ca_bundle_ref.as_ref().map(|reference| bundle(reference, &config.paths));
            Transport::Tls { server_name, material: Material { ca_bundle, client } }
        }
    };
    Some(sink::Settings {
        host: syslog.bare_host().to_owned(),
        port: syslog.port,
        transport,
        grace: syslog.confirm_grace.0,
    })
}

fn bundle(reference: &spec::BundleRef, paths: &Paths) -> PathBuf {
    let folder: &Path = match reference.kind {
        spec::BundleKind::Secret => &paths.secrets,
        spec::BundleKind::ConfigMap => &paths.config_maps,
    };
    folder.join(&reference.name).join(&reference.key)
}
