//! Values, types, tables and rows of the query language. Pure.

use std::cmp::Ordering;

use serde_json::{Value as Json, json};

use super::super::ticks::{self, Form};

/// The type of a column or of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Bool,
    Int,
    Long,
    Real,
    Text,
    Time,
    Span,
    Dynamic,
}

impl Type {
    /// Its name in the language.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Long => "long",
            Self::Real => "real",
            Self::Text => "string",
            Self::Time => "datetime",
            Self::Span => "timespan",
            Self::Dynamic => "dynamic",
        }
    }

    /// Its name in the schema of an answer.
    pub(crate) fn name_in_schema(self) -> &'static str {
        match self {
            Self::Bool => "SByte",
            Self::Int => "Int32",
            Self::Long => "Int64",
            Self::Real => "Double",
            Self::Text => "String",
            Self::Time => "DateTime",
            Self::Span => "TimeSpan",
            Self::Dynamic => "Object",
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Long | Self::Real)
    }

    /// Whether values of both types can be compared.
    pub(super) fn compares_with(self, other: Self) -> bool {
        self == other
            || (self.is_number() && other.is_number())
            || self == Self::Dynamic
            || other == Self::Dynamic
    }
}

/// A value. There is no null text: what is missing is the empty one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Long(i64),
    Real(f64),
    Text(String),
    Time(i64),
    Span(i64),
    Dynamic(Json),
}

impl Value {
    /// What a column of this type holds where a record has this JSON.
    pub(super) fn of(kind: Type, json: Option<&Json>) -> Self {
        let json = json.unwrap_or(&Json::Null);
        let known = match kind {
            Type::Text => {
                let text = json.as_str().map(str::to_owned);
                return Self::Text(text.unwrap_or_else(|| {
                    if json.is_null() { String::new() } else { json.to_string() }
                }));
            }
            Type::Dynamic => (!json.is_null()).then(|| Self::Dynamic(json.clone())),
            Type::Bool => json
                .as_bool()
                .or_else(|| Some(json.as_i64()? != 0))
                .or_else(|| Some(json.as_str()? != "0"))
                .map(Self::Bool),
            Type::Int | Type::Long => {
                json.as_i64().or_else(|| json.as_str()?.parse().ok()).map(Self::Long)
            }
            Type::Real => json.as_f64().map(Self::Real),
            Type::Time => {
                json.as_str().and_then(|text| ticks::parse(text, Form::Loose)).map(Self::Time)
            }
            Type::Span => json.as_i64().map(Self::Span),
        };
        known.unwrap_or(Self::Null)
    }

    /// What a dynamic value that holds a scalar is compared as.
    pub(super) fn plain(self) -> Self {
        match self {
            Self::Dynamic(Json::Bool(truth)) => Self::Bool(truth),
            Self::Dynamic(Json::String(text)) => Self::Text(text),
            Self::Dynamic(Json::Null) => Self::Null,
            Self::Dynamic(Json::Number(number)) => match number.as_i64() {
                Some(number) => Self::Long(number),
                None => number.as_f64().map_or(Self::Null, Self::Real),
            },
            other => other,
        }
    }

    /// As `tostring` gives it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(truth) => truth.to_string(),
            Self::Long(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Text(text) | Self::Dynamic(Json::String(text)) => text.clone(),
            Self::Time(at) => ticks::print(*at, 7),
            Self::Span(span) => print_span(*span),
            Self::Dynamic(json) => json.to_string(),
        }
    }

    /// As an answer shows it.
    pub(super) fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(truth) => json!(truth),
            Self::Long(number) => json!(number),
            Self::Real(number) => json!(number),
            Self::Text(_) | Self::Time(_) | Self::Span(_) => json!(self.text()),
            Self::Dynamic(json) => json.clone(),
        }
    }

    /// The order of two values, where they have one. Texts are ordered ordinally.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(two)) => Some(one.cmp(two)),
            (Self::Long(one), Self::Long(two))
            | (Self::Time(one), Self::Time(two))
            | (Self::Span(one), Self::Span(two)) => Some(one.cmp(two)),
            (Self::Text(one), Self::Text(two)) => Some(one.cmp(two)),
            (Self::Dynamic(one), Self::Dynamic(two)) => (one == two).then_some(Ordering::Equal),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Long(number) => Some(*number as f64),
            Self::Real(number) => Some(*number),
            _ => None,
        }
    }
}

/// `d.hh:mm:ss.fffffff`, without days and a fraction that are zero.
fn print_span(span: i64) -> String {
    let (sign, span) = (if span < 0 { "-" } else { "" }, span.unsigned_abs());
    let second = ticks::SECOND.unsigned_abs();
    let (seconds, fraction) = (span / second, span % second);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let days = if days > 0 { format!("{days}.") } else { String::new() };
    let fraction = if fraction > 0 { format!(".{fraction:07}") } else { String::new() };
    let (hours, minutes) = (of_day / 3_600, of_day / 60 % 60);
    format!("{sign}{days}{hours:02}:{minutes:02}:{:02}{fraction}", of_day % 60)
}

/// A table: its name and its columns in their order.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, Type)],
}

/// What a record has in one column: what is evaluated, and the JSON that is shown; `None` where the column is left out.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(super) value: Value,
    pub(super) shown: Option<Json>,
}

impl Cell {
    pub(crate) fn new(kind: Type, shown: Option<Json>) -> Self {
        Self { value: Value::of(kind, shown.as_ref()), shown }
    }
}

/// A record of a table: its cells, in the order of the columns.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) cells: Vec<Cell>,
    /// What `ingestion_time()` gives, in ticks.
    pub(crate) ingested: i64,
    /// Columns with a companion that names their type, by index.
    pub(crate) companions: Vec<(usize, &'static str)>,
}

/// A record on its way through the pipeline, with what operators have added to it.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) fact: &'a Fact,
    pub(super) added: Vec<Value>,
}

/// Where a column's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// In the record.
    Fact(usize),
    /// Among what operators have added.
    Added(usize),
}

impl Row<'_> {
    pub(super) fn value(&self, slot: Slot) -> Value {
        let value = match slot {
            Slot::Fact(index) => self.fact.cells.get(index).map(|cell| &cell.value),
            Slot::Added(index) => self.added.get(index),
        };
        value.cloned().unwrap_or(Value::Null)
    }
}

/// A column that the operators so far have left.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Type,
    pub(super) slot: Slot,
}
