//! The boundary between a pipeline and wherever its records come from: what a pipeline asks of any source.
//!
//! A source gives, for one stream and a position, events as they come, and after each page proof of how far everything
//! was shown. It says what of its position is to be kept, how current that is, and what a failure means. It never sees
//! the target, only the proof that something was delivered. A pipeline never sees a URL, a question or a record's JSON.

pub mod cloud_apps;
pub mod endless;
pub mod failure;
pub mod graph;
pub mod http;
pub mod listing;
pub mod parse;
pub mod purpose;
pub mod seen;
pub mod start;
pub mod xdr;

use std::time::Duration;

use siem_agent_crds::position::Position;

use crate::delivery::Delivered;
use crate::event::{Event, Stream};
use crate::record::{Mark, RecordKey};
use crate::reject::RejectReason;
use crate::secret::{self, Secret, SecretId};
use crate::time::Millis;
use failure::Failure;
use purpose::Purpose;

pub use start::Start;

/// Where the records of one tenant come from.
pub trait Source: Send + Sync {
    /// What reads one stream.
    type Reader: Reader;

    /// The secret as it is now, for one request.
    fn offer(&self) -> Offer;

    /// What reads a stream from here on.
    fn reader(&self, stream: Stream, start: &Start) -> Self::Reader;

    /// Asks for next to nothing, to learn whether the secret is good for this stream.
    fn check(
        &self,
        stream: Stream,
        offer: Offer,
    ) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// Reads one stream, poll by poll and page by page. It owns the stream's position.
///
/// A poll is [`due`](Self::due), [`begin`](Self::begin), and for each page [`ask`](Self::ask), [`next`](Self::next) to its
/// end, and [`page_read`](Self::page_read) once everything of it is accounted for.
pub trait Reader: Send {
    /// What is due.
    fn due(&mut self) -> Due;

    /// Sets out on the poll that is due.
    fn begin(&mut self);

    /// Asks for the next page of the poll.
    fn ask(&mut self, offer: Offer) -> impl Future<Output = Result<(), Failed>> + Send;

    /// The next records of the page that were not delivered before; `None` at its end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Listed>>, Failed>> + Send;

    /// The target takes nothing: lets the page go. It is asked for again later.
    fn abandon(&mut self);

    /// A record cannot be sent.
    fn skip(&mut self, mark: &Mark);

    /// Records were delivered.
    fn delivered(&mut self, delivered: Delivered);

    /// The page was read to its end, and all of it is delivered or skipped: the position moves to what that proves.
    fn page_read(&mut self) -> PageRead;

    /// The poll failed: the next one is due as soon as the pause is over.
    fn failed(&mut self);

    /// Everything that the source has shown up to this time is delivered.
    fn through(&self) -> Millis;

    /// When the newest delivered event happened.
    fn last_event(&self) -> Option<Millis>;

    /// The whole position, for the state file.
    fn position(&self) -> Position;

    /// What of it is worth keeping elsewhere, for a pipeline that has lost its state file; a bounded text.
    fn kept(&self) -> Position;
}

/// Whether something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A poll is.
    Poll(Purpose),
    /// Nothing is before this long has passed.
    In(Duration),
}

/// What a page lists.
#[derive(Debug)]
pub enum Listed {
    /// An event that was not delivered before.
    New {
        /// It.
        event: Event,
        /// By what the position remembers it.
        mark: Mark,
        /// Whether the source showed it late.
        is_late: bool,
    },
    /// A record that is no event and was not counted before.
    Unusable(RejectReason),
    /// A record that the user's filters leave out, and that was not counted before.
    Filtered,
}

/// What a record is.
#[derive(Debug)]
pub enum Read {
    /// An event to be delivered.
    Event(Event),
    /// One that is not wanted.
    Filtered {
        /// By what the position remembers it.
        key: RecordKey,
        /// When it was listed, where it says.
        listed: Option<Millis>,
    },
}

/// What a whole page meant.
#[derive(Debug)]
pub struct PageRead {
    /// Whether another page of this poll is to be asked for now.
    pub next: Result<bool, Failed>,
    /// How many records were on it, known ones too.
    pub n_listed: usize,
    /// How many of them were delivered or skipped before.
    pub n_repeated: usize,
    /// Events of so many seconds are lost: the source does not hold them any more. Counted once.
    pub gap_seconds: Option<f64>,
    /// The source's clock minus ours, where it is believed.
    pub skew: Option<Millis>,
    /// Whether its time contradicts the source's other answers and is ignored.
    pub is_date_ignored: bool,
    /// Records that the source lets nobody read.
    pub unreadable: Option<RejectReason>,
}

impl Default for PageRead {
    /// The last page of a poll, of which there is nothing to say.
    fn default() -> Self {
        Self {
            next: Ok(false),
            n_listed: 0,
            n_repeated: 0,
            gap_seconds: None,
            skew: None,
            is_date_ignored: false,
            unreadable: None,
        }
    }
}

/// Why there is no page, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What it means for the next request.
    pub failure: Failure,
    /// In words that hold no secret.
    pub reason: String,
    /// The status as a metric's label; `None` where no request was made.
    pub code: Option<String>,
}

/// The secret that a request is sent with, as it was read when the request was let through.
#[derive(Debug)]
pub struct Offer(Result<Secret, secret::Error>);

impl Offer {
    /// What was read.
    pub fn of(secret: Result<Secret, secret::Error>) -> Self {
        Self(secret)
    }

    /// By what it is distinguished from another one; `None` where there is no secret to send.
    pub fn id(&self) -> Option<SecretId> {
        self.0.as_ref().ok().map(Secret::id)
    }

    /// The secret itself, for the one place that sends it.
    ///
    /// # Errors
    /// Why the secret is absent.
    pub(crate) fn into_secret(self) -> Result<Secret, secret::Error> {
        self.0
    }
}
