//! The filters of OData, as Graph takes them for alerts: read by their grammar, and held against an alert's fields. Pure.

use super::super::ticks::{self, Form};

/// How deep parentheses may nest.
const DEEPEST: usize = 50;
/// How many conditions a filter may join.
const MOST_JOINED: usize = 200;

const TOO_MUCH: &str = "Invalid filter clause: The node count limit has been exceeded.";

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operand {
    Null,
    Text(String),
    /// In ticks.
    Time(i64),
}

/// A field that can be filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    CreatedDateTime,
    LastUpdateDateTime,
    Severity,
    ServiceSource,
    Status,
    Classification,
    Determination,
    AssignedTo,
}

const FIELDS: [(&str, Field); 8] = [
    ("createdDateTime", Field::CreatedDateTime),
    ("lastUpdateDateTime", Field::LastUpdateDateTime),
    ("severity", Field::Severity),
    ("serviceSource", Field::ServiceSource),
    ("status", Field::Status),
    ("classification", Field::Classification),
    ("determination", Field::Determination),
    ("assignedTo", Field::AssignedTo),
];

impl Field {
    pub(crate) fn named(name: &str) -> Option<Self> {
        FIELDS.iter().find(|(of, _)| *of == name).map(|(_, field)| *field)
    }

    pub(crate) fn is_time(self) -> bool {
        matches!(self, Self::CreatedDateTime | Self::LastUpdateDateTime)
    }
}

/// A filter that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filter {
    All,
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Compare(Field, Comparison, Operand),
    In(Field, Vec<Operand>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Unequal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { words: words(text)?, next: 0, depth: 0, n_joined: 0 };
        let filter = parser.either()?;
        match parser.word() {
            None => Ok(filter),
            Some(_) => Err(parser.wrong()),
        }
    }

    /// Whether an alert with these fields passes.
    pub(crate) fn passes(&self, field: &impl Fn(Field) -> Operand) -> bool {
        match self {
            Self::All => true,
            Self::And(one, two) => one.passes(field) && two.passes(field),
            Self::Or(one, two) => one.passes(field) || two.passes(field),
            Self::Not(of) => !of.passes(field),
            Self::In(of, list) => list.contains(&field(*of)),
            Self::Compare(of, comparison, operand) => {
                let value = field(*of);
                let ordered = value != Operand::Null && *operand != Operand::Null;
                match comparison {
                    Comparison::Equal => value == *operand,
                    Comparison::Unequal => value != *operand,
                    Comparison::Greater => ordered && value > *operand,
                    Comparison::GreaterOrEqual => ordered && value >= *operand,
                    Comparison::Less => ordered && value < *operand,
                    Comparison::LessOrEqual => ordered && value <= *operand,
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// A name, a keyword or a number.
    Plain(String),
    Text(String),
    Sign(char),
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = rest.get(first.len_utf8()..).unwrap_or_default();
        match first {
            _ if first.is_whitespace() => rest = after,
            '(' | ')' | ',' => {
                words.push(Word::Sign(first));
                rest = after;
            }
            '\'' => {
                let (literal, left) = quoted(after)
                    .ok_or_else(|| format!("There is an unterminated literal in '{text}'."))?;
                words.push(Word::Text(literal));
                rest = left;
            }
            _ => {
                let of_word = |char: char| char.is_ascii_alphanumeric() || "._:-+@/".contains(char);
                let end = rest.find(|char| !of_word(char)).unwrap_or(rest.len());
                let (word, left) = rest.split_at(end);
                if word.is_empty() {
                    return Err(format!(
                        "Syntax error: character '{first}' is not valid in '{text}'."
                    ));
                }
                words.push(Word::Plain(word.to_owned()));
                rest = left;
            }
        }
    }
    Ok(words)
}

/// The text up to the quotation mark that ends it, a doubled one being a part of it, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut literal, mut rest) = (String::new(), text);
    loop {
        let (part, after) = rest.split_once('\'')?;
        literal.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => rest = after,
            None => return Some((literal, after)),
        }
        literal.push('\'');
    }
}

struct Parser {
    words: Vec<Word>,
    next: usize,
    depth: usize,
    n_joined: usize,
}

impl Parser {
    fn word(&self) -> Option<&Word> {
        self.words.get(self.next)
    }

    fn wrong(&self) -> String {
        let shown = match self.word() {
            None => "the end of the expression".to_owned(),
            Some(Word::Plain(word) | Word::Text(word)) => format!("'{word}'"),
            Some(Word::Sign(sign)) => format!("'{sign}'"),
        };
        format!("Invalid filter clause: Syntax error at {shown}.")
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let there = matches!(self.word(), Some(Word::Plain(word)) if word == keyword);
        self.next += usize::from(there);
        there
    }

    fn takes_sign(&mut self, sign: char) -> bool {
        let there = self.word() == Some(&Word::Sign(sign));
        self.next += usize::from(there);
        there
    }

    fn sign(&mut self, sign: char) -> Result<(), String> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.wrong()) }
    }

    fn either(&mut self) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(TOO_MUCH.to_owned());
        }
        let mut left = self.both()?;
        while self.takes("or") {
            left = Filter::Or(Box::new(left), Box::new(self.both()?));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn both(&mut self) -> Result<Filter, String> {
        let mut left = self.negated()?;
        while self.takes("and") {
            left = Filter::And(Box::new(left), Box::new(self.negated()?));
        }
        Ok(left)
    }

    fn negated(&mut self) -> Result<Filter, String> {
        let mut n_negations = 0_usize;
        while self.takes("not") {
            n_negations += 1;
        }
        let filter = if self.takes_sign('(') {
            let inside = self.either()?;
            self.sign(')')?;
            inside
        } else {
            self.comparison()?
        };
        Ok(if n_negations % 2 == 1 { Filter::Not(Box::new(filter)) } else { filter })
    }

    fn comparison(&mut self) -> Result<Filter, String> {
        self.n_joined += 1;
        if self.n_joined > MOST_JOINED {
            return Err(TOO_MUCH.to_owned());
        }
        let Some(Word::Plain(name)) = self.word().cloned() else { return Err(self.wrong()) };
        let field = Field::named(&name).ok_or_else(|| {
            format!("Invalid filter clause: The property '{name}' cannot be filtered by.")
        })?;
        self.next += 1;
        let Some(Word::Plain(operator)) = self.word().cloned() else { return Err(self.wrong()) };
        if operator == "in" {
            self.next += 1;
            self.sign('(')?;
            let mut list = vec![self.operand(field)?];
            while self.takes_sign(',') {
                list.push(self.operand(field)?);
            }
            self.sign(')')?;
            return Ok(Filter::In(field, list));
        }
        let comparison = match operator.as_str() {
            "eq" => Comparison::Equal,
            "ne" => Comparison::Unequal,
            "gt" => Comparison::Greater,
            "ge" => Comparison::GreaterOrEqual,
            "lt" => Comparison::Less,
            "le" => Comparison::LessOrEqual,
            _ => return Err(self.wrong()),
        };
        self.next += 1;
        Ok(Filter::Compare(field, comparison, self.operand(field)?))
    }

    fn operand(&mut self, field: Field) -> Result<Operand, String> {
        let mismatch = |kind: &str| {
            format!(
                "Invalid filter clause: A binary operator with incompatible types was detected: \
                 {field:?} cannot be compared with {kind}."
            )
        };
        let operand = match self.word() {
            Some(Word::Text(_)) if field.is_time() => return Err(mismatch("Edm.String")),
            Some(Word::Text(text)) => Operand::Text(text.clone()),
            Some(Word::Plain(word)) if word == "null" => Operand::Null,
            Some(Word::Plain(word)) => match ticks::parse(word, Form::Whole) {
                Some(at) if field.is_time() => Operand::Time(at),
                Some(_) => return Err(mismatch("Edm.DateTimeOffset")),
                None => return Err(self.wrong()),
            },
            Some(Word::Sign(_)) | None => return Err(self.wrong()),
        };
        self.next += 1;
        Ok(operand)
    }
}
