//! A subset of the Kusto query language, read and evaluated for one table: where, extend, project, project-away, order by,
//! take, count. Pure.
//!
//! Text becomes tokens (`token`), tokens a pipeline of operators (`syntax`), each operator's expressions become functions of
//! a row once their columns and types are known (`expression`, `function`), and `pipeline` runs them. What the subset does
//! not know is refused as Kusto refuses what it does not know: a syntax error or a semantic error, never another result.

mod value;
mod token;
mod syntax;
mod comparison;
mod function;
mod expression;
mod pipeline;

pub(crate) use pipeline::run;
pub(crate) use value::{Cell, Fact, Table, Type};

/// Why a query is refused, in words like Kusto's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    /// It does not parse at this text of this line and column.
    Syntax(String, (usize, usize)),
    /// It names what there is not, or mixes types.
    Semantic(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syntax(at, (line, column)) => write!(
                formatter,
                "Syntax error: Query could not be parsed at '{at}' on line [{line},{column}]. \
                 Token: {at}, Line: {line}, Position: {column}"
            ),
            Self::Semantic(words) => write!(formatter, "Semantic error: {words}"),
        }
    }
}

#[cfg(test)]
mod tests;
