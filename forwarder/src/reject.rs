//! Why a record is not sent. Pure.

/// Kinds of trouble with a record, as a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// No usable id.
    MissingId,
    /// No usable time.
    MissingTimestamp,
    /// JSON, but no object.
    NotAnObject,
    /// No JSON.
    Malformed,
    /// Longer than any record of its source, or its id is longer than any field of CEF.
    TooLarge,
    /// Mapped, but what is never shortened of it is longer than `syslog.maxMessageBytes`.
    MessageTooLong,
    /// Mapped, but the kernel takes no datagram of that size.
    DatagramTooLarge,
    /// Beyond what `skip` lets anyone read of one millisecond.
    SkipLimit,
}

impl RejectReason {
    /// All kinds: each has a series from the start, so that its first record is a rise.
    pub const ALL: [Self; 8] = [
        Self::MissingId,
        Self::MissingTimestamp,
        Self::NotAnObject,
        Self::Malformed,
        Self::TooLarge,
        Self::MessageTooLong,
        Self::DatagramTooLarge,
        Self::SkipLimit,
    ];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingId => "missing_id",
            Self::MissingTimestamp => "missing_timestamp",
            Self::NotAnObject => "not_an_object",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::MessageTooLong => "message_too_long",
            Self::DatagramTooLarge => "datagram_too_large",
            Self::SkipLimit => "skip_limit",
        }
    }
}
