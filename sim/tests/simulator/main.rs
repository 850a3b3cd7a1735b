//! The simulated portal keeps the real one's limits, words and quirks: each is shown by an HTTP request.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

mod ask;
mod assertions;
mod demo;
mod filters;
mod graph;
mod identity;
mod pages;
mod program;
mod refusals;
