//! The simulated tenant: its records in the order in which the API lists them, its clock, its tokens, what was asked.
//!
//! Everything behind the one lock of the simulator. It makes no answers and knows no HTTP.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use siem_agent_crds::report::Stream;
use tokio::time::Instant;

use super::assertion::Trust;
use super::data::Factory;
use super::draw::Draw;
use super::fault::{Endpoint, Fault, FaultKind};
use super::xdr::{Delay, Derived};
use super::{Options, Request, RetryAfter};
use crate::clock;

const MINUTE: Duration = Duration::from_secs(60);

/// A record of the simulated tenant.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// `None` where the record has none, or one that is no text.
    pub(super) id: Option<String>,
    /// By which the API lists it: `created` of an activity, `timestamp` of an alert.
    pub(super) listed: i64,
    /// From when on the API shows it.
    pub(super) visible: i64,
    pub(super) json: Arc<str>,
    /// What it is at Microsoft Graph.
    pub(super) derived: Derived,
}

impl Record {
    /// Its place in the list: equal times are ordered by id.
    pub(super) fn place(&self) -> (i64, &str) {
        (self.listed, self.id.as_deref().unwrap_or_default())
    }
}

/// Whom an access token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Portal,
    Graph,
}

/// What requests are counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Budget {
    Portal,
    GraphAlerts,
    GraphHunting,
}

impl Endpoint {
    /// As requests are noted.
    fn name(self) -> &'static str {
        match self {
            Self::Records(stream) => stream.as_str(),
            Self::GraphAlerts => "graph-alerts",
            Self::GraphHunting => "graph-hunting",
            Self::Token => "token",
        }
    }

    fn budget(self) -> Option<Budget> {
        match self {
            Self::Records(_) => Some(Budget::Portal),
            Self::GraphAlerts => Some(Budget::GraphAlerts),
            Self::GraphHunting => Some(Budget::GraphHunting),
            Self::Token => None,
        }
    }
}

/// An access token that was issued.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) token: String,
    pub(super) until: Instant,
    pub(super) audience: Audience,
}

#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) options: Options,
    pub(super) token: String,
    pub(super) alerts: Vec<Record>,
    pub(super) activities: Vec<Record>,
    pub(super) shown: BTreeSet<(Stream, String)>,
    pub(super) requests: Vec<Request>,
    pub(super) faults: Vec<Fault>,
    pub(super) forbidden: BTreeSet<Stream>,
    pub(super) access: Vec<Access>,
    /// Whose assertions stand for a client secret.
    pub(super) trust: Vec<Trust>,
    /// The hosts and ports by which it is reached, besides the one that a request names.
    pub(super) origins: Vec<String>,
    /// Whether hunting has used up its share of CPU.
    pub(super) cpu_spent: bool,
    /// Every access token ever issued.
    pub(super) issued: Vec<String>,
    /// Whether the last page of a stream said that there is another.
    pub(super) more: BTreeMap<Stream, bool>,
    pub(super) chance: Draw,
    recent: BTreeMap<Budget, VecDeque<Instant>>,
    factory: Factory,
}

pub(super) type Shared = Arc<Mutex<Tenant>>;

#[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
pub(super) fn lock(tenant: &Mutex<Tenant>) -> MutexGuard<'_, Tenant> {
    tenant.lock().expect("nothing panics while the lock is held")
}

impl Tenant {
    pub(super) fn new(options: Options) -> Self {
        Self {
            token: options.token.clone(),
            alerts: Vec::new(),
            activities: Vec::new(),
            shown: BTreeSet::new(),
            requests: Vec::new(),
            faults: Vec::new(),
            forbidden: BTreeSet::new(),
            access: Vec::new(),
            trust: Vec::new(),
            origins: Vec::new(),
            cpu_spent: false,
            issued: Vec::new(),
            more: BTreeMap::new(),
            chance: Draw::new(options.seed ^ 0x000F_A017),
            recent: BTreeMap::new(),
            factory: Factory::new(options.seed, options.hostile),
            options,
        }
    }

    /// The server's clock, ms.
    pub(super) fn now(&self) -> i64 {
        clock::millis() + i64::try_from(self.options.skew.as_millis()).unwrap_or(0)
    }

    pub(super) fn records(&self, stream: Stream) -> &[Record] {
        match stream {
            Stream::Alerts => &self.alerts,
            Stream::Activities => &self.activities,
        }
    }

    /// Every id that exists.
    pub(super) fn produced(&self) -> BTreeSet<(Stream, String)> {
        self.listed().into_keys().collect()
    }

    /// Every id that exists, with the time by which it is listed.
    pub(super) fn listed(&self) -> BTreeMap<(Stream, String), i64> {
        let of = |stream| {
            let ids = self
                .records(stream)
                .iter()
                .filter_map(move |record| Some(((stream, record.id.clone()?), record.listed)));
            ids.collect::<Vec<_>>()
        };
        [Stream::Alerts, Stream::Activities].into_iter().flat_map(of).collect()
    }

    /// Every id of Graph's, with the time from which on a query finds it.
    pub(super) fn findable(&self) -> BTreeMap<(Stream, String), i64> {
        let rows = self.activities.iter();
        let rows = rows.flat_map(|it| it.derived.rows(&it.json, self.delay(it)));
        let rows =
            rows.filter_map(|row| Some(((Stream::Activities, row.own.clone()?), row.visible)));
        let alerts = self.alerts.iter();
        let alerts = alerts.filter_map(|it| Some(((Stream::Alerts, it.id.clone()?), it.visible)));
        rows.chain(alerts).collect()
    }

    /// Puts a record into its place in the list.
    pub(super) fn place(&mut self, stream: Stream, record: Record) {
        let records = match stream {
            Stream::Alerts => &mut self.alerts,
            Stream::Activities => &mut self.activities,
        };
        let at = records.partition_point(|there| there.place() <= record.place());
        records.insert(at, record);
    }

    /// Puts a record's exact JSON into the list.
    pub(super) fn inject(&mut self, stream: Stream, json: &str, listed: i64) {
        // Python's JSON, which the API seems to speak, has more numbers than JSON.
        let known = ["-Infinity", "Infinity", "NaN"]
            .iter()
            .fold(json.to_owned(), |json, number| json.replace(number, "null"));
        let id = serde_json::from_str::<Value>(&known).ok();
        let id = id.and_then(|json| json.get("_id")?.as_str().map(str::to_owned));
        self.place(
            stream,
            Record { id, listed, visible: listed, json: json.into(), derived: Derived::default() },
        );
    }

    /// Makes records of one stream, spread over a span that ends now.
    pub(super) fn make(&mut self, stream: Stream, n_records: usize, span: Duration) {
        let now = self.now();
        let span = i64::try_from(span.as_millis()).unwrap_or(0);
        let n_all = i64::try_from(n_records.max(1)).unwrap_or(1);
        let same = self.options.same_time.max(1);
        for index in 0..n_records {
            let step = i64::try_from(index / same * same).unwrap_or(0);
            // Whole tenths of a second, so that many share one time.
            let listed = (now - span + step * span / n_all) / 100 * 100;
            self.make_one(stream, listed);
        }
    }

    /// Makes a record that is listed at this time, or a little later when it is one of the late ones.
    pub(super) fn make_one(&mut self, stream: Stream, listed: i64) {
        let (id, json, draw) = self.factory.make(stream, listed);
        let late = i64::try_from(self.options.late.as_millis()).unwrap_or(0);
        let delay = if late > 0 && draw.is_multiple_of(10) {
            i64::try_from(draw >> 8).unwrap_or(i64::MAX) % late
        } else {
            0
        };
        self.place(
            stream,
            Record {
                id,
                listed,
                visible: listed + delay,
                json: json.into(),
                derived: Derived::default(),
            },
        );
    }

    /// Notes that a request came in. Gives its number, whether it is one too many, and the fault that meets it.
    pub(super) fn arrive(
        &mut self,
        endpoint: Endpoint,
        question: Value,
        continued: bool,
    ) -> (usize, bool, Option<FaultKind>) {
        let at = clock::millis();
        let what = endpoint.name();
        self.requests.push(Request {
            at,
            what,
            status: 0,
            continued,
            gzip: false,
            n_bytes: 0,
            question,
        });
        let too_many = endpoint.budget().is_some_and(|budget| self.too_many(budget));
        let mut met = None;
        for fault in &mut self.faults {
            let chance = if fault.probability < 1.0 { self.chance.share() } else { 0.0 };
            if met.is_none() && fault.meets(endpoint, continued, chance) {
                met = Some(fault.kind.clone());
            }
        }
        self.faults.retain(|fault| fault.n_requests != Some(0));
        (self.requests.len() - 1, too_many, met)
    }

    /// Counts a request against a budget.
    fn too_many(&mut self, budget: Budget) -> bool {
        let now = Instant::now();
        let most = match budget {
            Budget::Portal => self.options.budget,
            Budget::GraphAlerts => self.options.graph_budget,
            Budget::GraphHunting => self.options.hunting_budget,
        };
        let recent = self.recent.entry(budget).or_default();
        while recent.front().is_some_and(|sent| now.duration_since(*sent) >= MINUTE) {
            recent.pop_front();
        }
        recent.push_back(now);
        most > 0 && recent.len() > most
    }

    /// Whole seconds until the oldest request that counts against a budget is a minute old.
    pub(super) fn throttled_for(&self, budget: Budget) -> u64 {
        let oldest = self.recent.get(&budget).and_then(VecDeque::front);
        MINUTE.saturating_sub(oldest.map_or(Duration::ZERO, Instant::elapsed)).as_secs() + 1
    }

    /// The `Retry-After` of a refusal, as the options want it.
    pub(super) fn retry_after(&self, seconds: u64) -> Option<String> {
        match self.options.retry_after {
            RetryAfter::Absent => None,
            RetryAfter::Seconds => Some(seconds.to_string()),
            RetryAfter::Date => Some(format!("date+{seconds}")),
        }
    }

    /// When a record's row comes to Graph.
    pub(super) fn delay(&self, record: &Record) -> Delay {
        Delay {
            listed: record.listed,
            ingested: record.visible,
            out_of_order: i64::try_from(self.options.out_of_order.as_millis()).unwrap_or(0),
        }
    }

    /// Whether a value of the `Authorization` header lets its bearer in at the portal.
    pub(super) fn lets_in(&self, authorization: &str) -> bool {
        match authorization.split_once(' ') {
            Some(("Token", token)) => token == self.token,
            Some(("Bearer", token)) => self.audience(token) == Some(Audience::Portal),
            Some(_) | None => false,
        }
    }

    /// Whom an access token is for, while it lives.
    pub(super) fn audience(&self, token: &str) -> Option<Audience> {
        let now = Instant::now();
        let found = self.access.iter().find(|access| access.token == token && now < access.until);
        found.map(|access| access.audience)
    }
}
