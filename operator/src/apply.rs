//! How an object on the server stands to what was applied: what was written and is not shown yet (`expectations`), and what a
//! write may find in its place (`place`).

pub(crate) mod expectations;
pub(crate) mod place;
