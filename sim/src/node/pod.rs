//! One pod's worker: volumes, init containers and sidecars in their order, containers, the status, and the end.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::container::{Again, Container, Ended, Surroundings};
use super::content::Sources;
use super::status::{self, Known, status};
use super::volume::Mounted;
use super::{Shared, TICK};

pub(super) struct Worker {
    shared: Arc<Shared>,
    uid: String,
    name: String,
    folder: PathBuf,
    address: Result<IpAddr, String>,
    start_time: String,
    mounted: Option<BTreeMap<String, Mounted>>,
    /// With whether it is a sidecar.
    inits: Vec<(Container, bool)>,
    containers: Vec<Container>,
    again: Again,
    is_initialized: bool,
    tokens: BTreeMap<String, String>,
    published: Value,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, uid: String, pod: &Pod) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let before = pod.status.clone().unwrap_or_default();
        let why = if spec.init_containers.as_ref().is_some_and(|inits| !inits.is_empty()) {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        let inits = spec.init_containers.into_iter().flatten().map(|container| {
            let is_sidecar = container.restart_policy.as_deref() == Some("Always");
            let statuses = before.init_container_statuses.as_deref();
            (resumed(Container::new(container, "PodInitializing"), statuses), is_sidecar)
        });
        let statuses = before.container_statuses.as_deref();
        let containers = spec
            .containers
            .into_iter()
            .map(|container| resumed(Container::new(container, why), statuses));
        let address = match before.pod_ip.as_deref().and_then(|address| address.parse().ok()) {
            Some(address) => Ok(address),
            None => shared.take_address().map_err(|error| error.to_string()),
        };
        let now = status::now();
        Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            folder: shared.pod_folder(&uid),
            address,
            start_time: before.start_time.map_or(now, |time| format!("{:.0}", time.0)),
            mounted: None,
            inits: inits.collect(),
            containers: containers.collect(),
            again: match spec.restart_policy.as_deref() {
                Some("Never") => Again::Never,
                Some("OnFailure") => Again::OnFailure,
                _ => Again::Always,
            },
            is_initialized: false,
            tokens: BTreeMap::new(),
            published: Value::Null,
            shared,
            uid,
        }
    }

    /// Until the pod is gone.
    pub(super) async fn run(mut self) {
        while let Some(pod) = self.pod() {
            if pod.metadata.deletion_timestamp.is_some() {
                self.terminate(&pod).await;
                break;
            }
            self.look(&pod).await;
            self.publish(&pod).await;
            sleep(TICK).await;
        }
        for container in self.inits.drain(..).map(|(init, _)| init).chain(self.containers.drain(..))
        {
            let key = (self.name.clone(), container.spec.name.clone());
            drop(container);
            self.shared.running().remove(&key);
        }
        if let Ok(address) = self.address {
            self.shared.free_address(address);
        }
        // Nobody writes into it any more; what stays goes with the stand-in's folder.
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn pod(&self) -> Option<Arc<Pod>> {
        self.shared.pods.find(|pod| pod.metadata.uid.as_deref() == Some(&self.uid))
    }

    async fn look(&mut self, pod: &Pod) {
        let now = Instant::now();
        let spec = pod.spec.clone().unwrap_or_default();
        let address = match &self.address {
            Ok(address) => *address,
            Err(error) => return self.wait_all("ContainerCreating", &error.clone()),
        };
        self.fetch_tokens(&spec).await;
        let shared = Arc::clone(&self.shared);
        let (secrets, config_maps) = (shared.secrets.state(), shared.config_maps.state());
        let tokens = self.tokens.clone();
        let sources =
            Sources { pod, address, secrets: &secrets, config_maps: &config_maps, tokens: &tokens };
        if let Err(message) = self.mount(&spec, &sources, now) {
            return self.wait_all("ContainerCreating", &message);
        }
        let volumes: BTreeMap<String, PathBuf> = self
            .mounted
            .iter()
            .flatten()
            .map(|(name, mounted)| (name.clone(), mounted.folder.clone()))
            .collect();
        let lookup = |kind: &'static str, name: &str, key: &str| {
            let data =
                sources.data(kind, name).ok_or_else(|| format!("{kind} \"{name}\" not found"))?;
            Ok(data.get(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        };
        let around = Surroundings {
            shared: &shared,
            pod,
            folder: &self.folder,
            address,
            volumes: &volumes,
            lookup: &lookup,
        };
        let init_again = if self.again == Again::Never { Again::Never } else { Again::OnFailure };
        let mut is_initialized = true;
        for (init, is_sidecar) in &mut self.inits {
            let again = if *is_sidecar { Again::Always } else { init_again };
            if is_initialized || (*is_sidecar && self.is_initialized) {
                init.look(&around, again, now).await;
            }
            is_initialized &= if *is_sidecar { init.started } else { init.has_succeeded() };
        }
        // Once is enough: a sidecar that starts again does not take the pod back.
        self.is_initialized |= is_initialized;
        if self.is_initialized {
            for container in &mut self.containers {
                container.look(&around, self.again, now).await;
            }
        }
    }

    fn mount(&mut self, spec: &PodSpec, sources: &Sources<'_>, now: Instant) -> Result<(), String> {
        let delay = self.shared.options().mount_delay;
        if let Some(mounted) = &mut self.mounted {
            for volume in spec.volumes.iter().flatten() {
                if let Some(mounted) = mounted.get_mut(&volume.name)
                    && let Ok(content) = sources.content(volume)
                {
                    mounted.refresh(content, delay, now)?;
                }
            }
            return Ok(());
        }
        // All or none: what has been made before a missing one is made again.
        let mut contents = Vec::new();
        for volume in spec.volumes.iter().flatten() {
            contents.push((volume.name.clone(), sources.content(volume)?));
        }
        let mut mounted = BTreeMap::new();
        for (name, content) in contents {
            let folder = self.folder.join("volumes").join(&name);
            let claim = |claim: &str| self.shared.claim_folder(claim);
            mounted.insert(name, Mounted::mount(content, folder, claim)?);
        }
        self.mounted = Some(mounted);
        Ok(())
    }

    fn wait_all(&mut self, reason: &str, message: &str) {
        for container in &mut self.containers {
            if !container.is_running() {
                container.wait(reason, message.to_owned());
            }
        }
    }

    /// Tokens are asked for once: they live longer than a test.
    async fn fetch_tokens(&mut self, spec: &PodSpec) {
        let sources = spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|volume| volume.projected.as_ref())
            .flat_map(|projected| projected.sources.iter().flatten())
            .filter_map(|source| source.service_account_token.as_ref());
        for source in sources {
            let audience = source.audience.clone().unwrap_or_default();
            if self.tokens.contains_key(&audience) {
                continue;
            }
            let accounts: Api<ServiceAccount> =
                Api::namespaced(self.shared.client.clone(), &self.shared.namespace);
            let request = TokenRequest {
                spec: TokenRequestSpec {
                    audiences: (!audience.is_empty())
                        .then(|| audience.clone())
                        .into_iter()
                        .collect(),
                    expiration_seconds: source.expiration_seconds,
                    ..TokenRequestSpec::default()
                },
                ..TokenRequest::default()
            };
            let account = spec.service_account_name.as_deref().unwrap_or("default");
            let answer =
                accounts.create_token_request(account, &PostParams::default(), &request).await;
            if let Some(status) = answer.ok().and_then(|answer| answer.status) {
                self.tokens.insert(audience, status.token);
            }
        }
    }

    async fn publish(&mut self, pod: &Pod) {
        let status = status(&Known {
            pod,
            inits: &self.inits,
            containers: &self.containers,
            again: self.again,
            address: self.address.clone().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            start_time: &self.start_time,
            has_volumes: self.mounted.is_some(),
            is_initialized: self.is_initialized,
        });
        if status != self.published {
            let patch = json!({"metadata": {"uid": self.uid}, "status": status});
            let params = PatchParams::default();
            let written = self
                .shared
                .pods_api()
                .patch_status(&self.name, &params, &Patch::Merge(&patch))
                .await;
            if written.is_ok() {
                self.published = status;
            }
        }
    }

    /// SIGTERM to the containers, then to the sidecars in reverse; SIGKILL when the grace is over; then the object goes.
    async fn terminate(&mut self, pod: &Pod) {
        let began = Instant::now();
        let address = self.address.clone().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let shared = Arc::clone(&self.shared);
        let (volumes, folder) = (BTreeMap::new(), self.folder.clone());
        let lookup = |_: &'static str, _: &str, _: &str| Ok(None);
        let around = Surroundings {
            shared: &shared,
            pod,
            folder: &folder,
            address,
            volumes: &volumes,
            lookup: &lookup,
        };
        // A second deletion may shorten the grace; without the object there is none.
        while let Some(pod) = self.pod() {
            let now = Instant::now();
            let grace =
                pod.metadata.deletion_grace_period_seconds.and_then(|grace| grace.try_into().ok());
            let is_over = now.duration_since(began) >= Duration::from_secs(grace.unwrap_or(30));
            let mut of_all =
                self.containers.iter_mut().chain(self.inits.iter_mut().rev().map(|(init, _)| init));
            let mut n_running = 0;
            // Sidecars one after the other, once all containers have ended.
            let n_containers = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
            for (at, container) in of_all.by_ref().enumerate() {
                container.reap(&around, now);
                if container.is_running() && is_over {
                    container.signal(Signal::SIGKILL);
                }
                if container.is_running() {
                    if at < n_containers || n_running == 0 {
                        container.end(now);
                    }
                    n_running += 1;
                }
            }
            if n_running == 0 {
                break;
            }
            sleep(TICK).await;
        }
        if let Some(pod) = self.pod() {
            self.publish(&pod).await;
        }
        let only_this = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
        let now = DeleteParams::default().grace_period(0).preconditions(only_this);
        while self.pod().is_some() {
            // Gone already, or the server is away for a moment.
            let _ = self.shared.pods_api().delete(&self.name, &now).await;
            sleep(TICK).await;
        }
    }
}

/// A container that ran before the stand-in was halted has been restarted once more.
fn resumed(mut container: Container, before: Option<&[ContainerStatus]>) -> Container {
    let mut before = before.into_iter().flatten();
    let Some(before) = before.find(|before| before.name == container.spec.name) else {
        return container;
    };
    container.n_restarts = before.restart_count;
    let state = before.state.as_ref();
    let started = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        || before.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
    if started {
        let started_at = state
            .and_then(|state| state.running.as_ref()?.started_at.as_ref())
            .map_or_else(status::now, |time| format!("{:.0}", time.0));
        let (reason, finished_at) = ("Unknown".to_owned(), status::now());
        container.last = Some(Ended { code: 255, reason, started_at, finished_at });
    }
    container
}
