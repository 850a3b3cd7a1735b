//! What is known of the target: a small state that changes only when its meaning does, and what is reported about it.
//! Pure.

use jiff::Timestamp;

use crate::event::Stream;

/// The target as the sink sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Not connected yet, and nothing has failed.
    Connecting {
        /// Since when.
        since: Timestamp,
    },
    /// Connected, and healthy for at least the grace.
    Up {
        /// Since when.
        since: Timestamp,
    },
    /// Connected, but it takes nothing of what it is sent.
    Stalled {
        /// Since when.
        since: Timestamp,
    },
    /// Unreachable, refusing, or closing every connection.
    Down {
        /// Since the first failure after it was last up.
        since: Timestamp,
        /// What the last attempt ran into.
        reason: String,
    },
    /// Datagrams: nothing can be known.
    Datagram,
}

impl Target {
    /// Whether records should be fetched for it. Before anything is known of it they are, so that the first poll does not
    /// wait for the first grace, and a bad token is noticed though the target is away; what it cannot take waits.
    pub fn takes_records(&self) -> bool {
        match self {
            Self::Connecting { .. } | Self::Up { .. } | Self::Datagram => true,
            Self::Stalled { .. } | Self::Down { .. } => false,
        }
    }

    /// The state while confirmations that are owed do not come.
    pub(super) fn stalled(&self, now: Timestamp) -> Self {
        match self {
            Self::Stalled { since } | Self::Down { since, .. } | Self::Connecting { since } => {
                Self::Stalled { since: *since }
            }
            Self::Up { .. } | Self::Datagram => Self::Stalled { since: now },
        }
    }

    /// The state after a failure; the time of the first one stays.
    pub(super) fn failed(&self, now: Timestamp, reason: String) -> Self {
        match self {
            Self::Down { since, .. } | Self::Connecting { since } | Self::Stalled { since } => {
                Self::Down { since: *since, reason }
            }
            Self::Up { .. } | Self::Datagram => Self::Down { since: now, reason },
        }
    }
}

/// Who counts what happens to the connection.
pub trait Observer: Send + Sync + 'static {
    /// Records that had been written before and are written again.
    fn resent(&self, n_records: usize);
    /// A record whose datagram the kernel refuses for its size.
    fn too_large(&self, stream: Stream);
    /// A connection ended; the reason is one of a small fixed set.
    fn disconnected(&self, reason: &'static str);
    /// When the first certificate of a chain in use ends; `None` where there is no chain.
    fn certificate_ends(&self, role: Role, at: Option<Timestamp>);
}

/// Whose certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Ours, which the SIEM may ask for.
    Client,
    /// The SIEM's.
    Server,
}

impl Role {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}
