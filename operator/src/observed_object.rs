//! What matters of an object of an owned name, as it is on the server. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use kube::{Resource as _, ResourceExt as _};
use siem_agent_crds::SiemAgent;

use crate::checkpoint::decide as checkpoint;
use crate::drift;
use crate::names::{MANAGER, RELEASE_LABEL};
use crate::rollout::Mark;

/// An object of an owned name, as it is on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObservedObject {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    /// Kind, name and UID of its controller.
    pub(crate) controller: Option<(String, String, String)>,
    /// The digest of what we applied, as it is now.
    pub(crate) digest: Option<String>,
    /// Its `siemagent.dev/delivered`.
    pub(crate) delivered: Option<String>,
    /// Its `siemagent.dev/release`.
    pub(crate) mark: Option<Mark>,
    /// Its `siemagent.dev/saved`.
    pub(crate) saved: Option<Timestamp>,
    /// The later watermark of a checkpoint.
    pub(crate) latest: Option<i64>,
}

impl ObservedObject {
    /// What matters of an object.
    pub(crate) fn of(object: &DynamicObject) -> Self {
        let controller =
            object.owner_references().iter().find(|owner| owner.controller == Some(true));
        let annotation = |name: &str| object.annotations().get(name);
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
            controller: controller
                .map(|owner| (kind_of(owner), owner.name.clone(), owner.uid.clone())),
            digest: serde_json::to_value(object)
                .ok()
                .and_then(|whole| drift::of_live(&whole, MANAGER)),
            mark: object.labels().get(RELEASE_LABEL).map(|value| Mark::read(value)),
            delivered: annotation(checkpoint::DELIVERED_ANNOTATION).cloned(),
            saved: annotation(checkpoint::SAVED_ANNOTATION).and_then(|time| time.parse().ok()),
            latest: checkpoint::latest(object),
        }
    }

    /// Whether both are the same object, and the other one was seen later.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        let number = |live: &Self| live.resource_version.parse::<u64>().unwrap_or(0);
        self.uid == other.uid && number(self) < number(other)
    }

    /// Whether this agent controls it.
    pub(crate) fn is_owned_by(&self, agent: &SiemAgent) -> bool {
        self.controller.as_ref().is_some_and(|(.., uid)| Some(uid) == agent.metadata.uid.as_ref())
    }

    /// Whether an agent of the same name that is gone controls it: the garbage collector is about to take it.
    pub(crate) fn is_left_by_a_namesake(&self, agent: &SiemAgent) -> bool {
        !self.is_owned_by(agent)
            && self.controller.as_ref().is_some_and(|(kind, name, _)| {
                kind == "SiemAgent" && Some(name) == agent.metadata.name.as_ref()
            })
    }
}

/// The kind of an owner; with its group where another group has a kind of our name.
fn kind_of(owner: &OwnerReference) -> String {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    if owner.kind == SiemAgent::kind(&()) && group != SiemAgent::group(&()) {
        return format!("{}.{group}", owner.kind);
    }
    owner.kind.clone()
}

/// What was last written of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// The digest of what was applied.
    pub(crate) desired: String,
    /// The object as it was afterwards.
    pub(crate) live: ObservedObject,
    /// Whether that was a moment ago.
    pub(crate) is_fresh: bool,
}

impl Written {
    /// Whether this live object is what came of applying this: the server may write a value in another form.
    pub(crate) fn came_of(&self, desired: &str, live: &ObservedObject) -> bool {
        self.desired == desired && self.live.digest.is_some() && self.live.digest == live.digest
    }
}
