//! Variables that the text itself sets, and the words of a command line with their values in place. Pure.

use std::collections::BTreeMap;

/// Read by Java itself or by the usual start scripts, whether or not the line names them.
const JAVA_OPTIONS: [&str; 5] =
    ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_OPTS", "JVM_OPTS"];
/// A variable may hold another one.
const MAX_DEPTH: usize = 4;

/// Names and values.
#[derive(Default)]
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Notes a value; the last one counts.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if is_name(name) {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Notes `NAME=value`, also behind `Environment=` of a unit file; whether it was that.
    pub(super) fn set_pair(&mut self, word: &str) -> bool {
        let word = word.strip_prefix("Environment=").unwrap_or(word);
        match word.split_once('=') {
            Some((name, value)) if is_name(name) => {
                self.set(name, value);
                true
            }
            Some(_) | None => false,
        }
    }

    /// The options that Java takes from its environment.
    pub(super) fn java_options(&self) -> Vec<String> {
        let options = JAVA_OPTIONS.iter().filter_map(|name| self.0.get(*name));
        options.flat_map(|options| self.expanded(split(options))).collect()
    }

    /// The words with the values of the variables that are known; one that is a word by itself may become several.
    pub(super) fn expanded(&self, words: Vec<String>) -> Vec<String> {
        self.expanded_to(words, MAX_DEPTH)
    }

    fn expanded_to(&self, words: Vec<String>, depth: usize) -> Vec<String> {
        if depth == 0 {
            return words;
        }
        let expand = |word: String| {
            if let Some(value) = whole(&word).and_then(|name| self.value(name)) {
                return self.expanded_to(split(value), depth - 1);
            }
            let filled = self.filled(&word);
            if filled == word { vec![word] } else { self.expanded_to(vec![filled], depth - 1) }
        };
        words.into_iter().flat_map(expand).collect()
    }

    /// One that is set to nothing says as little as one that is not set.
    fn value(&self, name: &str) -> Option<&String> {
        self.0.get(name).filter(|value| !value.trim().is_empty())
    }

    /// The word with the known references inside it replaced.
    fn filled(&self, word: &str) -> String {
        let mut filled = String::new();
        let mut rest = word;
        while let Some(at) = rest.find(['$', '%', '!']) {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            match reference(from).and_then(|(name, length)| Some((self.value(name)?, length))) {
                Some((value, length)) => {
                    filled.push_str(value);
                    rest = from.get(length..).unwrap_or_default();
                }
                None => {
                    filled.push_str(from.get(..1).unwrap_or_default());
                    rest = from.get(1..).unwrap_or_default();
                }
            }
        }
        filled.push_str(rest);
        filled
    }
}

/// The words of a command line, in a shell's quotes, or between white space where those do not close.
pub(super) fn split(line: &str) -> Vec<String> {
    shlex::split(line).unwrap_or_else(|| {
        line.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
    })
}

/// The name, where the word is one reference and nothing else.
fn whole(word: &str) -> Option<&str> {
    reference(word).filter(|(_, length)| *length == word.len()).map(|(name, _)| name)
}

/// The name in `$NAME`, `${NAME}`, `$(NAME)`, `$env:NAME`, `%NAME%` or `!NAME!` at the beginning, and its length.
fn reference(text: &str) -> Option<(&str, usize)> {
    for (begin, end) in [("${", "}"), ("$(", ")"), ("%", "%"), ("!", "!")] {
        if let Some(rest) = text.strip_prefix(begin) {
            let (name, _) = rest.split_once(end)?;
            return is_name(name).then(|| (name, begin.len() + name.len() + end.len()));
        }
    }
    let begin = if text.to_ascii_lowercase().starts_with("$env:") { 5 } else { 1 };
    let rest = text.strip_prefix('$').and_then(|_| text.get(begin..))?;
    let name = rest.split(|char: char| !is_of_name(char)).next().unwrap_or_default();
    is_name(name).then(|| (name, begin + name.len()))
}

fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

fn is_name(name: &str) -> bool {
    name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
        && name.chars().all(is_of_name)
}
