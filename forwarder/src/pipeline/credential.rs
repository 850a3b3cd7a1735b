//! Whether the credential is good, and when it may be tried again: the only owner of both. Pure.
//!
//! One secret serves all streams. While it is not proven, one stream tries it for all of them. A dead one is tried at
//! most once a minute and at least about every five minutes, so that one revived at the portal is noticed without help;
//! another secret is tried at once. What the credential may not read halts that stream alone. Times are those of the
//! steady clock, and jitter is an argument.

use std::time::Duration;

use crate::event::Stream;
use crate::retry::grow;
use crate::secret::SecretId;
use crate::source::failure::Refusal;
use crate::time::{Millis, millis};

/// A dead credential is tried at most this often.
const DEAD: Duration = Duration::from_secs(60);
/// A dead credential is tried at least this often, but for the jitter.
const DEAD_MAX: Duration = Duration::from_secs(300);
/// How often an absent credential is looked for; no request is involved.
const MISSING: Duration = Duration::from_secs(1);
/// What is given to the one stream to learn whether a credential is good, before the next one tries.
const AFTER_THE_OTHER: Millis = 40_000;
/// How often the others look while that stream has not asked yet, because it waits for its turn in the budget.
const TRIAL_LOOK: Millis = 1_000;
/// A credential that no stream tries, because none is read, is tried this often.
const CHECK: Millis = 10 * 60_000;
/// How often it is looked whether such a check is due.
const CHECK_LOOK: Millis = CHECK / 10;

/// For how long a refusal halts, unless the secret changes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halt {
    /// The wait of the stream that was refused.
    pub wait: Duration,
    /// Whether it is the first refusal of this kind in a row.
    pub is_first: bool,
}

/// What is known of the credential.
#[derive(Debug)]
pub struct Credential {
    /// In the order in which they try.
    streams: Vec<OfStream>,
    /// The secret that was accepted last, unless it was refused since.
    proven: Option<SecretId>,
    /// The secret that was refused last, unless it was accepted since.
    dead: Option<SecretId>,
    /// Whether no stream can be read: the credential is refused or absent.
    is_refused: bool,
    /// What any stream offered last.
    last: Option<SecretId>,
    /// Who tries an unproven secret, and since when it is on its way.
    trial: Option<(Stream, Option<Millis>)>,
    judged_at: Option<Millis>,
    next_check: Millis,
}

/// What a stream offered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offered {
    /// It has not asked yet.
    Never,
    /// There was no secret.
    Nothing,
    /// This.
    Secret(SecretId),
}

impl Offered {
    fn of(secret: Option<SecretId>) -> Self {
        secret.map_or(Self::Nothing, Self::Secret)
    }

    fn secret(self) -> Option<SecretId> {
        match self {
            Self::Never | Self::Nothing => None,
            Self::Secret(secret) => Some(secret),
        }
    }
}

#[derive(Debug)]
struct OfStream {
    stream: Stream,
    offered: Offered,
    halted_until: Option<Millis>,
    is_forbidden: bool,
    /// The refusals of one kind in a row.
    in_a_row: Option<(Refusal, u32)>,
}

impl Credential {
    /// A credential that nothing is known of, for these streams.
    pub fn new(streams: impl IntoIterator<Item = Stream>, now: Millis) -> Self {
        let of_stream = |stream| OfStream {
            stream,
            offered: Offered::Never,
            halted_until: None,
            is_forbidden: false,
            in_a_row: None,
        };
        Self {
            streams: streams.into_iter().map(of_stream).collect(),
            proven: None,
            dead: None,
            is_refused: false,
            last: None,
            trial: None,
            judged_at: None,
            next_check: now + CHECK_LOOK,
        }
    }

    /// When a request of this stream may go out with this secret: not after `now` where it may at once.
    pub fn next_try(&self, stream: Stream, secret: Option<SecretId>, now: Millis) -> Millis {
        if let Some((by, since)) = self.trial
            && by != stream
            && self.is_unproven(secret)
        {
            let until = since.map_or(now + TRIAL_LOOK, |since| since + AFTER_THE_OTHER);
            if until > now {
                return until;
            }
        }
        if self.is_another(stream, secret) {
            return now;
        }
        self.of(stream).and_then(|of| of.halted_until).unwrap_or(now)
    }

    /// Whether a secret is another one than this stream has tried, and worth a try at once.
    pub fn is_another(&self, stream: Stream, secret: Option<SecretId>) -> bool {
        let tried = match self.of(stream).map_or(Offered::Never, |of| of.offered) {
            Offered::Never => self.last,
            offered => offered.secret(),
        };
        secret.is_some() && secret != tried && secret != self.dead
    }

    /// A stream is about to ask with this secret: while that is not proven, the others wait for the answer.
    pub fn reserved(&mut self, stream: Stream, secret: Option<SecretId>) {
        if self.is_unproven(secret) {
            self.trial = Some((stream, None));
        }
    }

    /// The stream does not ask after all.
    pub fn released(&mut self, stream: Stream) {
        self.unheard_of_trial(stream);
    }

    /// A request of this stream is sent with this secret; `None` where the secret is absent.
    pub fn offered(&mut self, stream: Stream, secret: Option<SecretId>, now: Millis) {
        let is_another = self.is_another(stream, secret);
        if self.is_unproven(secret) {
            self.trial = Some((stream, Some(now)));
        }
        self.last = secret;
        for of in &mut self.streams {
            // What another secret was refused says nothing of this one.
            if is_another && of.offered != Offered::of(secret) {
                of.halted_until = None;
                of.in_a_row = None;
            }
            if of.stream == stream {
                of.offered = Offered::of(secret);
            }
        }
    }

    /// The source took what this stream offered.
    pub fn accepted(&mut self, stream: Stream, now: Millis) {
        self.judged(stream, now);
        let Some(of) = self.of_mut(stream) else { return };
        of.is_forbidden = false;
        // What is refused on a later page of each poll stays a row; a whole poll ends it (`unheard`).
        of.in_a_row.take_if(|(refusal, _)| refusal.is_of_all());
        let offered = of.offered.secret();
        if offered == self.last {
            self.took(offered);
        }
    }

    /// What this stream offered was refused, or the stream was. `jitter` lies in `0.0..=1.0`.
    pub fn refused(&mut self, stream: Stream, refusal: Refusal, now: Millis, jitter: f64) -> Halt {
        if refusal == Refusal::Question {
            self.unheard_of_trial(stream);
        } else {
            self.judged(stream, now);
        }
        let last = self.last;
        let Some(of) = self.of_mut(stream) else { return Halt { wait: DEAD, is_first: true } };
        let attempt = match of.in_a_row {
            Some((kind, attempt)) if kind == refusal => attempt.saturating_add(1),
            Some(_) | None => 0,
        };
        of.in_a_row = Some((refusal, attempt));
        of.is_forbidden = refusal == Refusal::Stream;
        let wait = match refusal {
            Refusal::Missing | Refusal::Unusable => MISSING,
            Refusal::Credential | Refusal::Stream | Refusal::Question => {
                grow(DEAD, DEAD_MAX, attempt, jitter)
            }
        };
        let offered = of.offered.secret();
        // What was sent before the secret changed says nothing of the one that is used.
        let is_of_all = refusal.is_of_all() && offered == last;
        if is_of_all {
            (self.is_refused, self.proven) = (true, None);
            self.dead = offered.or(self.dead);
            let others = self.streams.iter_mut().filter(|of| of.stream != stream);
            for (turn, of) in (1..).zip(others) {
                of.halted_until = Some(now + millis(wait) + AFTER_THE_OTHER * turn);
            }
        } else if refusal == Refusal::Stream && offered == last {
            self.took(offered);
        }
        if let Some(of) = self.of_mut(stream) {
            of.halted_until = Some(now + millis(wait));
        }
        Halt { wait, is_first: attempt == 0 }
    }

    /// The source failed otherwise, which says nothing of the credential, or a poll went well: the next refusal is a first
    /// one.
    pub fn unheard(&mut self, stream: Stream) {
        self.unheard_of_trial(stream);
        if let Some(of) = self.of_mut(stream) {
            of.in_a_row = None;
        }
    }

    /// Who should try this secret though no stream is read: what was refused another one, first for all streams, else
    /// for each that is forbidden.
    pub fn worth_a_try(&self, secret: Option<SecretId>) -> Option<Stream> {
        let mut refused = self.streams.iter().filter(|of| self.is_refused || of.is_forbidden);
        let of_all = if self.is_refused { 1 } else { usize::MAX };
        let is_another = |of: &&OfStream| self.is_another(of.stream, secret);
        refused.by_ref().take(of_all).find(is_another).map(|of| of.stream)
    }

    /// Who should try the credential because nobody has for long.
    pub fn check_due(&mut self, now: Millis) -> Option<Stream> {
        let first = self.streams.first()?;
        let is_halted = first.halted_until.is_some_and(|until| until > now);
        if now < self.next_check || is_halted {
            return None;
        }
        let stream = first.stream;
        self.next_check = now + CHECK_LOOK;
        self.judged_at.is_none_or(|at| now - at >= CHECK).then_some(stream)
    }

    /// The secret that was offered last is good: what waited because of it need not wait longer.
    fn took(&mut self, secret: Option<SecretId>) {
        (self.proven, self.dead) = (secret, None);
        if std::mem::take(&mut self.is_refused) {
            for of in &mut self.streams {
                of.halted_until = None;
            }
        }
    }

    fn is_unproven(&self, secret: Option<SecretId>) -> bool {
        secret.is_some() && secret != self.proven
    }

    fn judged(&mut self, stream: Stream, now: Millis) {
        self.judged_at = Some(now);
        self.unheard_of_trial(stream);
    }

    fn unheard_of_trial(&mut self, stream: Stream) {
        self.trial.take_if(|(by, _)| *by == stream);
    }

    fn of(&self, stream: Stream) -> Option<&OfStream> {
        self.streams.iter().find(|of| of.stream == stream)
    }

    fn of_mut(&mut self, stream: Stream) -> Option<&mut OfStream> {
        self.streams.iter_mut().find(|of| of.stream == stream)
    }
}

#[cfg(test)]
mod laws;
