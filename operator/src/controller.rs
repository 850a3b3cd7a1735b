//! Puts everything together: watches feed the queue, workers take from it while this operator leads, reports come in,
//! budgets are shared, and all of it ends in order. No decisions about agents.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::{StreamExt as _, stream};
use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, error, info, warn};

use crate::caches::{Seen, Sights};
use crate::checkpoint_writer;
use crate::context::Context;
use crate::error_chain::chain;
use crate::forwarders::report::Asker;
use crate::key::Key;
use crate::lock::lock;
use crate::metrics::Outcome;
use crate::report_polls;
use crate::workqueue::{WORKERS, Work};
use crate::{crd_check, reconcile, rollouts};

/// A whole reconcile.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(30);
/// A write that came too late is decided anew.
const SOON: Duration = Duration::from_millis(500);
/// Changes of the budgets are let settle, so that many agents that come at once cause one change each.
const SETTLE: Duration = Duration::from_secs(2);
/// How often all are counted without a change: an agent counts for so long without a word, and then no more.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(20);
/// But no longer than this, however much happens.
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);
/// How often the CRD is looked at while it is outdated, so that the complaint ends soon after it was applied.
const CRD_INTERVAL_OF_TROUBLE: Duration = Duration::from_secs(15);
/// How often otherwise: somebody may have applied another release's.
const CRD_INTERVAL: Duration = Duration::from_secs(600);
/// OpenShift serves it; every account may read the list of groups.
const OPENSHIFT_GROUP: &str = "security.openshift.io";
/// One list of groups.
const PLATFORM_PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries to get it.
const PLATFORM_INTERVAL: Duration = Duration::from_secs(2);
/// What is under way at the end may still be done.
const LAST_RECONCILES: Duration = Duration::from_secs(10);

/// A part that should run as long as the program has ended.
#[derive(Debug, thiserror::Error)]
#[error("a part of the operator has ended by itself; it has to be started again")]
pub(crate) struct Ended;

/// Runs until `stopping` turns true, then lets what is under way end.
///
/// # Errors
/// [`Ended`]: better none than one that only looks alive.
pub(crate) async fn run(
    context: Arc<Context>,
    work: Arc<Work>,
    sights: Vec<Sights>,
    client: Client,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), Ended> {
    let mut background = JoinSet::new();
    background.spawn(follow(Arc::clone(&context), Arc::clone(&work), sights, client.clone()));
    for scope in &context.scopes {
        tokio::select! {
            () = scope.warm() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
        }
    }
    tokio::select! {
        () = learn_platform(&context, &client) => {}
        _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
    }
    tokio::select! {
        () = follow_hosts(&context, &work, &client, &mut background) => {}
        _ = stopping.wait_for(|stopping| *stopping) => return Ok(()),
    }
    context.metrics.warm();
    info!("caches are warm");
    let asker = match Asker::new() {
        Ok(asker) => Arc::new(asker),
        Err(error) => {
            error!(reason = chain(&error), "forwarders cannot be asked");
            return Err(Ended);
        }
    };
    background.spawn(share(Arc::clone(&context), Arc::clone(&work)));
    background.spawn(watch_crd(Arc::clone(&context), client));
    loop {
        tokio::select! {
            () = context.leadership.gained() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
            _ = background.join_next() => return Err(Ended),
        }
        // Whether a roll-out is halted, and who exports the same, is known before the first agent is looked at.
        drop(rollouts::look(&context));
        context.take_over_twins();
        add_all(&context, &work);
        let mut asking = JoinSet::new();
        asking.spawn(rollouts::keep(Arc::clone(&context), Arc::clone(&work)));
        asking.spawn(report_polls::run(
            Arc::clone(&context),
            Arc::clone(&work),
            Arc::clone(&asker),
        ));
        asking.spawn(checkpoint_writer::run(Arc::clone(&context), Arc::clone(&asker)));
        let mut has_ended = false;
        let stop = async {
            tokio::select! {
                () = context.leadership.lost() => {}
                // An end of the sender is an end as well.
                _ = stopping.wait_for(|stopping| *stopping) => {}
                _ = asking.join_next() => has_ended = true,
                _ = background.join_next() => has_ended = true,
            }
        };
        serve(&context, &work, stop).await;
        asking.shutdown().await;
        if has_ended {
            return Err(Ended);
        }
    }
    background.shutdown().await;
    Ok(())
}

/// Asks the API server once whether it is OpenShift's: until that is known no pod is made.
async fn learn_platform(context: &Context, client: &Client) {
    loop {
        match timeout(PLATFORM_PATIENCE, client.list_api_groups()).await {
            Ok(Ok(groups)) => {
                let is_openshift = groups.groups.iter().any(|group| group.name == OPENSHIFT_GROUP);
                context.is_openshift.store(is_openshift, Ordering::Relaxed);
                info!(is_openshift, "platform is known");
                return;
            }
            Ok(Err(error)) => warn!(reason = chain(&error), "the platform is not known yet"),
            Err(_elapsed) => warn!("the API server does not list its groups yet"),
        }
        sleep(PLATFORM_INTERVAL).await;
    }
}

/// Follows the workloads that host sidecars, where this operator may: that is a part of its rights of its own.
async fn follow_hosts(
    context: &Arc<Context>,
    work: &Arc<Work>,
    client: &Client,
    background: &mut JoinSet<()>,
) {
    for scope in &context.scopes {
        let is_allowed = loop {
            match context.server.may_follow_hosts(scope.namespace()).await {
                Some(is_allowed) => break is_allowed,
                None => warn!("the API server does not say yet whether workloads may be followed"),
            }
            sleep(PLATFORM_INTERVAL).await;
        };
        info!(namespace = scope.namespace(), is_allowed, "sidecars");
        if is_allowed {
            let sights = vec![scope.follow_hosts(client)];
            let follow = follow(Arc::clone(context), Arc::clone(work), sights, client.clone());
            background.spawn(follow);
            scope.warm_hosts().await;
        }
    }
}

fn add_all(context: &Context, work: &Work) {
    let now = Instant::now();
    for agent in context.agents() {
        let metadata = kube::Resource::meta(agent.as_ref());
        if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
            add(context, work, Key::new(namespace, name), now);
        }
    }
    // Also those that are gone, and have left a sidecar behind.
    for key in context.hosted() {
        work.add(key, now);
    }
}

/// A new agent goes before those whose objects, pods and statuses only echo what was done for them.
fn add(context: &Context, work: &Work, key: Key, now: Instant) {
    if context.is_new(&key) {
        work.add_first(key, now);
    } else {
        work.add(key, now);
    }
}

/// Keeps the caches current and makes due what they concern.
async fn follow(context: Arc<Context>, work: Arc<Work>, sights: Vec<Sights>, client: Client) {
    let mut sights = stream::select_all(sights);
    while let Some(seen) = sights.next().await {
        match seen {
            Seen::Agent(key) => {
                work.recount.notify_one();
                add(&context, &work, key, Instant::now());
            }
            Seen::Gone(key, uid) => {
                context.expectations.forget_object(&uid);
                work.recount.notify_one();
                work.add(key, Instant::now());
            }
            Seen::Relisted => {
                context.expectations.distrust();
                add_all(&context, &work);
            }
            Seen::Listed => {
                work.recount.notify_one();
                add_all(&context, &work);
                let (context, client) = (Arc::clone(&context), client.clone());
                tokio::spawn(async move { check_crd(&context, &client).await });
            }
        }
    }
}

/// Looks at the CRD again and again: a change of it relists nothing.
async fn watch_crd(context: Arc<Context>, client: Client) {
    loop {
        let is_outdated = context.metrics.is_crd_outdated();
        sleep(if is_outdated { CRD_INTERVAL_OF_TROUBLE } else { CRD_INTERVAL }).await;
        check_crd(&context, &client).await;
    }
}

async fn check_crd(context: &Context, client: &Client) {
    match crd_check::missing_fields(client).await {
        Ok(missing) => {
            let was_outdated = context.metrics.is_crd_outdated();
            context.metrics.crd_outdated(!missing.is_empty());
            if !missing.is_empty() && !was_outdated {
                error!(
                    fields = missing.join(", "),
                    "the CRD on the server is older than this operator and drops these fields: apply crds/siemagents.yaml"
                );
            }
        }
        Err(error) => warn!(reason = chain(&error), "it is not known whether the CRD is outdated"),
    }
}

/// Tells agents when their share of the budget has become another one.
async fn share(context: Arc<Context>, work: Arc<Work>) {
    loop {
        // An end of the wait is a reason to count as well.
        let _ = timeout(RECOUNT_INTERVAL, work.recount.notified()).await;
        let latest = Instant::now() + SETTLE_AT_MOST;
        let quiet = || latest.min(Instant::now() + SETTLE);
        while timeout_at(quiet(), work.recount.notified()).await.is_ok() && Instant::now() < latest
        {
        }
        let now = Instant::now();
        for key in context.count() {
            work.add(key, now);
        }
    }
}

/// Takes from the queue until `stop`, then waits for what is under way.
async fn serve(context: &Arc<Context>, work: &Arc<Work>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut running = JoinSet::new();
    loop {
        let next_due = loop {
            if running.len() >= WORKERS {
                break None;
            }
            let now = Instant::now();
            let taken = lock(&work.queue).take(now);
            match taken {
                Some((key, due)) => {
                    context.metrics.waited(now.duration_since(due));
                    running.spawn(reconcile_one(Arc::clone(context), Arc::clone(work), key));
                }
                None => break lock(&work.queue).next_due(),
            }
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = running.join_next(), if !running.is_empty() => {}
            () = work.wake.notified(), if running.len() < WORKERS => {}
            () = sleep_until(next_due.unwrap_or_else(Instant::now)), if next_due.is_some() => {}
        }
    }
    let drained = async { while running.join_next().await.is_some() {} };
    if timeout(LAST_RECONCILES, drained).await.is_err() {
        warn!("some agents were being reconciled still; they are looked at again");
    }
}

/// When an agent is looked at again after a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It is gone.
    Never,
    After(Duration),
    /// Something went wrong: later and later.
    Later,
}

/// One reconcile with everything that may go wrong with it, and when the next one is due.
async fn reconcile_one(context: Arc<Context>, work: Arc<Work>, key: Key) {
    let began = Instant::now();
    let active = context.metrics.active();
    let (outcome, again) = contained(&key, Box::pin(one(&context, &key))).await;
    drop(active);
    let now = Instant::now();
    let took = now.duration_since(began);
    debug!(namespace = key.namespace, name = key.name, ?outcome, ?again, ?took, "reconciled");
    context.metrics.reconciled(outcome, took);
    if again == Again::Never {
        context.forget(&key);
    }
    let mut queue = lock(&work.queue);
    if matches!(outcome, Outcome::Succeeded | Outcome::RequeuedLater) {
        queue.succeeded(&key);
    }
    let at = match again {
        Again::Never => None,
        // A twentieth earlier or later, so that agents do not come in step.
        Again::After(wait) => Some(now + wait.mul_f64(0.95 + 0.1 * fastrand::f64())),
        Again::Later => Some(now + queue.failed(&key, fastrand::f64())),
    };
    queue.done(key, at);
    drop(queue);
    work.wake.notify_one();
}

/// Whatever happens in a reconcile ends here: a panic or a hang costs one reconcile of one agent.
async fn contained(
    key: &Key,
    reconcile: impl Future<Output = Result<Option<Duration>, reconcile::Error>>,
) -> (Outcome, Again) {
    let (namespace, name) = (&key.namespace, &key.name);
    match timeout(RECONCILE_TIMEOUT, AssertUnwindSafe(reconcile).catch_unwind()).await {
        Err(_elapsed) => {
            warn!(namespace, name, "reconcile timed out");
            (Outcome::TimedOut, Again::Later)
        }
        Ok(Err(_panic)) => {
            error!(namespace, name, "reconcile panicked; other agents are not affected");
            (Outcome::Panicked, Again::Later)
        }
        Ok(Ok(Err(error))) if reconcile::is_passing(&error) => {
            (Outcome::Requeued, Again::After(SOON))
        }
        Ok(Ok(Err(error))) => {
            warn!(namespace, name, reason = chain(&error), "reconcile failed");
            (Outcome::Failed, Again::Later)
        }
        Ok(Ok(Ok(None))) => (Outcome::Succeeded, Again::Never),
        Ok(Ok(Ok(Some(wait)))) => (Outcome::RequeuedLater, Again::After(wait)),
    }
}

/// Looks the agent up and reconciles it. `None`: it is gone, and so is what it had in others' workloads.
async fn one(context: &Context, key: &Key) -> Result<Option<Duration>, reconcile::Error> {
    let gone = || reconcile::sweep::sweep(context, key);
    let Some(shown) = context.agent(key) else { return gone().await };
    let agent = match &shown.0 {
        Ok(agent) if agent.metadata.deletion_timestamp.is_some() => return gone().await,
        Ok(agent) => agent.clone(),
        Err(invalid) => {
            return reconcile::undecodable::report(context, key, invalid).await.map(Some);
        }
    };
    context.expectations.meet(key, &agent.uid);
    let shown_version = agent.metadata.resource_version.as_deref();
    let agent = match context.expectations.newer_status(&agent.uid, shown_version) {
        Some((version, status)) => agent.with_status(version, status),
        None => agent,
    };
    reconcile::reconcile(context, &agent).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_panics_or_hangs_costs_nothing_but_itself() {
        let key = Key::new("ns", "a");
        let panics = async { panic!("on purpose") };
        assert_eq!(contained(&key, panics).await, (Outcome::Panicked, Again::Later));
        let hangs = std::future::pending();
        assert_eq!(contained(&key, hangs).await, (Outcome::TimedOut, Again::Later));
        let fails = async { Err(reconcile::Error::Apply(api::Error::TimedOut("x".to_owned()))) };
        assert_eq!(contained(&key, fails).await, (Outcome::Failed, Again::Later));
        let passes = async { Err(reconcile::Error::Apply(api::Error::NotLeading)) };
        assert_eq!(contained(&key, passes).await, (Outcome::Requeued, Again::After(SOON)));
        let wait = Duration::from_secs(9);
        let goes_well = async { Ok(Some(wait)) };
        assert_eq!(contained(&key, goes_well).await, (Outcome::RequeuedLater, Again::After(wait)));
        assert_eq!(contained(&key, async { Ok(None) }).await, (Outcome::Succeeded, Again::Never));
    }
}
