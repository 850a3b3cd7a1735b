//! `spec.format`: the form of the lines, with the choices of the portal's wizard.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of the lines.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Format {
    /// GenericCEF, or ArcSight: no PRI, the time in RFC 5424's form, the header Agent. Default: GenericCEF.
    #[serde(default, rename = "type")]
    pub kind: FormatType,
    /// The style of the header's time: RFC5424, RFC3164 or RFC3164WithYear. Default: RFC5424.
    #[serde(default)]
    pub time_format: TimeFormat,
    /// Whether a line begins with its priority; ArcSight has none. Default: true.
    #[serde(default = "yes")]
    pub include_pri: bool,
    /// The syslog priority: facility times 8 plus severity. Default: 109, as the vendor's agent sends.
    #[serde(default = "priority")]
    #[schemars(range(min = 0, max = 191))]
    pub priority: i32,
    /// Whether the header names the system. Default: true.
    #[serde(default = "yes")]
    pub include_system_name: bool,
    /// The name of the system in the header: printable ASCII without spaces. Default: metadata.name.
    #[serde(default)]
    #[schemars(length(max = 255), regex(pattern = r"^[!-~]*$"))]
    pub system_name: String,
    /// Agent: byte for byte what the vendor's agent writes; Strict: the CEF standard to the letter. Default: Agent.
    #[serde(default)]
    pub dialect: Dialect,
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

/// The wizard's time formats.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum TimeFormat {
    /// `2023-03-02T21:10:02.022Z`.
    #[default]
    RFC5424,
    /// `Mar 02 21:10:02`.
    RFC3164,
    /// `Mar 02 2023 21:10:02`.
    RFC3164WithYear,
}

/// How closely the lines follow the vendor's agent or the standard.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum Dialect {
    /// As the vendor's agent writes.
    #[default]
    Agent,
    /// As the CEF standard demands.
    Strict,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            kind: FormatType::default(),
            time_format: TimeFormat::default(),
            include_pri: true,
            priority: priority(),
            include_system_name: true,
            system_name: String::new(),
            dialect: Dialect::default(),
        }
    }
}

fn yes() -> bool {
    true
}
fn priority() -> i32 {
    109
}
