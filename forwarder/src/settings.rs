//! The configuration, checked once: nothing looks at the raw one again. Pure.
//!
//! Secrets and certificates appear here as places of files only; they are read, and read again, where they are used.

mod filters;

use std::path::{Path, PathBuf};

use siem_agent_crds::config::{Config, Paths};
use siem_agent_crds::manifest::{self, Problem, Problems};
use siem_agent_crds::siem_agent as spec;

use crate::delivery::settings::{self as sink, Transport};
use crate::event::Stream;
use crate::map::{Dialect, Format};
use crate::plan::Plan;
use crate::secret::file::{Kind, SecretFile};
use crate::source::cloud_apps::settings as cloud_apps;
use crate::source::http::settings::{Auth, Credentials, Proxy};
use crate::syslog::{self, Framing, Header, Layout, TimeFormat};
use crate::tls::material::{ClientMaterial, Material};

/// What the API allows a tenant, where neither the manifest nor an operator gives a share.
const REQUESTS_PER_MINUTE: u32 = 30;

/// Everything the forwarder needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What to follow, and how.
    pub plan: Plan,
    /// Where records come from.
    pub source: cloud_apps::Settings,
    /// Where they go.
    pub sink: sink::Settings,
    /// Requests a minute until the live file says otherwise.
    pub requests_per_minute: u32,
}

impl Settings {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`Problems`]: what the schema could not check.
    pub fn of(config: &Config) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let streams = filters::streams(&config.event_types, &mut problems);
        let sink = sink(config, &mut problems);
        let settings = Self {
            plan: Plan {
                streams,
                poll_interval: config.source.cloud_apps.poll_interval.0,
                overlap: config.source.cloud_apps.overlap.0,
                start_from: config.start_from.0,
                format: format(config),
                layout: layout(config),
            },
            source: source(&config.source, &config.paths),
            sink: sink.unwrap_or_else(|| sink::Settings {
                host: String::new(),
                port: 0,
                transport: Transport::Tcp,
                grace: config.syslog.confirm_grace.0,
            }),
            requests_per_minute: config
                .source
                .cloud_apps
                .requests_per_minute
                .and_then(|requests| u32::try_from(requests).ok())
                .unwrap_or(REQUESTS_PER_MINUTE),
        };
        if problems.is_empty() { Ok(settings) } else { Err(Problems(problems)) }
    }

    /// The enabled streams.
    pub fn streams(&self) -> impl Iterator<Item = Stream> + '_ {
        self.plan.streams.iter().map(|(stream, _)| *stream)
    }
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

fn source(source: &spec::Source, paths: &Paths) -> cloud_apps::Settings {
    let secret =
        |name: &str, key: &str, kind| SecretFile::new(paths.secrets.join(name).join(key), kind);
    let auth = match (&source.auth.token_secret_ref, &source.auth.client_credentials) {
        (_, Some(application)) => Auth::ClientCredentials {
            tenant_id: application.tenant_id.clone(),
            client_id: application.client_id.clone(),
            client_secret: secret(
                &application.client_secret_ref.name,
                &application.client_secret_ref.key,
                Kind::ClientSecret,
            ),
            authority: application.authority_url.trim_end_matches('/').to_owned(),
        },
        (Some(token), None) => Auth::Token(secret(&token.name, &token.key, Kind::Token)),
        // The rules of the schema have refused this.
        (None, None) => Auth::Token(SecretFile::new(PathBuf::new(), Kind::Token)),
    };
    let proxy = source.proxy.as_ref().map(|proxy| Proxy {
        url: proxy.url.trim_end_matches('/').to_owned(),
        no_proxy: proxy.no_proxy.clone(),
        credentials: proxy.credentials_secret_ref.as_ref().map(|reference| Credentials {
            username: secret(&reference.name, &reference.username_key, Kind::Username),
            password: secret(&reference.name, &reference.password_key, Kind::Password),
        }),
    });
    cloud_apps::Settings {
        url: source.cloud_apps.url.trim_end_matches('/').to_owned(),
        auth,
        proxy,
        ca_bundle: source.ca_bundle_ref.as_ref().map(|reference| bundle(reference, paths)),
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
