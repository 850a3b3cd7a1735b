//! Prints an error with all its sources, on one line: the one adapter, used once, at the edges.

use std::error::Error;

/// `outermost: next: … : innermost`. A source that repeats what stands before it is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let message = source.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        next = source.source();
    }
    text
}
