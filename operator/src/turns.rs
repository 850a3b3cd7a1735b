//! Keeps the plan of the roll-outs current: reads off the caches what every agent shows, and makes those due whose turn
//! has changed. `rollout` decides. What is remembered here is lost with a restart without harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use siem_agent_crds::condition::ConditionType;
use siem_agent_edge::clock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::agent::Agent;
use crate::caches::{self, Pod};
use crate::controller::Work;
use crate::key::Key;
use crate::live::Live;
use crate::names::Owned;
use crate::reconcile::observed::Observed;
use crate::release;
use crate::rollout::{
    self, Before, Evidence, Member, Own, Plan, Progress, Stance, Stand, Trial, Turn,
};
use crate::workload::{self, PodSight, Workload};
use crate::world::{World, lock};

/// Between two looks while a roll-out goes on.
const TICK: Duration = Duration::from_millis(500);
/// While one is halted there is no hurry.
const TICK_OF_HALT: Duration = Duration::from_secs(2);
/// An agent whose turn it is goes within this, or lets others go first.
const GRANTED: Duration = Duration::from_secs(30);
/// For so long.
const PUT_OFF: Duration = Duration::from_secs(10 * 60);

/// Everybody's turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    inner: Mutex<Inner>,
    stir: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    plan: Plan,
    /// Since when it has been an agent's turn that has not gone.
    granted: BTreeMap<Key, Instant>,
    /// The release with which the API server refuses an agent's Deployment, and why.
    refused: BTreeMap<Key, (String, String)>,
    /// Forwarders that did not come up: the pod, and why. A crash loop looks well for a moment between two crashes.
    failing: BTreeMap<Key, (String, String)>,
}

impl Turns {
    fn turn(&self, key: &Key) -> Option<Turn> {
        lock(&self.inner).plan.turns.get(key).cloned()
    }

    /// Whether a roll-out is halted.
    pub(crate) fn is_halted(&self) -> bool {
        !lock(&self.inner).plan.halted.is_empty()
    }

    /// The API server refuses an agent's Deployment of this release.
    pub(crate) fn refuse(&self, key: &Key, release: &str, why: &str) {
        let refused = (release.to_owned(), why.to_owned());
        lock(&self.inner).refused.insert(key.clone(), refused);
        self.stir.notify_one();
    }

    /// The API server takes it.
    pub(crate) fn accept(&self, key: &Key) {
        lock(&self.inner).refused.remove(key);
    }

    /// Forgets an agent that is gone.
    pub(crate) fn forget(&self, key: &Key) {
        let mut inner = lock(&self.inner);
        inner.plan.turns.remove(key);
        inner.granted.remove(key);
        inner.refused.remove(key);
        inner.failing.remove(key);
        self.stir.notify_one();
    }
}

/// Looks again and again while there is something to roll out.
pub(crate) async fn keep(world: Arc<World>, work: Arc<Work>) {
    loop {
        let (is_busy, due) = look(&world);
        work.add_now(due);
        let tick = if world.turns.is_halted() { TICK_OF_HALT } else { TICK };
        if is_busy {
            sleep(tick).await;
        } else {
            world.turns.stir.notified().await;
        }
    }
}

/// Makes the plan anew. Whether it will change by itself, and the agents that have to hear of it.
pub(crate) fn look(world: &World) -> (bool, Vec<Key>) {
    let now = Instant::now();
    let members = members(world, now);
    let plan = rollout::plan(&members);
    let mut inner = lock(&world.turns.inner);
    for image in plan.halted.keys().filter(|image| !inner.plan.halted.contains_key(*image)) {
        warn!(image, reason = plan.halted[image], "roll-out halted");
    }
    for image in inner.plan.halted.keys().filter(|image| !plan.halted.contains_key(*image)) {
        info!(image, "roll-out resumed");
    }
    let is_waiting =
        |member: &&Member| matches!(member.stand, Stand::Waiting(_) | Stand::Refused(..));
    let waiting: BTreeSet<_> =
        members.iter().filter(is_waiting).map(|member| &member.key).collect();
    inner.granted.retain(|key, since| {
        waiting.contains(key) && now.duration_since(*since) < GRANTED + PUT_OFF
    });
    let mut due = Vec::new();
    for (key, turn) in &plan.turns {
        let is_refused = inner.refused.contains_key(key);
        if matches!(turn, Turn::Go(_)) && !is_refused {
            inner.granted.entry(key.clone()).or_insert(now);
        }
        let is_news = inner.plan.turns.get(key) != Some(turn);
        if is_news || matches!(turn, Turn::Go(_)) && !is_refused {
            due.push(key.clone());
        }
    }
    let is_busy =
        !waiting.is_empty() || members.iter().any(|member| rollout::is_on_the_way(&member.stand));
    inner.plan = plan;
    (is_busy, due)
}

fn members(world: &World, now: Instant) -> Vec<Member> {
    let mut members = Vec::new();
    // Most of the time nobody has to be looked at closer.
    let mut pods: Option<BTreeMap<Key, Arc<Pod>>> = None;
    for agent in world.agents() {
        let Ok(agent) = &agent.0 else { continue };
        if !takes_part(agent) {
            continue;
        }
        let key = agent.key.clone();
        let image = world.settings().image(agent).to_owned();
        let release = world.settings().release(&image);
        let Some((live, is_shown)) = deployment(world, agent) else { continue };
        let mark = live.mark.as_ref().filter(|mark| mark.release == release);
        let stand = if mark.is_some_and(|mark| mark.trial == Trial::Passed) {
            Stand::On(Trial::Passed, Progress::Up)
        } else {
            let pods = pods.get_or_insert_with(|| world.pods_by_agent());
            let pod = pods.get(&key).map(|pod| workload::sight(pod));
            stand(world, agent, (&live, is_shown), &release, pod.as_ref())
        };
        let granted = lock(&world.turns.inner).granted.get(&key).copied();
        let is_granted = granted.is_some_and(|since| now.duration_since(since) < GRANTED);
        let is_put_off = granted.is_some() && !is_granted;
        members.push(Member { key, image, stand, is_granted, is_put_off });
    }
    members
}

/// A suspended agent has no pod, and one whose spec cannot work is not touched.
fn takes_part(agent: &Agent) -> bool {
    !agent.spec.suspend
        && agent.metadata.deletion_timestamp.is_none()
        && !agent.is(ConditionType::Stalled)
}

/// The Deployment as it was last seen or written, and whether the watch has shown it so.
fn deployment(world: &World, agent: &Agent) -> Option<(Live, bool)> {
    let cached = world.owned(&agent.key, Owned::Deployment).as_deref().map(Live::of)?;
    if !cached.is_owned_by(agent) {
        return None;
    }
    Some(match world.memory.applied(&agent.uid, Owned::Deployment) {
        Some(written) if cached.is_older_than(&written) => (written, false),
        Some(_) | None => (cached, true),
    })
}

fn stand(
    world: &World,
    agent: &Agent,
    (live, is_shown): (&Live, bool),
    release: &str,
    pod: Option<&PodSight>,
) -> Stand {
    let key = &agent.key;
    let deployment = world.owned(key, Owned::Deployment).as_deref().and_then(caches::deployment);
    let pods: Vec<_> = pod.into_iter().cloned().collect();
    let workload = workload::judge(deployment.as_ref(), &pods);
    let Some(mark) = live.mark.as_ref().filter(|mark| mark.release == release) else {
        let before = before(agent, live, &workload);
        let inner = lock(&world.turns.inner);
        return match inner.refused.get(key) {
            Some((of, why)) if of == release => Stand::Refused(before, why.clone()),
            Some(_) | None => Stand::Waiting(before),
        };
    };
    if !is_shown {
        return Stand::On(mark.trial, Progress::Coming);
    }
    let sighting = world.reports.sighting(key, &agent.uid, pod.map(|pod| pod.uid.as_str()));
    let evidence = Evidence {
        release,
        trial: mark.trial,
        workload: &workload,
        pod,
        report: sighting.current(),
    };
    let progress = rollout::progress(&evidence, clock::now());
    let mut inner = lock(&world.turns.inner);
    let pod = pod.map(|pod| pod.uid.clone()).unwrap_or_default();
    let known = inner.failing.get(key).filter(|(of, _)| *of == pod).map(|(_, why)| why.clone());
    let progress = match (progress, known) {
        (Progress::Coming, Some(why)) => Progress::Failing(why),
        (progress, _) => progress,
    };
    match &progress {
        Progress::Failing(why) => {
            inner.failing.insert(key.clone(), (pod, why.clone()));
        }
        Progress::Up | Progress::Coming => {
            inner.failing.remove(key);
        }
    }
    Stand::On(mark.trial, progress)
}

/// What an agent has to lose that is not on its release.
fn before(agent: &Agent, live: &Live, workload: &Workload) -> Before {
    let is_running = *workload == Workload::Running;
    match live.mark.as_ref().map(|mark| mark.trial) {
        Some(Trial::OfReady) if !is_running => Before::Failed { was_ready: true },
        Some(Trial::OfRunning) if !is_running => Before::Failed { was_ready: false },
        _ if !is_running => Before::Down,
        _ if agent.is(ConditionType::Ready) => Before::Ready,
        _ => Before::Running,
    }
}

/// What an agent's Deployment is made with now.
pub(crate) fn stance(world: &World, agent: &Agent, observed: &Observed) -> Stance {
    let image = world.settings().image(agent);
    let release = world.settings().release(image);
    let live = observed.live.get(&Owned::Deployment);
    let mark = live.and_then(|live| live.mark.as_ref());
    let is_done = mark.is_some_and(|mark| mark.release == release && !mark.trial.is_open());
    if live.is_some() && !is_done {
        world.turns.stir.notify_one();
    }
    let is_up = mark.is_some_and(|mark| {
        let evidence = Evidence {
            release: &release,
            trial: mark.trial,
            workload: &observed.workload,
            pod: observed.pod.as_ref(),
            report: observed.sighting.current(),
        };
        observed.is_shown && rollout::progress(&evidence, clock::now()) == Progress::Up
    });
    let pinned = agent.spec.forwarder.image.as_str();
    let runs = release::runs(agent.status.as_ref());
    let stance = rollout::stance(&Own {
        image,
        release: &release,
        has_deployment: live.is_some(),
        mark,
        is_up,
        is_suspended: agent.spec.suspend,
        runs,
        pins_another: !pinned.is_empty() && runs != Some(pinned),
        turn: world.turns.turn(&agent.key).as_ref(),
    });
    if let Some(live) = live
        && stance.wait.is_some()
    {
        world.memory.keep(&agent.uid, live);
    }
    stance
}
