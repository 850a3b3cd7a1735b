//! The chart: what the real Helm makes of it, and what a real API server says to that.

mod matrix;
mod rendered;
mod lifecycle;
mod releases;
mod check;
mod fence;
