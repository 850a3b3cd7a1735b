//! The mapping: an [`Event`] becomes a CEF [`Record`], field by field as `docs/cef-mapping.md` lists them. Pure.
//!
//! `Legacy` writes what the vendor's agent wrote, empty fields included, because parsers were built on it. `Strict`
//! follows the CEF standard (Implementation Standard, "ArcSight Extension Dictionary") in lengths and emptiness. Pure.

mod activity;
mod address;
mod alert;
mod cloud_app_event;
pub mod describe;
mod graph_alert;
mod identity_logon_event;
mod snake;
mod text;

use std::borrow::Cow;
use std::net::IpAddr;

use crate::event::Event;
use crate::format::cef::{Field, Record, strict};
use crate::time::Millis;

/// How closely the lines follow the vendor's agent or the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As the vendor's agent writes.
    Legacy,
    /// As the CEF standard demands.
    Strict,
}

/// What an event is mapped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The dialect of the CEF part.
    pub dialect: Dialect,
    /// Device Version.
    pub version: String,
}

/// Maps an event.
pub fn record<'a>(event: &'a Event, dialect: Dialect, version: &'a str) -> Record<'a> {
    let record = match event {
        Event::Activity(activity) => activity::record(activity, version),
        Event::Alert(alert) => alert::record(alert, version),
        Event::GraphAlert(alert) => graph_alert::record(alert, version),
        Event::CloudAppEvent(row) => cloud_app_event::record(row, version),
        Event::IdentityLogonEvent(row) => identity_logon_event::record(row, version),
    };
    match dialect {
        Dialect::Legacy => record,
        Dialect::Strict => strict::record(record),
    }
}

/// SIGNATURE.
pub fn signature(event: &Event) -> Cow<'_, str> {
    record(event, Dialect::Legacy, "").signature
}

/// `suser`, where there is one.
pub fn user(event: &Event) -> Option<Cow<'_, str>> {
    let record = record(event, Dialect::Legacy, "");
    let user = record.extension.into_iter().find(|field| field.key == "suser");
    user.map(|field| field.value).filter(|value| !value.is_empty())
}

/// One key of the extension: what it holds in words, and how that is read off a record.
struct Column<T: 'static> {
    key: &'static str,
    /// The key and the text of the label that goes before it.
    label: Option<(&'static str, &'static str)>,
    words: &'static str,
    value: for<'a> fn(&'a T) -> Option<Cow<'a, str>>,
    /// Whether the pair is left out when there is no value; an empty one is written otherwise.
    is_left_out: bool,
}

/// The header's values in words.
struct Described {
    signature: &'static str,
    name: &'static str,
    severity: &'static str,
}

impl<T> Column<T> {
    const fn new(
        key: &'static str,
        words: &'static str,
        value: for<'a> fn(&'a T) -> Option<Cow<'a, str>>,
    ) -> Self {
        Self { key, label: None, words, value, is_left_out: false }
    }

    const fn labelled(
        key: &'static str,
        label: (&'static str, &'static str),
        words: &'static str,
        value: for<'a> fn(&'a T) -> Option<Cow<'a, str>>,
    ) -> Self {
        Self { key, label: Some(label), words, value, is_left_out: false }
    }

    const fn or_left_out(self) -> Self {
        Self { is_left_out: true, ..self }
    }
}

fn columns<'a, T>(columns: &[Column<T>], of: &'a T) -> Vec<Field<'a>> {
    let mut fields = Vec::with_capacity(columns.len() + 6);
    for column in columns {
        let value = (column.value)(of);
        if value.is_none() && column.is_left_out {
            continue;
        }
        fields.extend(column.label.map(|(key, text)| Field::new(key, text)));
        fields.push(Field::new(column.key, value.unwrap_or_default()));
    }
    fields
}

#[expect(clippy::unnecessary_wraps, reason = "a column may have no value")]
fn given(text: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(text))
}

#[expect(clippy::unnecessary_wraps, reason = "a column may have no value")]
fn number(number: Millis) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(number.to_string()))
}

/// Nothing at all when there is nothing to join.
fn joined<'a>(mut parts: impl Iterator<Item = Cow<'a, str>>) -> Option<Cow<'a, str>> {
    let mut joined = parts.next()?;
    for part in parts {
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(&part);
    }
    Some(joined)
}

/// An activity in the portal.
#[expect(clippy::unnecessary_wraps, reason = "a column may have no value")]
fn activity_url(id: &str) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(format!(
        "https://security.microsoft.com/cloudapps/activity-log?activity.id=eq({id},)"
    )))
}

/// Apps that the vendor's agent writes by symbol.
const APPS: [(&str, &str); 8] = [
    ("11161", "APPID_O365"),
    ("20893", "APPID_OUTLOOK"),
    ("15600", "APPID_ONEDRIVE"),
    ("11114", "APPID_SALESFORCE"),
    ("10489", "APPID_BOX"),
    ("14509", "APPID_SERVICENOW"),
    ("20595", "APPID_MCAS"),
    ("20940", "APPID_ACTIVE_DIRECTORY"),
];

fn app_symbol(id: &str) -> Cow<'static, str> {
    found(&APPS, id).map_or_else(|| Cow::Owned(format!("APPID_{id}")), Cow::Borrowed)
}

fn found(table: &[(&str, &'static str)], wanted: &str) -> Option<&'static str> {
    table.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value)
}

/// The label as the vendor's agent writes it, quotes included.
const IPV6_LABEL: &str = "\"Device IPv6 Address\"";

/// The address, if it is one of IPv4.
fn ipv4<'a>(text: Option<&str>) -> Option<Cow<'a, str>> {
    match address::read(text?)? {
        IpAddr::V4(address) => Some(Cow::Owned(address.to_string())),
        IpAddr::V6(_) => None,
    }
}

/// The address in its canonical form (RFC 5952), if it is one of IPv6.
fn ipv6<'a>(text: Option<&str>) -> Option<Cow<'a, str>> {
    match address::read(text?)? {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(Cow::Owned(address.to_string())),
    }
}
