//! A namespace of the control plane with what an operator needs in it, and words to look at it with.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use siem_agent_sim::control_plane::{ControlPlane, Request};
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::kubectl::Kubectl;
use siem_agent_sim::operator::Place;

use crate::api_client::ApiClient;
use crate::turn::{self, Turn};

/// A world for an operator in a namespace of its own.
#[derive(Debug)]
pub struct Scene {
    /// The control plane.
    pub plane: &'static ControlPlane,
    /// Its namespace.
    pub namespace: String,
    /// The operator's account.
    pub place: Place,
    kubectl: Kubectl,
    client: ApiClient,
    patience: Duration,
    _turn: Option<Turn>,
}

impl Scene {
    /// Makes a namespace, and an account for the operator in it.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn new() -> Result<Self> {
        Self::in_turn(turn::beside().await).await
    }

    /// The same while no other test of this binary has a scene.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn alone() -> Result<Self> {
        Self::in_turn(turn::alone().await).await
    }

    async fn in_turn(turn: Turn) -> Result<Self> {
        let scene = Self::on(ControlPlane::shared().await?, PATIENCE).await?;
        Ok(Self { _turn: Some(turn), ..scene })
    }

    /// The same on another control plane, where things take longer.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn on(plane: &'static ControlPlane, patience: Duration) -> Result<Self> {
        let namespace = plane.namespace().await?;
        let place = Place::new(plane, &namespace).await?;
        let (kubectl, client) = (plane.kubectl()?, ApiClient(plane.client().await?));
        Ok(Self { plane, place, kubectl, client, namespace, patience, _turn: None })
    }

    /// kubectl in the namespace, as admin.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let inside = format!("--namespace={}", self.namespace);
        let arguments: Vec<&str> =
            [inside.as_str()].into_iter().chain(arguments.to_vec()).collect();
        self.kubectl.run(&arguments, stdin).await
    }

    /// An object, such as `deployment/soc-forwarder`, or a list, such as `deployments`, whose items do not say their kind.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn get(&self, what: &str) -> Result<Option<Value>> {
        let (kind, name) = what.split_once('/').unwrap_or((what, ""));
        let (group, plural) = place(kind).with_context(|| format!("{kind} is not known here"))?;
        let path = format!("/{group}/namespaces/{}/{plural}/{name}", self.namespace);
        self.raw(path.trim_end_matches('/')).await
    }

    /// The pods with this label, `key=value`.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, label: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/namespaces/{}/pods?labelSelector={label}", self.namespace);
        let list = self.raw(&path).await?.context("list pods")?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// What the API server has at a path; `None` where it has nothing.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn raw(&self, path: &str) -> Result<Option<Value>> {
        self.client.get(path).await
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + self.patience;
        loop {
            let seen = self.get(what).await?;
            if let Some(seen) = &seen
                && is(seen)
            {
                return Ok(seen.clone());
            }
            if Instant::now() > until {
                bail!("{what} does not become what is expected: {seen:#?}");
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until an object is gone.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn until_gone(&self, what: &str) -> Result<()> {
        let until = Instant::now() + self.patience;
        while let Some(seen) = self.get(what).await? {
            ensure!(Instant::now() < until, "{what} does not go: {seen:#}");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until the agent's Ready has this reason for its present generation.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn until_ready_is(&self, name: &str, reason: &str) -> Result<Value> {
        self.until(&format!("siemagent/{name}"), |agent| {
            let ready = condition(agent, "Ready");
            ready["reason"] == reason
                && ready["observedGeneration"] == agent["metadata"]["generation"]
        })
        .await
    }

    /// What the operator has asked to change since a position, Lease apart.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub fn writes_since(&self, position: u64) -> Result<Vec<Request>> {
        let user = self.place.user();
        let requests = self.plane.requests_since(position)?;
        let is_write = |request: &Request| {
            request.user == user && request.writes() && request.resource != "leases"
        };
        Ok(requests.into_iter().filter(is_write).collect())
    }

    /// Waits until the operator has sent no write for so long.
    ///
    /// # Errors
    /// When the API server does not answer, or it does not come about in time.
    pub async fn until_quiet(&self, quiet: Duration) -> Result<()> {
        let until = Instant::now() + self.patience;
        let mut position = self.plane.audit_position()?;
        let (mut since, mut last) = (Instant::now(), Vec::new());
        while since.elapsed() < quiet {
            ensure!(Instant::now() < until, "the operator does not come to rest: {last:?}");
            sleep(LOOK).await;
            let writes = self.writes_since(position)?;
            if !writes.is_empty() {
                last = writes;
                position = self.plane.audit_position()?;
                since = Instant::now();
            }
        }
        Ok(())
    }
}

/// Where the API server has objects of a kind, by its name in any case, in singular or plural.
fn place(kind: &str) -> Option<(&'static str, String)> {
    let kind = kind.to_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{}s", kind.trim_end_matches('s')),
    };
    let group = match plural.as_str() {
        "configmaps"
        | "persistentvolumeclaims"
        | "pods"
        | "resourcequotas"
        | "secrets"
        | "serviceaccounts" => "api/v1",
        "deployments" | "statefulsets" => "apis/apps/v1",
        "networkpolicies" => "apis/networking.k8s.io/v1",
        "siemagents" => "apis/siemagent.dev/v1alpha1",
        _ => return None,
    };
    Some((group, plural))
}

/// A condition of an agent; null where there is none.
pub fn condition(agent: &Value, type_: &str) -> Value {
    let conditions = agent["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or(Value::Null)
}
