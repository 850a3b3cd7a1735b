//! What a failure at the source means for the next request. Pure.
//!
//! The variants follow the decisions, not the errors' origins.

use std::time::Duration;

/// What failed at the source, as far as the next step depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The credential is refused, or a stream is refused with it.
    Refused(Refusal),
    /// 429, or 503 with `Retry-After`.
    Throttled {
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// Anything that may pass by itself: 5xx, time-outs, cut bodies, proxies.
    Transient,
    /// Nothing that the source is to blame for: the same is asked again at once.
    Again,
}

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The credential: 401, or the identity provider's own refusal.
    Credential,
    /// There is no credential to send.
    Missing,
    /// What is there in its place cannot be one.
    Unusable,
    /// The credential lacks the right for this stream: 403.
    Stream,
    /// The request itself, 400: the same question will get the same answer.
    Question,
}

impl Refusal {
    /// Whether no stream can be read before that changes.
    pub fn is_of_all(self) -> bool {
        match self {
            Self::Credential | Self::Missing | Self::Unusable => true,
            Self::Stream | Self::Question => false,
        }
    }
}
