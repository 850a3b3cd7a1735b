//! Command lines in YAML and JSON: pods and what holds them, compose files, playbooks, task definitions. Pure.
//!
//! What a parser says of a broken document is dropped, because it may quote the token; such a text is read line by line.

use serde_json::{Map, Value};

use super::Found;
use super::text::{add, words_of_line};

/// Lists of words that are one command line together, the program first.
const COMMANDS: [[&str; 2]; 3] =
    [["command", "args"], ["entrypoint", "command"], ["entryPoint", "command"]];
/// Where documents name variables.
const ENVIRONMENTS: [&str; 4] = ["env", "environment", "stringData", "vars"];

/// What the text holds, where it is a document and not a mere line.
pub(super) fn read(text: &str) -> Option<Found> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).ok()?;
    if !documents.iter().any(|document| document.is_object() || document.is_array()) {
        return None;
    }
    let mut found = Found::default();
    for document in &documents {
        walk(document, &mut found);
    }
    Some(found)
}

fn walk(value: &Value, found: &mut Found) {
    match value {
        Value::Object(object) => {
            for name in ENVIRONMENTS {
                object.get(name).into_iter().for_each(|of| environment(of, found));
            }
            // A Secret's values would be base64.
            if object.get("kind").is_some_and(|kind| kind == "ConfigMap") {
                object.get("data").into_iter().for_each(|of| environment(of, found));
            }
            let command = COMMANDS.iter().find_map(|[program, arguments]| {
                let words = [words(object, program), words(object, arguments)].concat();
                words.iter().any(|word| word == "-jar").then_some(([*program, *arguments], words))
            });
            let taken = command.map(|(keys, words)| {
                found.commands.push(words);
                keys
            });
            for (key, value) in object {
                if taken.is_none_or(|taken| !taken.contains(&key.as_str())) {
                    walk(value, found);
                }
            }
        }
        Value::Array(items) => {
            if let Some(words) =
                strings(items).filter(|words| words.iter().any(|word| word == "-jar"))
            {
                found.commands.push(words);
            } else {
                items.iter().for_each(|item| walk(item, found));
            }
        }
        Value::String(text) if text.contains("-jar") => {
            add(text, found);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The words under a key: a list, or a line as a shell reads it.
fn words(object: &Map<String, Value>, key: &str) -> Vec<String> {
    match object.get(key) {
        Some(Value::Array(items)) => {
            let words = strings(items).unwrap_or_default();
            // `sh -c` has the line as one word.
            let line =
                words.iter().find_map(|word| words_of_line(word).filter(|_| word.contains(' ')));
            line.unwrap_or(words)
        }
        Some(Value::String(line)) => {
            words_of_line(line).unwrap_or_else(|| super::variables::split(line))
        }
        Some(_) | None => Vec::new(),
    }
}

/// The items as words, where all are scalars.
fn strings(items: &[Value]) -> Option<Vec<String>> {
    let word = |item: &Value| match item {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    items.iter().map(word).collect()
}

/// Variables as `{NAME: value}`, as `NAME=value`, or as `{name: NAME, value: value}`.
fn environment(value: &Value, found: &mut Found) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if let Value::String(value) = value {
                    found.variables.set(name, value);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item {
                    Value::String(pair) => {
                        found.variables.set_pair(pair);
                    }
                    Value::Object(object) => {
                        if let (Some(Value::String(name)), Some(Value::String(value))) =
                            (object.get("name"), object.get("value"))
                        {
                            found.variables.set(name, value);
                        }
                    }
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {}
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
