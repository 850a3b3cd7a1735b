//! How messages are separated on the wire. Pure.

/// How messages are separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A line feed after each.
    Newline,
    /// The length and a space before each, and a line feed at its end that the length includes.
    OctetCounting,
    /// One datagram each.
    Datagram,
}

impl Framing {
    /// How many bytes the frame of a message takes.
    pub(super) fn frame_len(self, message: &str) -> usize {
        let line = message.len() + 1;
        match self {
            Self::Datagram => message.len(),
            Self::Newline => line,
            Self::OctetCounting => line.to_string().len() + 1 + line,
        }
    }

    /// The frame of a message.
    pub(super) fn frame(self, message: String) -> Vec<u8> {
        match self {
            Self::Datagram => message.into_bytes(),
            Self::Newline => {
                let mut bytes = message.into_bytes();
                bytes.push(b'\n');
                bytes
            }
            Self::OctetCounting => format!("{} {message}\n", message.len() + 1).into_bytes(),
        }
    }
}
