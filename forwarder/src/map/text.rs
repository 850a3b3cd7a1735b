//! Descriptions as plain text: the portal writes some of them in HTML. Pure.

use std::borrow::Cow;

/// Turns a description into one line of plain text.
///
/// In this order: `<br>`, `</p>` and `</li>` become a space, other tags vanish, entities with their semicolon are
/// decoded, placeholders such as `__siteIcon__` vanish, white space is folded.
pub(super) fn plain(description: &str) -> Cow<'_, str> {
    if !description.bytes().any(|byte| matches!(byte, b'<' | b'&')) && !description.contains("__") {
        return folded(Cow::Borrowed(description));
    }
    let mut text = Cow::Borrowed(description);
    for tag in ["<br>", "</p>", "</li>"] {
        text = step(text, tag, |text| text.replace(tag, " "));
    }
    text = step(text, "<", without_tags);
    text = step(text, "&", decoded);
    folded(step(text, "__", without_placeholders))
}

/// A step changes nothing where what it is about does not stand.
fn step<'a>(text: Cow<'a, str>, about: &str, change: impl Fn(&str) -> String) -> Cow<'a, str> {
    if text.contains(about) { Cow::Owned(change(&text)) } else { text }
}

/// Runs of white space become one space, and none is left at the ends.
fn folded(text: Cow<'_, str>) -> Cow<'_, str> {
    let mut before = b' ';
    let is_folded = text.trim().bytes().all(|byte| {
        let belongs = byte.is_ascii_graphic() || (byte == b' ' && before != b' ');
        before = byte;
        belongs
    });
    if is_folded {
        return match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
    }
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    Cow::Owned(folded)
}

/// A tag is `<` or `</`, a letter, and everything up to the next `>` with no `<` between.
fn without_tags(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        kept.push_str(before);
        let inner = tag.get(1..).unwrap_or_default();
        let named = inner
            .strip_prefix('/')
            .unwrap_or(inner)
            .starts_with(|char: char| char.is_ascii_alphabetic());
        match inner.find(['<', '>']) {
            Some(end) if named && inner.get(end..).is_some_and(|end| end.starts_with('>')) => {
                rest = inner.get(end + 1..).unwrap_or_default();
            }
            Some(_) | None => {
                kept.push('<');
                rest = inner;
            }
        }
    }
    kept.push_str(rest);
    kept
}

/// Decodes entities that end in a semicolon, once.
fn decoded(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, entity) = rest.split_at(at);
        kept.push_str(before);
        let name = entity.get(1..).unwrap_or_default();
        let whole = name.split_once([';', '&']).map_or(name, |(name, _)| name).len() + 2;
        let is_closed = entity.get(..whole).is_some_and(|entity| entity.ends_with(';'));
        let (entity, after) = entity.split_at(if is_closed { whole } else { 1 });
        if is_entity(entity) {
            kept.push_str(&htmlize::unescape(entity));
        } else {
            kept.push_str(entity);
        }
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// Whether this is a whole entity, by name or by number: HTML itself also reads some that end early.
fn is_entity(text: &str) -> bool {
    let Some(number) = text.strip_prefix("&#").and_then(|number| number.strip_suffix(';')) else {
        return htmlize::ENTITIES.contains_key(text.as_bytes());
    };
    let (digits, radix) = match number.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (number, 10),
    };
    !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix))
}

/// A placeholder is two underscores, letters, two underscores.
fn without_placeholders(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("__") {
        let (before, placeholder) = rest.split_at(at);
        kept.push_str(before);
        let inner = placeholder.get(2..).unwrap_or_default();
        let n_letters = inner.bytes().take_while(u8::is_ascii_alphabetic).count();
        match inner.get(n_letters..).and_then(|after| after.strip_prefix("__")) {
            Some(after) if n_letters > 0 => rest = after,
            Some(_) | None => {
                kept.push('_');
                rest = placeholder.get(1..).unwrap_or_default();
            }
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn html_becomes_plain_text() {
        for (html, text) in [
            ("<p>Activity policy 'x' was triggered</p>", "Activity policy 'x' was triggered"),
            ("a<br>b</p>c</li>d<ul><li>e", "a b c de"),
            ("a<br/>b <a href=\"#/subnet\">net</a>", "ab net"),
            ("1 < 2 and 3 > 2 <5> </ x>", "1 < 2 and 3 > 2 <5> </ x>"),
            ("<b<i>x</i>", "<bx"),
            (
                "AT&amp;T &lt;b&gt; &#39;q&#x27; &amp;lt; &nope; &amp",
                "AT&T <b> 'q' &lt; &nope; &amp",
            ),
            ("__siteIcon__ Box __ __a1__ ___x___", "Box __ __a1__ __"),
            ("  a \t\n b\u{a0}c  ", "a b c"),
            ("a\u{b}b", "a b"),
            ("&nbsp;a&#10;b&eacute;&#128;&#146;&#x9f;", "a bé€’Ÿ"),
            (
                "a & b &&amp; &#xD800;&#0;&#x110000; &#; &#x; &#+5; &#12",
                "a & b && \u{FFFD}\u{FFFD}\u{FFFD} &#; &#x; &#+5; &#12",
            ),
            ("__a__b__c__ __é__", "b __é__"),
            ("&NotEqualTilde;&fjlig;&notit;&not;&semi;", "≂\u{338}fj&notit;¬;"),
            ("", ""),
        ] {
            assert_eq!(plain(html), text, "{html}");
        }
    }
}
