//! What a reconcile does: what is written, in which order and why, and what is removed. Pure; `apply` does it.
//!
//! Nothing is planned for an object that is as it would be applied. An agent that may not run at all is stopped: its
//! forwarder is planned as if it were suspended, so that it keeps what it needs to resume.

use siem_agent_crds::SiemAgent;
use siem_agent_crds::condition::Reason;

use super::status::Outcome;
use super::validate::{self, Cause, Problem};
use crate::apply::place::Place;
use crate::host::{Host, HostPod};
use crate::names::{self, Owned};
use crate::objects::{self, Desired, Objects, Part, Prepared};
use crate::observed::{HostSight, Left, Observed};
use crate::observed_object::{ObservedObject, Written};
use crate::platform;
use crate::rollout::{Stance, Wait};
use crate::tenants::Tenants;

/// What may be removed when it is not wanted.
const OPTIONAL: [Owned; 2] = [Owned::NetworkPolicy, Owned::Claim];
/// What a forwarder without a Deployment of its own has no use for. Its ServiceAccount stays: the operator deletes none.
const OF_A_POD: [Owned; 3] = [Owned::Deployment, Owned::NetworkPolicy, Owned::Claim];

/// What is done.
#[derive(Debug)]
pub(crate) struct Plan {
    /// One stage after the other: the Deployment after what its pod needs. What a stage holds may go at once.
    pub(crate) stages: [Vec<Write>; 2],
    /// In this order, after the stages.
    pub(crate) removals: Vec<(Owned, ObservedObject)>,
    /// What is changed in workloads that host its sidecar, or did; after all else.
    pub(crate) parts: Vec<PartWrite>,
    /// How far the reconcile has come when all that is done.
    pub(crate) then: Then,
}

/// How far a reconcile comes.
#[derive(Debug)]
pub(crate) enum Then {
    /// The spec cannot work.
    Stalled(Vec<Problem>),
    /// What an earlier agent of this name owned is still being removed.
    Waiting,
    /// The pod that it ran in before has not ended: no other one is begun.
    Moving(String),
    /// All is on the server.
    Applied(Objects<Prepared>),
    /// The operator brings another release, and this agent keeps the one that it runs.
    Queued(Wait),
    /// Its user has paused it while this waits to be written.
    Paused(Vec<String>),
}

/// An object to apply.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) desired: Desired,
    pub(crate) place: Place,
    pub(crate) why: &'static str,
    /// Whether it brings a Deployment to another release.
    pub(crate) brings: bool,
    /// The release whose roll-out ends here if the server refuses the object.
    pub(crate) halts: Option<String>,
}

/// A part of a workload to apply.
#[derive(Debug)]
pub(crate) struct PartWrite {
    pub(crate) host: Host,
    pub(crate) part: Part,
    pub(crate) why: &'static str,
    /// As in [`Write`].
    pub(crate) brings: bool,
    pub(crate) halts: Option<String>,
}

/// Plans for an agent.
///
/// # Errors
/// When the objects cannot be made.
pub(crate) fn plan(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    place: &platform::Place,
    tenants: &Tenants,
) -> Result<Plan, objects::Error> {
    let mut plan = decide(agent, observed, stance, place, tenants)?;
    // Whose workload it is has the last word on what is in it, whatever becomes of the agent.
    for withdrawn in withdrawn(agent, observed) {
        let is_planned = |write: &PartWrite| write.host.live.uid == withdrawn.host.live.uid;
        plan.parts.retain(|write| !is_planned(write));
        plan.parts.push(withdrawn);
    }
    Ok(plan)
}

fn decide(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    place: &platform::Place,
    tenants: &Tenants,
) -> Result<Plan, objects::Error> {
    if let Some(problem) = validate::refused(agent, tenants) {
        let then = Then::Stalled(vec![problem]);
        return Ok(match stop(agent, observed, stance, place)? {
            Some(stopped) => Plan { then, ..stopped },
            None => nothing(then),
        });
    }
    match validate::validate(agent, observed, stance, place) {
        Err(problems) => Ok(nothing(Then::Stalled(problems))),
        Ok(_) if observed.has_leftovers(agent) => Ok(nothing(Then::Waiting)),
        Ok(_) if validate::host(agent, observed).is_some() => {
            let problem = validate::host(agent, observed);
            let then = Then::Stalled(problem.into_iter().collect());
            let plan = unhosted(agent, observed, stance, place)?;
            Ok(if agent.is_paused() { nothing(then) } else { Plan { then, ..plan } })
        }
        Ok(validated) => {
            let objects = match objects::objects(&validated) {
                Ok(objects) => objects,
                Err(objects::Error::PodOverrides(refused)) => {
                    let text = format!("{}: {}", refused.path, refused.why);
                    let problem = Problem { cause: Cause::InvalidSpec, text };
                    return Ok(nothing(Then::Stalled(vec![problem])));
                }
                Err(error) => return Err(error),
            };
            let plan = changes(agent, observed, stance, objects);
            Ok(if agent.is_paused() { paused(agent, plan) } else { plan })
        }
    }
}

/// Of a paused agent nothing is written: only what waits is said. The administrator's word on its tenant stands above it.
fn paused(agent: &SiemAgent, plan: Plan) -> Plan {
    let name = agent.metadata.name.as_deref().unwrap_or_default();
    let object = |which: Owned| format!("{} {}", which.kind(), which.name(name));
    let writes = plan.stages.iter().flatten().map(|write| object(write.desired.which));
    let removals = plan.removals.iter().map(|(which, _)| object(*which));
    let parts = plan.parts.iter().map(|write| format!("the sidecar in {}", write.host.of));
    let mut pending: Vec<_> = writes.chain(removals).chain(parts).collect();
    if matches!(plan.then, Then::Queued(_)) {
        pending.push("the operator's release".to_owned());
    }
    if pending.is_empty() { plan } else { nothing(Then::Paused(pending)) }
}

fn nothing(then: Then) -> Plan {
    Plan { stages: [Vec::new(), Vec::new()], removals: Vec::new(), parts: Vec::new(), then }
}

/// What is done where the workload cannot host the sidecar any more. Where it does not allow it, it is taken out; else the
/// host is left as it is, and the forwarder in it told by its configuration to export nothing.
fn unhosted(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    place: &platform::Place,
) -> Result<Plan, objects::Error> {
    let parts = observed.left.iter().filter_map(|left| leave(agent, left)).collect();
    let name = agent.metadata.name.as_deref().unwrap_or_default();
    let mut stopped = nothing(Then::Waiting);
    if let Some(HostSight::Found { host, is_contested: false, .. }) = &observed.host
        && host.has_sidecar
        && host.allows.as_deref() == Some(name)
        && let Some(plan) = stop(agent, observed, stance, place)?
    {
        stopped.stages = plan.stages;
    }
    Ok(Plan { parts, ..stopped })
}

/// What is taken out of workloads that do not allow it any more.
fn withdrawn(agent: &SiemAgent, observed: &Observed) -> Vec<PartWrite> {
    let name = agent.metadata.name.as_deref().unwrap_or_default();
    let is_withdrawn = |host: &Host| host.has_part() && host.allows.as_deref() != Some(name);
    let mut parts = Vec::new();
    if let Some(HostSight::Found { host, pods, .. }) = &observed.host
        && is_withdrawn(host)
    {
        parts.extend(take_out(agent, host, pods));
    }
    let left = observed.left.iter().filter(|left| is_withdrawn(&left.host));
    parts.extend(left.filter_map(|left| leave(agent, left)));
    parts
}

fn leave(agent: &SiemAgent, left: &Left) -> Option<PartWrite> {
    if left.is_there { take_out(agent, &left.host, &left.pods) } else { None }
}

/// Takes a sidecar out: first of the template, and when the last pod that has it has ended, the label.
fn take_out(agent: &SiemAgent, host: &Host, pods: &[HostPod]) -> Option<PartWrite> {
    let (namespace, name) = (names::namespace(agent), agent.metadata.name.as_deref()?);
    let part = if host.has_sidecar {
        Part::leaving(&namespace, &host.of, name)
    } else if pods.iter().any(|pod| pod.has_sidecar) {
        return None;
    } else {
        Part::nothing(&namespace, &host.of)
    };
    let why = if host.has_sidecar { "is to leave" } else { "its last pod has ended" };
    Some(PartWrite { host: host.clone(), part, why, brings: false, halts: None })
}

/// Stops a forwarder that may run no longer, where there is one.
fn stop(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    place: &platform::Place,
) -> Result<Option<Plan>, objects::Error> {
    let has_deployment = observed.live.contains_key(&Owned::Deployment);
    // Also a pod that is left somewhere reads the configuration.
    let has_config =
        observed.live.contains_key(&Owned::Config) && agent.spec.sidecar_of().is_some();
    if !has_deployment && observed.placed().is_none() && observed.left.is_empty() && !has_config {
        return Ok(None);
    }
    let mut suspended = agent.clone();
    suspended.spec.suspend = true;
    if has_deployment {
        suspended.spec.placement = None;
    }
    // What makes it impossible does not keep it running.
    suspended.spec.forwarder.pod_overrides = None;
    let Ok(validated) = validate::validate(&suspended, observed, stance, place) else {
        return Ok(None);
    };
    let objects = objects::objects(&validated)?;
    let writes = objects.list.iter().filter_map(|desired| write(agent, observed, stance, desired));
    let (last, first) =
        writes.partition::<Vec<_>, _>(|write| write.desired.which == Owned::Deployment);
    // A host is not started anew to stop what its configuration stops.
    let parts = observed.left.iter().filter_map(|left| leave(agent, left)).collect();
    Ok(Some(Plan { stages: [first, last], removals: Vec::new(), parts, then: Then::Waiting }))
}

/// What differs from these objects. One place at a time: nothing is begun in another one before the last pod in the one
/// before has ended.
fn changes(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    objects: Objects<Prepared>,
) -> Plan {
    let writes = objects.list.iter().filter_map(|desired| write(agent, observed, stance, desired));
    let (mut last, first) =
        writes.partition::<Vec<_>, _>(|write| write.desired.which == Owned::Deployment);
    let is_wanted = |which: Owned| objects.list.iter().any(|desired| desired.which == which);
    let optional: &[Owned] = if objects.sidecar.is_some() { &OF_A_POD } else { &OPTIONAL };
    let removals = optional.iter().filter(|which| !is_wanted(**which)).filter_map(|which| {
        let live = observed.live.get(which).filter(|live| live.is_owned_by(agent))?;
        Some((*which, live.clone()))
    });
    let removals = removals.collect();
    let mut parts: Vec<_> = observed.left.iter().filter_map(|left| leave(agent, left)).collect();
    let before = occupied(agent, observed, objects.sidecar.is_some());
    if before.is_some() {
        last.clear();
    } else if let (Some(part), Some(HostSight::Found { host, written, .. })) =
        (&objects.sidecar, &observed.host)
    {
        parts.extend(part_write(agent, observed, stance, host, written.as_deref(), part));
    }
    let then = match (before, &stance.wait) {
        (Some(before), _) => Then::Moving(before),
        (None, Some(wait)) => Then::Queued(wait.clone()),
        (None, None) => Then::Applied(objects),
    };
    Plan { stages: [first, last], removals, parts, then }
}

/// Where the forwarder runs still that is to run elsewhere.
fn occupied(agent: &SiemAgent, observed: &Observed, is_sidecar: bool) -> Option<String> {
    let has_deployment =
        observed.live.get(&Owned::Deployment).is_some_and(|live| live.is_owned_by(agent));
    if is_sidecar && (has_deployment || observed.has_own_pods) {
        let name = agent.metadata.name.as_deref().unwrap_or_default();
        let deployment = Owned::Deployment.name(name);
        return Some(format!("the pod of the Deployment {deployment} ends first"));
    }
    let Left { host, .. } = observed.left.first()?;
    let kept = match host.also_written_by.as_slice() {
        others @ [_, ..] if !host.has_sidecar => {
            let others = others.join(" and ");
            format!("; its container stays there, because {others} has written it too: take it out")
        }
        _ => String::new(),
    };
    let by_hand = host.by_hand();
    Some(format!("the pod of {} with the sidecar ends first{by_hand}{kept}", host.of))
}

/// Whether and how an object is written.
fn write(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    desired: &Desired,
) -> Option<Write> {
    let held = observed.live.get(&desired.which);
    let which = Wanted {
        digest: &desired.digest,
        is_workload: desired.which == Owned::Deployment,
        otherwise: if desired.which == Owned::Config {
            "share of the requests changed"
        } else {
            "operator changed"
        },
    };
    let Difference { why, brings, halts } =
        difference(agent, observed, stance, held, observed.written.get(&desired.which), &which)?;
    Some(Write {
        desired: desired.clone(),
        place: match held {
            Some(live) => Place::held(live),
            None if observed.absent.contains(&desired.which) => Place::SeenFree,
            None => Place::Free,
        },
        why,
        brings,
        halts,
    })
}

/// Whether and how the sidecar is written into its host.
fn part_write(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    host: &Host,
    written: Option<&Written>,
    part: &Part,
) -> Option<PartWrite> {
    let held = Some(&host.live).filter(|_| host.has_sidecar);
    let wanted = Wanted { digest: &part.digest, is_workload: true, otherwise: "operator changed" };
    let Difference { why, brings, halts } =
        difference(agent, observed, stance, held, written, &wanted)?;
    // Whoever has taken out what was in it has changed it, too. One that this operator took out carries no release.
    let was_in_it =
        written.is_some_and(|it| it.live.uid == host.live.uid && it.live.mark.is_some());
    let why = if held.is_none() && was_in_it { "drift" } else { why };
    Some(PartWrite { host: host.clone(), part: part.clone(), why, brings, halts })
}

/// What is to be on the server.
struct Wanted<'a> {
    digest: &'a str,
    /// Whether it makes the forwarder's pod.
    is_workload: bool,
    /// Why it is written where nothing else explains it.
    otherwise: &'static str,
}

/// How what is on the server differs.
struct Difference {
    why: &'static str,
    brings: bool,
    halts: Option<String>,
}

fn difference(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    held: Option<&ObservedObject>,
    written: Option<&Written>,
    wanted: &Wanted<'_>,
) -> Option<Difference> {
    let Wanted { digest, is_workload, otherwise } = *wanted;
    let is_there = held.is_some_and(|live| {
        live.digest.as_deref() == Some(digest)
            || written.is_some_and(|written| written.came_of(digest, live))
    });
    if is_there {
        return None;
    }
    // A change that the user has made is theirs to time; one that comes with another operator waits for its turn.
    let is_the_users = !agent.is_observed();
    let waits = is_workload && stance.wait.is_some();
    // Of a Deployment that waits, a difference alone says nothing of whether somebody else has changed it.
    let is_kept = held.is_some_and(|live| {
        let kept = observed.kept.as_ref();
        live.digest.as_ref().is_some_and(|digest| kept.is_none_or(|kept| kept == digest))
    });
    if waits && is_kept && !is_the_users {
        return None;
    }
    let is_drifted = (waits && !is_kept)
        || held.is_some() && written.is_some_and(|written| written.desired == digest);
    let release = stance.mark.as_ref().map(|mark| mark.release.as_str());
    let brings = held.is_some_and(|live| {
        is_workload && live.mark.as_ref().map(|mark| mark.release.as_str()) != release
    });
    let why = match held {
        None => "absent",
        Some(_) if is_drifted => "drift",
        Some(_) if is_the_users => "spec changed",
        Some(_) if brings => "release changed",
        Some(live) if is_workload && live.mark != stance.mark => "came up with the release",
        Some(_) => otherwise,
    };
    let halts = (brings && !is_the_users).then(|| release.unwrap_or_default().to_owned());
    Some(Difference { why, brings, halts })
}

/// How far a reconcile has come in which the server refuses an object for good.
pub(crate) fn refused(then: Then, halts: bool, why: String) -> Outcome {
    match then {
        Then::Stalled(problems) => Outcome::Stalled(problems),
        _ if halts => Outcome::Queued(Wait::Halted(why)),
        Then::Waiting | Then::Moving(_) | Then::Applied(_) | Then::Queued(_) | Then::Paused(_) => {
            Outcome::Stalled(vec![Problem { cause: Cause::Rejected, text: why }])
        }
    }
}

/// How far a reconcile has come in which this operator may not change a host.
pub(crate) fn not_enabled(what: &str) -> Outcome {
    let text = format!(
        "spec.placement.sidecarOf: the operator may not {what}: add the workload to the value `sidecars.hosts` of its chart, \
         or bind operator/rbac-sidecars.yaml"
    );
    Outcome::Stalled(vec![Problem { cause: Cause::Host(Reason::SidecarNotEnabled), text }])
}

#[cfg(test)]
mod tests;
