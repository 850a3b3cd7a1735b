//! What a server's refusal says, in its own words: bounded, on one line, and never with a secret of ours in it. Pure.

use std::time::Duration;

use http::StatusCode;

use super::{answer, echo};

/// The longest text of a server that is passed on.
const MAX_DETAIL_CHARS: usize = 300;
/// In place of a text that is not passed on.
pub(in crate::source) const WITHHELD: &str =
    "the server's words repeat a part of the secret and are withheld";

/// The words of a refusal: of its JSON, or its plain text; else its status in words.
pub(in crate::source) fn words(body: &[u8], status: StatusCode) -> String {
    let status_words = || status.canonical_reason().unwrap_or_default().to_owned();
    let body = answer::without_mark(body).trim_ascii();
    match answer::refusal(body) {
        Some(words) if !words.is_empty() => words,
        // The API names a bad filter in a form of its own.
        Some(_) if status == StatusCode::BAD_REQUEST => String::from_utf8_lossy(body).into_owned(),
        Some(_) => status_words(),
        None if body.is_empty() || is_html(body) => status_words(),
        None => match serde_json::from_slice::<String>(body) {
            Ok(text) => text,
            Err(_plain) => String::from_utf8_lossy(body).into_owned(),
        },
    }
}

/// Whether a body is a page for people.
pub(in crate::source) fn is_html(body: &[u8]) -> bool {
    answer::without_mark(body).trim_ascii_start().starts_with(b"<")
}

/// A server's text as one short line. Of one that repeats a secret, in whatever form, nothing is passed on but `harmless`.
pub(in crate::source) fn shown<'a>(
    text: &str,
    harmless: &str,
    secrets: impl Iterator<Item = &'a str>,
) -> String {
    let one_line: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let words: Vec<&str> = one_line.split_whitespace().collect();
    let line: String = words.join(" ").chars().take(MAX_DETAIL_CHARS).collect();
    if !echo::repeats(&line, secrets) {
        return line;
    }
    let separator = if harmless.is_empty() { "" } else { " " };
    format!("{harmless}{separator}({WITHHELD})")
}

/// How long a server asks us to wait: by `Retry-After`, else in its words.
pub(in crate::source) fn wait(
    retry_after: Option<&str>,
    body: &[u8],
    now: jiff::Timestamp,
) -> Option<Duration> {
    retry_after
        .and_then(|text| wait_asked_for(text, now))
        .or_else(|| answer::wait_spoken_of(&String::from_utf8_lossy(body)))
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).
fn wait_asked_for(text: &str, now: jiff::Timestamp) -> Option<Duration> {
    if let Ok(number) = text.trim().parse::<f64>() {
        return answer::seconds(number);
    }
    let until = jiff::Timestamp::try_from(httpdate::parse_http_date(text.trim()).ok()?).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_read_from_the_header_and_else_from_the_words() {
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let of = |header, body: &str| wait(header, body.as_bytes(), now);
        assert_eq!(of(Some("17"), ""), seconds(17));
        assert_eq!(of(Some(" 17.0 "), ""), seconds(17));
        assert_eq!(of(Some("Tue, 24 Nov 2026 10:00:30 GMT"), ""), seconds(30));
        assert_eq!(of(Some("Tue, 24 Nov 2026 09:00:00 GMT"), ""), seconds(0));
        let words = r#"{"detail": "Request was throttled. Expected available in 41 seconds."}"#;
        assert_eq!(of(None, words), seconds(41));
        assert_eq!(of(Some("soon"), words), seconds(41));
        assert_eq!(of(Some("-5"), words), seconds(41));
        assert_eq!(of(Some("7"), words), seconds(7));
        assert_eq!(of(None, "Request was throttled."), None);
    }

    #[test]
    fn words_are_kept_whatever_form_they_have() {
        let of = |body: &str| words(body.as_bytes(), StatusCode::FORBIDDEN);
        assert_eq!(of("\u{FEFF}{\"error\": {\"message\": \"no right\"}}"), "no right");
        assert_eq!(of("no right\n"), "no right");
        assert_eq!(of("\"no right\""), "no right");
        for nothing in ["", " ", "{}", "<html>no</html>", "\u{FEFF}\n<!doctype html>"] {
            assert_eq!(of(nothing), "Forbidden", "{nothing}");
        }
    }

    #[test]
    fn of_words_that_repeat_a_secret_only_the_harmless_ones_are_passed_on() {
        let secret = "Pl4nted~Client.Secret-8Q~kx7&=%+/zz";
        let of = |text: &str, harmless| shown(text, harmless, [secret].into_iter());
        assert_eq!(of("bad\r\n secret\u{9B}given", ""), "bad secret given");
        let echo = format!("bad secret '{}' given", &secret[4..14]);
        assert_eq!(of(&echo, ""), format!("({WITHHELD})"));
        assert_eq!(of(&echo, "invalid_client"), format!("invalid_client ({WITHHELD})"));
        let long = "x ".repeat(300);
        assert_eq!(of(&long, "").chars().count(), MAX_DETAIL_CHARS);
        assert_eq!(shown("x", "", [""].into_iter()), "x");
    }
}
