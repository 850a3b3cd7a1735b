//! A simulated portal: the API of Defender for Cloud Apps with its quirks, Microsoft Graph for the same tenant, and the
//! identity provider's token endpoint.
//!
//! Graph gives the tenant's own records once more, as alerts of `alerts_v2` and as rows of hunting tables, with the same
//! ids, beside alerts and rows of other products, which count for nothing.
//!
//! It keeps the limits of the real one (requests a minute, records a page, how far `skip` reaches, a scan cursor that
//! drops the last records of a page that is not the last), refuses the filters that the real one refuses, makes realistic
//! records from a seed, fails on demand, and remembers every id that it has shown and every request. It speaks to
//! loopback and to a network namespace of the tests only, over plain HTTP or TLS, from a thread of its own.

mod answer;
mod api;
mod control;
mod data;
mod fault;
mod filter;
mod identity;
mod page;
mod serve;
mod tenant;
mod draw;
mod ticks;
mod kql;
mod xdr;
mod spoil;
mod assertion;
mod graph;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::SignedDuration;
use serde_json::Value;
use siem_agent_crds::report::Stream;

use crate::pki::Identity;
use crate::real_node;
use assertion::Trust;
use tenant::{Shared, Tenant};

pub use data::Hostility;
pub use fault::{Endpoint, Fault, FaultKind, Pages};

/// The token that is accepted unless another is set; base64 text as the real ones.
pub const DEMO_TOKEN: &str =
    "ZGVtby1kZWZlbmRlci10b2tlbi1mb3ItdGhlLXNpbXVsYXRvci1vbmx5LW5vdC1hLXNlY3JldA==";

/// The portal's name where it listens for the pods of a real node.
pub const NAME_FOR_PODS: &str = "portal.siem.test";

/// What the portal answers to a token whose owner has lost his rights.
const OWNER_NOT_PERMITTED: &str =
    "Invalid user - the owner of this token is not permitted to use tokens";

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen, on loopback or on a real node's address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seed of the records.
    pub seed: u64,
    /// Activities a second.
    pub rate: f64,
    /// Alerts a second; a fiftieth of the activities unless set.
    pub alert_rate: Option<f64>,
    /// How many activities there are from before the start, and over which time.
    pub history: (usize, Duration),
    /// How many alerts there are from that time; a fiftieth of the activities unless set.
    pub alert_history: Option<usize>,
    /// Every tenth record becomes visible up to this long after the time by which it is listed.
    pub late: Duration,
    /// So many records share one time.
    pub same_time: usize,
    /// How far the server's clock is ahead of the machine's.
    pub skew: SignedDuration,
    /// How much the records try to do harm.
    pub hostile: Hostility,
    /// Requests a minute; 0 for no limit.
    pub budget: usize,
    /// What the refusal of one too many says about when to come back.
    pub retry_after: RetryAfter,
    /// The accepted token, which is the client secret as well.
    pub token: String,
    /// How long an access token lives.
    pub access_life: Duration,
    /// Requests a minute for alerts of Graph; 0 for no limit.
    pub graph_budget: usize,
    /// Hunting queries a minute; 0 for no limit.
    pub hunting_budget: usize,
    /// How many bytes the result of a hunting query may have.
    pub result_limit: usize,
    /// So many bytes more, about, in the `RawEventData` of each row, as large events have.
    pub raw_event_bytes: usize,
    /// A few rows show up this much later, at most, than rows that are ingested after them.
    pub out_of_order: Duration,
    /// Speaks TLS with this certificate.
    pub tls: Option<Identity>,
}

/// The `Retry-After` of a request that is one too many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RetryAfter {
    /// None, as the vendor documents none.
    #[default]
    Absent,
    /// In seconds.
    Seconds,
    /// As a date.
    Date,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seed: 1,
            rate: 0.0,
            alert_rate: None,
            history: (0, Duration::from_secs(48 * 3600)),
            alert_history: None,
            late: Duration::ZERO,
            same_time: 1,
            skew: SignedDuration::ZERO,
            hostile: Hostility::default(),
            budget: 30,
            retry_after: RetryAfter::default(),
            token: DEMO_TOKEN.to_owned(),
            access_life: Duration::from_secs(3599),
            graph_budget: 150,
            hunting_budget: 45,
            result_limit: 50_000_000,
            raw_event_bytes: 0,
            out_of_order: Duration::ZERO,
            tls: None,
        }
    }
}

/// One request that was received.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Request {
    /// When, by the machine's clock, ms.
    pub at: i64,
    /// `alerts`, `activities`, `graph-alerts`, `graph-hunting` or `token`.
    pub what: &'static str,
    /// The status that was answered; 0 while none was.
    pub status: u16,
    /// Whether it goes on where a page before it ended.
    pub continued: bool,
    /// Whether the answer was compressed.
    pub gzip: bool,
    /// How many bytes the answer's body had before that.
    pub n_bytes: usize,
    /// What was asked, without secrets.
    pub question: Value,
}

/// A running portal; it ends when this is dropped.
#[derive(Debug)]
pub struct Defender {
    address: SocketAddr,
    tls: bool,
    tenant: Shared,
    _server: serve::Server,
}

impl Defender {
    /// Starts it.
    ///
    /// # Errors
    /// When the address is not one of loopback or cannot be listened on.
    #[expect(
        clippy::unused_async,
        reason = "what starts it awaits it, as everything else that starts"
    )]
    pub async fn start(options: Options) -> Result<Self> {
        let (listen, tls, (n_records, span)) =
            (options.listen, options.tls.clone(), options.history);
        ensure!(
            listen.ip().is_loopback() || listen.ip() == real_node::ADDRESS,
            "the simulated portal listens on loopback only"
        );
        let n_alerts = options.alert_history.unwrap_or_else(|| n_records.div_ceil(50));
        let mut tenant = Tenant::new(options);
        tenant.make(Stream::Activities, n_records, span);
        tenant.make(Stream::Alerts, n_alerts, span);
        let tenant = Arc::new(Mutex::new(tenant));
        let (address, server) = serve::start(listen, tls.as_ref(), Arc::clone(&tenant))?;
        let names = [address.ip().to_string(), "localhost".to_owned(), NAME_FOR_PODS.to_owned()];
        tenant::lock(&tenant).origins =
            names.into_iter().map(|name| format!("{name}:{}", address.port())).collect();
        Ok(Self { address, tls: tls.is_some(), tenant, _server: server })
    }

    /// The tenant's URL, which is Graph's and the identity provider's as well.
    pub fn url(&self) -> String {
        if self.tls {
            // As certificates of tests name it.
            let name = if self.address.ip().is_loopback() { "localhost" } else { NAME_FOR_PODS };
            format!("https://{name}:{}", self.address.port())
        } else {
            format!("http://{}", self.address)
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes so many activities now, and some alerts with them.
    pub fn produce(&self, n_records: usize) {
        let mut tenant = self.lock();
        tenant.make(Stream::Activities, n_records, Duration::ZERO);
        tenant.make(Stream::Alerts, n_records.div_ceil(50), Duration::ZERO);
    }

    /// Makes so many records that are all listed at the same time, so long ago.
    pub fn produce_at(&self, stream: Stream, n_records: usize, ago: Duration) {
        let mut tenant = self.lock();
        let listed = tenant.now() - i64::try_from(ago.as_millis()).unwrap_or(0);
        for _ in 0..n_records {
            tenant.make_one(stream, listed);
        }
    }

    /// Stops making records by itself.
    pub fn quiet(&mut self) {
        let mut tenant = self.lock();
        tenant.options.rate = 0.0;
        tenant.options.alert_rate = None;
    }

    /// Puts a record's exact JSON into a stream, listed now.
    pub fn inject(&self, stream: Stream, json: &str) {
        let mut tenant = self.lock();
        let now = tenant.now();
        tenant.inject(stream, json, now);
    }

    /// Accepts another token from now on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.lock().token);
    }

    /// Takes back every access token that was issued.
    pub fn revoke(&self) {
        self.lock().access.clear();
    }

    /// Every access token that was issued, the revoked ones too.
    pub fn access_tokens(&self) -> Vec<String> {
        self.lock().issued.clone()
    }

    /// Answers 403 on a stream, at the portal and at Graph, or no longer.
    pub fn forbid(&self, stream: Stream, forbidden: bool) {
        let mut tenant = self.lock();
        if forbidden {
            tenant.forbidden.insert(stream);
        } else {
            tenant.forbidden.remove(&stream);
        }
    }

    /// Accepts assertions of an issuer in place of the client secret: those for this subject and audience that a key of
    /// this JWK set has signed.
    ///
    /// # Errors
    /// When it is no set of RSA keys.
    pub fn trust(&self, issuer: &str, jwks: &str, subject: &str, audience: &str) -> Result<()> {
        let trust = Trust::new(issuer, jwks, subject, audience)?;
        self.lock().trust.push(trust);
        Ok(())
    }

    /// Hunting has used up its share of CPU, or has it back.
    pub fn spend_cpu_quota(&self, spent: bool) {
        self.lock().cpu_spent = spent;
    }

    /// Fails some of the next requests.
    pub fn fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Whether faults wait for a request that they meet.
    pub fn has_faults(&self) -> bool {
        !self.lock().faults.is_empty()
    }

    /// Nothing fails any more.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Every id that exists.
    pub fn produced(&self) -> BTreeSet<(Stream, String)> {
        self.lock().produced()
    }

    /// Every id that exists, with the time by which it is listed, ms.
    pub fn listed(&self) -> BTreeMap<(Stream, String), i64> {
        self.lock().listed()
    }

    /// Every id of Graph's, with the time from which on a query finds it, ms.
    pub fn findable(&self) -> BTreeMap<(Stream, String), i64> {
        self.lock().findable()
    }

    /// Every id that was shown.
    pub fn shown(&self) -> BTreeSet<(Stream, String)> {
        self.lock().shown.clone()
    }

    /// How many that is.
    pub fn n_shown(&self) -> usize {
        self.lock().shown.len()
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// The JSON of every record, in the order in which they are listed.
    pub fn records(&self, stream: Stream) -> Vec<String> {
        self.lock().records(stream).iter().map(|record| record.json.to_string()).collect()
    }

    /// The JSON of every record as Graph has it, without those of other products: alerts, or hunting rows that name their
    /// table in a column `Table`.
    pub fn graph_records(&self, stream: Stream) -> Vec<String> {
        let tenant = self.lock();
        match stream {
            Stream::Alerts => tenant.own_alerts(),
            Stream::Activities => tenant.own_rows(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tenant> {
        tenant::lock(&self.tenant)
    }
}
