//! What of a person's text an error may repeat: names of fields, never what could be a secret in the wrong place. Pure.

/// The longest name of a field in Kubernetes' own types is shorter.
const MAX_NAME_CHARS: usize = 60;
/// A name with digits is short, as `x509`; a token or a password is not.
const MAX_CHARS_WITH_DIGITS: usize = 8;

/// A field's name as an error may show it.
pub(super) fn name(name: &str) -> &str {
    if is_name(name) { name } else { "…" }
}

/// The first line of what a YAML parser says about a text, without any word of that text that is no name.
pub(crate) fn yaml_error(message: &str, text: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let words = line.split(' ').map(|word| {
        let bare = word.trim_matches(|char: char| !char.is_alphanumeric());
        let is_of_the_text =
            !bare.is_empty() && text.contains(bare) && bare.parse::<u64>().is_err();
        if is_of_the_text && !is_name(bare) { "…" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn is_name(text: &str) -> bool {
    let has_digits = text.bytes().any(|byte| byte.is_ascii_digit());
    text.len() <= if has_digits { MAX_CHARS_WITH_DIGITS } else { MAX_NAME_CHARS }
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_and_what_could_be_a_secret_is_not() {
        for shown in ["tokenSecretReff", "x509", "siemagent.dev/paused", "podCIDRs"] {
            assert_eq!(name(shown), shown);
        }
        for hidden in
            ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "PLANTED12345", "p@ss", "a b", "Zm9v=="]
        {
            assert_eq!(name(hidden), "…");
        }
        let said = "error: line 5 column 78: duplicate mapping key: PLANTED12345, set it\nmore";
        assert_eq!(
            yaml_error(said, "a: {PLANTED12345: 1, PLANTED12345: 5}"),
            "error: line 5 column 78: duplicate mapping key: … set it"
        );
        assert_eq!(
            yaml_error("duplicate mapping key: source", "source: 1"),
            "duplicate mapping key: source"
        );
    }
}
