//! `spec.format`: the form of the lines, with the choices of the portal's wizard.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plain_defaults;

/// The form of the lines.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Format {
    /// GenericCEF, or ArcSight: no PRI, the time in RFC 5424's form, the header Legacy. Default: GenericCEF.
    #[serde(default, rename = "type")]
    pub kind: FormatType,
    /// The style of the header's time: RFC5424, RFC3164 or RFC3164WithYear. Default: RFC5424, or what spec.syslog.receiver
    /// takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_format: Option<TimeFormat>,
    /// Whether a line begins with its priority; ArcSight has none. Default: true.
    #[serde(default = "plain_defaults::yes")]
    pub include_pri: bool,
    /// The syslog priority: facility times 8 plus severity. Default: 109, as the vendor's agent sends.
    #[serde(default = "plain_defaults::priority")]
    #[schemars(range(min = 0, max = 191))]
    pub priority: i32,
    /// Whether the header names the system. Default: true.
    #[serde(default = "plain_defaults::yes")]
    pub include_system_name: bool,
    /// The name of the system in the header: printable ASCII without spaces. Default: metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = r"^[!-~]+$"))]
    pub system_name: Option<String>,
    /// Legacy: byte for byte what the vendor's agent wrote; Strict: the CEF standard to the letter. Default: Legacy, or what
    /// spec.syslog.receiver takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
}

/// The wizard's formats.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum FormatType {
    /// Generic CEF.
    #[default]
    GenericCEF,
    /// Micro Focus ArcSight.
    ArcSight,
}

/// The style of the header's time, as the portal's wizard offers it: RFC5424, RFC3164 or RFC3164WithYear. Default: RFC5424,
/// or what spec.syslog.receiver takes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum TimeFormat {
    /// `2023-03-02T21:10:02.022Z`.
    RFC5424,
    /// `Mar 02 21:10:02`.
    RFC3164,
    /// `Mar 02 2023 21:10:02`.
    RFC3164WithYear,
}

/// Legacy: byte for byte what the vendor's agent wrote; Strict: the CEF standard to the letter. Default: Legacy, or what
/// spec.syslog.receiver takes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub enum Dialect {
    /// As the vendor's agent wrote.
    Legacy,
    /// As the CEF standard demands.
    Strict,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            kind: FormatType::default(),
            time_format: None,
            include_pri: plain_defaults::yes(),
            priority: plain_defaults::priority(),
            include_system_name: plain_defaults::yes(),
            system_name: None,
            dialect: None,
        }
    }
}
