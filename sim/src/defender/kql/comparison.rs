//! What the operators between two values give, nulls included. Pure.

use std::cmp::Ordering;

use super::value::Value;

/// A comparison of two values. A null equals no value and differs from each; of two nulls it is unknown.
pub(super) fn compare(word: &str, left: Value, right: Value) -> Value {
    let (left, right) = (left.plain(), right.plain());
    match (word, &left, &right) {
        (_, Value::Null, Value::Null) => return Value::Null,
        ("!=", Value::Null, _) | ("!=", _, Value::Null) => return Value::Bool(true),
        ("==", Value::Null, _) | ("==", _, Value::Null) => return Value::Bool(false),
        (_, Value::Null, _) | (_, _, Value::Null) => return Value::Null,
        _ => {}
    }
    let Some(order) = left.order(&right) else { return Value::Bool(word == "!=") };
    Value::Bool(match word {
        "==" => order == Ordering::Equal,
        "!=" => order != Ordering::Equal,
        "<" => order == Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    })
}

/// A test of one text for another: `has`, `contains` and their kin; a `!` before them negates.
pub(super) fn matches(word: &str, text: &str, wanted: &str) -> bool {
    let (word, negated) = word.strip_prefix('!').map_or((word, false), |word| (word, true));
    let (word, exact) = word.strip_suffix("_cs").map_or((word, false), |word| (word, true));
    let (text, wanted) = if exact {
        (text.to_owned(), wanted.to_owned())
    } else {
        (text.to_lowercase(), wanted.to_lowercase())
    };
    let found = match word {
        "has" => has(&text, &wanted),
        "contains" => text.contains(&wanted),
        "startswith" => text.starts_with(&wanted),
        "endswith" => text.ends_with(&wanted),
        _ => text == wanted,
    };
    found != negated
}

/// Whether a term, or a run of them, stands in a text with nothing of a term right before and after.
fn has(text: &str, wanted: &str) -> bool {
    let is_of_term = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
    text.match_indices(wanted).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + wanted.len()..).and_then(|after| after.chars().next());
        let begins_before = is_of_term(before) && is_of_term(wanted.chars().next());
        let ends_after = is_of_term(after) && is_of_term(wanted.chars().next_back());
        !begins_before && !ends_after
    })
}

/// Whether a value is among these.
pub(super) fn is_in(word: &str, value: Value, list: Vec<Value>) -> bool {
    let value = value.plain();
    let mut list = list.into_iter().map(Value::plain);
    let found = if word.ends_with('~') {
        list.any(|one| matches("=~", &value.text(), &one.text()))
    } else {
        list.any(|one| compare("==", value.clone(), one) == Value::Bool(true))
    };
    found != word.starts_with('!')
}

/// `and` and `or`, of which one side may be unknown. The right side is looked at only where it counts.
pub(super) fn join(word: &str, left: &Value, right: impl FnOnce() -> Value) -> Value {
    let decides = Value::Bool(word == "or");
    if *left == decides {
        return decides;
    }
    match right() {
        right if right == decides => decides,
        Value::Bool(right) if *left != Value::Null => Value::Bool(right),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_has_nothing_of_a_term_beside_it() {
        assert!(matches("has", "Add member to role.", "ROLE"));
        assert!(!matches("has", "Add members", "member"));
        assert!(matches("has", "a members member", "member"));
        assert!(matches("!has_cs", "Role", "role"));
    }

    #[test]
    fn nulls_are_unknown() {
        let (null, yes, no) = (Value::Null, Value::Bool(true), Value::Bool(false));
        assert_eq!(compare("!=", null.clone(), Value::Long(1)), yes);
        assert_eq!(compare("==", null.clone(), Value::Long(1)), no);
        assert_eq!(compare("<", null.clone(), Value::Long(1)), null);
        assert_eq!(compare("==", null.clone(), null.clone()), null);
        assert_eq!(join("and", &null, || no.clone()), no);
        assert_eq!(join("and", &null, || yes.clone()), null);
        assert_eq!(join("or", &null, || yes.clone()), yes);
        assert_eq!(join("or", &no, || null.clone()), null);
    }
}
