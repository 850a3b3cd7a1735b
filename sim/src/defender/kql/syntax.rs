//! A query as a table and the operators that follow it. Pure: it knows no table and no column.

use super::Error;
use super::token::{Token, Word, words};
use super::value::{Type, Value};

/// How deep parentheses may nest.
const DEEPEST: usize = 100;
/// How many values operators may join: each is a level of the tree that they make.
const MOST_JOINED: usize = 500;

/// A query.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) table: String,
    pub(super) operators: Vec<Operator>,
}

/// An expression with the name that it is given, if any.
pub(super) type Named = (Option<String>, Expression);

#[derive(Debug)]
pub(super) enum Operator {
    Where(Expression),
    Extend(Vec<Named>),
    Project(Vec<Named>),
    ProjectAway(Vec<String>),
    /// Each with whether it ascends, and whether nulls come first.
    Order(Vec<(Expression, bool, bool)>),
    Take(usize),
    Count,
}

#[derive(Debug)]
pub(super) enum Expression {
    Literal(Type, Value),
    Column(String),
    Call(String, Vec<Self>),
    /// `or` and `and`, comparisons, arithmetic: by the operator's word.
    Binary(String, Box<Self>, Box<Self>),
    /// `in` and its kin.
    In(String, Box<Self>, Vec<Self>),
    Minus(Box<Self>),
    /// `.name` or `[index]` of a dynamic value.
    Member(Box<Self>, Box<Self>),
}

/// Between two values, never in a chain.
const COMPARISONS: [&str; 20] = [
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "=~",
    "!~",
    "has",
    "!has",
    "contains",
    "!contains",
    "startswith",
    "!startswith",
    "endswith",
    "!endswith",
    "contains_cs",
    "!contains_cs",
    "has_cs",
    "!has_cs",
];
const MEMBERSHIPS: [&str; 4] = ["in", "!in", "in~", "!in~"];
/// Words that are no names of columns.
const RESERVED: [&str; 6] = ["and", "or", "in", "by", "asc", "desc"];

/// Reads a query.
pub(super) fn parse(query: &str) -> Result<Query, Error> {
    let mut parser = Parser { words: words(query)?, next: 0, depth: 0, n_joined: 0 };
    let table = parser.name()?;
    let mut operators = Vec::new();
    while !parser.ends() {
        parser.sign("|")?;
        operators.push(parser.operator()?);
    }
    Ok(Query { table, operators })
}

struct Parser {
    words: Vec<Word>,
    next: usize,
    depth: usize,
    n_joined: usize,
}

impl Parser {
    fn token(&self) -> &Token {
        self.words.get(self.next).map_or(&Token::End, |word| &word.token)
    }

    fn ends(&self) -> bool {
        *self.token() == Token::End
    }

    fn wrong(&self) -> Error {
        let word = self.words.get(self.next).or_else(|| self.words.last());
        let (text, at) = word.map_or(("", (1, 1)), |word| (word.text.as_str(), word.at));
        Error::Syntax(if text.is_empty() { "<EOF>" } else { text }.to_owned(), at)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token(), Token::Sign(there) if *there == sign)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let there = self.is_sign(sign);
        self.next += usize::from(there);
        there
    }

    fn sign(&mut self, sign: &str) -> Result<(), Error> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong()) }
    }

    /// Takes one of these words, or signs.
    fn one_of(&mut self, wanted: &[&str]) -> Option<String> {
        let word = match self.token() {
            Token::Name(name) => name.as_str(),
            Token::Sign(sign) => sign,
            _ => return None,
        };
        let found = wanted.contains(&word).then(|| word.to_owned())?;
        self.next += 1;
        Some(found)
    }

    /// Two expressions as one.
    fn join(
        &mut self,
        word: String,
        left: Expression,
        right: Expression,
    ) -> Result<Expression, Error> {
        self.n_joined += 1;
        if self.n_joined > MOST_JOINED {
            return Err(self.wrong());
        }
        Ok(Expression::Binary(word, Box::new(left), Box::new(right)))
    }

    fn name(&mut self) -> Result<String, Error> {
        match self.token() {
            Token::Name(name) if !RESERVED.contains(&name.as_str()) && !name.starts_with('!') => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.wrong()),
        }
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        let mut list = vec![one(self)?];
        while self.takes(",") {
            list.push(one(self)?);
        }
        Ok(list)
    }

    fn operator(&mut self) -> Result<Operator, Error> {
        let begun = self.wrong();
        Ok(match self.name()?.as_str() {
            "where" | "filter" => Operator::Where(self.expression()?),
            "extend" => Operator::Extend(self.list(Self::named)?),
            "project" => Operator::Project(self.list(Self::named)?),
            "project-away" => Operator::ProjectAway(self.list(Self::name)?),
            "order" | "sort" => {
                self.one_of(&["by"]).ok_or_else(|| self.wrong())?;
                Operator::Order(self.list(Self::ordered)?)
            }
            "take" | "limit" => match *self.token() {
                Token::Long(number) => {
                    self.next += 1;
                    Operator::Take(usize::try_from(number).map_err(|_minus| begun)?)
                }
                _ => return Err(self.wrong()),
            },
            "count" => Operator::Count,
            _ => return Err(begun),
        })
    }

    fn named(&mut self) -> Result<Named, Error> {
        let named = matches!(self.token(), Token::Name(_))
            && matches!(self.words.get(self.next + 1), Some(word) if word.token == Token::Sign("="));
        let name = if named { Some(self.name()?) } else { None };
        if named {
            self.sign("=")?;
        }
        Ok((name, self.expression()?))
    }

    fn ordered(&mut self) -> Result<(Expression, bool, bool), Error> {
        let by = self.expression()?;
        let ascends = self.one_of(&["asc", "desc"]).is_some_and(|word| word == "asc");
        let nulls_first = if self.one_of(&["nulls"]).is_some() {
            self.one_of(&["first", "last"]).ok_or_else(|| self.wrong())? == "first"
        } else {
            ascends
        };
        Ok((by, ascends, nulls_first))
    }

    fn expression(&mut self) -> Result<Expression, Error> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.wrong());
        }
        let mut left = self.both()?;
        while let Some(word) = self.one_of(&["or"]) {
            let right = self.both()?;
            left = self.join(word, left, right)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn both(&mut self) -> Result<Expression, Error> {
        let mut left = self.comparison()?;
        while let Some(word) = self.one_of(&["and"]) {
            let right = self.comparison()?;
            left = self.join(word, left, right)?;
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Expression, Error> {
        let left = self.sum()?;
        if let Some(word) = self.one_of(&COMPARISONS) {
            return Ok(Expression::Binary(word, Box::new(left), Box::new(self.sum()?)));
        }
        let Some(word) = self.one_of(&MEMBERSHIPS) else { return Ok(left) };
        self.sign("(")?;
        let list = self.list(Self::expression)?;
        self.sign(")")?;
        Ok(Expression::In(word, Box::new(left), list))
    }

    fn sum(&mut self) -> Result<Expression, Error> {
        let mut left = self.product()?;
        while let Some(word) = self.one_of(&["+", "-"]) {
            let right = self.product()?;
            left = self.join(word, left, right)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Expression, Error> {
        let mut left = self.single()?;
        while let Some(word) = self.one_of(&["*", "/", "%"]) {
            let right = self.single()?;
            left = self.join(word, left, right)?;
        }
        Ok(left)
    }

    fn single(&mut self) -> Result<Expression, Error> {
        if self.takes("-") {
            return Ok(Expression::Minus(Box::new(self.member()?)));
        }
        self.takes("+");
        self.member()
    }

    fn member(&mut self) -> Result<Expression, Error> {
        let mut of = self.primary()?;
        loop {
            let index = if self.takes(".") {
                Expression::Literal(Type::Text, Value::Text(self.name()?))
            } else if self.takes("[") {
                let index = self.expression()?;
                self.sign("]")?;
                index
            } else {
                return Ok(of);
            };
            of = Expression::Member(Box::new(of), Box::new(index));
        }
    }

    fn primary(&mut self) -> Result<Expression, Error> {
        if self.takes("(") {
            let inside = self.expression()?;
            self.sign(")")?;
            return Ok(inside);
        }
        let (kind, value) = match self.token().clone() {
            Token::Name(_) => return self.column_or_call(),
            Token::Text(text) => (Type::Text, Value::Text(text)),
            Token::Long(number) => (Type::Long, Value::Long(number)),
            Token::Real(number) => (Type::Real, Value::Real(number)),
            Token::Time(at) => (Type::Time, at.map_or(Value::Null, Value::Time)),
            Token::Span(span) => (Type::Span, Value::Span(span)),
            Token::Sign(_) | Token::End => return Err(self.wrong()),
        };
        self.next += 1;
        Ok(Expression::Literal(kind, value))
    }

    fn column_or_call(&mut self) -> Result<Expression, Error> {
        let name = self.name()?;
        if !self.takes("(") {
            return Ok(match name.as_str() {
                "true" => Expression::Literal(Type::Bool, Value::Bool(true)),
                "false" => Expression::Literal(Type::Bool, Value::Bool(false)),
                _ => Expression::Column(name),
            });
        }
        let arguments = if self.is_sign(")") { Vec::new() } else { self.list(Self::expression)? };
        self.sign(")")?;
        Ok(Expression::Call(name, arguments))
    }
}
