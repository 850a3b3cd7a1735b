//! An error with all its sources on one line, `outermost: next: … : innermost`: used once, at the edges.

use std::error::Error;

/// A source that repeats what stands before it is left out.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    chain_with(error, |_| None)
}

/// The same, where `own_words` may speak for an error and for all of its sources.
pub fn chain_with(
    error: &(dyn Error + 'static),
    own_words: impl Fn(&(dyn Error + 'static)) -> Option<String>,
) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(source) = next {
        let own = own_words(source);
        next = if own.is_some() { None } else { source.source() };
        let message = own.unwrap_or_else(|| source.to_string());
        if text.is_empty() {
            text = message;
        } else if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
    }
    text
}
