//! Every default of a spec, once, and the spec with all of them filled in. Pure.
//!
//! The stored object holds what was written and no more (but for the two discriminators): a default is a function of the
//! whole spec, and may so follow the receiver's preset. Whoever needs a value with a preset asks [`format()`] or [`syslog()`].

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use crate::duration::GoDuration;
use crate::siem_agent::plain_defaults;
use crate::siem_agent::{
    Dialect, EventTypes, FormatType, Forwarder, Framing, Header, Placement, Protocol, Receiver,
    SiemAgent, SiemAgentSpec, Source, Syslog, SyslogTls, TimeFormat,
};

/// `spec.format` with every default filled in.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveFormat {
    /// `type`.
    #[serde(rename = "type")]
    pub kind: FormatType,
    /// `timeFormat`.
    pub time_format: TimeFormat,
    /// `includePri`; false for ArcSight.
    pub include_pri: bool,
    /// `priority`: facility times 8 plus severity, 0 to 191.
    pub priority: u8,
    /// `includeSystemName`.
    pub include_system_name: bool,
    /// `systemName`.
    pub system_name: String,
    /// `dialect`.
    pub dialect: Dialect,
}

/// `spec.syslog` with every default filled in.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveSyslog {
    /// `host`, as it was written.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `protocol`.
    pub protocol: Protocol,
    /// `receiver`, whose preset is in the other fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<Receiver>,
    /// `header`.
    pub header: Header,
    /// `framing`; `None` for UDP, where each datagram is a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Framing>,
    /// `maxMessageBytes`.
    pub max_message_bytes: usize,
    /// `confirmGrace`.
    pub confirm_grace: GoDuration,
    /// `tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SyslogTls>,
}

/// A whole spec with every default filled in, in the shape in which it is written.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveSpec {
    display_name: String,
    source: Source,
    format: EffectiveFormat,
    syslog: EffectiveSyslog,
    event_types: EventTypes,
    start_from: GoDuration,
    suspend: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    placement: Option<Placement>,
    forwarder: Forwarder,
}

/// The spec of an agent with every default filled in; `image` is the one of the operator's release. What depends on the
/// cluster stays out: a share of the tenant's requests, a storage class.
pub fn effective(agent: &SiemAgent, image: &str) -> EffectiveSpec {
    let spec = &agent.spec;
    let mut syslog = syslog(spec);
    if syslog.protocol == Protocol::TLS {
        let host = syslog.bare_host().to_owned();
        syslog.tls.get_or_insert_default().server_name.get_or_insert(host);
    }
    let mut forwarder = spec.forwarder.clone();
    forwarder.image.get_or_insert_with(|| image.to_owned());
    forwarder.resources = resources(&forwarder.resources);
    EffectiveSpec {
        display_name: display_name(agent),
        source: source(spec),
        format: format(agent),
        syslog,
        event_types: spec.event_types.clone(),
        start_from: spec.start_from,
        suspend: spec.suspend,
        placement: spec.placement.clone(),
        forwarder,
    }
}

/// `spec.source`, with the hosts of the cloud.
pub fn source(spec: &SiemAgentSpec) -> Source {
    let mut source = spec.source.clone();
    let cloud = source.graph.as_ref().map(|graph| graph.cloud).unwrap_or_default();
    if let Some(graph) = &mut source.graph {
        graph.url.get_or_insert_with(|| cloud.graph_url().to_owned());
    }
    if let Some(application) = &mut source.auth.client_credentials {
        application.authority_url.get_or_insert_with(|| cloud.authority_url().to_owned());
    }
    source
}

/// `spec.forwarder.resources`. Idle a forwarder takes 8 MiB, at a page of 10 MB twice that.
pub fn resources(given: &ResourceRequirements) -> ResourceRequirements {
    if *given != ResourceRequirements::default() {
        return given.clone();
    }
    let amounts = |amounts: &[(&str, &str)]| {
        let amounts = amounts
            .iter()
            .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())));
        Some(amounts.collect())
    };
    ResourceRequirements {
        requests: amounts(&[("cpu", "10m"), ("memory", "32Mi")]),
        limits: amounts(&[("memory", "128Mi")]),
        claims: None,
    }
}

/// `spec.displayName`: metadata.name where none is given.
pub fn display_name(agent: &SiemAgent) -> String {
    agent.spec.display_name.clone().or_else(|| agent.metadata.name.clone()).unwrap_or_default()
}

/// `spec.format`, given the whole agent.
pub fn format(agent: &SiemAgent) -> EffectiveFormat {
    let format = &agent.spec.format;
    let preset = agent.spec.syslog.receiver.map(Receiver::preset);
    let time_format = match format.kind {
        FormatType::ArcSight => TimeFormat::RFC5424,
        FormatType::GenericCEF => preset.map_or(TimeFormat::RFC5424, |preset| preset.time_format),
    };
    EffectiveFormat {
        kind: format.kind,
        time_format: format.time_format.unwrap_or(time_format),
        include_pri: format.include_pri && format.kind == FormatType::GenericCEF,
        priority: u8::try_from(format.priority).unwrap_or(plain_defaults::PRIORITY),
        include_system_name: format.include_system_name,
        system_name: format
            .system_name
            .clone()
            .or_else(|| agent.metadata.name.clone())
            .unwrap_or_default(),
        dialect: format.dialect.or_else(|| Some(preset?.dialect)).unwrap_or(Dialect::Legacy),
    }
}

/// `spec.syslog`, given the whole spec.
pub fn syslog(spec: &SiemAgentSpec) -> EffectiveSyslog {
    let syslog = &spec.syslog;
    EffectiveSyslog {
        host: syslog.host.clone(),
        port: port(syslog),
        protocol: syslog.protocol,
        receiver: syslog.receiver,
        header: header(spec),
        framing: framing(syslog),
        max_message_bytes: max_message_bytes(syslog),
        confirm_grace: syslog.confirm_grace,
        tls: syslog.tls.clone(),
    }
}

/// `spec.syslog.port`: the receiver's own, else the protocol's.
pub fn port(syslog: &Syslog) -> u16 {
    let of_protocol = if syslog.protocol == Protocol::TLS { 6514 } else { 514 };
    let default =
        syslog.receiver.and_then(|receiver| receiver.preset().port).unwrap_or(of_protocol);
    syslog.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(default)
}

/// A preset's header is one of the standards' only where the line has all that they demand: what is given wins.
fn header(spec: &SiemAgentSpec) -> Header {
    let format = &spec.format;
    let takes_any =
        format.kind == FormatType::GenericCEF && format.include_pri && format.include_system_name;
    let preset =
        spec.syslog.receiver.filter(|_| takes_any).map(|receiver| receiver.preset().header);
    spec.syslog.header.or(preset).unwrap_or(Header::Legacy)
}

fn framing(syslog: &Syslog) -> Option<Framing> {
    let preset = syslog.receiver.map_or(Framing::Newline, |receiver| receiver.preset().framing);
    match syslog.protocol {
        Protocol::UDP => None,
        Protocol::TCP | Protocol::TLS => Some(syslog.framing.unwrap_or(preset)),
    }
}

fn max_message_bytes(syslog: &Syslog) -> usize {
    let default = match (syslog.protocol, syslog.receiver) {
        // RFC 5426, section 3.2.
        (Protocol::UDP, _) => 2_048,
        (Protocol::TCP | Protocol::TLS, Some(receiver)) => receiver.preset().max_message_bytes,
        // Below the 8096 at which rsyslog cuts unless its limit was raised.
        (Protocol::TCP | Protocol::TLS, None) => 8_000,
    };
    syslog.max_message_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(default)
}

impl EffectiveSyslog {
    /// The host without the brackets of an IPv6 literal.
    pub fn bare_host(&self) -> &str {
        bare(&self.host)
    }
}

impl Syslog {
    /// The host without the brackets of an IPv6 literal.
    pub fn bare_host(&self) -> &str {
        bare(&self.host)
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}
