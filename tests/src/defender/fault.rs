//! Faults of the simulated portal, each for a number of requests.

use std::str::FromStr;

use siem_agent_crds::report::Stream;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// 429, with this `Retry-After`.
    Throttle(Option<String>),
    /// This status.
    Status(u16),
    /// No answer for this many seconds.
    Hang(u64),
    /// The body ends after this many bytes.
    Cut(usize),
    /// The body is no JSON.
    BrokenJson,
    /// A login page.
    Html,
    /// 401 with this detail.
    Unauthorized(String),
}

/// A fault for the next requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// For so many requests.
    pub n_requests: usize,
    /// Of this stream only.
    pub stream: Option<Stream>,
}

impl FromStr for Fault {
    type Err = String;

    /// `KIND[:ARGUMENT][xCOUNT]`: 429, 429:5, 500, hang:10, cut:1000, broken, html, 401:text.
    fn from_str(text: &str) -> Result<Self, String> {
        let (what, count) = match text.rsplit_once('x') {
            Some((what, count))
                if count.bytes().all(|byte| byte.is_ascii_digit()) && !count.is_empty() =>
            {
                (what, count)
            }
            Some(_) | None => (text, "1"),
        };
        let (kind, argument) =
            what.split_once(':').map_or((what, None), |(kind, argument)| (kind, Some(argument)));
        let number = || argument.and_then(|argument| argument.parse::<u32>().ok());
        let kind = match kind {
            "429" => FaultKind::Throttle(argument.map(str::to_owned)),
            "401" => FaultKind::Unauthorized(argument.unwrap_or("Invalid token").to_owned()),
            "hang" => FaultKind::Hang(number().unwrap_or(60).into()),
            "cut" => FaultKind::Cut(number().unwrap_or(500) as usize),
            "broken" => FaultKind::BrokenJson,
            "html" => FaultKind::Html,
            status => FaultKind::Status(
                status.parse().map_err(|_unknown| format!("unknown fault `{text}`"))?,
            ),
        };
        let n_requests = count.parse().map_err(|_too_many| format!("bad count in `{text}`"))?;
        Ok(Self { kind, n_requests, stream: None })
    }
}
