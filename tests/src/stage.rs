//! What a user of the operator has, on a real node: the operator as a container from its image with exactly the rights of
//! `operator/rbac.yaml`, in a namespace under restricted pod security, a portal over TLS and its CA, and receivers.
//!
//! It must never help: what the operator and the forwarders do, they do by their images and the manifests alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::scene::Scene;
use siem_agent_sim::arrival::{self, Receiver as _};
use siem_agent_sim::defender::{Defender, NAME_FOR_PODS, Options};
use siem_agent_sim::forwarder::LOOK;
use siem_agent_sim::images::Images;
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::ACCOUNT;
use siem_agent_sim::pki::Authority;
use siem_agent_sim::real_node::{ADDRESS, RealNode};
use siem_agent_sim::rsyslog::{Input, Rsyslog};

/// A Secret takes up to a minute and a half, what is tried again after a pause a few minutes, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// An operator at work on a real node.
#[derive(Debug)]
pub struct Stage {
    /// The node.
    pub node: &'static RealNode,
    /// The namespace of everything.
    pub scene: Scene,
    /// The portal.
    pub portal: Defender,
    /// What the node knows the images by.
    pub images: &'static Images,
    receivers: BTreeMap<String, Rsyslog>,
}

impl Stage {
    /// Starts everything but agents and their Secrets, and waits until the operator is ready.
    ///
    /// # Errors
    /// When it does not come about, with what the operator said.
    pub async fn new(node: &'static RealNode, portal: Options) -> Result<Self> {
        static IMAGES: OnceCell<Images> = OnceCell::const_new();
        let import = async || {
            let images = Images::build().await?;
            node.import(&images.operator).await?;
            node.import(&images.forwarder).await?;
            anyhow::Ok(images)
        };
        let images = IMAGES.get_or_try_init(import).await?;
        let scene = Scene::on(node.plane(), PATIENCE).await?;
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        scene.kubectl(&["label", "namespace", &scene.namespace, enforce], "").await?;
        let authority = Authority::new("portal")?;
        let portal = Defender::start(Options {
            listen: (ADDRESS, 0).into(),
            tls: Some(authority.server(&[NAME_FOR_PODS, &ADDRESS.to_string()])?),
            budget: 0,
            graph_budget: 0,
            hunting_budget: 0,
            ..portal
        })
        .await?;
        let bundle = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "portal-ca"},
            "data": {"ca.crt": authority.certificate()},
        });
        let operator = operator(&scene.namespace, images);
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [bundle, operator]});
        scene.kubectl(&["apply", "-f", "-"], &objects.to_string()).await?;
        let stage = Self { node, scene, portal, images, receivers: BTreeMap::new() };
        let available =
            ["wait", "deployment/operator", "--for=condition=Available", "--timeout=120s"];
        if let Err(error) = stage.scene.kubectl(&available, "").await {
            let log = stage.scene.kubectl(&["logs", "deployment/operator"], "").await;
            return Err(error.context(log.unwrap_or_else(|error| error.to_string())));
        }
        Ok(stage)
    }

    /// Sets the token in the Secret `defender`.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn token(&self, token: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "defender"},
            "stringData": {"token": token},
        });
        self.scene.kubectl(&["apply", "-f", "-"], &secret.to_string()).await.map(drop)
    }

    /// Applies an agent, with these lines more below `spec` (indented by two), and starts its receiver when it is the first
    /// time.
    ///
    /// # Errors
    /// When rsyslog does not start or the API server does not take it.
    pub async fn apply(&mut self, name: &str, more: &str) -> Result<()> {
        let url = self.portal.url();
        self.apply_with(name, &url, "siem.siem.test", more).await
    }

    /// The same for a pod that also has to run where nobody resolves names: on a stand-in for another node.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn apply_by_address(&mut self, name: &str) -> Result<()> {
        let url = format!("https://{ADDRESS}:{}", self.portal.address().port());
        self.apply_with(name, &url, &ADDRESS.to_string(), "").await
    }

    async fn apply_with(&mut self, name: &str, url: &str, host: &str, more: &str) -> Result<()> {
        self.receive(name).await?;
        let port = self.receiver(name)?.port;
        let manifest = Manifest::new(name)
            .url(url)
            .and_source("caBundleRef: {kind: ConfigMap, name: portal-ca, key: ca.crt}")
            .cloud_apps("requestsPerMinute: 6000, pollInterval: 1s, overlap: 5m")
            .to(host, port)
            .more(more);
        self.scene.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await.map(drop)
    }

    /// Applies an agent that reads everything from Graph and is who its pod is, by a token for this audience: there is no
    /// Secret. Starts its receiver when it is the first time.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn apply_by_identity(&mut self, name: &str, audience: &str) -> Result<()> {
        self.receive(name).await?;
        let url = self.portal.url();
        let source = json!({
            "graph": {"url": url, "requestsPerMinute": 6000, "pollInterval": "1s", "overlap": "5m"},
            "auth": {"clientCredentials": {
                "tenantId": "contoso.com", "clientId": "00000000-0000-0000-0000-000000000000",
                "workloadIdentity": {"audience": audience}, "authorityUrl": url,
            }},
            "caBundleRef": {"kind": "ConfigMap", "name": "portal-ca", "key": "ca.crt"},
        });
        let manifest = json!({
            "apiVersion": "siemagent.dev/v1alpha1", "kind": "SiemAgent", "metadata": {"name": name},
            "spec": {"source": source, "syslog": {"host": "siem.siem.test", "port": self.receiver(name)?.port}},
        });
        self.scene.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await.map(drop)
    }

    /// Makes the identity provider trust an agent's ServiceAccount, with what the API server itself publishes of its
    /// issuer and its keys: the application has a federated credential for this audience.
    ///
    /// # Errors
    /// When the API server does not publish it.
    pub async fn federate(&self, name: &str, audience: &str) -> Result<()> {
        let published = async |path: &str| self.scene.kubectl(&["get", "--raw", path], "").await;
        let discovery = published("/.well-known/openid-configuration").await?;
        let discovery: Value = serde_json::from_str(&discovery)?;
        let issuer = discovery["issuer"].as_str().context("the issuer's name")?;
        let subject = format!("system:serviceaccount:{}:{name}-forwarder", self.scene.namespace);
        self.portal.trust(issuer, &published("/openid/v1/jwks").await?, &subject, audience)
    }

    /// Starts an agent's receiver when it is the first time.
    async fn receive(&mut self, name: &str) -> Result<()> {
        if !self.receivers.contains_key(name) {
            let receiver = Rsyslog::start_at(ADDRESS, Input::Tcp).await?;
            self.receivers.insert(name.to_owned(), receiver);
        }
        Ok(())
    }

    /// An agent's receiver.
    ///
    /// # Errors
    /// When it has none.
    pub fn receiver(&self, name: &str) -> Result<&Rsyslog> {
        self.receivers.get(name).with_context(|| format!("{name} has no receiver"))
    }

    /// An agent's pod that is not on its way out.
    ///
    /// # Errors
    /// When there is none.
    pub async fn pod(&self, name: &str) -> Result<Value> {
        let pods = self.scene.pods(&format!("siemagent.dev/name={name}")).await?;
        let alive = pods.into_iter().find(|pod| {
            let has_ended = ["Failed", "Succeeded"]
                .contains(&pod["status"]["phase"].as_str().unwrap_or_default());
            pod["metadata"]["deletionTimestamp"].is_null() && !has_ended
        });
        alive.with_context(|| format!("{name} has no pod"))
    }

    /// The file with the ServiceAccount token that says who a pod is, as the kubelet keeps it: in memory, on a mount that
    /// the kubelet's process alone sees.
    ///
    /// # Errors
    /// When no kubelet of this node runs.
    pub fn identity(&self, pod: &Value) -> Result<PathBuf> {
        let folder = self.node.folder().display().to_string();
        let is_kubelet = |process: &Path| {
            let words = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
            let program = words.split('\0').next().unwrap_or_default();
            program.ends_with("/kubelet") && words.contains(&folder)
        };
        let mut processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let kubelet = processes.find(|process| is_kubelet(process)).context("find the kubelet")?;
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let file = format!(
            "root{folder}/kubelet/pods/{uid}/volumes/kubernetes.io~projected/identity/token"
        );
        Ok(kubelet.join(file))
    }

    /// Waits until the agent has another pod than this one, and it is ready.
    ///
    /// # Errors
    /// When it does not come about in time.
    pub async fn until_another_pod(&self, name: &str, than: &Value) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let pod = self.pod(name).await;
            if let Ok(pod) = &pod
                && pod["metadata"]["uid"] != than["metadata"]["uid"]
                && pod["status"]["containerStatuses"][0]["ready"] == true
            {
                return Ok(pod.clone());
            }
            ensure!(Instant::now() < until, "{name} has no other pod: {pod:?}");
            sleep(LOOK).await;
        }
    }

    /// Waits until all that the portal has made is at the agent's receiver; gives how many came more than once.
    ///
    /// # Errors
    /// When something does not arrive.
    pub async fn until_all_arrived(&self, name: &str) -> Result<usize> {
        let receiver = self.receiver(name)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let counts = arrival::counts(&receiver.lines()?);
            let missing = arrival::missing(&self.portal, &counts);
            let Some(first) = missing.first() else {
                return Ok(counts.values().filter(|count| **count > 1).count());
            };
            if Instant::now() > until {
                let agent = self.scene.get(&format!("siemagent/{name}")).await?.unwrap_or_default();
                bail!("{} of {name} lost, such as {first}: {:#}", missing.len(), agent["status"]);
            }
            sleep(LOOK).await;
        }
    }
}

/// The operator's Deployment, as under restricted pod security.
fn operator(namespace: &str, images: &Images) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "operator"},
        "spec": {
            "selector": {"matchLabels": {"app": "operator"}},
            "template": {
                "metadata": {"labels": {"app": "operator"}},
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "operator",
                        "image": images.operator_name,
                        "args": ["run", "--namespace", namespace, "--forwarder-image", images.forwarder_name],
                        "env": [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
                        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1},
                        "resources": {"limits": {"memory": "128Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    })
}
