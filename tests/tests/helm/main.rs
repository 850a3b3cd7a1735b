//! The chart: what its files say of each other, what the real Helm makes of it, and what a real API server says to that.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test ends the test")]

mod files;
mod values;
mod matrix;
mod wrong;
mod rendered;
mod lifecycle;
mod releases;
mod check;
mod fence;
