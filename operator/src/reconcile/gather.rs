//! Reads what there is on the server and at the forwarder, from caches. No decisions: `observed` says what to ask for.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::Agent;
use crate::api;
use crate::budget::Share;
use crate::context::Context;
use crate::names::Owned;
use crate::observed::{self, Known, Observed, Source};
use crate::observed_object::ObservedObject;
use crate::trim;
use crate::workload;

/// Reads the caches, and asks the server for what no cache has.
///
/// # Errors
/// When the server does not say.
pub(crate) async fn gather(context: &Context, agent: &Agent) -> Result<Observed, api::Error> {
    let (key, uid) = (&agent.key, agent.uid.as_str());
    let written = context.expectations.written(uid);
    let (mut live, mut absent) = (BTreeMap::new(), BTreeSet::new());
    for which in Owned::ALL {
        let cached = context.owned(key, which).as_deref().map(ObservedObject::of);
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
    let pods: Vec<_> = context.pods(key).iter().map(|pod| workload::sight(pod)).collect();
    let shown = context.owned(key, Owned::Deployment);
    let deployment = shown.as_deref().and_then(trim::deployment);
    let is_shown = shown.as_deref().map(ObservedObject::of).is_some_and(|shown| {
        let written = written.get(&Owned::Deployment);
        written.is_none_or(|written| !shown.is_older_than(&written.live))
    });
    let Share { requests, others } = context.share(agent);
    Ok(Observed {
        live,
        absent,
        written,
        kept: context.expectations.kept(uid),
        workload: workload::judge(deployment.as_ref(), &pods),
        sighting: context.reports.sighting(key, uid, pods.first().map(|pod| pod.uid.as_str())),
        pod: pods.into_iter().next(),
        requests_per_minute: requests,
        others,
        twins: context.twins(key),
        is_settled: deployment.as_ref().is_some_and(observed::is_settled),
        is_shown,
    })
}
