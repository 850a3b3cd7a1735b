//! The formats in which a record is written. Pure.

pub mod cef;
