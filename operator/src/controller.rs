//! Puts everything together: watches feed the queue, workers take from it while this operator leads, reports come in,
//! budgets are shared, and all of it ends in order. No decisions about agents.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::{StreamExt as _, stream};
use kube::Client;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use crate::budget::Key;
use crate::caches::{Seen, Sights};
use crate::error_chain::chain;
use crate::metrics::Outcome;
use crate::pace::Pace;
use crate::queue::Queue;
use crate::world::{World, lock};
use crate::{clock, crd_check, keeper, reconcile, reports};

/// Agents that are reconciled at once.
pub(crate) const WORKERS: usize = 16;
/// A whole pass.
const PASS_PATIENCE: Duration = Duration::from_secs(30);
/// Forwarders that are asked at once.
const ASKED_AT_ONCE: usize = 16;
/// How often it is seen who is due to be asked.
const ASK_TICK: Duration = Duration::from_millis(500);
/// Changes of the budgets are let settle, so that many agents that come at once cause one change each.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the CRD is looked at while it is outdated, so that the complaint ends soon after it was applied.
const CRD_INTERVAL_OF_TROUBLE: Duration = Duration::from_secs(15);
/// How often otherwise: somebody may have applied another release's.
const CRD_INTERVAL: Duration = Duration::from_secs(600);
/// What is under way at the end may still be done.
const LAST_PASSES: Duration = Duration::from_secs(10);

/// The queue and what wakes its workers.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) queue: Mutex<Queue>,
    wake: Notify,
    recount: Notify,
}

impl Work {
    fn add(&self, key: Key, at: Instant) {
        lock(&self.queue).add(key, at);
        self.wake.notify_one();
    }

    fn add_all(&self, world: &World) {
        let now = World::now();
        for agent in world.agents() {
            let metadata = kube::Resource::meta(agent.as_ref());
            if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
                lock(&self.queue).add((namespace.clone(), name.clone()), now);
            }
        }
        self.wake.notify_one();
    }
}

/// Runs until `stopping` turns true, then lets what is under way end.
pub(crate) async fn run(
    world: Arc<World>,
    work: Arc<Work>,
    sights: Vec<Sights>,
    client: Client,
    mut stopping: watch::Receiver<bool>,
) {
    let mut background = JoinSet::new();
    background.spawn(follow(Arc::clone(&world), Arc::clone(&work), sights, client.clone()));
    for scope in &world.scopes {
        tokio::select! {
            () = scope.warm() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
    world.metrics.warm();
    info!("caches are warm");
    background.spawn(share(Arc::clone(&world), Arc::clone(&work)));
    background.spawn(watch_crd(Arc::clone(&world), client));
    loop {
        tokio::select! {
            () = world.leadership.gained() => {}
            _ = stopping.wait_for(|stopping| *stopping) => break,
        }
        work.add_all(&world);
        let mut asking = JoinSet::new();
        asking.spawn(ask(Arc::clone(&world), Arc::clone(&work)));
        let stop = async {
            tokio::select! {
                () = world.leadership.lost() => {}
                // An end of the sender is an end as well.
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        };
        serve(&world, &work, stop).await;
        asking.shutdown().await;
    }
    background.shutdown().await;
}

/// Keeps the caches current and makes due what they concern.
async fn follow(world: Arc<World>, work: Arc<Work>, sights: Vec<Sights>, client: Client) {
    let mut sights = stream::select_all(sights);
    while let Some(seen) = sights.next().await {
        match seen {
            Seen::Agent(key) => {
                work.recount.notify_one();
                work.add(key, World::now());
            }
            Seen::Gone(key, uid) => {
                world.memory.forget_object(&uid);
                work.recount.notify_one();
                work.add(key, World::now());
            }
            Seen::Relisted => {
                world.memory.distrust();
                work.add_all(&world);
            }
            Seen::Listed => {
                work.recount.notify_one();
                work.add_all(&world);
                let (world, client) = (Arc::clone(&world), client.clone());
                tokio::spawn(async move { check_crd(&world, &client).await });
            }
        }
    }
}

/// Looks at the CRD again and again: a change of it relists nothing.
async fn watch_crd(world: Arc<World>, client: Client) {
    loop {
        let is_outdated = world.metrics.is_crd_outdated();
        sleep(if is_outdated { CRD_INTERVAL_OF_TROUBLE } else { CRD_INTERVAL }).await;
        check_crd(&world, &client).await;
    }
}

async fn check_crd(world: &World, client: &Client) {
    match crd_check::missing_fields(client).await {
        Ok(missing) => {
            let was_outdated = world.metrics.is_crd_outdated();
            world.metrics.crd_outdated(!missing.is_empty());
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
async fn share(world: Arc<World>, work: Arc<Work>) {
    loop {
        work.recount.notified().await;
        sleep(SETTLE).await;
        let now = World::now();
        for key in world.count() {
            work.add(key, now);
        }
    }
}

/// Takes from the queue until `stop`, then waits for what is under way.
async fn serve(world: &Arc<World>, work: &Arc<Work>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    let mut passes = JoinSet::new();
    loop {
        let next_due = loop {
            if passes.len() >= WORKERS {
                break None;
            }
            let now = World::now();
            let taken = lock(&work.queue).take(now);
            match taken {
                Some((key, due)) => {
                    world.metrics.waited(now.duration_since(due));
                    passes.spawn(pass(Arc::clone(world), Arc::clone(work), key));
                }
                None => break lock(&work.queue).next_due(),
            }
        };
        tokio::select! {
            () = &mut stop => break,
            Some(_) = passes.join_next(), if !passes.is_empty() => {}
            () = work.wake.notified(), if passes.len() < WORKERS => {}
            () = sleep_until(next_due.unwrap_or_else(World::now)), if next_due.is_some() => {}
        }
    }
    let drained = async { while passes.join_next().await.is_some() {} };
    if timeout(LAST_PASSES, drained).await.is_err() {
        warn!("some agents were being reconciled still; they are looked at again");
    }
}

/// One pass with everything that may go wrong with it: a panic costs one pass of one agent.
async fn pass(world: Arc<World>, work: Arc<Work>, key: Key) {
    let began = World::now();
    let active = world.metrics.active();
    let pass = AssertUnwindSafe(one(&world, &key)).catch_unwind();
    let (outcome, again) = match timeout(PASS_PATIENCE, pass).await {
        Err(_elapsed) => {
            warn!(namespace = key.0, name = key.1, "the pass took too long");
            (Outcome::TimedOut, None)
        }
        Ok(Err(_panic)) => {
            error!(namespace = key.0, name = key.1, "the pass panicked; the other agents go on");
            (Outcome::Panicked, None)
        }
        Ok(Ok(Err(error))) if reconcile::is_passing(&error) => {
            (Outcome::Requeued, Some(Duration::from_millis(500)))
        }
        Ok(Ok(Err(error))) => {
            warn!(namespace = key.0, name = key.1, reason = chain(&error), "the pass failed");
            (Outcome::Failed, None)
        }
        Ok(Ok(Ok(None))) => {
            world.forget(&key);
            (Outcome::Succeeded, Some(Duration::MAX))
        }
        Ok(Ok(Ok(Some(again)))) => (Outcome::RequeuedLater, Some(again)),
    };
    drop(active);
    let now = World::now();
    world.metrics.passed(outcome, now.duration_since(began));
    let mut queue = lock(&work.queue);
    let at = match again {
        Some(Duration::MAX) => {
            queue.succeeded(&key);
            None
        }
        Some(wait) => {
            if outcome == Outcome::RequeuedLater {
                queue.succeeded(&key);
            }
            // A tenth earlier or later, so that agents do not come in step.
            Some(now + wait.mul_f64(0.95 + 0.1 * fastrand::f64()))
        }
        None => Some(now + queue.failed(&key, fastrand::f64())),
    };
    queue.done(key, at);
    drop(queue);
    work.wake.notify_one();
}

/// Looks the agent up and reconciles it. `None`: it is gone.
async fn one(world: &World, key: &Key) -> Result<Option<Duration>, reconcile::Error> {
    let Some(shown) = world.agent(key) else { return Ok(None) };
    let mut agent = match &shown.0 {
        Ok(agent) if agent.metadata.deletion_timestamp.is_some() => return Ok(None),
        Ok(agent) => agent.clone(),
        Err(invalid) => return reconcile::refuse(world, key, invalid).await.map(Some),
    };
    let shown_version = agent.metadata.resource_version.as_deref();
    let uid = agent.metadata.uid.as_deref().unwrap_or_default();
    world.memory.meet(key, uid);
    if let Some((version, status)) = world.memory.newer_status(uid, shown_version) {
        agent.metadata.resource_version = Some(version);
        agent.status = Some(status);
    }
    reconcile::reconcile(world, key, &agent).await.map(Some)
}

/// Asks the forwarders, in turn.
async fn ask(world: Arc<World>, work: Arc<Work>) {
    let client = reqwest::Client::builder()
        .no_proxy()
        // Plain HTTP alone, and the image has no CA roots.
        .tls_certs_only([])
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none())
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            error!(reason = chain(&error), "forwarders cannot be asked");
            return;
        }
    };
    let pace = Mutex::new(Pace::default());
    loop {
        let due = world.reports.take_due(world.targets(), World::now());
        let asked = stream::iter(due).for_each_concurrent(ASKED_AT_ONCE, |target| {
            let (world, work, client, pace) = (&world, &work, &client, &pace);
            async move {
                let answer = reports::ask(client, &target).await;
                if let Ok(report) = &answer
                    && let Some(agent) = world.agent(&target.key)
                    && let Ok(agent) = &agent.0
                {
                    keeper::keep(world, pace, &target.key, agent, report).await;
                }
                let answer = answer.map_err(|error| chain(&error));
                world.reports.note(&target, answer, clock::now());
                work.add(target.key, World::now());
            }
        });
        asked.await;
        sleep(ASK_TICK).await;
    }
}
