//! Words of Graph's and the tables' own style (`AnomalousToken`) as the words of a CEF signature (`ANOMALOUS_TOKEN`). Pure.

/// The longest that is written.
pub(super) const MAX_CHARS: usize = 60;

/// `_` between a small letter or digit and a capital, and between a run of capitals and a capital followed by a small
/// letter; every run of other characters than `A-Z a-z 0-9` becomes one `_`; none at the ends; capitals; at most
/// [`MAX_CHARS`].
pub(super) fn snake(text: &str) -> String {
    let mut written = String::with_capacity(text.len().min(MAX_CHARS) + 8);
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if written.len() > MAX_CHARS {
            break;
        }
        if char.is_ascii_alphanumeric() {
            let is_word_before = match before {
                'a'..='z' | '0'..='9' => true,
                'A'..='Z' => chars.peek().is_some_and(char::is_ascii_lowercase),
                _ => false,
            };
            if char.is_ascii_uppercase() && is_word_before {
                written.push('_');
            }
            written.push(char.to_ascii_uppercase());
        } else if !written.is_empty() && !written.ends_with('_') {
            written.push('_');
        }
        before = char;
    }
    written.truncate(MAX_CHARS);
    written.truncate(written.trim_end_matches('_').len());
    written
}

#[cfg(test)]
mod tests {
    use super::snake;

    #[test]
    fn words_become_a_signatures_words() {
        for (text, written) in [
            ("AnomalousToken", "ANOMALOUS_TOKEN"),
            ("InitialAccess", "INITIAL_ACCESS"),
            ("XMLParserURL", "XML_PARSER_URL"),
            ("OAuthApp", "O_AUTH_APP"),
            ("MCAS_ALERT_ANUBIS_DETECTION", "MCAS_ALERT_ANUBIS_DETECTION"),
            ("Log4Shell", "LOG4_SHELL"),
            ("a1B", "A1_B"),
            ("1st try", "1ST_TRY"),
            ("Move messages to Deleted Items folder", "MOVE_MESSAGES_TO_DELETED_ITEMS_FOLDER"),
            ("  -- two  -- words !! ", "TWO_WORDS"),
            ("_x_", "X"),
            ("caféBar", "CAF_BAR"),
            ("é", ""),
            ("", ""),
        ] {
            assert_eq!(snake(text), written, "{text}");
        }
        assert_eq!(snake(&"a".repeat(61)), "A".repeat(60));
        assert_eq!(snake(&format!("{} b", "a".repeat(59))), "A".repeat(59), "none at the end");
        assert_eq!(snake(&"é".repeat(1_000)), "");
    }
}
