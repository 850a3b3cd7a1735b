//! `spec.syslog`: the SIEM's receiver.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plain_defaults;
use super::source::{BundleRef, SecretRef};
use crate::duration::GoDuration;

/// The receiver and the way to it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Syslog {
    /// DNS name or address of the receiver, without scheme and port.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Port of the receiver. Default: 514; 6514 for TLS; 9003 with the receiver Elastic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// UDP, TCP or TLS. UDP can lose records. Default: TCP.
    #[serde(default)]
    pub protocol: Protocol,
    /// What listens there. It sets the defaults of port, header, framing and maxMessageBytes here, and of timeFormat and dialect
    /// in spec.format, to what that receiver takes with its own defaults; what is given wins. Default: what most receivers take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<Receiver>,
    /// Legacy: `[<PRI>]TIME [HOST ]CEF:…`, as the vendor's agent wrote; RFC5424 or RFC3164: the headers of these standards.
    /// Default: Legacy, or what receiver takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// Newline or OctetCounting. Default: Newline; must be unset for UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Framing>,
    /// The most bytes of a message with its header, its line feed and its length; longer ones are trimmed by field. Not
    /// more than the receiver takes: one that cuts may make an event of the rest. Default: 2048 for UDP, 8000 for TCP and
    /// TLS, or what receiver takes. At least 480 (RFC 5424, section 6.1), at most 1048576; for UDP at most 65507.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 480, max = 1_048_576))]
    pub max_message_bytes: Option<i32>,
    /// TCP and TLS: how long a connection must stay healthy after the peer's kernel has acknowledged a record, before it
    /// counts as delivered. Default: 250ms, at most 1m.
    #[serde(default = "plain_defaults::confirm_grace")]
    pub confirm_grace: GoDuration,
    /// Settings of TLS; only with protocol TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SyslogTls>,
}

/// Settings of TLS.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyslogTls {
    /// The certificate authorities to trust for the receiver. Default: the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_ref: Option<BundleRef>,
    /// A Secret of type kubernetes.io/tls with our own certificate, for mutual TLS. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<SecretRef>,
    /// The name that the receiver's certificate must carry. Default: host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9._:-]+$"))]
    pub server_name: Option<String>,
}

/// The transport.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Protocol {
    /// RFC 5426.
    UDP,
    /// RFC 6587.
    #[default]
    TCP,
    /// RFC 5425.
    TLS,
}

/// What listens there. It sets the defaults of port, header, framing and maxMessageBytes here, and of timeFormat and dialect in
/// spec.format, to what that receiver takes with its own defaults; what is given wins. Default: what most receivers take.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Receiver {
    /// rsyslog's imtcp and imudp.
    Rsyslog,
    /// syslog-ng's `network()` and `syslog()`.
    SyslogNg,
    /// Splunk Connect for Syslog.
    SC4S,
    /// Microsoft Sentinel's log forwarder with the Azure Monitor Agent.
    Sentinel,
    /// IBM QRadar.
    QRadar,
    /// ArcSight SmartConnector and Logger.
    ArcSight,
    /// Exabeam's syslog collector.
    Exabeam,
    /// Elastic's CEF integration and Filebeat.
    Elastic,
    /// Graylog's CEF inputs.
    Graylog,
    /// The forwarder of Google Security Operations.
    GoogleSecOps,
    /// Logstash with the codec cef.
    Logstash,
    /// CrowdStrike Falcon LogScale Collector.
    LogScale,
}

/// The header before the CEF part. Legacy: `[<PRI>]TIME [HOST ]CEF:…`, as the vendor's agent wrote; RFC5424 or RFC3164: the
/// headers of these standards. Default: Legacy, or what receiver takes where the line has a priority and a system name and
/// spec.format.type is GenericCEF.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Header {
    /// `[<PRI>]TIME [HOST ]CEF:…`.
    Legacy,
    /// RFC 5424, section 6.2.
    RFC5424,
    /// RFC 3164, section 4.1.
    RFC3164,
}

/// How messages are separated on a connection. Newline: a line feed after each. OctetCounting: its length before it
/// (RFC 6587, section 3.4.1), for listeners that parse that; the line feed stays and is counted. Default: Newline, or what
/// receiver takes; must be unset for UDP.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Framing {
    /// RFC 6587, section 3.4.2: a line feed after each.
    Newline,
    /// RFC 6587, section 3.4.1: the length before each, which counts a line feed at the end.
    OctetCounting,
}
