//! What the operator counts of itself. `admin/metrics` shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// The controller's name in the labels.
pub(crate) const CONTROLLER: &str = "siemagent";
/// controller-runtime's own, thinned.
const RECONCILE_BUCKETS: [f64; 12] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];
/// client-go's own.
const QUEUE_BUCKETS: [f64; 10] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0];

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeded,
    RequeuedLater,
    Requeued,
    Failed,
    TimedOut,
    Panicked,
}

/// The labels of a result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfResult {
    pub(crate) controller: &'static str,
    pub(crate) result: &'static str,
}

/// The labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfRequest {
    pub(crate) code: String,
    pub(crate) method: String,
    pub(crate) host: String,
}

/// Counters and histograms.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) reconciles: Family<OfResult, Counter>,
    pub(crate) errors: Counter,
    pub(crate) panics: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) durations: Histogram,
    pub(crate) waits: Histogram,
    pub(crate) active: Arc<AtomicU64>,
    pub(crate) requests: Family<OfRequest, Counter>,
    is_crd_outdated: AtomicBool,
    is_warm: AtomicBool,
}

/// Counts a reconcile as active while it lives.
#[derive(Debug)]
pub(crate) struct Active(Arc<AtomicU64>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Nothing has happened yet. `requests` are counted where they are sent.
    pub(crate) fn new(requests: Family<OfRequest, Counter>) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            errors: Counter::default(),
            panics: Counter::default(),
            timeouts: Counter::default(),
            durations: Histogram::new(RECONCILE_BUCKETS),
            waits: Histogram::new(QUEUE_BUCKETS),
            active: Arc::default(),
            requests,
            is_crd_outdated: AtomicBool::new(false),
            is_warm: AtomicBool::new(false),
        };
        for result in ["success", "error", "requeue", "requeue_after"] {
            drop(metrics.reconciles.get_or_create(&OfResult { controller: CONTROLLER, result }));
        }
        metrics
    }

    /// A reconcile has begun.
    pub(crate) fn active(&self) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(&self.active))
    }

    /// A reconcile has ended.
    pub(crate) fn reconciled(&self, outcome: Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Succeeded => "success",
            Outcome::RequeuedLater => "requeue_after",
            Outcome::Requeued => "requeue",
            Outcome::Failed | Outcome::TimedOut | Outcome::Panicked => "error",
        };
        self.reconciles.get_or_create(&OfResult { controller: CONTROLLER, result }).inc();
        if result == "error" {
            self.errors.inc();
        }
        match outcome {
            Outcome::Panicked => self.panicked(),
            Outcome::TimedOut => {
                self.timeouts.inc();
            }
            Outcome::Succeeded | Outcome::RequeuedLater | Outcome::Requeued | Outcome::Failed => {}
        }
        self.durations.observe(took.as_secs_f64());
    }

    /// Something panicked and was caught.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    /// An agent was taken from the queue so long after it was due.
    pub(crate) fn waited(&self, waited: Duration) {
        self.waits.observe(waited.as_secs_f64());
    }

    /// The caches are complete.
    pub(crate) fn warm(&self) {
        self.is_warm.store(true, Ordering::Relaxed);
    }

    /// Whether the caches are complete.
    pub(crate) fn is_warm(&self) -> bool {
        self.is_warm.load(Ordering::Relaxed)
    }

    /// Whether the CRD on the server lacks fields.
    pub(crate) fn crd_outdated(&self, is_outdated: bool) {
        self.is_crd_outdated.store(is_outdated, Ordering::Relaxed);
    }

    /// Whether the CRD on the server lacks fields.
    pub(crate) fn is_crd_outdated(&self) -> bool {
        self.is_crd_outdated.load(Ordering::Relaxed)
    }
}
