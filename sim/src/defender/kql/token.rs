//! The words of a query: names, literals and signs, each with its place. Pure.

use super::super::ticks::{self, Form};
use super::Error;

/// A word.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a keyword; operators such as `!in` and `in~` as well.
    Name(String),
    Text(String),
    Long(i64),
    Real(f64),
    /// Ticks, or null.
    Time(Option<i64>),
    Span(i64),
    Sign(&'static str),
    End,
}

/// A word, as it is written, and where.
#[derive(Debug, Clone)]
pub(super) struct Word {
    pub(super) token: Token,
    pub(super) text: String,
    /// Line and column, from 1.
    pub(super) at: (usize, usize),
}

/// Longer ones come first.
const SIGNS: [&str; 21] = [
    "==", "!=", "<=", ">=", "=~", "!~", "<", ">", "=", "|", "(", ")", ",", "+", "-", "*", "/", "%",
    ".", "[", "]",
];
/// Units of timespans, in ticks.
const UNITS: [(&[&str], i64); 7] = [
    (&["d", "day", "days"], ticks::DAY),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600 * ticks::SECOND),
    (&["m", "min", "minute", "minutes"], 60 * ticks::SECOND),
    (&["s", "sec", "second", "seconds"], ticks::SECOND),
    (&["ms", "milli", "millis", "millisecond", "milliseconds"], ticks::MILLISECOND),
    (&["micro", "micros", "microsecond", "microseconds"], 10),
    (&["tick", "ticks"], 1),
];

/// Takes a query apart.
pub(super) fn words(query: &str) -> Result<Vec<Word>, Error> {
    let mut reader = Reader { rest: query, line: 1, column: 1 };
    let mut words = Vec::new();
    loop {
        reader.skip();
        let (at, before) = ((reader.line, reader.column), reader.rest);
        let token = reader.token()?;
        let text = before.get(..before.len() - reader.rest.len()).unwrap_or_default().to_owned();
        let ended = token == Token::End;
        words.push(Word { token, text, at });
        if ended {
            return Ok(words);
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n_bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(n_bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        for char in taken.chars() {
            if char == '\n' {
                (self.line, self.column) = (self.line + 1, 1);
            } else {
                self.column += 1;
            }
        }
        taken
    }

    fn take_while(&mut self, holds: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|char| !holds(char)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// Blanks and comments.
    fn skip(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest.starts_with("//") {
                return;
            }
            self.take_while(|char| char != '\n');
        }
    }

    fn wrong(&self) -> Error {
        let at = self.rest.split_whitespace().next().unwrap_or("<EOF>");
        Error::Syntax(at.chars().take(40).collect(), (self.line, self.column))
    }

    fn token(&mut self) -> Result<Token, Error> {
        let mut chars = self.rest.chars();
        let (first, second) = (chars.next(), chars.next().unwrap_or('\0'));
        match first {
            None => Ok(Token::End),
            Some('"' | '\'') => self.text(),
            Some('@') if second == '"' || second == '\'' => self.verbatim(),
            Some(digit) if digit.is_ascii_digit() => self.number(),
            Some(letter) if letter.is_ascii_alphabetic() || letter == '_' => self.name(),
            Some('!') if second.is_ascii_alphabetic() => {
                self.take(1);
                let word = self.take_while(is_of_name);
                Ok(Token::Name(format!("!{word}{}", self.tilde(word))))
            }
            Some(_) => {
                let sign = SIGNS.into_iter().find(|sign| self.rest.starts_with(sign));
                let sign = sign.ok_or_else(|| self.wrong())?;
                self.take(sign.len());
                Ok(Token::Sign(sign))
            }
        }
    }

    /// The tilde of `in~`, which belongs to no other word.
    fn tilde(&mut self, word: &str) -> &'a str {
        if word == "in" && self.rest.starts_with('~') { self.take(1) } else { "" }
    }

    fn name(&mut self) -> Result<Token, Error> {
        let begun = self.wrong();
        let word = self.take_while(is_of_name);
        if word == "project" && self.rest.starts_with('-') {
            self.take(1);
            let kind = self.take_while(is_of_name);
            return Ok(Token::Name(format!("project-{kind}")));
        }
        if word == "datetime" && self.rest.trim_start().starts_with('(') {
            self.take_while(|char| char != '(');
            self.take(1);
            let literal = self.take_while(|char| char != ')').trim();
            if self.take(1) != ")" {
                return Err(begun);
            }
            if literal == "null" {
                return Ok(Token::Time(None));
            }
            let at = ticks::parse(literal, Form::Loose).ok_or(begun)?;
            return Ok(Token::Time(Some(at)));
        }
        let tilde = self.tilde(word);
        Ok(Token::Name(format!("{word}{tilde}")))
    }

    fn number(&mut self) -> Result<Token, Error> {
        let begun = self.wrong();
        let start = self.rest;
        self.take_while(|char| char.is_ascii_digit());
        let mut decimals = self.rest.chars();
        let is_real = decimals.next() == Some('.')
            && decimals.next().is_some_and(|char| char.is_ascii_digit());
        if is_real {
            self.take(1);
            self.take_while(|char| char.is_ascii_digit());
        }
        let digits = start.get(..start.len() - self.rest.len()).unwrap_or_default();
        let unit = self.take_while(is_of_name);
        if unit.is_empty() {
            let number = if is_real {
                digits.parse().ok().map(Token::Real)
            } else {
                digits.parse().ok().map(Token::Long)
            };
            return number.ok_or(begun);
        }
        let unit =
            UNITS.into_iter().find(|(names, _)| names.contains(&unit)).map(|(_, ticks)| ticks);
        let (Some(unit), Ok(number)) = (unit, digits.parse::<f64>()) else { return Err(begun) };
        #[expect(clippy::cast_possible_truncation, reason = "a timespan of centuries is cut")]
        Ok(Token::Span((number * unit as f64).round() as i64))
    }

    /// `@"…"`, in which only a doubled quotation mark means another thing than itself.
    fn verbatim(&mut self) -> Result<Token, Error> {
        let begun = self.wrong();
        self.take(1);
        let quote = self.take(1);
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|char| !quote.contains(char)));
            if self.take(1).is_empty() {
                return Err(begun);
            }
            if !self.rest.starts_with(quote) {
                return Ok(Token::Text(text));
            }
            text.push_str(self.take(1));
        }
    }

    fn text(&mut self) -> Result<Token, Error> {
        let begun = self.wrong();
        let quote = self.take(1);
        let mut text = String::new();
        loop {
            text.push_str(
                self.take_while(|char| {
                    !quote.contains(char) && !['\\', '\n', '\r'].contains(&char)
                }),
            );
            match self.take(1) {
                "\\" => text.push(self.escape().ok_or_else(|| begun.clone())?),
                end if end == quote => return Ok(Token::Text(text)),
                _ => return Err(begun),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let length = self.rest.chars().next()?.len_utf8();
        let n_digits = match self.take(length) {
            "n" => return Some('\n'),
            "r" => return Some('\r'),
            "t" => return Some('\t'),
            "0" => return Some('\0'),
            "a" => return Some('\u{7}'),
            "b" => return Some('\u{8}'),
            "f" => return Some('\u{c}'),
            "v" => return Some('\u{b}'),
            "\\" => return Some('\\'),
            "\"" => return Some('"'),
            "'" => return Some('\''),
            "x" => 2,
            "u" => 4,
            "U" => 8,
            _ => return None,
        };
        let digits = self.rest.get(..n_digits)?;
        self.take(n_digits);
        char::from_u32(u32::from_str_radix(digits, 16).ok()?)
    }
}

fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}
