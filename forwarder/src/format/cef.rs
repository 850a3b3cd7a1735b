//! A CEF record (ArcSight Common Event Format, version 0) and its one-line form. Pure.
//!
//! `CEF:0|Vendor|Product|Version|SignatureID|Name|Severity|key=value key=value…`. Values are kept as they are and
//! escaped only when the line is written, by [`escape`]; so they can be measured and shortened without cutting an escape. Pure.

pub mod escape;
pub mod strict;
pub(crate) mod trim;

use std::borrow::Cow;
use std::fmt::Write as _;

/// Names the product whose records these are: SIEM parsers are keyed on both.
const VENDOR: &str = "MCAS";
const PRODUCT: &str = "SIEM_Agent";

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Device Version: this program's.
    pub version: Cow<'a, str>,
    /// Device Event Class ID.
    pub signature: Cow<'a, str>,
    /// Name.
    pub name: Cow<'a, str>,
    /// 0 to 10.
    pub severity: u8,
    /// The extension, in the order in which it is written.
    pub extension: Vec<Field<'a>>,
}

/// One pair of the extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    /// The short key of the CEF dictionary.
    pub key: &'static str,
    /// The value, not escaped.
    pub value: Cow<'a, str>,
}

impl<'a> Field<'a> {
    /// A pair.
    pub fn new(key: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        Self { key, value: value.into() }
    }
}

impl Record<'_> {
    /// Appends the record's line, without a line end.
    pub fn write(&self, line: &mut String) {
        line.push_str("CEF:0|");
        line.push_str(VENDOR);
        line.push('|');
        line.push_str(PRODUCT);
        line.push('|');
        escape::header(&self.version, line);
        line.push('|');
        escape::header(&self.signature, line);
        line.push('|');
        escape::header(&self.name, line);
        line.push('|');
        // A string takes whatever is written to it.
        let _ = write!(line, "{}|", self.severity);
        for (index, field) in self.extension.iter().enumerate() {
            if index > 0 {
                line.push(' ');
            }
            line.push_str(field.key);
            line.push('=');
            escape::value(&field.value, line);
        }
    }
}
