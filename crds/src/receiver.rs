//! What listens at `spec.syslog.host`: the settings that each receiver takes with its own defaults. Pure.
//!
//! One table. The defaults of a spec, `docs/receivers.md` and the schema's list of receivers come from it. Each row says
//! whether a test has seen it on the receiver itself, or whose documentation it follows.

mod recipes;

use crate::siem_agent::{Dialect, Framing, Header, Receiver, TimeFormat};

pub use recipes::Recipe;

/// The defaults that a receiver changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// The receiver.
    pub receiver: Receiver,
    /// Its name, as its vendor writes it.
    pub title: &'static str,
    /// `spec.syslog.port`, where it is not the protocol's.
    pub port: Option<u16>,
    /// `spec.syslog.header`.
    pub header: Header,
    /// `spec.format.timeFormat`.
    pub time_format: TimeFormat,
    /// `spec.syslog.framing`, on TCP and TLS.
    pub framing: Framing,
    /// `spec.syslog.maxMessageBytes`, on TCP and TLS.
    pub max_message_bytes: usize,
    /// `spec.format.dialect`.
    pub dialect: Dialect,
    /// Who says so.
    pub evidence: Evidence,
}

/// What a preset rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A test of this project sends to the receiver itself.
    Tested,
    /// The receiver's published configuration or code.
    Code(&'static str),
    /// Its vendor's documentation.
    Documentation(&'static str),
    /// What is generally said; nobody has tried it here.
    Unverified(&'static str),
}

/// What most receivers take, and rsyslog.
const COMMON: Preset = Preset {
    receiver: Receiver::Rsyslog,
    title: "rsyslog",
    port: None,
    header: Header::Legacy,
    time_format: TimeFormat::RFC5424,
    framing: Framing::Newline,
    max_message_bytes: 8_000,
    dialect: Dialect::Legacy,
    evidence: Evidence::Tested,
};

/// Every receiver, in the order of the documentation.
pub const PRESETS: [Preset; 12] = [
    COMMON,
    Preset {
        receiver: Receiver::SyslogNg,
        title: "syslog-ng",
        // log-msg-size() is 65536 unless it was raised.
        max_message_bytes: 65_000,
        ..COMMON
    },
    Preset {
        receiver: Receiver::SC4S,
        title: "Splunk Connect for Syslog (SC4S)",
        max_message_bytes: 65_000,
        evidence: Evidence::Code(
            "SC4S 3.45: app-syslog-cef.conf, app-cef-mcas.conf, log_msg_size 65536",
        ),
        ..COMMON
    },
    Preset {
        receiver: Receiver::Sentinel,
        title: "Microsoft Sentinel (log forwarder with the Azure Monitor Agent)",
        evidence: Evidence::Documentation(
            "Microsoft: Ingest syslog and CEF messages to Microsoft Sentinel with the Azure Monitor Agent",
        ),
        ..COMMON
    },
    Preset {
        receiver: Receiver::QRadar,
        title: "IBM QRadar",
        header: Header::RFC3164,
        max_message_bytes: 4_096,
        evidence: Evidence::Documentation(
            "IBM: log source parameters of Syslog and TLS Syslog; framing and the limit of 4096 bytes are not verified",
        ),
        ..COMMON
    },
    Preset {
        receiver: Receiver::ArcSight,
        title: "ArcSight SmartConnector and Logger",
        evidence: Evidence::Unverified(
            "the vendor's agent had a format of its own for it, spec.format.type ArcSight; framing and size are not verified",
        ),
        ..COMMON
    },
    Preset {
        receiver: Receiver::Exabeam,
        title: "Exabeam",
        evidence: Evidence::Code("Exabeam's CIM 2 parsers for MCAS; the size is not verified"),
        ..COMMON
    },
    Preset {
        receiver: Receiver::Elastic,
        title: "Elastic (CEF integration, Filebeat)",
        port: Some(9003),
        max_message_bytes: 65_536,
        // Its processor takes an empty value for a wrong address or number unless ignore_empty_values is set.
        dialect: Dialect::Strict,
        evidence: Evidence::Code("Elastic: fixtures of the decode_cef processor"),
        ..COMMON
    },
    Preset {
        receiver: Receiver::Graylog,
        title: "Graylog (CEF TCP)",
        // Its codec does not parse the header's time in RFC 5424's form.
        time_format: TimeFormat::RFC3164,
        max_message_bytes: 65_536,
        evidence: Evidence::Code("Graylog: CEFCodec.java, TcpTransport.java"),
        ..COMMON
    },
    Preset {
        receiver: Receiver::GoogleSecOps,
        title: "Google Security Operations (forwarder)",
        evidence: Evidence::Documentation(
            "Google: supported log types, MICROSOFT_CASB; framing and size are not verified",
        ),
        ..COMMON
    },
    Preset {
        receiver: Receiver::Logstash,
        title: "Logstash (codec cef)",
        max_message_bytes: 65_536,
        evidence: Evidence::Unverified("the options of its codec cef"),
        ..COMMON
    },
    Preset {
        receiver: Receiver::LogScale,
        title: "CrowdStrike Falcon LogScale Collector",
        // maxEventSize, at which it cuts.
        max_message_bytes: 2_048,
        evidence: Evidence::Documentation(
            "CrowdStrike: LogScale Collector, syslog source, maxEventSize",
        ),
        ..COMMON
    },
];

impl Receiver {
    /// The defaults that it changes.
    pub fn preset(self) -> Preset {
        PRESETS.into_iter().find(|preset| preset.receiver == self).unwrap_or(COMMON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_receiver_of_the_schema_has_a_row() {
        let crd = crate::schema::object_schema();
        let at = "/properties/spec/properties/syslog/properties/receiver/enum";
        let words: Vec<Receiver> =
            serde_json::from_value(crd.pointer(at).unwrap().clone()).unwrap();
        assert_eq!(words.len(), PRESETS.len());
        for receiver in words {
            assert_eq!(receiver.preset().receiver, receiver);
        }
    }
}
