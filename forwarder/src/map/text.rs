//! Descriptions as plain text: the portal writes some of them in HTML.

use std::borrow::Cow;

/// Turns a description into one line of plain text.
///
/// In this order: `<br>`, `</p>` and `</li>` become a space, other tags vanish, entities with their semicolon are
/// decoded, placeholders such as `__siteIcon__` vanish, white space is folded.
pub(super) fn plain(description: &str) -> String {
    let spaced: Cow<'_, str> = if description.contains('<') {
        let broken = description.replace("<br>", " ").replace("</p>", " ").replace("</li>", " ");
        Cow::Owned(without_tags(&broken))
    } else {
        Cow::Borrowed(description)
    };
    let decoded =
        if spaced.contains('&') { html_escape::decode_html_entities(&spaced) } else { spaced };
    let bare =
        if decoded.contains("__") { Cow::Owned(without_placeholders(&decoded)) } else { decoded };
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
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
            ("", ""),
        ] {
            assert_eq!(plain(html), text, "{html}");
        }
    }
}
