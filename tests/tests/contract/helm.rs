//! The chart's files: what they say of each other, and what of the values is refused.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test ends the test")]

mod files;
mod values;
mod wrong;
