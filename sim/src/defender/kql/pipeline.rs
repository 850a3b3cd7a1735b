//! The operators of a query, one after the other, over the rows of a table. Pure.

use std::cmp::Ordering;

use serde_json::{Map, Value as Json, json};

use super::super::ticks;
use super::Error;
use super::expression::{Compiled, Scope};
use super::syntax::{Expression, Named, Operator, parse};
use super::value::{Column, Fact, Row, Slot, Table, Type, Value};

/// What a query gives.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Names and types of the columns that are left.
    pub(crate) schema: Vec<(String, Type)>,
    /// Each row that is left, with the number of the fact that it is from; a `count` is from no fact.
    pub(crate) rows: Vec<(Option<usize>, Map<String, Json>)>,
}

/// What stands behind the row of a `count`.
static NOTHING: Fact = Fact { cells: Vec::new(), ingested: 0, companions: Vec::new() };

/// Runs a query over the facts that `facts` gives for a table.
///
/// # Errors
/// When the query does not parse, or names a table, column or function that there is not.
pub(crate) fn run<'a>(
    query: &str,
    tables: &[&'static Table],
    at: i64,
    facts: impl FnOnce(&'static Table) -> Vec<&'a Fact>,
) -> Result<Answer, Error> {
    let query = parse(query)?;
    let table = tables.iter().find(|table| table.name == query.table);
    let table = table.ok_or_else(|| {
        let name = &query.table;
        Error::Semantic(format!(
            "'{name}' operator: Failed to resolve table or column expression named '{name}'"
        ))
    })?;
    let columns = table.columns.iter().enumerate().map(|(index, (name, kind))| Column {
        name: (*name).to_owned(),
        kind: *kind,
        slot: Slot::Fact(index),
    });
    // Every operator is compiled before the first row is read: a wrong query is refused whatever the table holds.
    let mut plan = Plan { columns: columns.collect(), n_added: 0, at };
    let steps = query.operators.into_iter().map(|operator| plan.step(operator));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let facts = facts(table).into_iter().enumerate();
    let mut rows =
        facts.map(|(index, fact)| (Some(index), Row { fact, added: Vec::new() })).collect();
    for step in &steps {
        step.take(&mut rows);
    }
    let schema = plan.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
    let shown = rows.iter().map(|(index, row)| (*index, plan.show(row)));
    Ok(Answer { schema, rows: shown.collect() })
}

type Rows<'a> = Vec<(Option<usize>, Row<'a>)>;

/// What happens to the rows.
enum Step {
    Where(Compiled),
    Add(Vec<Compiled>),
    Order(Vec<(Compiled, bool, bool)>),
    Take(usize),
    /// The row of a count has so many values before it.
    Count(usize),
}

impl Step {
    fn take(&self, rows: &mut Rows<'_>) {
        match self {
            Self::Where(holds) => rows.retain(|(_, row)| (holds.run)(row) == Value::Bool(true)),
            Self::Add(expressions) => {
                for (_, row) in rows {
                    let values: Vec<Value> = expressions.iter().map(|one| (one.run)(row)).collect();
                    row.added.extend(values);
                }
            }
            Self::Order(by) => {
                let keys = |row: &Row<'_>| by.iter().map(|(key, ..)| (key.run)(row)).collect();
                rows.sort_by_cached_key(|(_, row)| {
                    let keys: Vec<Value> = keys(row);
                    let directed = keys.into_iter().zip(by);
                    directed
                        .map(|(value, (_, ascends, nulls_first))| Key {
                            value,
                            ascends: *ascends,
                            nulls_first: *nulls_first,
                        })
                        .collect::<Vec<_>>()
                });
            }
            Self::Take(n_rows) => rows.truncate(*n_rows),
            Self::Count(n_before) => {
                let mut added = vec![Value::Null; *n_before];
                added.push(Value::Long(i64::try_from(rows.len()).unwrap_or(i64::MAX)));
                *rows = vec![(None, Row { fact: &NOTHING, added })];
            }
        }
    }
}

/// A value by which rows are ordered.
struct Key {
    value: Value,
    ascends: bool,
    nulls_first: bool,
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let first = if self.nulls_first { Ordering::Less } else { Ordering::Greater };
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Null, _) => first,
            (_, Value::Null) => first.reverse(),
            (one, two) => {
                let order = one.order(two).unwrap_or(Ordering::Equal);
                if self.ascends { order } else { order.reverse() }
            }
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

/// What the operators so far have left.
struct Plan {
    columns: Vec<Column>,
    /// So many values have been added to each row.
    n_added: usize,
    at: i64,
}

impl Plan {
    fn step(&mut self, operator: Operator) -> Result<Step, Error> {
        match operator {
            Operator::Where(condition) => {
                let scope = self.scope("where");
                let condition = scope.compile(&condition)?;
                if condition.kind != Type::Bool {
                    let words = format!("expression must be bool, not {}", condition.kind.name());
                    return Err(scope.wrong(&words));
                }
                Ok(Step::Where(condition))
            }
            Operator::Extend(list) => {
                let (columns, step) = self.computed("extend", list)?;
                for column in columns {
                    match self.columns.iter_mut().find(|there| there.name == column.name) {
                        Some(there) => *there = column,
                        None => self.columns.push(column),
                    }
                }
                Ok(step)
            }
            Operator::Project(list) => {
                let (columns, step) = self.computed("project", list)?;
                for (index, column) in columns.iter().enumerate() {
                    if columns.iter().skip(index + 1).any(|later| later.name == column.name) {
                        let words = format!("a column named '{}' exists already", column.name);
                        return Err(self.scope("project").wrong(&words));
                    }
                }
                self.columns = columns;
                Ok(step)
            }
            Operator::ProjectAway(names) => {
                for name in names {
                    self.scope("project-away").compile(&Expression::Column(name.clone()))?;
                    self.columns.retain(|column| column.name != name);
                }
                Ok(Step::Add(Vec::new()))
            }
            Operator::Order(by) => {
                let scope = self.scope("order");
                let mut keys = Vec::new();
                for (key, ascends, nulls_first) in by {
                    let key = scope.compile(&key)?;
                    if key.kind == Type::Dynamic {
                        return Err(scope.wrong("key can't be of dynamic type"));
                    }
                    keys.push((key, ascends, nulls_first));
                }
                Ok(Step::Order(keys))
            }
            Operator::Take(n_rows) => Ok(Step::Take(n_rows)),
            Operator::Count => {
                let slot = Slot::Added(self.n_added);
                self.columns = vec![Column { name: "Count".to_owned(), kind: Type::Long, slot }];
                self.n_added += 1;
                Ok(Step::Count(self.n_added - 1))
            }
        }
    }

    fn scope<'a>(&'a self, operator: &'a str) -> Scope<'a> {
        Scope { operator, columns: &self.columns, at: self.at }
    }

    /// The columns of these expressions, and the step that computes those that are not there yet.
    fn computed(&mut self, operator: &str, list: Vec<Named>) -> Result<(Vec<Column>, Step), Error> {
        let (mut columns, mut computed, mut n_nameless) = (Vec::new(), Vec::new(), 0);
        for (name, expression) in list {
            let compiled = self.scope(operator).compile(&expression)?;
            let kind = compiled.kind;
            let there = match &expression {
                Expression::Column(name) => self.columns.iter().find(|there| there.name == *name),
                _ => None,
            };
            let name = name.or_else(|| Some(there?.name.clone())).unwrap_or_else(|| {
                n_nameless += 1;
                format!("Column{n_nameless}")
            });
            let slot = there.map_or(Slot::Added(self.n_added + computed.len()), |there| there.slot);
            if there.is_none() {
                computed.push(compiled);
            }
            columns.push(Column { name, kind, slot });
        }
        self.n_added += computed.len();
        Ok((columns, Step::Add(computed)))
    }

    fn show(&self, row: &Row<'_>) -> Map<String, Json> {
        let mut shown = Map::new();
        for column in &self.columns {
            let json = match column.slot {
                Slot::Fact(index) => {
                    let companion = row.fact.companions.iter().find(|(of, _)| *of == index);
                    if let Some((_, kind)) = companion {
                        shown.insert(format!("{}@odata.type", column.name), json!(kind));
                    }
                    row.fact.cells.get(index).and_then(|cell| cell.shown.clone())
                }
                Slot::Added(_) => Some(match row.value(column.slot) {
                    Value::Time(at) => json!(ticks::print(at, ticks::n_digits(at))),
                    other => other.json(),
                }),
            };
            shown.extend(json.map(|json| (column.name.clone(), json)));
        }
        shown
    }
}
