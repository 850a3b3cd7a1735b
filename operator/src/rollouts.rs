//! Keeps the plan of the roll-outs current: reads off the caches what every agent shows, and makes those due whose turn
//! has changed. `rollout` decides, `turns` remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use siem_agent_crds::condition::ConditionType;
use siem_agent_edge::clock;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::agent::Agent;
use crate::context::Context;
use crate::key::Key;
use crate::lock::lock;
use crate::names::Owned;
use crate::observed::Observed;
use crate::observed_object::ObservedObject;
use crate::records::PodRecord;
use crate::release;
use crate::rollout::{self, Before, Evidence, Member, Own, Progress, Stance, Stand, Trial, Turn};
use crate::workload::{self, PodSight, Workload};
use crate::workqueue::Work;

/// Between two looks while a roll-out is under way.
const TICK: Duration = Duration::from_millis(500);
/// While one is halted there is no hurry.
const TICK_OF_HALT: Duration = Duration::from_secs(2);
/// An agent whose turn it is goes within this, or lets others go first.
const GRANTED: Duration = Duration::from_secs(30);
/// For so long.
const PUT_OFF: Duration = Duration::from_secs(10 * 60);

/// Looks again and again while there is something to roll out.
pub(crate) async fn keep(context: Arc<Context>, work: Arc<Work>) {
    loop {
        let (is_busy, due) = look(&context);
        work.add_now(due);
        let tick = if context.turns.is_halted() { TICK_OF_HALT } else { TICK };
        if is_busy {
            sleep(tick).await;
        } else {
            context.turns.stir.notified().await;
        }
    }
}

/// Makes the plan anew. Whether it will change by itself, and the agents that have to hear of it.
pub(crate) fn look(context: &Context) -> (bool, Vec<Key>) {
    let now = Instant::now();
    let members = members(context, now);
    let plan = rollout::plan(&members);
    let mut inner = lock(&context.turns.inner);
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

fn members(context: &Context, now: Instant) -> Vec<Member> {
    let mut members = Vec::new();
    // Most of the time nobody has to be looked at closer.
    let mut pods: Option<BTreeMap<Key, Arc<PodRecord>>> = None;
    for agent in context.agents() {
        let Ok(agent) = &agent.0 else { continue };
        if !takes_part(agent) {
            continue;
        }
        let key = agent.key.clone();
        let image = context.settings().image(agent).to_owned();
        let release = context.settings().release(&image);
        let is_hosted = agent.spec.sidecar_of().is_some();
        // Of a host nobody knows how its sidecar does before it was looked at.
        if is_hosted && agent.was_observed() && !context.hosts.knows(&key) {
            let (is_granted, is_put_off) = (false, false);
            members.push(Member {
                key,
                image,
                stand: Stand::Unseen,
                is_granted,
                is_put_off,
                is_hosted,
            });
            continue;
        }
        let Some((live, is_shown)) = deployment(context, agent) else { continue };
        let mark = live.mark.as_ref().filter(|mark| mark.release == release);
        let stand = if mark.is_some_and(|mark| mark.trial == Trial::Passed) {
            Stand::On(Trial::Passed, Progress::Up)
        } else {
            let pods = pods.get_or_insert_with(|| context.own_pods());
            let own = || pods.get(&key).map(|pod| pod.sight.clone());
            let pod = context.hosts.pod(&key).or_else(own);
            stand(context, agent, (&live, is_shown), &release, pod.as_ref())
        };
        // A paused one gets no turn; but what it shows of the release that it is on holds for the others.
        if agent.is_paused() && !matches!(stand, Stand::On(..)) {
            continue;
        }
        let granted = lock(&context.turns.inner).granted.get(&key).copied();
        let is_granted = granted.is_some_and(|since| now.duration_since(since) < GRANTED);
        let is_put_off = granted.is_some() && !is_granted;
        members.push(Member { key, image, stand, is_granted, is_put_off, is_hosted });
    }
    members
}

/// A suspended agent has no pod, and one whose spec cannot work is not touched.
fn takes_part(agent: &Agent) -> bool {
    !agent.is_suspended()
        && agent.metadata.deletion_timestamp.is_none()
        && !agent.is(ConditionType::Stalled)
}

/// The Deployment, or the part of a host, as it was last seen or written, and whether the watch has shown it so.
fn deployment(context: &Context, agent: &Agent) -> Option<(ObservedObject, bool)> {
    if agent.spec.sidecar_of().is_some() {
        return context.hosts.with_sidecar(&agent.key).map(|(host, _)| (host.live, true));
    }
    let cached = context.owned(&agent.key, Owned::Deployment)?.observed.clone();
    if !cached.is_owned_by(agent) {
        return None;
    }
    Some(match context.expectations.applied(&agent.uid, Owned::Deployment) {
        Some(written) if cached.is_older_than(&written) => (written, false),
        Some(_) | None => (cached, true),
    })
}

fn stand(
    context: &Context,
    agent: &Agent,
    (live, is_shown): (&ObservedObject, bool),
    release: &str,
    pod: Option<&PodSight>,
) -> Stand {
    let key = &agent.key;
    let workload = match context.hosts.with_sidecar(key) {
        Some((host, pods)) => host.judge(&pods),
        None => {
            let shown = context.owned(key, Owned::Deployment);
            let deployment =
                shown.as_deref().and_then(|shown| shown.deployment.as_ref()?.sight.as_ref());
            let pods: Vec<_> = pod.into_iter().cloned().collect();
            workload::judge(deployment, &pods)
        }
    };
    let Some(mark) = live.mark.as_ref().filter(|mark| mark.release == release) else {
        let before = before(agent, live, &workload);
        let inner = lock(&context.turns.inner);
        return match inner.refused.get(key) {
            Some((of, why)) if of == release => Stand::Refused(before, why.clone()),
            Some(_) | None => Stand::Waiting(before),
        };
    };
    if !is_shown {
        return Stand::On(mark.trial, Progress::Coming);
    }
    let sighting = context.reports.sighting(key, &agent.uid, pod.map(|pod| pod.uid.as_str()));
    let evidence = Evidence {
        release,
        trial: mark.trial,
        workload: &workload,
        pod,
        report: sighting.current(),
    };
    let progress = rollout::progress(&evidence, clock::now());
    let mut inner = lock(&context.turns.inner);
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
fn before(agent: &Agent, live: &ObservedObject, workload: &Workload) -> Before {
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
pub(crate) fn stance(context: &Context, agent: &Agent, observed: &Observed) -> Stance {
    let image = context.settings().image(agent);
    let release = context.settings().release(image);
    let live = observed.placed();
    let mark = live.and_then(|live| live.mark.as_ref());
    let is_done = mark.is_some_and(|mark| mark.release == release && !mark.trial.is_open());
    if live.is_some() && !is_done {
        context.turns.stir.notify_one();
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
    let pinned = agent.spec.forwarder.image.as_deref();
    let runs = release::runs(agent.status.as_ref());
    let stance = rollout::stance(&Own {
        image,
        release: &release,
        has_deployment: live.is_some(),
        mark,
        is_up,
        is_suspended: agent.is_suspended(),
        runs,
        pins_another: pinned.is_some() && runs != pinned,
        turn: context.turns.turn(&agent.key).as_ref(),
    });
    if let Some(live) = live
        && stance.wait.is_some()
    {
        context.expectations.keep(&agent.uid, live);
    }
    stance
}
