//! What a server's refusal says, in its own words: bounded, on one line, and without any secret of ours. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{
    BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD,
};
use http::StatusCode;

use super::wire::answer;

/// The longest text of a server that is passed on.
const MAX_DETAIL_CHARS: usize = 300;
/// So many letters of a secret in a row are a part of it, and no chance.
const MIN_PART: usize = 12;

/// The words of a refusal: of its JSON, or its plain text; else its status in words.
pub(super) fn words(body: &[u8], status: StatusCode) -> String {
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
pub(super) fn is_html(body: &[u8]) -> bool {
    answer::without_mark(body).trim_ascii_start().starts_with(b"<")
}

/// Takes secrets out of a text that a server wrote, in the forms in which they travel, and parts of them; and makes it
/// one short line.
pub(super) fn scrub<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    for secret in secrets.filter(|secret| !secret.is_empty()) {
        let bytes = secret.as_bytes();
        let percent: String = form_urlencoded::byte_serialize(bytes).collect();
        for form in [
            secret.to_owned(),
            percent,
            BASE64_STANDARD.encode(bytes),
            BASE64_STANDARD_NO_PAD.encode(bytes),
            BASE64_URL_SAFE.encode(bytes),
            BASE64_URL_SAFE_NO_PAD.encode(bytes),
        ] {
            text = text.replace(&form, "[secret]");
        }
        text = without_parts(&text, secret);
    }
    let one_line: String =
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    let words: Vec<&str> = one_line.split_whitespace().collect();
    words.join(" ").chars().take(MAX_DETAIL_CHARS).collect()
}

/// A server may quote the beginning of what it was sent.
fn without_parts(text: &str, secret: &str) -> String {
    let is_part = |word: &str| word.len() >= MIN_PART && secret.contains(word);
    let belongs = |char: char| char.is_ascii_alphanumeric() || "-._~+/=".contains(char);
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(belongs) {
        let (before, word) = rest.split_at(begin);
        let end = word.find(|char| !belongs(char)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        kept.push_str(before);
        kept.push_str(if is_part(word.trim_end_matches('.')) { "[secret]" } else { word });
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// How long a server asks us to wait: by `Retry-After`, else in its words.
pub(super) fn wait(
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
    fn no_form_and_no_part_of_a_secret_is_passed_on() {
        let secret = "Pl4nted~Client.Secret-8Q~kx7&=%+/zz";
        let percent: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        for form in [
            secret.to_owned(),
            percent,
            BASE64_STANDARD.encode(secret),
            BASE64_URL_SAFE_NO_PAD.encode(secret),
            secret[..16].to_owned(),
            format!("{}...", &secret[..20]),
            secret[4..22].to_owned(),
        ] {
            let said = scrub(&format!("bad secret '{form}' given\r\nby you"), [secret].into_iter());
            assert!(
                said.starts_with("bad secret '[secret]") && said.ends_with("given by you"),
                "{said}"
            );
            assert!(!said.contains("nted"), "{form}: {said}");
        }
        assert_eq!(
            scrub("Invalid client secret provided", [secret].into_iter()),
            "Invalid client secret provided"
        );
        let long = format!("{}{secret}", "x ".repeat(300));
        assert_eq!(scrub(&long, [secret].into_iter()).chars().count(), MAX_DETAIL_CHARS);
        assert_eq!(scrub("x", [""].into_iter()), "x");
    }
}
