//! Whether a text is one condition of KQL, so that it stays within the parentheses that it is put in. Pure.
//!
//! It knows of KQL only what it takes to find brackets: strings and comments (Kusto, "The string data type", "Comments").
//! Whether the condition means anything is for whoever evaluates it to say.

/// What is wrong with it, in words.
pub(super) fn flaw(text: &str) -> Option<&'static str> {
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let after = rest.get(char.len_utf8()..).unwrap_or_default();
        rest = match char {
            _ if rest.starts_with("//") => {
                rest.find(LINE_ENDS).and_then(|end| rest.get(end..)).unwrap_or_default()
            }
            _ if rest.starts_with("```") || rest.starts_with("~~~") => {
                let (mark, body) = rest.split_at(3);
                let Some(end) = body.find(mark) else { return Some(UNCLOSED_TEXT) };
                body.get(end + 3..).unwrap_or_default()
            }
            '@' if after.starts_with(['"', '\'']) => match verbatim(after) {
                Some(rest) => rest,
                None => return Some(UNCLOSED_TEXT),
            },
            '"' | '\'' => match quoted(after, char) {
                Some(rest) => rest,
                None => return Some(UNCLOSED_TEXT),
            },
            '(' if is_literal(before(text, rest)) => match literal(after) {
                Some(rest) => rest,
                None => {
                    return Some(
                        "holds a literal, such as datetime(2026-11-01), that is unclosed or more than one value",
                    );
                }
            },
            '(' | '[' | '{' => {
                open.push(char);
                after
            }
            ')' | ']' | '}' => {
                let is_pair = matches!(
                    (open.pop(), char),
                    (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')
                );
                if !is_pair {
                    return Some("closes a parenthesis that it did not open");
                }
                after
            }
            ';' => return Some("holds a semicolon: give one condition, and no statement"),
            '|' if open.is_empty() => {
                return Some("holds a pipe: give one condition, without where, and no operator");
            }
            _ => after,
        };
    }
    (!open.is_empty()).then_some("opens a parenthesis that it does not close")
}

/// What ends a comment, and a text that is no longer than a line.
const LINE_ENDS: [char; 4] = ['\n', '\r', '\u{2028}', '\u{2029}'];
const UNCLOSED_TEXT: &str = "opens a text that it does not close";

/// What follows a text with escapes; `text` begins behind its first quotation mark.
fn quoted(text: &str, mark: char) -> Option<&str> {
    let mut is_escaped = false;
    for (at, char) in text.char_indices() {
        match char {
            // Such a text ends on its line.
            _ if LINE_ENDS.contains(&char) => return None,
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if char == mark => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

/// What follows a text without escapes, in which two quotation marks are one; `text` begins with its first.
fn verbatim(text: &str) -> Option<&str> {
    let mark = text.chars().next()?;
    let mut rest = text.get(1..)?;
    loop {
        rest = rest.get(rest.find(mark)? + 1..)?;
        match rest.strip_prefix(mark) {
            Some(more) => rest = more,
            None => return Some(rest),
        }
    }
}

/// What stands before the rest.
fn before<'a>(text: &'a str, rest: &str) -> &'a str {
    text.get(..text.len() - rest.len()).unwrap_or_default()
}

/// Whether a parenthesis behind this begins a literal, within which nothing is a text (Kusto, "Scalar data types").
fn is_literal(before: &str) -> bool {
    let before = before.trim_end();
    let word = before.rsplit(|char: char| !(char.is_alphanumeric() || char == '_')).next();
    word.is_some_and(|word| LITERALS.contains(&word))
}

/// What follows such a literal. It holds no mark that could begin or end anything, so that whoever reads it as a call finds
/// its end at the same place.
fn literal(text: &str) -> Option<&str> {
    let (inside, rest) = text.split_once(')')?;
    let plain = inside.trim();
    let quoted = |mark: char| plain.strip_prefix(mark)?.strip_suffix(mark);
    let plain = quoted('"').or_else(|| quoted('\'')).unwrap_or(plain);
    let is_plain = |char: char| char.is_alphanumeric() || " -+:.,_".contains(char);
    plain.chars().all(is_plain).then_some(rest)
}

/// The types whose name and parentheses are a literal.
const LITERALS: [&str; 13] = [
    "bool", "boolean", "date", "datetime", "decimal", "double", "guid", "int", "long", "real",
    "time", "timespan", "uniqueid",
];

#[cfg(test)]
mod tests {
    use super::flaw;

    #[test]
    fn one_condition_stays_within_its_parentheses() {
        for fine in [
            "ActionType != \"MailItemsAccessed\"",
            "ActionType has ')' and City != \"a\\\"(b\"",
            "ActionType == @\"c:\\\" or City == @'it''s ('",
            "AccountId in (IdentityInfo | where IsEnabled | project AccountObjectId)",
            "true // and ) no more",
            "true // (\nand RawEventData[\"x\"] == 1",
            "City in (```a) ```)",
            "Timestamp > datetime(2026-11-01T00:00:00.5Z) and ReportId != guid (\"aa-bb\")",
            "datetime( '2026-11-01 00:00:00' ) < Timestamp and (bin(Timestamp, time(1h)) > ago(1d))",
        ] {
            assert_eq!(flaw(fine), None, "{fine}");
        }
        for (wrong, words) in [
            ("true) | union AlertInfo | where (true", "did not open"),
            ("true | take 1", "pipe"),
            ("true; AlertInfo", "semicolon"),
            ("(true", "does not close"),
            ("(true]", "did not open"),
            ("Timestamp > datetime(\") | union AlertInfo | where (\")", "literal"),
            ("Timestamp > datetime(2026-11-01", "literal"),
            ("Timestamp > datetime(\"2026)\")", "literal"),
            ("City == \"a", "text"),
            ("City == \"a\nb\"", "text"),
            ("City == @'a", "text"),
            ("City == ```a", "text"),
            ("// only\n)", "did not open"),
            ("true //\r) | union AlertInfo | where (true", "did not open"),
            (
                "City == ~~~\"~~~) | union AlertInfo | where (true or City == ~~~\"~~~",
                "did not open",
            ),
        ] {
            assert!(flaw(wrong).is_some_and(|it| it.contains(words)), "{wrong}: {:?}", flaw(wrong));
        }
    }
}
