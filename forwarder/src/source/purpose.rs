//! Why a request is made. Pure.

/// Why a request is made; the earlier goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The next page or the next poll of a stream.
    Poll,
    /// Learning whether the token is still good.
    Check,
    /// A look far behind the watermark.
    Rescan,
}
