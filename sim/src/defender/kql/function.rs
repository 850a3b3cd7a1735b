//! The functions of the query language, by name. Pure: the time is the query's.

use super::super::ticks::{self, Form};
use super::Error;
use super::expression::{Compiled, Run, Scope, dynamic};
use super::value::{Type, Value};

/// A call as a function of a row.
pub(super) fn compile(
    scope: &Scope<'_>,
    name: &str,
    arguments: Vec<Compiled>,
) -> Result<Compiled, Error> {
    let kinds: Vec<Type> = arguments.iter().map(|argument| argument.kind).collect();
    let wrong = || {
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        scope.wrong(&format!(
            "{name}(): function doesn't accept the arguments ({})",
            kinds.join(", ")
        ))
    };
    let (first, at) = (kinds.first().copied(), scope.at);
    let mut runs: Vec<Run> = arguments.into_iter().map(|argument| argument.run).collect();
    match (name, kinds.as_slice()) {
        ("ingestion_time", []) => {
            Ok(Compiled::new(Type::Time, |row| Value::Time(row.fact.ingested)))
        }
        ("now", []) => Ok(Compiled::new(Type::Time, move |_| Value::Time(at))),
        ("now" | "ago", [Type::Span]) => {
            let (run, sign) = (runs.remove(0), if name == "ago" { -1 } else { 1 });
            Ok(Compiled::new(Type::Time, move |row| match run(row) {
                Value::Span(span) => Value::Time(at.saturating_add(span.saturating_mul(sign))),
                _ => Value::Null,
            }))
        }
        ("coalesce", [first, _, ..]) => {
            let first = *first;
            if !kinds.iter().all(|kind| *kind == first || kind.is_number() && first.is_number()) {
                return Err(wrong());
            }
            Ok(Compiled::new(first, move |row| {
                let mut found = runs.iter().map(|run| run(row));
                found.find(|value| !is_missing(value)).unwrap_or_else(|| missing(first))
            }))
        }
        ("iff" | "iif", [Type::Bool, yes, no])
            if yes == no || yes.is_number() && no.is_number() =>
        {
            Ok(Compiled::new(*yes, move |row| {
                let holds = runs.first().is_some_and(|run| run(row) == Value::Bool(true));
                runs.get(if holds { 1 } else { 2 }).map_or(Value::Null, |run| run(row))
            }))
        }
        ("strcat", [_, ..]) => Ok(Compiled::new(Type::Text, move |row| {
            Value::Text(runs.iter().map(|run| run(row).text()).collect())
        })),
        ("replace_string", [Type::Text | Type::Dynamic, Type::Text, Type::Text]) => {
            Ok(Compiled::new(Type::Text, move |row| {
                let texts: Vec<String> = runs.iter().map(|run| run(row).text()).collect();
                let [text, from, to] = texts.as_slice() else { return Value::Null };
                Value::Text(if from.is_empty() { text.clone() } else { text.replace(from, to) })
            }))
        }
        ("strcmp", [Type::Text | Type::Dynamic, Type::Text | Type::Dynamic]) => {
            Ok(Compiled::new(Type::Long, move |row| {
                let texts: Vec<String> = runs.iter().map(|run| run(row).text()).collect();
                let [one, two] = texts.as_slice() else { return Value::Null };
                Value::Long(one.cmp(two) as i64)
            }))
        }
        (
            "bin",
            [Type::Time | Type::Span, Type::Span]
            | [Type::Int | Type::Long, Type::Int | Type::Long],
        ) => Ok(Compiled::new(first.unwrap_or(Type::Long), move |row| {
            let values: Vec<Value> = runs.iter().map(|run| run(row)).collect();
            let floor = |value: i64, step: i64| Some(value.checked_div_euclid(step)? * step);
            let floored = match values.as_slice() {
                [Value::Time(time), Value::Span(step)] => floor(*time, *step).map(Value::Time),
                [Value::Span(span), Value::Span(step)] => floor(*span, *step).map(Value::Span),
                [Value::Long(number), Value::Long(step)] => floor(*number, *step).map(Value::Long),
                _ => None,
            };
            floored.unwrap_or(Value::Null)
        })),
        (_, [_]) => {
            let run = runs.remove(0);
            let (kind, of) = of_one(name, first.unwrap_or(Type::Dynamic))
                .ok_or_else(|| if is_known(name) { wrong() } else { unknown(scope, name) })?;
            Ok(Compiled::new(kind, move |row| of(run(row))))
        }
        _ if is_known(name) => Err(wrong()),
        _ => Err(unknown(scope, name)),
    }
}

const OTHERS: [&str; 10] = [
    "ingestion_time",
    "now",
    "ago",
    "coalesce",
    "iff",
    "iif",
    "strcat",
    "strcmp",
    "replace_string",
    "bin",
];

fn is_known(name: &str) -> bool {
    let of_any = [Type::Text, Type::Bool, Type::Long];
    OTHERS.contains(&name) || of_any.into_iter().any(|kind| of_one(name, kind).is_some())
}

fn unknown(scope: &Scope<'_>, name: &str) -> Error {
    scope.wrong(&format!("Unknown function: '{name}'"))
}

/// A function of one argument, and the type that it gives.
type OfOne = (Type, fn(Value) -> Value);

/// The functions of one argument of this type.
fn of_one(name: &str, kind: Type) -> Option<OfOne> {
    let is_text = kind == Type::Text || kind == Type::Dynamic;
    let of: OfOne = match name {
        "not" if kind == Type::Bool => (Type::Bool, |value| match value {
            Value::Bool(truth) => Value::Bool(!truth),
            _ => Value::Null,
        }),
        "isempty" => (Type::Bool, |value| Value::Bool(value.text().is_empty())),
        "isnotempty" => (Type::Bool, |value| Value::Bool(!value.text().is_empty())),
        "isnull" => (Type::Bool, |value| Value::Bool(value.plain() == Value::Null)),
        "isnotnull" => (Type::Bool, |value| Value::Bool(value.plain() != Value::Null)),
        "tostring" => (Type::Text, |value| Value::Text(value.text())),
        "tolower" if is_text => (Type::Text, |value| Value::Text(value.text().to_lowercase())),
        "toupper" if is_text => (Type::Text, |value| Value::Text(value.text().to_uppercase())),
        "strlen" if is_text => (Type::Long, |value| {
            Value::Long(i64::try_from(value.text().chars().count()).unwrap_or(i64::MAX))
        }),
        "todatetime" if kind == Type::Time || is_text => (Type::Time, |value| match value {
            Value::Time(at) => Value::Time(at),
            other => ticks::parse(&other.text(), Form::Loose).map_or(Value::Null, Value::Time),
        }),
        "toint" => (Type::Int, whole),
        "tolong" => (Type::Long, whole),
        "parse_json" | "todynamic" if is_text => (Type::Dynamic, dynamic),
        _ => return None,
    };
    Some(of)
}

#[expect(clippy::cast_possible_truncation, reason = "that is what the conversion is for")]
fn whole(value: Value) -> Value {
    match value.plain() {
        Value::Real(number) => Value::Long(number as i64),
        Value::Bool(truth) => Value::Long(truth.into()),
        Value::Long(number) => Value::Long(number),
        other => other.text().trim().parse().map_or(Value::Null, Value::Long),
    }
}

fn is_missing(value: &Value) -> bool {
    matches!(value, Value::Null) || matches!(value, Value::Text(text) if text.is_empty())
}

fn missing(kind: Type) -> Value {
    if kind == Type::Text { Value::Text(String::new()) } else { Value::Null }
}
