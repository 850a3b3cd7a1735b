//! A real node: kubelet, containerd, runc, CNI, kube-proxy, kube-scheduler and CoreDNS beside a control plane of their own,
//! in namespaces of their own, without a way out. It needs root.
//!
//! ```ignore
//! #[test]
//! fn a_pod_runs_on_a_real_node() -> Result<()> {
//!     real_node::run(async |node| {
//!         node.import(&archive).await?;                       // an OCI or Docker archive; pods then find the image
//!         let namespace = node.plane().namespace().await?;
//!         node.plane().kubectl()?.run(&["apply", "-n", &namespace, "-f", "-"], manifest).await?;
//!         // and so on
//!     })
//! }
//! ```
//!
//! - [`run`] puts the test into the node's network namespace: what it starts and what it connects to is there, so that the
//!   other helpers work as they are. A pod's address can be reached, and pods reach what listens on [`ADDRESS`]; loopback
//!   is the test's own. Every name below `siem.test`, such as `portal.siem.test`, is [`ADDRESS`]; no other name exists.
//! - All tests of a binary share one node and isolate by namespace. What breaks the node for others has a binary of its own.
//! - The name of a test that calls [`run`] ends with `on_a_real_node`, by which `tests/run` leaves it out where it is told
//!   so; [`run`] refuses another name.
//! - Secrets and ConfigMaps reach pods at the kubelet's own pace, a minute to a minute and a half after their change.
//! - NetworkPolicies are not enforced: no plugin here does so.
//!
//! It must never reach, nor be reached from, anything outside, and leaves nothing behind: it ends with the test process.

mod cgroups;
mod machine;
mod network;
mod settings;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::control_plane::{ControlPlane, KUBELETS_CLIENT, Site, User};
use crate::forwarder::{LOOK, PATIENCE};
use crate::leash::{self, Leashed};
use crate::programs::programs;
use machine::Machine;
use network::Network;

pub use machine::Service;
pub use network::ADDRESS;

/// The node's name.
pub const NAME: &str = "node";
/// What the name of a test that needs a real node ends with.
pub const MARK: &str = "on_a_real_node";
/// Pods' addresses; from a range for documentation, as the node's own.
const PODS: &str = "198.51.100.0/24";
/// The address of the Service behind which CoreDNS stands.
const DNS: &str = "10.96.0.10";
/// The image of a pod's sandbox, which the node has from the start; a container of it sleeps.
pub const PAUSE: &str = "siem.example.com/tests/pause:1";
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/node/machine");

/// A running node with its control plane.
#[derive(Debug)]
pub struct RealNode {
    machine: Mutex<Machine>,
    names: Mutex<Leashed>,
    plane: ControlPlane,
    ground: &'static Ground,
    ctr: PathBuf,
}

/// What a node stands on: a network namespace and a folder, which have to be there before the first thread enters.
#[derive(Debug)]
struct Ground {
    network: Network,
    folder: TempDir,
}

/// Runs a test with the node that all tests of this binary share, in the node's network namespace.
///
/// # Errors
/// When the node does not come up, in one line where this machine cannot have one; or what the test gives.
pub fn run<F>(test: F) -> Result<()>
where
    F: AsyncFnOnce(&'static RealNode) -> Result<()> + Send + 'static,
{
    let name = thread::current().name().map(str::to_owned);
    // A single thread runs every test under the name `main`.
    if let Some(name) = &name
        && name != "main"
    {
        ensure!(name.ends_with(MARK), "{name} runs on a real node: let its name end with {MARK}");
    }
    let ground = Ground::shared()?;
    let mut thread = thread::Builder::new();
    if let Some(name) = name {
        thread = thread.name(name);
    }
    let joined = thread.spawn(move || {
        ground.network.enter()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .on_thread_start(|| ground.network.enter().expect("what one thread may, another may"))
            .build()?;
        runtime.block_on(async {
            static SHARED: OnceCell<RealNode> = OnceCell::const_new();
            let node = SHARED.get_or_try_init(|| RealNode::start(ground)).await?;
            test(node).await
        })
    })?;
    joined.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The programs beside those of the control plane.
struct Programs {
    /// Where they all stand.
    bin: PathBuf,
    ctr: PathBuf,
    coredns: PathBuf,
}

impl Programs {
    async fn find() -> Result<Self> {
        let names = ["ctr", "coredns", "containerd", "containerd-shim-runc-v2", "kubelet"];
        let [ctr, coredns, ..] = programs(names).await?;
        programs(["kube-proxy", "pause"]).await?;
        let bin = ctr.parent().context("a program stands in a folder")?.to_owned();
        Ok(Self { bin, ctr, coredns })
    }
}

impl Ground {
    fn shared() -> Result<&'static Self> {
        static SHARED: Mutex<Option<&'static Ground>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ground) = *shared {
            return Ok(ground);
        }
        ensure!(
            geteuid().is_root(),
            "a real node needs root: run the tests as root, or leave out those that want one: SIEM_TESTS_NODE=none tests/run"
        );
        let found = |program: &str| {
            machine::PATH.iter().any(|folder| Path::new(folder).join(program).exists())
        };
        let needed = [
            ("iproute2", found("ip")),
            ("nftables", found("nft")),
            ("runc", found("runc")),
            ("containernetworking-plugins", Path::new("/usr/lib/cni/ptp").exists()),
        ];
        let missing = needed.into_iter().find(|(_, is_there)| !is_there);
        if let Some((package, _)) = missing {
            bail!("a real node needs Debian's {package}: `tests/run --install-only` installs it");
        }
        // What is not built yet is built out here: Go may have to fetch it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            ControlPlane::programs().await?;
            Programs::find().await
        })?;
        let folder = tempfile::Builder::new().prefix("siem-real-node-").tempdir()?;
        leash::folder(folder.path())?;
        let network = Network::start(folder.path())?;
        let ground: &'static Self = Box::leak(Box::new(Self { network, folder }));
        *shared = Some(ground);
        Ok(ground)
    }
}

impl RealNode {
    async fn start(ground: &'static Ground) -> Result<Self> {
        let Programs { bin, ctr, coredns } = Programs::find().await?;
        let folder = ground.folder.path();
        fs::write(folder.join("resolv.conf"), format!("nameserver {ADDRESS}\n"))?;
        fs::write(folder.join("containerd.toml"), settings::containerd(folder))?;
        fs::create_dir(folder.join("cni"))?;
        fs::write(folder.join("cni/10-pods.conflist"), settings::network().to_string())?;
        let mut machine = Machine::boot(folder, &bin)?;
        machine.start(Service::Containerd)?;

        let site = Site {
            name: NAME,
            address: ADDRESS,
            kubelet: "token-of-kubelet",
            proxy: "token-of-proxy",
        };
        let plane = ControlPlane::start_for(site).await?;
        let url = format!("https://{ADDRESS}:{}", plane.port());
        for (name, token) in [("kubelet", site.kubelet), ("kube-proxy", site.proxy)] {
            let kubeconfig = plane.kubeconfig_with(name, &url, token)?;
            fs::copy(kubeconfig, folder.join(format!("{name}.kubeconfig")))?;
        }
        let kubelet = settings::kubelet(folder, plane.folder());
        fs::write(folder.join("kubelet.json"), kubelet.to_string())?;
        let proxy = settings::proxy(&folder.join("kube-proxy.kubeconfig"));
        fs::write(folder.join("kube-proxy.json"), proxy.to_string())?;
        let corefile = settings::names(&plane.kubeconfig(User::Node)?);
        fs::write(folder.join("Corefile"), corefile)?;
        let log = File::create(folder.join("coredns.log"))?;
        let names = Leashed::spawn(
            Blocking::new(coredns)
                .arg("-conf")
                .arg(folder.join("Corefile"))
                .current_dir(folder)
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let node =
            Self { machine: Mutex::new(machine), names: Mutex::new(names), plane, ground, ctr };
        node.until_containerd_answers().await?;
        node.import_pause().await?;
        let since = clock::millis();
        node.machine().start(Service::Kubelet)?;
        node.machine().start(Service::Proxy)?;
        let kubectl = node.plane.kubectl()?;
        let objects = settings::objects(KUBELETS_CLIENT);
        kubectl.run(&["apply", "--server-side", "-f", "-"], &objects).await?;
        node.until("CoreDNS answers", async || {
            let ready = reqwest::get(format!("http://{ADDRESS}:8181/ready")).await;
            Ok(ready.is_ok_and(|answer| answer.status().is_success()))
        })
        .await?;
        node.until_ready(since).await?;
        Ok(node)
    }

    /// Its control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The folder of everything that it writes; `*.log` is what the services said, `log/pods` what the pods did.
    pub fn folder(&self) -> &Path {
        self.ground.folder.path()
    }

    /// A process in its network namespace that lives as long as the node.
    pub fn network_pid(&self) -> u32 {
        self.ground.network.pid()
    }

    /// Gives it the images of an OCI or Docker archive, under the names that stand in it.
    ///
    /// # Errors
    /// When containerd does not take it.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("an archive's path is text")?;
        self.ctr(&["images", "import", archive]).await?;
        // The part of containerd that speaks to the kubelet hears of it a moment later.
        self.until("the image is known", async || {
            let images = self.ctr(&["images", "list"]).await?;
            Ok(images.lines().skip(1).all(|line| line.contains("io.cri-containerd.image=managed")))
        })
        .await
    }

    /// Ends a service by a signal; pods go on running.
    ///
    /// # Errors
    /// When it does not run, or does not end.
    pub fn end(&self, service: Service, signal: Signal) -> Result<()> {
        self.machine().end(service, signal)
    }

    /// Starts a service again and waits until it does what it is for.
    ///
    /// # Errors
    /// When it does not become so.
    pub async fn start_again(&self, service: Service) -> Result<()> {
        let since = clock::millis();
        self.machine().start(service)?;
        match service {
            Service::Containerd => self.until_containerd_answers().await,
            Service::Kubelet => self.until_ready(since).await,
            Service::Proxy => Ok(()),
        }
    }

    /// Ends everything that runs on the machine at once, as a loss of power does. The disk stays.
    pub fn halt(&self) {
        self.machine().halt();
    }

    /// Boots the machine after [`Self::halt`] and waits until the node is ready.
    ///
    /// # Errors
    /// When it does not become so.
    pub async fn boot(&self) -> Result<()> {
        self.machine().again()?;
        self.machine().start(Service::Containerd)?;
        self.until_containerd_answers().await?;
        let since = clock::millis();
        self.machine().start(Service::Kubelet)?;
        self.machine().start(Service::Proxy)?;
        self.until_ready(since).await
    }

    /// What a service said: `kubelet`, `containerd`, `kube-proxy`, `coredns`, `machine` or `network`.
    pub fn log(&self, service: &str) -> String {
        fs::read_to_string(self.folder().join(format!("{service}.log"))).unwrap_or_default()
    }

    /// The cgroups in which everything on the machine runs.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.machine().cgroups().to_vec()
    }

    /// containerd's own command line, as the kubelet's images and containers.
    ///
    /// # Errors
    /// When it ends with another code than 0, with what it said.
    pub async fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let out = Command::new(&self.ctr)
            .arg("--address")
            .arg(self.folder().join("containerd.sock"))
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await
            .context("run ctr")?;
        ensure!(
            out.status.success(),
            "ctr {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&out.stderr).trim_end()
        );
        Ok(String::from_utf8(out.stdout)?)
    }

    async fn import_pause(&self) -> Result<()> {
        let made = Command::new(MACHINE)
            .arg("pause-image")
            .arg(self.folder())
            .arg(PAUSE)
            .kill_on_drop(true)
            .status()
            .await
            .context("make the image of a pod's sandbox")?;
        ensure!(made.success(), "make the image of a pod's sandbox: {made}");
        self.import(&self.folder().join("pause.tar")).await
    }

    async fn until_containerd_answers(&self) -> Result<()> {
        self.until("containerd answers", async || Ok(self.ctr(&["version"]).await.is_ok())).await
    }

    /// Until the kubelet that was started at that time says so: what an earlier one has said stands for a while.
    async fn until_ready(&self, since: i64) -> Result<()> {
        let kubectl = self.plane.kubectl()?;
        self.until("the node is ready", async || {
            let path = format!("jsonpath={}", "{.status.conditions[?(@.type==\"Ready\")]}");
            let said = kubectl.say(&["get", "node", NAME, "-o", &path], "").await?;
            let Ok(ready) = serde_json::from_str::<serde_json::Value>(&said.stdout) else {
                return Ok(false);
            };
            let heartbeat = ready["lastHeartbeatTime"].as_str().unwrap_or_default();
            let heartbeat: Option<jiff::Timestamp> = heartbeat.parse().ok();
            // Heartbeats are whole seconds.
            let is_fresh = heartbeat.is_some_and(|at| at.as_millisecond() + 1000 > since);
            Ok(ready["status"] == "True" && is_fresh)
        })
        .await
    }

    async fn until(&self, what: &str, is: impl AsyncFn() -> Result<bool>) -> Result<()> {
        let until = Instant::now() + 3 * PATIENCE;
        while !is().await? {
            if let Some(service) = self.ended()? {
                bail!("{service} has ended before {what}: {}", last_lines(&self.log(service)));
            }
            if Instant::now() > until {
                let said = ["containerd", "kubelet", "coredns"]
                    .map(|service| format!("{service}:\n{}", last_lines(&self.log(service))));
                bail!("it does not come about that {what}: {}", said.join("\n"));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// A service that has ended by itself.
    fn ended(&self) -> Result<Option<&'static str>> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).ended()?;
        if names.is_some() {
            return Ok(Some("coredns"));
        }
        self.machine().ended()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for what comes about within milliseconds, on a thread that has no runtime.
fn wait_for(mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if is()? {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    Err(anyhow!("it does not come about in time"))
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
