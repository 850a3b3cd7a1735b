//! The metrics in Prometheus' form, under the names of the contract. Gauges are read from the state when scraped.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use siem_agent_crds::report::TokenState;
use siem_agent_edge::clock;
use siem_agent_edge::process::Process;

use super::Progress;
use crate::delivery::sink::Sink;
use crate::delivery::target::Target;
use crate::event::Stream;
use crate::reject::RejectReason;

/// From a poll interval to the latency that the API itself has been seen to have, seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.5, 1.0, 2.0, 4.0, 6.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 21_600.0, 172_800.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStream {
    stream: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReject {
    stream: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    stream: &'static str,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRole {
    role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVersion {
    version: &'static str,
}

/// Counters and the histogram; cheap to clone, all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    received: Family<OfStream, Counter>,
    delivered: Family<OfStream, Counter>,
    rejected: Family<OfReject, Counter>,
    resent: Counter,
    late: Family<OfStream, Counter>,
    trimmed: Family<OfStream, Counter>,
    filtered: Family<OfStream, Counter>,
    repeated: Family<OfStream, Counter>,
    gap: Family<OfStream, Counter<f64, std::sync::atomic::AtomicU64>>,
    latency: Family<OfStream, Histogram, fn() -> Histogram>,
    requests: Family<OfRequest, Counter>,
    disconnects: Family<OfReason, Counter>,
    failed_saves: Counter,
    ignored_dates: Counter,
    damaged_states: Counter,
}

fn of(stream: Stream) -> OfStream {
    OfStream { stream: stream.as_str() }
}

fn of_reject(stream: Stream, reason: RejectReason) -> OfReject {
    OfReject { stream: stream.as_str(), reason: reason.as_str() }
}

impl Metrics {
    /// All at zero; the series of the enabled streams exist from the start.
    pub fn new(streams: impl IntoIterator<Item = Stream>) -> Self {
        let metrics = Self {
            received: Family::default(),
            delivered: Family::default(),
            rejected: Family::default(),
            resent: Counter::default(),
            late: Family::default(),
            trimmed: Family::default(),
            filtered: Family::default(),
            repeated: Family::default(),
            gap: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            requests: Family::default(),
            disconnects: Family::default(),
            failed_saves: Counter::default(),
            ignored_dates: Counter::default(),
            damaged_states: Counter::default(),
        };
        metrics.follow(streams);
        metrics
    }

    /// The series of these streams exist from here on.
    pub(super) fn follow(&self, streams: impl IntoIterator<Item = Stream>) {
        for stream in streams {
            let Self { received, delivered, late, trimmed, filtered, repeated, .. } = self;
            for family in [received, delivered, late, trimmed, filtered, repeated] {
                drop(family.get_or_create(&of(stream)));
            }
            for reason in RejectReason::ALL {
                drop(self.rejected.get_or_create(&of_reject(stream, reason)));
            }
            drop(self.gap.get_or_create(&of(stream)));
            drop(self.latency.get_or_create(&of(stream)));
        }
    }

    /// A record that was not delivered before came in.
    pub fn received(&self, stream: Stream) {
        self.received.get_or_create(&of(stream)).inc();
    }

    pub(super) fn delivered(&self, stream: Stream, n_records: u64) {
        self.delivered.get_or_create(&of(stream)).inc_by(n_records);
    }

    pub(super) fn rejected(&self, stream: Stream, reason: RejectReason) {
        self.rejected.get_or_create(&of_reject(stream, reason)).inc();
    }

    pub(super) fn resent(&self, n_records: u64) {
        self.resent.inc_by(n_records);
    }

    pub(super) fn disconnected(&self, reason: &'static str) {
        self.disconnects.get_or_create(&OfReason { reason }).inc();
    }

    /// A record came behind the watermark.
    pub fn late(&self, stream: Stream) {
        self.late.get_or_create(&of(stream)).inc();
    }

    /// A record was shortened.
    pub fn trimmed(&self, stream: Stream) {
        self.trimmed.get_or_create(&of(stream)).inc();
    }

    /// A record was left out by a filter that the source cannot apply itself.
    pub fn filtered(&self, stream: Stream) {
        self.filtered.get_or_create(&of(stream)).inc();
    }

    /// Records were shown again that were delivered or skipped before.
    pub fn repeated(&self, stream: Stream, n_records: u64) {
        self.repeated.get_or_create(&of(stream)).inc_by(n_records);
    }

    /// This much time lay beyond the API's retention.
    pub(super) fn gap(&self, stream: Stream, seconds: f64) {
        self.gap.get_or_create(&of(stream)).inc_by(seconds);
    }

    /// From `created` to the confirmation.
    pub fn latency(&self, stream: Stream, seconds: f64) {
        self.latency.get_or_create(&of(stream)).observe(seconds);
    }

    /// A request was answered with this status, or with none (`error`).
    pub fn requested(&self, stream: Stream, code: &str) {
        self.requests
            .get_or_create(&OfRequest { stream: stream.as_str(), code: code.to_owned() })
            .inc();
    }

    /// A generation of the checkpoint was found damaged.
    pub fn state_damaged(&self) {
        self.damaged_states.inc();
    }

    /// The checkpoint could not be saved.
    pub fn save_failed(&self) {
        self.failed_saves.inc();
    }

    /// The date of an answer contradicts the others.
    pub fn date_ignored(&self) {
        self.ignored_dates.inc();
    }

    /// Writes everything in Prometheus' text form.
    ///
    /// # Errors
    /// None in practice: writing to a `String` does not fail.
    pub fn encode(&self, progress: &Arc<Progress>) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        let forwarder = registry.sub_registry_with_prefix("siem_forwarder");
        forwarder.register(
            "records_received",
            "Records read from the API and not delivered before",
            self.received.clone(),
        );
        forwarder.register(
            "records_delivered",
            "Records delivered, each once",
            self.delivered.clone(),
        );
        forwarder.register(
            "records_rejected",
            "Records skipped because they cannot be sent, by reason",
            self.rejected.clone(),
        );
        forwarder.register(
            "records_resent",
            "Records sent again because a connection broke before confirmation",
            self.resent.clone(),
        );
        forwarder.register("records_late", "Records found behind the watermark", self.late.clone());
        forwarder.register(
            "records_trimmed",
            "Records shortened to maxMessageBytes",
            self.trimmed.clone(),
        );
        forwarder.register(
            "records_filtered",
            "Records left out by a typed filter that the source cannot apply itself",
            self.filtered.clone(),
        );
        forwarder.register(
            "records_repeated",
            "Records that the source showed again, recognised and not sent",
            self.repeated.clone(),
        );
        forwarder.register_with_unit(
            "gap",
            "Time that lay beyond the API's retention when it was asked for",
            Unit::Seconds,
            self.gap.clone(),
        );
        forwarder.register_with_unit(
            "event_latency",
            "From created (alerts: timestamp) to confirmation",
            Unit::Seconds,
            self.latency.clone(),
        );
        forwarder.register("source_requests", "API requests by HTTP status", self.requests.clone());
        forwarder.register(
            "target_disconnects",
            "Connections to the target that ended or did not come about",
            self.disconnects.clone(),
        );
        forwarder.register(
            "source_dates_ignored",
            "Answers whose Date header contradicts the API's other answers; it is ignored",
            self.ignored_dates.clone(),
        );
        forwarder.register(
            "checkpoint_save_failures",
            "Saves of the checkpoint that failed",
            self.failed_saves.clone(),
        );
        forwarder.register(
            "checkpoint_damaged",
            "Generations of the checkpoint found damaged and set aside",
            self.damaged_states.clone(),
        );
        let version = Family::<OfVersion, Gauge>::default();
        version.get_or_create(&OfVersion { version: env!("CARGO_PKG_VERSION") }).set(1);
        forwarder.register("build_info", "Version of the forwarder", version);
        registry.register_collector(Box::new(Now(Arc::clone(progress))));
        registry.register_collector(Box::new(Process));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// What is true at the moment of the scrape.
#[derive(Debug)]
struct Now(Arc<Progress>);

impl Collector for Now {
    #[expect(clippy::cast_precision_loss, reason = "times and sizes have fewer than 52 bits")]
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let now = clock::now();
        let state = self.0.lock();
        let mut gauge = |name: &str, help: &str, values: Vec<(Option<Stream>, f64)>| {
            if values.is_empty() {
                return Ok(());
            }
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            if let [(None, value)] = values.as_slice() {
                return ConstGauge::new(*value).encode(metric);
            }
            for (stream, value) in
                values.into_iter().filter_map(|(stream, value)| Some((stream?, value)))
            {
                ConstGauge::new(value).encode(metric.encode_family(&of(stream))?)?;
            }
            Ok(())
        };
        let through = state.streams.iter().filter_map(|(stream, known)| {
            known.watermark.map(|watermark| (Some(*stream), watermark as f64 / 1_000.0))
        });
        gauge(
            "siem_forwarder_delivered_through_timestamp_seconds",
            "Unix time through which all that the API has shown is delivered",
            through.collect(),
        )?;
        let lag = state.streams.iter().filter_map(|(stream, known)| {
            state.lag_seconds(known, now).map(|lag| (Some(*stream), lag))
        });
        gauge(
            "siem_forwarder_delivery_lag_seconds",
            "Seconds between now and siem_forwarder_delivered_through_timestamp_seconds",
            lag.collect(),
        )?;
        let budgets = state.budgets.iter();
        gauge(
            "siem_forwarder_source_budget_requests_per_minute",
            "Requests a minute that may be sent for a stream; streams of the portal share them",
            budgets.map(|(stream, of)| (Some(*stream), f64::from(of.per_minute()))).collect(),
        )?;
        let token = match state.worst_token().0 {
            TokenState::Valid => vec![(None, 1.0)],
            TokenState::Invalid | TokenState::Forbidden | TokenState::Missing => vec![(None, 0.0)],
            TokenState::Unknown => Vec::new(),
        };
        gauge(
            "siem_forwarder_token_valid",
            "Whether the API takes the token and lets it read every enabled stream",
            token,
        )?;
        let target = match state.sink.as_ref().map(Sink::target) {
            Some(Target::Up { .. }) => vec![(None, 1.0)],
            Some(Target::Down { .. } | Target::Stalled { .. } | Target::Connecting { .. }) => {
                vec![(None, 0.0)]
            }
            Some(Target::Datagram) | None => Vec::new(),
        };
        gauge("siem_forwarder_target_up", "Whether the connection to the SIEM stands", target)?;
        let unconfirmed = state.sink.iter().map(|sink| (None, sink.unconfirmed_bytes() as f64));
        gauge(
            "siem_forwarder_unconfirmed_bytes",
            "Bytes sent and not confirmed",
            unconfirmed.collect(),
        )?;
        let skew = state.skew.iter().map(|skew| (None, *skew as f64 / 1_000.0));
        gauge(
            "siem_forwarder_clock_skew_seconds",
            "Seconds by which the API's clock is ahead of the forwarder's",
            skew.collect(),
        )?;
        if state.certificates.is_empty() {
            return Ok(());
        }
        let mut metric = encoder.encode_descriptor(
            "siem_forwarder_tls_certificate_not_after_timestamp_seconds",
            "Unix time at which the first certificate of the chain ends",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (role, ends) in &state.certificates {
            let of = OfRole { role: role.as_str() };
            ConstGauge::new(ends.as_second() as f64).encode(metric.encode_family(&of)?)?;
        }
        Ok(())
    }
}
