//! Reads the workloads that host an agent's sidecar, or have hosted it, and their pods. No decisions.
//!
//! A watch shows that one of them has changed, by its metadata alone; only then it is read, and its pods are listed. So an
//! unchanged world costs no request.

use std::cmp::Reverse;

use siem_agent_crds::siem_agent::{HostKind, SidecarOf};
use tokio::time::Instant;

use crate::agent::Agent;
use crate::api;
use crate::context::Context;
use crate::host::{Host, HostPod};
use crate::hosts::Known;
use crate::key::Key;
use crate::names::SIDECAR;
use crate::observed::{HostSight, Left};
use crate::partial::Pod;
use crate::workload::{self, PodSight};

/// Looks at the workload that an agent names, where it is not known how it is.
///
/// # Errors
/// When the server does not say.
pub(crate) async fn look(
    context: &Context,
    agent: &Agent,
    of: &SidecarOf,
) -> Result<HostSight, api::Error> {
    let key = &agent.key;
    if !context.follows_hosts(&key.namespace) {
        return Ok(HostSight::NotEnabled);
    }
    let all = context.hosts.known(key);
    let known = all.as_ref().filter(|known| known.host.of == *of);
    let seen = context.host(&key.namespace, of);
    let is_current = |known: &&Known| {
        seen.as_ref().is_some_and(|(uid, version)| known.is_current(of, uid, version))
    };
    let host = match known.filter(is_current) {
        Some(known) => known.host.clone(),
        None => match context.server.read_host(&key.namespace, of).await? {
            Some(object) => Host::of(&object, of.clone(), &key.name),
            None => return Ok(HostSight::Missing),
        },
    };
    let before = known.filter(|known| known.host.live.uid == host.live.uid);
    let is_replaced = before.is_none() && known.is_some_and(|known| known.had_part);
    let (pods, listed) = match before.filter(|known| known.are_pods_fresh(&host)) {
        _ if !host.has_part() => (Vec::new(), None),
        Some(known) => (known.pods.clone(), known.listed.clone()),
        None => {
            let pods = list(context, key, &host).await?;
            (pods, Some((host.live.resource_version.clone(), Instant::now())))
        }
    };
    let written = before.and_then(|known| known.written.clone());
    let put_back = before.map(|known| known.put_back.clone()).unwrap_or_default();
    let had_part = host.has_part() || before.is_some_and(|known| known.had_part);
    let now = Known {
        host: host.clone(),
        written: written.clone(),
        pods: pods.clone(),
        listed,
        put_back,
        had_part,
    };
    let is_contested = now.is_contested();
    // What is known of one that the sidecar is still leaving is worth more, and of one whose place another object has taken.
    let is_elsewhere = all.as_ref().is_some_and(|known| known.host.has_part()) && before.is_none();
    let is_refused = is_replaced && host.allows.as_ref() != Some(&key.name);
    if !is_elsewhere && !is_refused {
        context.hosts.keep(key, now);
    }
    let written = written.map(Box::new);
    Ok(HostSight::Found { host: Box::new(host), pods, written, is_replaced, is_contested })
}

/// Looks at the workloads that carry an agent's sidecar, or whose pods do still, and are not the one that it names.
///
/// # Errors
/// When the server does not say.
pub(crate) async fn left(
    context: &Context,
    key: &Key,
    wanted: Option<&SidecarOf>,
) -> Result<Vec<Left>, api::Error> {
    let known = context.hosts.known(key).filter(|known| known.host.has_part());
    let mut all: Vec<SidecarOf> = context.hosts_of(key);
    // The watch may not have shown it yet, or no longer.
    let also = known.as_ref().map(|known| known.host.of.clone());
    all.extend(also.filter(|also| !all.contains(also)));
    let mut left = Vec::new();
    for of in all {
        let remembered = known.as_ref().filter(|known| known.host.of == of);
        let is_wanted = wanted == Some(&of);
        if is_wanted {
            let seen = context.host(&key.namespace, &of).map(|(uid, _)| uid);
            // The same, unless another object has taken its place.
            if remembered.is_none_or(|known| seen.as_ref() == Some(&known.host.live.uid)) {
                continue;
            }
        }
        let found = context.server.read_host(&key.namespace, &of).await?;
        let found = found.map(|object| Host::of(&object, of, &key.name));
        let is_same =
            |host: &Host| remembered.is_none_or(|known| known.host.live.uid == host.live.uid);
        match (found.filter(is_same), remembered) {
            (Some(_), _) if is_wanted => {}
            (Some(host), _) if host.has_part() => {
                let pods = list(context, key, &host).await?;
                context.hosts.keep_pods(key, &host, &pods);
                left.push(Left { host, is_there: true, pods });
            }
            (Some(_), Some(_)) => context.hosts.has_left(key),
            (None, Some(known)) => {
                let pods = orphans(context, key, &known.host).await?;
                if pods.is_empty() {
                    context.hosts.has_left(key);
                } else {
                    left.push(Left { host: known.host.clone(), is_there: false, pods });
                }
            }
            // It carries the label and no more: somebody has copied it from the agent's own host.
            (Some(_) | None, None) => {}
        }
    }
    Ok(left)
}

/// The host's pods that have not ended, the newest first.
pub(crate) async fn list(
    context: &Context,
    key: &Key,
    host: &Host,
) -> Result<Vec<HostPod>, api::Error> {
    let mut sets = Vec::new();
    let mut pods = Vec::new();
    for pod in context.server.list_pods(&key.namespace, &host.selector).await? {
        if !has_ended(&pod) && is_of(context, &key.namespace, host, &pod, &mut sets).await? {
            pods.push(pod);
        }
    }
    Ok(sights(pods, host))
}

/// The pods with a sidecar that a host has left which is gone: whose they were nobody can say any more.
async fn orphans(context: &Context, key: &Key, host: &Host) -> Result<Vec<HostPod>, api::Error> {
    let pods = context.server.list_pods(&key.namespace, &host.selector).await?;
    let pods = pods.into_iter().filter(|pod| !has_ended(pod) && has_sidecar(pod));
    Ok(sights(pods.collect(), host))
}

fn sights(mut pods: Vec<Pod>, host: &Host) -> Vec<HostPod> {
    pods.sort_by_key(|pod| {
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|created| created.0))
    });
    let release = host.live.mark.as_ref().filter(|_| host.is_updated());
    let release = release.map(|mark| mark.release.clone());
    let sight = |pod: &Pod| HostPod {
        sight: PodSight { release: release.clone(), ..workload::sight_of_sidecar(pod) },
        has_sidecar: has_sidecar(pod),
        is_leaving: pod.metadata.deletion_timestamp.is_some(),
    };
    pods.iter().map(sight).collect()
}

fn has_sidecar(pod: &Pod) -> bool {
    pod.spec.init_containers.iter().any(|container| container.name == SIDECAR)
}

/// One that was evicted, or whose node was shut down, stays until somebody deletes it, and nothing runs in it.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether a pod is this very workload's: whoever may make pods chooses their labels and what they call their owner, and
/// nobody chooses a UID.
async fn is_of(
    context: &Context,
    namespace: &str,
    host: &Host,
    pod: &Pod,
    sets: &mut Vec<(String, Option<String>)>,
) -> Result<bool, api::Error> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let Some(owner) = owners.find(|owner| owner.controller == Some(true)) else {
        return Ok(false);
    };
    if host.of.kind == HostKind::StatefulSet {
        return Ok(owner.uid == host.live.uid);
    }
    let is_name = |char: char| char.is_ascii_alphanumeric() || "-.".contains(char);
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    let is_set =
        owner.kind == "ReplicaSet" && group == Some("apps") && owner.name.chars().all(is_name);
    if !is_set || owner.name.is_empty() {
        return Ok(false);
    }
    let known = sets.iter().find(|(uid, _)| *uid == owner.uid).map(|(_, host)| host.clone());
    let of_host = match known {
        Some(of_host) => of_host,
        None => {
            let set = context.server.replica_set(namespace, &owner.name).await?;
            let set = set.filter(|set| set.uid.as_ref() == Some(&owner.uid));
            let mut owners = set.into_iter().filter_map(|set| set.owner_references).flatten();
            let controller = owners.find(|owner| owner.controller == Some(true));
            let of_host = controller.map(|controller| controller.uid);
            sets.push((owner.uid.clone(), of_host.clone()));
            of_host
        }
    };
    Ok(of_host.as_ref() == Some(&host.live.uid))
}
