//! What a reconcile does: what is written, in which order and why, and what is removed. Pure; `apply` does it.
//!
//! Nothing is planned for an object that is as it would be applied. An agent that may not run at all is stopped: its
//! forwarder is planned as if it were suspended, so that it keeps what it needs to resume.

use siem_agent_crds::SiemAgent;

use super::status::Outcome;
use super::validate::{self, Cause, Problem};
use crate::apply::place::Place;
use crate::names::Owned;
use crate::objects::{self, Desired, Objects, Prepared};
use crate::observed::Observed;
use crate::observed_object::ObservedObject;
use crate::platform;
use crate::rollout::{Stance, Wait};
use crate::tenants::Tenants;

/// What may be removed when it is not wanted.
const OPTIONAL: [Owned; 2] = [Owned::NetworkPolicy, Owned::Claim];

/// What is done.
#[derive(Debug)]
pub(crate) struct Plan {
    /// One stage after the other: the Deployment after what its pod needs. What a stage holds may go at once.
    pub(crate) stages: [Vec<Write>; 2],
    /// In this order, after the stages.
    pub(crate) removals: Vec<(Owned, ObservedObject)>,
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
    let mut pending: Vec<_> = writes.chain(removals).collect();
    if matches!(plan.then, Then::Queued(_)) {
        pending.push("the operator's release".to_owned());
    }
    if pending.is_empty() { plan } else { nothing(Then::Paused(pending)) }
}

fn nothing(then: Then) -> Plan {
    Plan { stages: [Vec::new(), Vec::new()], removals: Vec::new(), then }
}

/// Stops a forwarder that may run no longer, where there is one.
fn stop(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    place: &platform::Place,
) -> Result<Option<Plan>, objects::Error> {
    if !observed.live.contains_key(&Owned::Deployment) {
        return Ok(None);
    }
    let mut suspended = agent.clone();
    suspended.spec.suspend = true;
    // What makes it impossible does not keep it running.
    suspended.spec.forwarder.pod_overrides = None;
    let Ok(validated) = validate::validate(&suspended, observed, stance, place) else {
        return Ok(None);
    };
    Ok(Some(changes(agent, observed, stance, objects::objects(&validated)?)))
}

/// What differs from these objects.
fn changes(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    objects: Objects<Prepared>,
) -> Plan {
    let writes = objects.list.iter().filter_map(|desired| write(agent, observed, stance, desired));
    let (last, first) =
        writes.partition::<Vec<_>, _>(|write| write.desired.which == Owned::Deployment);
    let is_wanted = |which: Owned| objects.list.iter().any(|desired| desired.which == which);
    let removals = OPTIONAL.into_iter().filter(|which| !is_wanted(*which)).filter_map(|which| {
        let live = observed.live.get(&which).filter(|live| live.is_owned_by(agent))?;
        Some((which, live.clone()))
    });
    Plan {
        stages: [first, last],
        removals: removals.collect(),
        then: match &stance.wait {
            Some(wait) => Then::Queued(wait.clone()),
            None => Then::Applied(objects),
        },
    }
}

/// Whether and how an object is written.
fn write(
    agent: &SiemAgent,
    observed: &Observed,
    stance: &Stance,
    desired: &Desired,
) -> Option<Write> {
    let held = observed.live.get(&desired.which);
    let written = observed.written.get(&desired.which);
    let is_there = held.is_some_and(|live| {
        live.digest.as_ref() == Some(&desired.digest)
            || written.is_some_and(|written| written.came_of(&desired.digest, live))
    });
    if is_there {
        return None;
    }
    // A change that the user has made is theirs to time; one that comes with another operator waits for its turn.
    let is_the_users = !agent.is_observed();
    let waits = desired.which == Owned::Deployment && stance.wait.is_some();
    // Of a Deployment that waits, a difference alone says nothing of whether somebody else has changed it.
    let is_kept = held.is_some_and(|live| {
        let kept = observed.kept.as_ref();
        live.digest.as_ref().is_some_and(|digest| kept.is_none_or(|kept| kept == digest))
    });
    if waits && is_kept && !is_the_users {
        return None;
    }
    let is_drifted = (waits && !is_kept)
        || held.is_some() && written.is_some_and(|written| written.desired == desired.digest);
    let release = stance.mark.as_ref().map(|mark| mark.release.as_str());
    let brings = held.is_some_and(|live| {
        desired.which == Owned::Deployment
            && live.mark.as_ref().map(|mark| mark.release.as_str()) != release
    });
    let why = match held {
        None => "absent",
        Some(_) if is_drifted => "drift",
        Some(_) if is_the_users => "spec changed",
        Some(_) if brings => "release changed",
        Some(live) if desired.which == Owned::Deployment && live.mark != stance.mark => {
            "came up with the release"
        }
        Some(_) if desired.which == Owned::Config => "share of the requests changed",
        Some(_) => "operator changed",
    };
    Some(Write {
        desired: desired.clone(),
        place: match held {
            Some(live) => Place::held(live),
            None if observed.absent.contains(&desired.which) => Place::SeenFree,
            None => Place::Free,
        },
        why,
        brings,
        halts: (brings && !is_the_users).then(|| release.unwrap_or_default().to_owned()),
    })
}

/// How far a reconcile has come in which the server refuses an object for good.
pub(crate) fn refused(then: Then, halts: bool, why: String) -> Outcome {
    match then {
        Then::Stalled(problems) => Outcome::Stalled(problems),
        _ if halts => Outcome::Queued(Wait::Halted(why)),
        Then::Waiting | Then::Applied(_) | Then::Queued(_) | Then::Paused(_) => {
            Outcome::Stalled(vec![Problem { cause: Cause::Rejected, text: why }])
        }
    }
}

#[cfg(test)]
mod tests;
