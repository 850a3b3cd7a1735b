//! Expressions as functions of a row: columns found, types held against each other. Pure.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Error;
use super::comparison::{compare, is_in, join, matches};
use super::function;
use super::syntax::Expression;
use super::value::{Column, Row, Type, Value};

/// What an expression gives for a row.
pub(super) type Run = Box<dyn Fn(&Row<'_>) -> Value>;

/// An expression whose columns and types are known.
pub(super) struct Compiled {
    pub(super) kind: Type,
    pub(super) run: Run,
}

impl Compiled {
    pub(super) fn new(kind: Type, run: impl Fn(&Row<'_>) -> Value + 'static) -> Self {
        Self { kind, run: Box::new(run) }
    }
}

/// What expressions are compiled against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The operator that they belong to.
    pub(super) operator: &'a str,
    pub(super) columns: &'a [Column],
    /// The server's time, in ticks.
    pub(super) at: i64,
}

impl Scope<'_> {
    pub(super) fn wrong(&self, words: &str) -> Error {
        Error::Semantic(format!("'{}' operator: {words}", self.operator))
    }

    /// An expression as a function of a row.
    pub(super) fn compile(&self, expression: &Expression) -> Result<Compiled, Error> {
        match expression {
            Expression::Literal(kind, value) => {
                let value = value.clone();
                Ok(Compiled::new(*kind, move |_| value.clone()))
            }
            Expression::Column(name) => {
                let column = self.columns.iter().find(|column| column.name == *name);
                let column = column.ok_or_else(|| {
                    self.wrong(&format!(
                        "Failed to resolve column or scalar expression named '{name}'"
                    ))
                })?;
                let slot = column.slot;
                Ok(Compiled::new(column.kind, move |row| row.value(slot)))
            }
            Expression::Call(name, arguments) => {
                let arguments = arguments.iter().map(|argument| self.compile(argument));
                function::compile(self, name, arguments.collect::<Result<_, _>>()?)
            }
            Expression::Binary(word, left, right) => {
                self.binary(word, self.compile(left)?, self.compile(right)?)
            }
            Expression::In(word, left, list) => {
                let of = self.compile(left)?;
                if let (Type::Text, Some(texts)) = (of.kind, texts(list, word.ends_with('~'))) {
                    return Ok(among(word, of, texts));
                }
                let list: Result<Vec<_>, _> = list.iter().map(|one| self.compile(one)).collect();
                self.membership(word, of, list?)
            }
            Expression::Minus(of) => {
                let zero = match self.compile(of)?.kind {
                    Type::Span => Expression::Literal(Type::Span, Value::Span(0)),
                    _ => Expression::Literal(Type::Long, Value::Long(0)),
                };
                self.binary("-", self.compile(&zero)?, self.compile(of)?)
            }
            Expression::Member(of, index) => self.member(self.compile(of)?, self.compile(index)?),
        }
    }

    fn member(&self, of: Compiled, index: Compiled) -> Result<Compiled, Error> {
        if of.kind != Type::Dynamic {
            let words = format!("a member of a value of type {} is asked for", of.kind.name());
            return Err(self.wrong(&words));
        }
        Ok(Compiled::new(Type::Dynamic, move |row| {
            let Value::Dynamic(json) = (of.run)(row) else { return Value::Null };
            let found = match (index.run)(row) {
                Value::Text(name) => json.get(name),
                Value::Long(number) => usize::try_from(number).ok().and_then(|at| json.get(at)),
                _ => None,
            };
            found.filter(|found| !found.is_null()).cloned().map_or(Value::Null, Value::Dynamic)
        }))
    }

    fn membership(
        &self,
        word: &str,
        left: Compiled,
        list: Vec<Compiled>,
    ) -> Result<Compiled, Error> {
        for one in &list {
            let texts = !word.ends_with('~') || (is_text(left.kind) && is_text(one.kind));
            if !left.kind.compares_with(one.kind) || !texts {
                return Err(self.mismatch(left.kind, one.kind));
            }
        }
        let word = word.to_owned();
        Ok(Compiled::new(Type::Bool, move |row| {
            let list = list.iter().map(|one| (one.run)(row)).collect();
            Value::Bool(is_in(&word, (left.run)(row), list))
        }))
    }

    fn binary(&self, word: &str, left: Compiled, right: Compiled) -> Result<Compiled, Error> {
        let word = word.to_owned();
        match word.as_str() {
            "and" | "or" => {
                if left.kind != Type::Bool || right.kind != Type::Bool {
                    return Err(self.wrong(&format!(
                        "'{word}' needs bool on both sides, not {} and {}",
                        left.kind.name(),
                        right.kind.name()
                    )));
                }
                Ok(Compiled::new(Type::Bool, move |row| {
                    join(&word, &(left.run)(row), || (right.run)(row))
                }))
            }
            "==" | "!=" | "<" | "<=" | ">" | ">=" => {
                // Texts have no order there but that of strcmp().
                let has_order = left.kind != Type::Text && right.kind != Type::Text;
                let is_equality = matches!(word.as_str(), "==" | "!=");
                if !left.kind.compares_with(right.kind) || !(is_equality || has_order) {
                    return Err(self.mismatch(left.kind, right.kind));
                }
                Ok(Compiled::new(Type::Bool, move |row| {
                    compare(&word, (left.run)(row), (right.run)(row))
                }))
            }
            "+" | "-" | "*" | "/" | "%" => self.arithmetic(word, left, right),
            _ => {
                if !is_text(left.kind) || !is_text(right.kind) {
                    return Err(self.mismatch(left.kind, right.kind));
                }
                Ok(Compiled::new(Type::Bool, move |row| {
                    let (text, wanted) = ((left.run)(row), (right.run)(row));
                    Value::Bool(matches(&word, &text.text(), &wanted.text()))
                }))
            }
        }
    }

    fn arithmetic(&self, word: String, left: Compiled, right: Compiled) -> Result<Compiled, Error> {
        let is_whole = |kind| kind == Type::Int || kind == Type::Long;
        let kind = match (word.as_str(), left.kind, right.kind) {
            ("-", Type::Time, Type::Time) | ("+" | "-", Type::Span, Type::Span) => Type::Span,
            ("+" | "-", Type::Time, Type::Span) | ("+", Type::Span, Type::Time) => Type::Time,
            ("*" | "/", Type::Span, number) if is_whole(number) => Type::Span,
            (_, one, two) if is_whole(one) && is_whole(two) => Type::Long,
            (_, one, two) if one.is_number() && two.is_number() => Type::Real,
            (_, one, two) => return Err(self.mismatch(one, two)),
        };
        Ok(Compiled::new(kind, move |row| {
            calculate(&word, &(left.run)(row), &(right.run)(row), kind)
        }))
    }

    fn mismatch(&self, left: Type, right: Type) -> Error {
        let (left, right) = (left.name(), right.name());
        self.wrong(&format!(
            "Cannot compare values of types {left} and {right}. Try adding explicit casts"
        ))
    }
}

/// The texts of a list that holds nothing else: long ones are looked up, not walked through for each row.
fn texts(list: &[Expression], folded: bool) -> Option<BTreeSet<String>> {
    let text = |one: &Expression| match one {
        Expression::Literal(_, Value::Text(text)) if folded => Some(text.to_lowercase()),
        Expression::Literal(_, Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    list.iter().map(text).collect()
}

fn among(word: &str, of: Compiled, texts: BTreeSet<String>) -> Compiled {
    let (folded, wanted) = (word.ends_with('~'), !word.starts_with('!'));
    Compiled::new(Type::Bool, move |row| {
        let text = (of.run)(row).text();
        let text = if folded { text.to_lowercase() } else { text };
        Value::Bool(texts.contains(&text) == wanted)
    })
}

fn is_text(kind: Type) -> bool {
    kind == Type::Text || kind == Type::Dynamic
}

fn calculate(word: &str, left: &Value, right: &Value, kind: Type) -> Value {
    let whole = |value: &Value| match value {
        Value::Long(number) | Value::Time(number) | Value::Span(number) => Some(*number),
        _ => None,
    };
    let real = |value: &Value| match value {
        Value::Real(number) => Some(*number),
        other => whole(other).map(|number| number as f64),
    };
    if kind == Type::Real {
        let (Some(left), Some(right)) = (real(left), real(right)) else { return Value::Null };
        return Value::Real(match word {
            "+" => left + right,
            "-" => left - right,
            "*" => left * right,
            "/" => left / right,
            _ => left % right,
        });
    }
    let (Some(left), Some(right)) = (whole(left), whole(right)) else { return Value::Null };
    let result = match word {
        "+" => left.checked_add(right),
        "-" => left.checked_sub(right),
        "*" => left.checked_mul(right),
        "/" => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    let of = match kind {
        Type::Time => Value::Time,
        Type::Span => Value::Span,
        _ => Value::Long,
    };
    result.map_or(Value::Null, of)
}

/// What a text that holds JSON is as a dynamic value.
pub(super) fn dynamic(value: Value) -> Value {
    let json = match value {
        Value::Null => return Value::Null,
        Value::Dynamic(Json::String(text)) | Value::Text(text) => {
            serde_json::from_str(&text).unwrap_or(Json::String(text))
        }
        other => other.json(),
    };
    if json.is_null() { Value::Null } else { Value::Dynamic(json) }
}
