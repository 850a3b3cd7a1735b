//! A list that would not end. Pure.

/// The list does not end and brings nothing: the walk is given up and begun again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Endless {
    /// The same page again.
    #[error("the API gives the same cursor (nextQueryFilters) twice")]
    Cursor,
    /// One page after the other without progress.
    #[error("the API lists page after page without a later record")]
    Pages,
}
