//! One pass over one agent: gather, validate, build, apply, status.

pub(crate) mod gather;
pub(crate) mod validate;
pub(crate) mod build;
pub(crate) mod status;
