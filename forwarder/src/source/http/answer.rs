//! What the servers answer besides records: refusals in every usual form, and access tokens. Only `source` reads these.
//! Pure.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

/// RFC 6749, sections 4.1.2.1 and 5.2.
const OAUTH_ERRORS: [&str; 9] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
];
/// A refusal holds a few texts; a list of them is cut here.
const MAX_TEXTS: usize = 5;
/// A refusal within a refusal is not followed further than this.
const MAX_DEPTH: usize = 4;

/// What a refusal says, where it is JSON: the portal's `{"detail": …}`, OAuth's `error` and `error_description`
/// (RFC 6749), `title` and `detail` (RFC 9457), OData's and Azure's `{"error": {"code": …, "message": …}}`, and the like.
/// `None` where it is no JSON object or list; an empty text where it says nothing.
pub(in crate::source) fn refusal(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(without_mark(body)).ok()?;
    (value.is_object() || value.is_array()).then(|| said(&value, 0).unwrap_or_default())
}

/// A body without a byte-order mark before it.
pub(in crate::source) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

fn said(value: &Value, depth: usize) -> Option<String> {
    if depth > MAX_DEPTH {
        return None;
    }
    match value {
        Value::String(text) => {
            let text = text.trim();
            (!text.is_empty()).then(|| text.to_owned())
        }
        Value::Number(number) => Some(number.to_string()),
        Value::Array(values) => {
            let texts: Vec<String> =
                values.iter().filter_map(|value| said(value, depth + 1)).take(MAX_TEXTS).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(object) => of_object(object, depth),
        Value::Null | Value::Bool(_) => None,
    }
}

/// A short name before the words that explain it.
fn of_object(object: &Map<String, Value>, depth: usize) -> Option<String> {
    let first = |names: &[&str]| {
        let named = |name: &&str| {
            object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        names.iter().filter_map(named).find_map(|value| said(value, depth + 1))
    };
    let words = first(&[
        "error_description",
        "detail",
        "details",
        "message",
        "error_message",
        "errorMessage",
        "value",
        "description",
        "reason",
    ]);
    let name = first(&["title", "code", "errorCode", "error", "odata.error", "errors", "fault"]);
    match (name, words) {
        (Some(name), Some(words)) if words.contains(&name) => Some(words),
        (Some(name), Some(words)) => Some(format!("{name}: {words}")),
        (name, words) => words.or(name),
    }
}

/// The wait that a refusal speaks of: `Expected available in 41 seconds.`, `Try again in 2 minutes`.
pub(in crate::source) fn wait_spoken_of(text: &str) -> Option<Duration> {
    let words: Vec<&str> = text
        .split(|char: char| char.is_whitespace() || "\"'{}[]()<>;,".contains(char))
        .filter(|word| !word.is_empty())
        .collect();
    words
        .windows(3)
        .find_map(|three| {
            let [before, number, unit] = three else { return None };
            let leads = ["in", "after", "for"].iter().any(|word| before.eq_ignore_ascii_case(word));
            if !leads {
                return None;
            }
            let digits = number.trim_end_matches(|char: char| !char.is_ascii_digit());
            let attached = number.get(digits.len()..).unwrap_or_default();
            let number: f64 = digits.parse().ok()?;
            let unit = if attached.is_empty() { unit } else { attached };
            seconds(number * length(unit)?)
        })
        .or_else(|| {
            // `… in 41s` may be the last words.
            let [.., before, last] = words.as_slice() else { return None };
            let last = last.trim_end_matches('.');
            let at = last.find(|char: char| char.is_ascii_alphabetic())?;
            let (number, unit) = last.split_at(at);
            let leads = ["in", "after", "for"].iter().any(|word| before.eq_ignore_ascii_case(word));
            if !leads {
                return None;
            }
            seconds(number.parse::<f64>().ok()? * length(unit)?)
        })
}

/// A unit of time in seconds.
fn length(unit: &str) -> Option<f64> {
    let unit = unit.trim_matches(|char: char| !char.is_ascii_alphabetic()).to_ascii_lowercase();
    match unit.as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(1.0),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60.0),
        "h" | "hour" | "hours" => Some(3_600.0),
        _ => None,
    }
}

/// A time that somebody else has written down, where it is one.
pub(in crate::source) fn seconds(number: f64) -> Option<Duration> {
    (number >= 0.0).then(|| Duration::try_from_secs_f64(number).ok())?
}

/// A granted access token (RFC 6749, section 5.1). It has no `Debug`.
#[derive(Deserialize)]
pub(in crate::source) struct TokenAnswer {
    pub(in crate::source) access_token: String,
    #[serde(default)]
    pub(in crate::source) token_type: Option<String>,
    /// Seconds; a number, or one in text. It may be absent.
    #[serde(default)]
    expires_in: Value,
}

impl TokenAnswer {
    /// How long it lives; `None` where the answer does not say. What has ended already lives no time at all.
    pub(in crate::source) fn life(&self) -> Option<Duration> {
        let number = match &self.expires_in {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| !number.is_nan())?;
        Some(Duration::try_from_secs_f64(number.max(0.0)).unwrap_or(Duration::MAX))
    }
}

/// A refused one (RFC 6749, section 5.2).
#[derive(Deserialize)]
pub(in crate::source) struct TokenRefusal {
    pub(in crate::source) error: String,
    #[serde(default)]
    error_description: Option<String>,
    #[serde(default)]
    error_codes: Vec<Value>,
}

impl TokenRefusal {
    /// The error and its description, without trace ids and times.
    pub(in crate::source) fn text(&self) -> String {
        let words = self.error_description.as_deref().unwrap_or_default();
        let words = words.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let end = ["Trace ID:", "Correlation ID:", "Timestamp:"]
            .iter()
            .filter_map(|mark| words.find(mark))
            .min();
        let words = words.get(..end.unwrap_or(words.len())).unwrap_or_default().trim();
        if words.is_empty() { self.error.clone() } else { format!("{}: {words}", self.error) }
    }

    /// The parts of it that can hold nothing else: OAuth's own error (RFC 6749, section 5.2) and Entra ID's number.
    pub(in crate::source) fn harmless(&self) -> String {
        let error = OAUTH_ERRORS.iter().find(|error| **error == self.error);
        // The longest has seven digits.
        let number = self.number().filter(|number| *number < 10_000_000);
        let number = number.map(|number| format!("AADSTS{number}"));
        let parts: Vec<String> =
            error.map(|error| (*error).to_owned()).into_iter().chain(number).collect();
        parts.join(": ")
    }

    /// The number of Entra ID's error: of `AADSTS7000222` in its words, else of `error_codes`.
    pub(in crate::source) fn number(&self) -> Option<u64> {
        let digits = |text: &str| -> Option<u64> {
            let (_, after) = text.split_once("AADSTS")?;
            let end = after.find(|char: char| !char.is_ascii_digit()).unwrap_or(after.len());
            after.get(..end)?.parse().ok()
        };
        let code = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        self.error_description
            .as_deref()
            .and_then(digits)
            .or_else(|| self.error_codes.iter().find_map(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_form_of_a_refusal_is_read() {
        for (body, words) in [
            (r#"{"detail": "Invalid token"}"#, Some("Invalid token")),
            ("\u{FEFF}{\"detail\": \"Invalid token\"}", Some("Invalid token")),
            (r#"{"detail": {"code": "AF1", "message": "no"}}"#, Some("AF1: no")),
            (r#"{"message": "no"}"#, Some("no")),
            (r#"{"Message": "no"}"#, Some("no")),
            (r#"{"error": "no"}"#, Some("no")),
            (r#"{"error": {"message": "no"}}"#, Some("no")),
            (
                r#"{"error": {"code": "Forbidden", "message": "no", "innerError": {"date": "x"}}}"#,
                Some("Forbidden: no"),
            ),
            (r#"{"error": {"code": "Forbidden"}}"#, Some("Forbidden")),
            (r#"{"error": "e", "error_description": "words"}"#, Some("e: words")),
            (r#"{"errors": ["one", "two"]}"#, Some("one; two")),
            (r#"{"errors": [{"message": "one"}, {"detail": "two"}]}"#, Some("one; two")),
            (
                r#"{"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "no right"}"#,
                Some("Forbidden: no right"),
            ),
            (r#"{"title": "Forbidden"}"#, Some("Forbidden")),
            (
                r#"{"odata.error": {"code": "c", "message": {"lang": "en", "value": "no"}}}"#,
                Some("c: no"),
            ),
            (r#"[{"message": "no"}]"#, Some("no")),
            (r#"{"detail": null, "message": "no"}"#, Some("no")),
            (r#"{"detail": ""}"#, Some("")),
            ("{}", Some("")),
            (r#"{"unknown": 1}"#, Some("")),
            (r#""no""#, None),
            ("403", None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(refusal(body.as_bytes()).as_deref(), words, "{body}");
        }
        let deep = format!("{}1{}", "{\"error\":".repeat(50), "}".repeat(50));
        assert_eq!(refusal(deep.as_bytes()).as_deref(), Some(""));
    }

    #[test]
    fn a_wait_is_read_from_the_words() {
        for (text, millis) in [
            ("Request was throttled. Expected available in 41 seconds.", Some(41_000)),
            ("available in 41 seconds", Some(41_000)),
            ("Expected available in 41.5 seconds.", Some(41_500)),
            ("Expected available in 1 second.", Some(1_000)),
            (
                r#"{"detail":"Request was throttled. Expected available in 41.0 seconds."}"#,
                Some(41_000),
            ),
            ("Rate limit is exceeded. Try again in 2 minutes.", Some(120_000)),
            ("Retry after 30 seconds", Some(30_000)),
            ("wait for 5 sec", Some(5_000)),
            ("try again in 41s", Some(41_000)),
            ("try again in 41s.", Some(41_000)),
            ("try again in 3m please", Some(180_000)),
            ("Expected available in 0 seconds.", Some(0)),
            ("Expected available in -3 seconds.", None),
            ("30 requests per minute in 41 calls", None),
            ("Request was throttled.", None),
            ("in 1e400 seconds", None),
            ("in NaN seconds", None),
            ("in", None),
            ("", None),
        ] {
            assert_eq!(wait_spoken_of(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn the_life_of_an_access_token_is_read_as_it_comes() {
        let life = |json: &str| -> Option<Duration> {
            let text = format!(r#"{{"access_token": "t"{json}}}"#);
            serde_json::from_str::<TokenAnswer>(&text).unwrap().life()
        };
        for (json, seconds) in [
            (r#", "expires_in": 3599"#, Some(3_599.0)),
            (r#", "expires_in": "3599""#, Some(3_599.0)),
            (r#", "expires_in": " 3599 ""#, Some(3_599.0)),
            (r#", "expires_in": 3599.5"#, Some(3_599.5)),
            (r#", "expires_in": "3599.5""#, Some(3_599.5)),
            (r#", "expires_in": 0"#, Some(0.0)),
            (r#", "expires_in": -5"#, Some(0.0)),
            (r#", "expires_in": "-5""#, Some(0.0)),
            ("", None),
            (r#", "expires_in": null"#, None),
            (r#", "expires_in": """#, None),
            (r#", "expires_in": "soon""#, None),
            (r#", "expires_in": "NaN""#, None),
            (r#", "expires_in": []"#, None),
        ] {
            assert_eq!(life(json), seconds.map(Duration::from_secs_f64), "{json}");
        }
        assert_eq!(life(r#", "expires_in": 18446744073709551615000"#), Some(Duration::MAX));
    }

    #[test]
    fn a_refused_grant_is_told_without_trace_ids() {
        let read = |json: &str| {
            let refusal: TokenRefusal = serde_json::from_str(json).unwrap();
            (refusal.text(), refusal.number())
        };
        let expected =
            ("invalid_client: AADSTS7000222: The keys are expired.".to_owned(), Some(7_000_222));
        for rest in [
            r"\r\nTrace ID: 1\r\nTimestamp: 2",
            " Trace ID: 1 Correlation ID: 2 Timestamp: 3",
            " Correlation ID: 2",
            "",
        ] {
            let json = format!(
                r#"{{"error": "invalid_client", "error_description": "AADSTS7000222: The keys are expired.{rest}", "error_codes": [1]}}"#
            );
            assert_eq!(read(&json), expected, "{rest}");
        }
        assert_eq!(
            read(r#"{"error": "invalid_client", "error_codes": [7000215]}"#),
            ("invalid_client".to_owned(), Some(7_000_215))
        );
        assert_eq!(read(r#"{"error": "access_denied"}"#), ("access_denied".to_owned(), None));
    }
}
