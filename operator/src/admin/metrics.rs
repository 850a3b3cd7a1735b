//! The operator's metrics as text: the fleet under the contract's names, its own workings under those that Go operators use,
//! so that existing dashboards show them.
//!
//! What is true of an agent is read from the caches when it is scraped, so that a deleted agent has no series.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use siem_agent_edge::process::Process;
use tokio::time::Instant;

use crate::context::Context;
use crate::lock::lock;
use crate::metrics::{CONTROLLER, Metrics};
use crate::names::MANAGER;
use crate::workqueue::{WORKERS, Work};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfController {
    controller: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfQueue {
    controller: &'static str,
    name: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfName {
    name: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVersion {
    version: &'static str,
}

const OF_CONTROLLER: OfController = OfController { controller: CONTROLLER };
const OF_QUEUE: OfQueue = OfQueue { controller: CONTROLLER, name: CONTROLLER };

/// Makes clones that count together.
#[derive(Debug, Clone)]
struct Clones(Histogram);

impl MetricConstructor<Histogram> for Clones {
    fn new_metric(&self) -> Histogram {
        self.0.clone()
    }
}

/// Writes everything in Prometheus' text form.
///
/// # Errors
/// None in practice: writing to a `String` does not fail.
pub(crate) fn encode(context: &Arc<Context>, work: &Work) -> Result<String, fmt::Error> {
    let metrics = &context.metrics;
    let mut registry = Registry::default();
    let by_controller = |counter: &Counter| {
        let family = Family::<OfController, Counter>::default();
        family.get_or_create(&OF_CONTROLLER).inc_by(counter.get());
        family
    };
    let gauge = |value: f64| {
        let family = Family::<OfController, Gauge<f64, AtomicU64>>::default();
        family.get_or_create(&OF_CONTROLLER).set(value);
        family
    };
    registry.register(
        "controller_runtime_reconcile",
        "Reconciles by result",
        metrics.reconciles.clone(),
    );
    for (name, help, counter) in [
        (
            "controller_runtime_reconcile_errors",
            "Reconciles that ended with an error",
            &metrics.errors,
        ),
        ("controller_runtime_reconcile_panics", "Reconciles that panicked", &metrics.panics),
        (
            "controller_runtime_reconcile_timeouts",
            "Reconciles that reached their timeout",
            &metrics.timeouts,
        ),
    ] {
        registry.register(name, help, by_controller(counter));
    }
    // One controller: its name as a label, on clones that count together with ours.
    let durations = labelled(OF_CONTROLLER, &metrics.durations);
    registry.register(
        "controller_runtime_reconcile_time_seconds",
        "Duration of a reconcile, seconds",
        durations,
    );
    #[expect(clippy::cast_precision_loss, reason = "a number of workers")]
    let workers = WORKERS as f64;
    registry.register(
        "controller_runtime_max_concurrent_reconciles",
        "Reconciles that may run at the same time",
        gauge(workers),
    );
    #[expect(clippy::cast_precision_loss, reason = "a number of workers")]
    let active = metrics.active.load(Ordering::Relaxed) as f64;
    registry.register(
        "controller_runtime_active_workers",
        "Reconciles that run now",
        gauge(active),
    );
    queue(&mut registry, metrics, work);
    registry.register(
        "rest_client_requests",
        "Requests to the API server by status, method and host",
        metrics.requests.clone(),
    );
    let master = Family::<OfName, Gauge>::default();
    master.get_or_create(&OfName { name: MANAGER }).set(context.leadership.is_leader().into());
    registry.register(
        "leader_election_master_status",
        "1 if this operator holds the Lease",
        master,
    );
    let version = Family::<OfVersion, Gauge>::default();
    version.get_or_create(&OfVersion { version: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("siemagent_operator_build_info", "Version of the operator", version);
    let outdated = Gauge::<i64>::default();
    outdated.set(metrics.is_crd_outdated().into());
    registry.register(
        "siemagent_operator_crd_outdated",
        "Whether the CRD on the server lacks fields that this operator knows",
        outdated,
    );
    if context.leadership.is_leader() {
        let halted = Gauge::<i64>::default();
        halted.set(context.turns.is_halted().into());
        registry.register(
            "siemagent_rollout_halted",
            "Whether the roll-out of a release waits for a forwarder that does not come up",
            halted,
        );
        registry.register_collector(Box::new(super::fleet::Fleet(Arc::clone(context))));
    }
    registry.register_collector(Box::new(Process));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

fn queue(registry: &mut Registry, metrics: &Metrics, work: &Work) {
    let now = Instant::now();
    let queue = lock(&work.queue);
    let mut gauge = |name: &str, help: &str, value: f64| {
        let family = Family::<OfQueue, Gauge<f64, AtomicU64>>::default();
        family.get_or_create(&OF_QUEUE).set(value);
        registry.register(name, help, family);
    };
    let active: Vec<_> = queue.active(now).map(|active| active.as_secs_f64()).collect();
    #[expect(clippy::cast_precision_loss, reason = "a number of agents")]
    let depth = queue.depth(now) as f64;
    gauge("workqueue_depth", "Agents in the work queue that are due", depth);
    gauge(
        "workqueue_unfinished_work_seconds",
        "Sum of the running time of all reconciles that run now, seconds",
        active.iter().sum(),
    );
    gauge(
        "workqueue_longest_running_processor_seconds",
        "Running time of the longest reconcile that runs now, seconds",
        active.iter().copied().fold(0.0, f64::max),
    );
    for (name, help, n) in [
        ("workqueue_adds", "Agents added to the work queue", queue.n_adds),
        (
            "workqueue_retries",
            "Agents added to the work queue again after an error",
            queue.n_retries,
        ),
    ] {
        let family = Family::<OfQueue, Counter>::default();
        family.get_or_create(&OF_QUEUE).inc_by(n);
        registry.register(name, help, family);
    }
    registry.register(
        "workqueue_queue_duration_seconds",
        "Time from an agent's being due to the start of its reconcile, seconds",
        labelled(OF_QUEUE, &metrics.waits),
    );
    registry.register(
        "workqueue_work_duration_seconds",
        "Duration of a reconcile, seconds",
        labelled(OF_QUEUE, &metrics.durations),
    );
}

/// A histogram under labels; it still counts together with the original.
fn labelled<L>(labels: L, histogram: &Histogram) -> Family<L, Histogram, Clones>
where
    L: Clone
        + fmt::Debug
        + PartialEq
        + Eq
        + std::hash::Hash
        + EncodeLabelSet
        + Send
        + Sync
        + 'static,
{
    let family = Family::new_with_constructor(Clones(histogram.clone()));
    drop(family.get_or_create(&labels));
    family
}
