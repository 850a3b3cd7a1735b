//! A simulated portal: the API of Defender for Cloud Apps with its quirks, and the identity provider's token endpoint.
//!
//! It keeps the limits of the real one (requests a minute, records a page, how far `skip` reaches, a scan cursor that
//! drops the last records of a page that is not the last), makes realistic records from a seed, fails on demand, and
//! remembers every id that it has shown. It speaks to loopback only.

mod api;
mod data;
mod fault;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context as _;
use siem_agent_crds::report::Stream;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock;

pub use fault::{Fault, FaultKind};

/// The token that is accepted unless another is set; base64 text as the real ones.
pub const DEMO_TOKEN: &str =
    "ZGVtby1kZWZlbmRlci10b2tlbi1mb3ItdGhlLXNpbXVsYXRvci1vbmx5LW5vdC1hLXNlY3JldA==";

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seed of the records.
    pub seed: u64,
    /// Activities a second; alerts come at a fiftieth of it.
    pub rate: f64,
    /// How many activities there are from before the start, and over which time.
    pub history: (usize, Duration),
    /// Every tenth activity becomes visible up to this long after it was saved.
    pub late: Duration,
    /// Requests a minute; 0 for no limit.
    pub budget: usize,
    /// The accepted token.
    pub token: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            rate: 0.0,
            history: (0, Duration::from_secs(48 * 3600)),
            late: Duration::ZERO,
            budget: 30,
            token: DEMO_TOKEN.to_owned(),
        }
    }
}

/// One request that was received.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Request {
    /// When, ms.
    pub at: i64,
    /// `alerts`, `activities` or `token`.
    pub what: &'static str,
    /// The status that was answered.
    pub status: u16,
}

/// A record of the simulated tenant.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) id: Option<String>,
    pub(crate) listed: i64,
    pub(crate) visible: i64,
    pub(crate) json: Arc<str>,
}

#[derive(Debug, Default)]
pub(crate) struct Tenant {
    pub(crate) token: String,
    pub(crate) budget: usize,
    pub(crate) alerts: Vec<Record>,
    pub(crate) activities: Vec<Record>,
    pub(crate) shown: BTreeSet<(Stream, String)>,
    pub(crate) requests: Vec<Request>,
    pub(crate) recent: VecDeque<Instant>,
    pub(crate) faults: VecDeque<Fault>,
    pub(crate) forbidden: BTreeSet<Stream>,
    pub(crate) n_made: u64,
}

/// A running portal; it ends when this is dropped.
#[derive(Debug)]
pub struct Defender {
    address: SocketAddr,
    options: Options,
    tenant: Arc<Mutex<Tenant>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Defender {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Defender {
    /// Starts it.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind(options.listen).await.context("listen for the simulated portal")?;
        let address = listener.local_addr().context("learn the simulated portal's port")?;
        let tenant =
            Tenant { token: options.token.clone(), budget: options.budget, ..Tenant::default() };
        let tenant = Arc::new(Mutex::new(tenant));
        let mut defender =
            Self { address, options, tenant: Arc::clone(&tenant), tasks: Vec::new() };
        let (n_records, span) = defender.options.history;
        defender.make(n_records, span);
        defender.tasks.push(tokio::spawn(async move {
            // The listener lives as long as the task.
            let _ = axum::serve(listener, api::routes(tenant)).await;
        }));
        if defender.options.rate > 0.0 {
            let (tenant, options) = (Arc::clone(&defender.tenant), defender.options.clone());
            defender.tasks.push(tokio::spawn(produce(tenant, options)));
        }
        Ok(defender)
    }

    /// The tenant's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes so many activities now, and some alerts with them.
    pub fn produce(&self, n_records: usize) {
        self.make(n_records, Duration::ZERO);
    }

    /// Stops making records by itself.
    pub fn quiet(&mut self) {
        if self.tasks.len() > 1
            && let Some(producer) = self.tasks.pop()
        {
            producer.abort();
        }
    }

    /// Puts a record's exact JSON into a stream, listed now.
    pub fn inject(&self, stream: Stream, json: &str) {
        let now = clock::millis();
        let id = serde_json::from_str::<serde_json::Value>(json).ok();
        let id = id.and_then(|json| json.get("_id")?.as_str().map(str::to_owned));
        let record = Record { id, listed: now, visible: now, json: json.into() };
        self.lock().stream(stream).push(record);
    }

    /// Accepts another token from now on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.lock().token);
    }

    /// Answers 403 on a stream, or no longer.
    pub fn forbid(&self, stream: Stream, forbidden: bool) {
        let mut tenant = self.lock();
        if forbidden {
            tenant.forbidden.insert(stream);
        } else {
            tenant.forbidden.remove(&stream);
        }
    }

    /// Fails some of the next requests.
    pub fn fault(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// Every id that exists.
    pub fn produced(&self) -> BTreeSet<(Stream, String)> {
        let tenant = self.lock();
        let of = |stream, records: &[Record]| {
            records
                .iter()
                .filter_map(|record| Some((stream, record.id.clone()?)))
                .collect::<Vec<_>>()
        };
        let mut ids: BTreeSet<_> = of(Stream::Alerts, &tenant.alerts).into_iter().collect();
        ids.extend(of(Stream::Activities, &tenant.activities));
        ids
    }

    /// Every id that was shown.
    pub fn shown(&self) -> BTreeSet<(Stream, String)> {
        self.lock().shown.clone()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// The JSON of every record, in the order in which they are listed.
    pub fn records(&self, stream: Stream) -> Vec<String> {
        let mut tenant = self.lock();
        let mut records = tenant.stream(stream).clone();
        records.sort_by_key(|record| record.listed);
        records.into_iter().map(|record| record.json.to_string()).collect()
    }

    fn make(&self, n_records: usize, span: Duration) {
        data::make(&mut self.lock(), &self.options, n_records, span, clock::millis());
    }

    fn lock(&self) -> MutexGuard<'_, Tenant> {
        lock(&self.tenant)
    }
}

#[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
pub(crate) fn lock(tenant: &Mutex<Tenant>) -> MutexGuard<'_, Tenant> {
    tenant.lock().expect("nothing panics while the lock is held")
}

impl Tenant {
    pub(crate) fn stream(&mut self, stream: Stream) -> &mut Vec<Record> {
        match stream {
            Stream::Alerts => &mut self.alerts,
            Stream::Activities => &mut self.activities,
        }
    }
}

/// Makes records at the wanted rate, in steps of 100 ms.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is small and positive"
)]
async fn produce(tenant: Arc<Mutex<Tenant>>, options: Options) {
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut owed = 0.0;
    loop {
        ticks.tick().await;
        owed += options.rate / 10.0;
        let n_records = owed as usize;
        owed -= n_records as f64;
        data::make(&mut lock(&tenant), &options, n_records, Duration::ZERO, clock::millis());
    }
}
