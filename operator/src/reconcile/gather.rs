//! Reads what there is on the server and at the forwarder, from caches. No decisions: `observed` says what to ask for.

pub(crate) mod hosts;

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::Agent;
use crate::api;
use crate::context::Context;
use crate::names::Owned;
use crate::observed::{self, HostSight, Known, Observed, Source};
use crate::observed_object::ObservedObject;
use crate::workload::{self, DeploymentSight, Workload};

/// Reads the caches, and asks the server for what no cache has.
///
/// # Errors
/// When the server does not say.
pub(crate) async fn gather(context: &Context, agent: &Agent) -> Result<Observed, api::Error> {
    let (key, uid) = (&agent.key, agent.uid.as_str());
    let written = context.expectations.written(uid);
    let (mut live, mut absent) = (BTreeMap::new(), BTreeSet::new());
    for which in Owned::ALL {
        let cached = context.owned(key, which).map(|kept| kept.observed.clone());
        if cached.is_some() {
            context.expectations.set_hidden(key, which, false);
        }
        let is_hidden = context.expectations.is_hidden(key, which);
        let known = Known { cached, written: written.get(&which), is_hidden };
        let found = match observed::source(agent, which, known) {
            Source::Here(live) => Some(*live),
            Source::Server => {
                let there =
                    context.server.look(&key.namespace, which, &which.name(&key.name)).await?;
                context.expectations.set_hidden(key, which, there.is_some());
                if there.is_none() {
                    absent.insert(which);
                }
                there.as_ref().map(ObservedObject::of)
            }
            Source::Nowhere => None,
        };
        if let Some(found) = found {
            live.insert(which, found);
        }
    }
    let left = hosts::left(context, key, agent.spec.sidecar_of()).await?;
    let host = match agent.spec.sidecar_of() {
        Some(of) => Some(hosts::look(context, agent, of).await?),
        None => None,
    };
    if host.is_none() && left.is_empty() {
        context.hosts.forget(key);
    }
    let pods: Vec<_> = context.pods(key).iter().map(|pod| pod.sight.clone()).collect();
    let shown = context.owned(key, Owned::Deployment);
    let deployment = shown.as_deref().and_then(|shown| shown.deployment.as_ref()?.sight.as_ref());
    let is_shown = shown.as_deref().is_some_and(|shown| {
        let written = written.get(&Owned::Deployment);
        written.is_none_or(|written| !shown.observed.is_older_than(&written.live))
    });
    let (pod, workload, is_settled, is_shown) = match &host {
        None => {
            let is_settled = deployment.is_some_and(DeploymentSight::is_settled);
            let workload = workload::judge(deployment, &pods);
            (pods.into_iter().next(), workload, is_settled, is_shown)
        }
        Some(HostSight::Found { host, pods, .. }) => {
            (context.hosts.pod(key), host.judge(pods), host.is_updated(), true)
        }
        Some(HostSight::NotEnabled | HostSight::Missing) => {
            (None, Workload::Progressing("there is no host"), true, true)
        }
    };
    Ok(Observed {
        live,
        absent,
        written,
        kept: context.expectations.kept(uid),
        workload,
        sighting: context.reports.sighting(key, uid, pod.as_ref().map(|pod| pod.uid.as_str())),
        pod,
        allowed: context.allowed(agent),
        twins: context.twins(key),
        is_settled,
        is_shown,
        // Once the sidecar is in its host, what has such labels is nobody's.
        has_own_pods: host.as_ref().is_some_and(|host| !host.has_sidecar())
            && context.has_own_pods(key),
        host,
        left,
    })
}
