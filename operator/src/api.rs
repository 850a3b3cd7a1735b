//! Every request to the API server that is not a watch or the Lease: each has a time-out, each write is fenced.
//!
//! A write goes out only while this operator surely leads, and ends before anybody else may begin. It carries the
//! resourceVersion that it was decided on, so that one that comes too late is refused by the server itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GetParams, ListParams, Patch, PatchParams,
    PostParams, Preconditions,
};
use kube::core::Status;
use kube::{Api, Client, Resource as _};
use serde_json::{Value, json};
use siem_agent_crds::siem_agent::{HostKind, SidecarOf};
use siem_agent_crds::{SiemAgent, SiemAgentStatus};
use tokio::time::timeout;
use tracing::info;

use crate::apply::place::Place;
use crate::host::Host;
use crate::key::Key;
use crate::leader_election::Leadership;
use crate::names::{MANAGER, Owned, host_resource, sidecar_manager};
use crate::observed_object::ObservedObject;
use crate::partial::{Metadata, Pod};

/// One request; the lease's renewal leaves 5 s for what is under way.
const PATIENCE: Duration = Duration::from_secs(5);
/// A host has one replica, and for a moment the pod before it; whoever may make pods may give others its labels.
const PODS_PAGE: u32 = 100;
const MOST_PAGES: usize = 20;

/// No object has this resourceVersion, and the servers known today make one whatever version they are given: so an apply
/// that carries it makes the object or gets a 409.
const OF_NOTHING: &str = "1";

/// The API server.
#[derive(Clone)]
pub(crate) struct Server {
    client: Client,
    leadership: Arc<Leadership>,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Server")
    }
}

/// Why a request did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody else leads, or may soon.
    #[error("this operator does not lead")]
    NotLeading,
    /// No answer in time.
    #[error("{0}: the API server does not answer")]
    TimedOut(String),
    /// What it was decided on has changed since.
    #[error("{0}: has been changed in the meantime")]
    Conflict(String, #[source] Box<Status>),
    /// The object cannot be.
    #[error("{0}: is refused")]
    Rejected(String, #[source] Box<Status>),
    /// Anything else.
    #[error("{0}")]
    Failed(String, #[source] kube::Error),
}

impl Server {
    /// Writes go out only while `leadership` lasts.
    pub(crate) fn new(client: Client, leadership: Arc<Leadership>) -> Self {
        Self { client, leadership }
    }

    /// An object as the server's cache has it: cheap, and at most a moment old.
    pub(crate) async fn look(
        &self,
        namespace: &str,
        which: Owned,
        name: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        let any = GetParams::any();
        self.get(namespace, &which.resource(), name, &any).await
    }

    /// An object as it is.
    pub(crate) async fn read(
        &self,
        namespace: &str,
        which: Owned,
        name: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        self.get(namespace, &which.resource(), name, &GetParams::default()).await
    }

    /// A SiemAgent as it is, whatever is in it.
    pub(crate) async fn read_agent(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<DynamicObject>, Error> {
        let resource = ApiResource::erase::<SiemAgent>(&());
        self.get(namespace, &resource, name, &GetParams::default()).await
    }

    /// Applies an object, if its place is as it is held to be: so nobody has to ask first.
    pub(crate) async fn apply(
        &self,
        namespace: &str,
        which: Owned,
        object: &Value,
        place: &Place,
        why: &str,
    ) -> Result<DynamicObject, Error> {
        let mut object = object.clone();
        let name = text(&object, "/metadata/name");
        let mut parameters = PatchParams::apply(MANAGER);
        parameters.force = matches!(place, Place::Held(_));
        let version = match place {
            Place::Held(version) => Some(version.as_str()),
            Place::Free => Some(OF_NOTHING),
            Place::SeenFree => None,
        };
        if let (Some(version), Some(Value::Object(metadata))) =
            (version, object.get_mut("metadata"))
        {
            metadata.insert("resourceVersion".to_owned(), version.into());
        }
        let resource = which.resource();
        let api = self.api(namespace, &resource);
        let patch = Patch::Apply(&object);
        let what = || format!("apply {} {name}", which.kind());
        let verbs: &[&str] =
            if matches!(place, Place::Held(_)) { &["patch"] } else { &["patch", "create"] };
        match self.write(what, api.patch(&name, &parameters, &patch)).await {
            Err(error) => Err(self.explained(error, namespace, &resource, &name, verbs).await),
            Ok(applied) => {
                info!(namespace, kind = which.kind(), name, reason = why, "applied");
                Ok(applied)
            }
        }
    }

    /// A workload that is to host a sidecar, as it is.
    pub(crate) async fn read_host(
        &self,
        namespace: &str,
        of: &SidecarOf,
    ) -> Result<Option<DynamicObject>, Error> {
        let resource = host_resource(of.kind);
        self.get(namespace, &resource, &of.name, &GetParams::default()).await
    }

    /// Applies one agent's part of a workload that is somebody else's, if that is still as it was looked at.
    pub(crate) async fn apply_part(
        &self,
        namespace: &str,
        host: &Host,
        agent: &str,
        part: &Value,
        why: &str,
    ) -> Result<DynamicObject, Error> {
        let Host { of, live, .. } = host;
        let resource = host_resource(of.kind);
        let mut object = part.clone();
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            // With its UID an apply never makes an object.
            metadata.insert("uid".to_owned(), live.uid.as_str().into());
            metadata.insert("resourceVersion".to_owned(), live.resource_version.as_str().into());
        }
        // What somebody else has changed of our own part is put back; nothing else is in it.
        let parameters = PatchParams::apply(&sidecar_manager(agent)).force();
        let api = self.api(namespace, &resource);
        let what = || format!("apply the sidecar to {of}");
        match self.write(what, api.patch(&of.name, &parameters, &Patch::Apply(&object))).await {
            Err(error) => {
                Err(self.explained(error, namespace, &resource, &of.name, &["patch"]).await)
            }
            Ok(applied) => {
                let (kind, name) = (of.kind.as_str(), &of.name);
                info!(namespace, kind, name, agent, reason = why, "sidecar applied");
                Ok(applied)
            }
        }
    }

    /// The pods that a selector of labels finds.
    pub(crate) async fn list_pods(
        &self,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<Pod>, Error> {
        let what = || format!("list the pods of {selector}");
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let api = Api::<Pod>::namespaced_with(self.client.clone(), namespace, &resource);
        let mut list = ListParams::default().labels(selector).limit(PODS_PAGE);
        let mut pods = Vec::new();
        for _ in 0..MOST_PAGES {
            let Ok(answer) = timeout(PATIENCE, api.list(&list)).await else {
                return Err(Error::TimedOut(what()));
            };
            let page = answer.map_err(|error| refused(what(), error))?;
            pods.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => list = list.continue_token(&token),
                None => return Ok(pods),
            }
        }
        Err(Error::TimedOut(what()))
    }

    /// A ReplicaSet's metadata.
    pub(crate) async fn replica_set(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectMeta>, Error> {
        let what = || format!("read ReplicaSet {name}");
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let api = Api::<Metadata>::namespaced_with(self.client.clone(), namespace, &resource);
        match timeout(PATIENCE, api.get_opt(name)).await {
            Err(_elapsed) => Err(Error::TimedOut(what())),
            Ok(answer) => {
                answer.map(|set| Some(set?.metadata)).map_err(|error| refused(what(), error))
            }
        }
    }

    /// Deletes an object if it is still the one that was looked at.
    pub(crate) async fn delete(
        &self,
        namespace: &str,
        which: Owned,
        name: &str,
        live: &ObservedObject,
        why: &str,
    ) -> Result<(), Error> {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(live.uid.clone()),
                resource_version: Some(live.resource_version.clone()),
            }),
            ..DeleteParams::background()
        };
        let resource = which.resource();
        let api = self.api(namespace, &resource);
        let what = || format!("delete {} {name}", which.kind());
        match self.write(what, api.delete(name, &parameters)).await {
            Err(Error::Failed(_, kube::Error::Api(status))) if status.is_not_found() => Ok(()),
            Err(error) => Err(self.explained(error, namespace, &resource, name, &["delete"]).await),
            Ok(_deleted) => {
                info!(namespace, kind = which.kind(), name, reason = why, "deleted");
                Ok(())
            }
        }
    }

    /// A 403 is either a right that this operator lacks, which the cluster's admin mends, or admission's no (a webhook, a
    /// policy, a quota), which the agent's user mends. Their texts can be alike; the server says whether there is the right.
    async fn explained(
        &self,
        error: Error,
        namespace: &str,
        resource: &ApiResource,
        name: &str,
        verbs: &[&str],
    ) -> Error {
        match error {
            Error::Failed(what, kube::Error::Api(status)) if status.code == 403 => {
                for verb in verbs {
                    if !self.may(namespace, resource, name, verb).await {
                        return Error::Failed(what, kube::Error::Api(status));
                    }
                }
                Error::Rejected(what, status)
            }
            other => other,
        }
    }

    /// Whether this operator may follow workloads that host sidecars, in a namespace or in all. `None`: the server does not
    /// say.
    pub(crate) async fn may_follow_hosts(&self, namespace: Option<&str>) -> Option<bool> {
        let mut is_allowed = true;
        for kind in HostKind::ALL {
            let resource = host_resource(kind);
            let attributes = attributes(namespace, &resource, None, "watch");
            is_allowed &= self.is_granted(attributes).await?;
        }
        Some(is_allowed)
    }

    /// Whether this operator is known to have a right.
    async fn may(&self, namespace: &str, resource: &ApiResource, name: &str, verb: &str) -> bool {
        let attributes = attributes(Some(namespace), resource, Some(name), verb);
        self.is_granted(attributes).await == Some(true)
    }

    async fn is_granted(&self, attributes: ResourceAttributes) -> Option<bool> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                non_resource_attributes: None,
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        match timeout(PATIENCE, api.create(&PostParams::default(), &review)).await.ok()? {
            Ok(review) => Some(review.status?.allowed),
            // Who may not even ask has been taken the rights that everybody has.
            Err(kube::Error::Api(status)) if status.code == 403 => Some(false),
            Err(_other) => None,
        }
    }

    /// Writes a status, if the agent is still as it was. Its resourceVersion afterwards.
    pub(crate) async fn write_status(
        &self,
        key: &Key,
        resource_version: Option<&str>,
        status: &SiemAgentStatus,
        why: &str,
    ) -> Result<Option<String>, Error> {
        let Key { namespace, name } = key;
        let patch = json!({
            "apiVersion": SiemAgent::api_version(&()),
            "kind": SiemAgent::kind(&()),
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": resource_version},
            "status": status,
        });
        let api = self.api(namespace, &ApiResource::erase::<SiemAgent>(&()));
        let parameters = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&patch);
        let what = || format!("write the status of {name}");
        let written = self.write(what, api.patch_status(name, &parameters, &patch)).await?;
        info!(namespace, kind = "SiemAgent", name, reason = why, "status written");
        Ok(written.metadata.resource_version)
    }

    /// Makes an Event.
    pub(crate) async fn create_event(
        &self,
        namespace: &str,
        event: &k8s_openapi::api::events::v1::Event,
    ) -> Result<(), Error> {
        let api = Api::namespaced(self.client.clone(), namespace);
        let parameters =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let create = api.create(&parameters, event);
        let made = self.write(|| "make an Event".to_owned(), create).await?;
        let name = made.metadata.name.as_deref();
        info!(namespace, kind = "Event", name, reason = made.reason.as_deref(), "created");
        Ok(())
    }

    async fn get(
        &self,
        namespace: &str,
        resource: &ApiResource,
        name: &str,
        parameters: &GetParams,
    ) -> Result<Option<DynamicObject>, Error> {
        let what = || format!("read {} {name}", resource.kind);
        let api = self.api(namespace, resource);
        match timeout(PATIENCE, api.get_with(name, parameters)).await {
            Err(_elapsed) => Err(Error::TimedOut(what())),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Ok(None),
            Ok(answer) => answer.map(Some).map_err(|error| refused(what(), error)),
        }
    }

    /// The fence: nothing is sent unless this operator leads.
    async fn write<T>(
        &self,
        what: impl Fn() -> String,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        if !self.leadership.is_leader() {
            return Err(Error::NotLeading);
        }
        match timeout(PATIENCE, call).await {
            Err(_elapsed) => Err(Error::TimedOut(what())),
            Ok(answer) => answer.map_err(|error| refused(what(), error)),
        }
    }

    fn api(&self, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, resource)
    }
}

fn attributes(
    namespace: Option<&str>,
    resource: &ApiResource,
    name: Option<&str>,
    verb: &str,
) -> ResourceAttributes {
    ResourceAttributes {
        group: Some(resource.group.clone()),
        resource: Some(resource.plural.clone()),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    }
}

fn refused(what: String, error: kube::Error) -> Error {
    match error {
        // Both are a 409: another version of it is there, or it is there already.
        kube::Error::Api(status) if status.code == 409 => Error::Conflict(what, status),
        kube::Error::Api(status) if matches!(status.code, 400 | 422) || is_untyped(&status) => {
            Error::Rejected(what, status)
        }
        other => Error::Failed(what, other),
    }
}

/// An object that its type does not have, such as one with a field of another name: the server cannot begin to apply it,
/// and says so with 500 (`k8s.io/apimachinery/pkg/util/managedfields`, `typed patch object`).
fn is_untyped(status: &Status) -> bool {
    status.code == 500 && status.message.contains("failed to create typed patch object")
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use tower::service_fn;

    use super::*;

    /// A server that answers everything with this code.
    fn answering(code: u16) -> Server {
        let service = service_fn(move |_: Request<Body>| async move {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
            Response::builder().status(code).body(Body::from(status.to_string().into_bytes()))
        });
        Server::new(Client::new(service, "default"), Arc::new(Leadership::new()))
    }

    /// Not everywhere has everybody the right to ask for their own (`system:basic-user`).
    #[tokio::test]
    async fn an_operator_that_may_not_even_ask_for_its_rights_goes_on_without_them() {
        assert_eq!(answering(403).may_follow_hosts(None).await, Some(false));
        assert_eq!(answering(500).may_follow_hosts(None).await, None, "asked again");
    }
}
