//! The mapping: an [`Event`] becomes a CEF [`Record`], field by field as `docs/cef-mapping.md` lists them.
//!
//! `Agent` writes what the vendor's agent wrote, empty fields included, because parsers were built on it. `Strict`
//! follows the CEF standard (Implementation Standard, "ArcSight Extension Dictionary") in lengths and emptiness.

mod activity;
mod alert;
mod strict;
mod text;

use std::borrow::Cow;
use std::net::IpAddr;

use crate::cef::{Field, Record};
use crate::event::Event;

/// How closely the lines follow the vendor's agent or the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As the vendor's agent writes.
    Agent,
    /// As the CEF standard demands.
    Strict,
}

/// Maps an event.
pub fn record(event: &Event, dialect: Dialect, version: &str) -> Record {
    let record = match event {
        Event::Activity(activity) => activity::record(activity, version),
        Event::Alert(alert) => alert::record(alert, version),
    };
    match dialect {
        Dialect::Agent => record,
        Dialect::Strict => strict::record(record),
    }
}

fn field(key: &'static str, value: impl Into<Cow<'static, str>>) -> Field {
    Field { key, value: value.into() }
}

/// Apps that the vendor's agent writes by symbol.
fn app_symbol(id: &str) -> String {
    let symbol = match id {
        "11161" => "O365",
        "20893" => "OUTLOOK",
        "15600" => "ONEDRIVE",
        "11114" => "SALESFORCE",
        "10489" => "BOX",
        "14509" => "SERVICENOW",
        "20595" => "MCAS",
        "20940" => "ACTIVE_DIRECTORY",
        other => other,
    };
    format!("APPID_{symbol}")
}

/// The label as the vendor's agent writes it, quotes included.
const IPV6_LABEL: &str = "\"Device IPv6 Address\"";

/// The canonical forms (RFC 5952 for IPv6): the IPv4 address, or the IPv6 address.
fn addresses(text: Option<&str>) -> (Option<String>, Option<String>) {
    match text.and_then(|text| text.parse::<IpAddr>().ok()) {
        Some(IpAddr::V4(address)) => (Some(address.to_string()), None),
        Some(IpAddr::V6(address)) => (None, Some(address.to_string())),
        None => (None, None),
    }
}
