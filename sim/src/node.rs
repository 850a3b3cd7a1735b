//! A light stand-in for scheduler and kubelet: binds the pods of one namespace and runs them as processes, without root.
//!
//! It claims no more fidelity than this:
//! - A container is one process in a user and mount namespace of its own: a root of its own with the host's `/usr`, the
//!   image's program and the pod's volumes at their real mount paths, and nothing else of the machine ([`Image`]).
//! - All pods share the host's network, so that they reach what a test listens with on loopback. Each pod has an address
//!   of its own, 127.a.b.n or the one `::1`, and must listen there and not on any: an image's entry in the table says with
//!   which arguments, `$(POD_IP)` in them stands for the address. The lowest free address is given, so addresses are reused.
//! - Volumes: Secret, ConfigMap, projected and downward API with the `..data` swap, changed only after a delay that the
//!   test sets; emptyDir and claims as folders. Required ones that are missing keep the pod waiting.
//! - Init containers, native sidecars, httpGet probes, restarts with back-off, SIGTERM and SIGKILL, and the pod's status
//!   as a kubelet writes it. What it does not know keeps the container from being made, with a reason that says so.
//! - No events, limits, users, NetworkPolicies or images; a real kubelet is the judge of those.
//!
//! It must never touch pods of another namespace.

mod container;
mod content;
mod environment;
mod pod;
mod probe;
mod sandbox;
mod schedule;
mod status;
mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node as NodeObject, PersistentVolumeClaim, Pod, Secret,
};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::control_plane::{ControlPlane, User};
use crate::leash;

pub(crate) use schedule::{ELSEWHERE, bind, is_elsewhere};

/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(50);
/// A node whose Lease is older than 40 s is given up by the controller manager.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What an image's name stands for.
#[derive(Clone, Debug)]
pub struct Image {
    /// The program on this machine; in the container it stands in `/`.
    pub program: PathBuf,
    /// Appended to the container's own arguments; `$(POD_IP)` is the pod's address.
    pub arguments: Vec<String>,
}

/// How a stand-in behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The images that can be pulled.
    pub images: BTreeMap<String, Image>,
    /// How long after their change Secrets and ConfigMaps change in running pods; a minute or more on a real node.
    pub mount_delay: Duration,
    /// What a container waits after its second crash; doubled by each further one, up to ten times this. 10 s on a real node.
    pub back_off: Duration,
    /// Whether its pods have an IPv6 address alone: `::1`, so that one can run at a time.
    pub is_ipv6: bool,
    /// Labels besides `kubernetes.io/hostname`.
    pub labels: BTreeMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            images: BTreeMap::new(),
            mount_delay: Duration::from_millis(500),
            back_off: Duration::from_millis(500),
            is_ipv6: false,
            labels: BTreeMap::new(),
        }
    }
}

/// A running stand-in; its pods' processes end with it.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    run: Option<JoinHandle<()>>,
    watches: Vec<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in self.run.iter().chain(&self.watches) {
            task.abort();
        }
    }
}

/// What the parts of a stand-in have in common.
struct Shared {
    name: String,
    namespace: String,
    folder: TempDir,
    client: Client,
    http: reqwest::Client,
    pods: Store<Pod>,
    secrets: Store<Secret>,
    config_maps: Store<ConfigMap>,
    claims: Store<PersistentVolumeClaim>,
    options: Mutex<Options>,
    /// Process ids by pod and container.
    running: Mutex<BTreeMap<(String, String), u32>>,
    addresses: Mutex<Addresses>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "stand-in {} of {}", self.name, self.namespace)
    }
}

/// 127.a.b.1 to 127.a.b.254, held against other stand-ins on this machine by a socket on 127.a.b.255.
struct Addresses {
    of: [u8; 2],
    taken: BTreeSet<u8>,
    _held: UdpSocket,
}

impl Node {
    /// Starts one for a namespace and waits until it sees its pods.
    ///
    /// # Errors
    /// When user namespaces are not to be had on this machine, or the API server does not answer.
    pub async fn start(plane: &ControlPlane, namespace: &str, options: Options) -> Result<Self> {
        let sandbox = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "true"])
            .output()
            .context("run unshare (Debian's util-linux)")?;
        ensure!(
            sandbox.status.success(),
            "pods need user namespaces, which this machine refuses (on Ubuntu: sysctl \
             kernel.apparmor_restrict_unprivileged_userns=0): {}",
            String::from_utf8_lossy(&sandbox.stderr).trim_end()
        );
        let folder = tempfile::Builder::new().prefix("siem-node-").tempdir()?;
        leash::folder(folder.path())?;
        let client = plane.client_as(User::Node).await?;
        let mut watches = Vec::new();
        let shared = Arc::new(Shared {
            name: format!("stand-in-{namespace}"),
            namespace: namespace.to_owned(),
            folder,
            http: reqwest::Client::builder()
                .no_proxy()
                .user_agent("kube-probe/stand-in")
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
            pods: follow(&client, namespace, &mut watches),
            secrets: follow(&client, namespace, &mut watches),
            config_maps: follow(&client, namespace, &mut watches),
            claims: follow(&client, namespace, &mut watches),
            client,
            options: Mutex::new(options),
            running: Mutex::default(),
            addresses: Mutex::new(Addresses::claim()?),
        });
        shared.pods.wait_until_ready().await?;
        shared.secrets.wait_until_ready().await?;
        shared.config_maps.wait_until_ready().await?;
        shared.claims.wait_until_ready().await?;
        shared.register().await?;
        let (stop, stopped) = watch::channel(false);
        let run = Some(tokio::spawn(run(Arc::clone(&shared), stopped)));
        Ok(Self { shared, stop, run, watches })
    }

    /// Its name in the API.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// From here on Secrets and ConfigMaps change in pods so long after their change.
    pub fn set_mount_delay(&self, delay: Duration) {
        self.shared.options().mount_delay = delay;
    }

    /// From here on this image can be pulled.
    pub fn add_image(&self, name: &str, image: Image) {
        self.shared.options().images.insert(name.to_owned(), image);
    }

    /// What a container has printed so far, over all its restarts.
    ///
    /// # Errors
    /// When it never started.
    pub fn log(&self, pod: &str, container: &str) -> Result<String> {
        let path = self.shared.log(pod, container);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// The process id of a container, while it runs.
    pub fn pid(&self, pod: &str, container: &str) -> Option<u32> {
        self.shared.running().get(&(pod.to_owned(), container.to_owned())).copied()
    }

    /// The folder of a pod's volume, by the pod's UID, to look into it or to break it.
    pub fn volume(&self, pod_uid: &str, volume: &str) -> PathBuf {
        self.shared.pod_folder(pod_uid).join("volumes").join(volume)
    }

    /// The folder of a claim.
    pub fn claim(&self, name: &str) -> PathBuf {
        self.shared.claim_folder(name)
    }

    /// Ends every process at once, as a machine does that loses its power; nothing runs until [`Self::resume`].
    ///
    /// # Errors
    /// When it ended by itself before.
    pub async fn halt(&mut self) -> Result<()> {
        let run = self.run.take().context("the stand-in does not run")?;
        self.stop.send_replace(true);
        run.await.context("end the stand-in")
    }

    /// Starts again after [`Self::halt`]; pods keep their folders, and their containers count a restart.
    ///
    /// # Errors
    /// When it runs.
    pub fn resume(&mut self) -> Result<()> {
        if self.run.is_some() {
            bail!("the stand-in runs");
        }
        self.stop.send_replace(false);
        self.run = Some(tokio::spawn(run(Arc::clone(&self.shared), self.stop.subscribe())));
        Ok(())
    }
}

/// Binds what is pending, and has a worker for each pod of this node.
async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut workers = JoinSet::new();
    let mut seen = BTreeSet::new();
    let mut beaten: Option<Instant> = None;
    while !*stop.borrow_and_update() {
        if beaten.is_none_or(|at| at.elapsed() >= HEARTBEAT) && shared.heartbeat().await.is_ok() {
            beaten = Some(Instant::now());
        }
        for pod in shared.pods.state() {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            match bound {
                None => schedule::schedule(&shared, &pod).await,
                Some(node) if node == shared.name && seen.insert(uid.clone()) => {
                    workers.spawn(pod::Worker::new(Arc::clone(&shared), uid, &pod).run());
                }
                Some(_) => {}
            }
        }
        while workers.try_join_next().is_some() {}
        tokio::select! {
            () = sleep(TICK) => {}
            _ = stop.changed() => {}
        }
    }
    workers.shutdown().await;
}

pub(crate) fn follow<K>(
    client: &Client,
    namespace: &str,
    watches: &mut Vec<JoinHandle<()>>,
) -> Store<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let stream =
        watcher(Api::<K>::namespaced(client.clone(), namespace), watcher::Config::default())
            .default_backoff()
            .reflect(writer);
    watches.push(tokio::spawn(stream.for_each(async |_| {})));
    store
}

impl Shared {
    fn options(&self) -> MutexGuard<'_, Options> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<(String, String), u32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pod_folder(&self, uid: &str) -> PathBuf {
        self.folder.path().join("pods").join(uid)
    }

    fn claim_folder(&self, name: &str) -> PathBuf {
        self.folder.path().join("claims").join(name)
    }

    fn log(&self, pod: &str, container: &str) -> PathBuf {
        self.folder.path().join("logs").join(format!("{pod}_{container}.log"))
    }

    fn pods_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.options().labels.clone();
        labels.insert("kubernetes.io/hostname".to_owned(), self.name.clone());
        labels
    }

    /// Makes the Node object, without which the controller manager would remove its pods.
    async fn register(&self) -> Result<()> {
        let api: Api<NodeObject> = Api::all(self.client.clone());
        let now = status::now();
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels()},
        });
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "stand-in",
                "lastHeartbeatTime": now, "lastTransitionTime": now,
            }],
            "nodeInfo": {
                "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "stand-in", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
            },
        }});
        api.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    async fn heartbeat(&self) -> Result<()> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let now = jiff::Timestamp::from_millisecond(clock::millis())?;
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")},
        });
        let apply = PatchParams::apply("stand-in").force();
        api.patch(&self.name, &apply, &Patch::Apply(&lease)).await?;
        Ok(())
    }

    fn take_address(&self) -> Result<IpAddr> {
        let is_ipv6 = self.options().is_ipv6;
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if is_ipv6 {
            ensure!(addresses.taken.insert(0), "the one IPv6 address of the stand-in is taken");
            return Ok(Ipv6Addr::LOCALHOST.into());
        }
        let [a, b] = addresses.of;
        let free = (1..=254).find(|at| !addresses.taken.contains(at));
        let last = free.context("all 254 addresses of the stand-in are taken")?;
        addresses.taken.insert(last);
        Ok(Ipv4Addr::new(127, a, b, last).into())
    }

    fn free_address(&self, address: IpAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(_) => 0,
        };
        addresses.taken.remove(&number);
    }
}

impl Addresses {
    fn claim() -> Result<Self> {
        // Where the search begins is spread over processes; the socket decides.
        let first = std::process::id().wrapping_mul(16);
        for n in 0..50_000_u32 {
            let [_, _, a, b] = (first.wrapping_add(n) % 50_000 + 0x1000).to_be_bytes();
            if let Ok(held) = UdpSocket::bind((Ipv4Addr::new(127, a, b, 255), 9464)) {
                return Ok(Self { of: [a, b], taken: BTreeSet::new(), _held: held });
            }
        }
        bail!("no loopback addresses are free")
    }
}

fn make_folder(path: &Path) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|error| format!("create {}: {error}", path.display()))
}
