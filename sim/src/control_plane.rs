//! A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager on loopback ports, RBAC on.
//!
//! A test binary shares one ([`ControlPlane::shared`]) and its tests isolate by [`ControlPlane::namespace`]; what wants
//! to break a control plane starts its own. There is no scheduler and no kubelet: pods stay pending until a test brings
//! what runs them, or has a real node ([`crate::real_node`]). It must never be reachable from elsewhere, nor outlive the
//! test process.

mod audit;
mod launch;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use crate::forwarder::{LOOK, PATIENCE};
use crate::kubectl::Kubectl;
use crate::leash::Leashed;
use crate::programs::programs;

pub use audit::Request;
pub(crate) use launch::{KUBELETS_CLIENT, Site};

/// The CRD as it is committed.
const CRD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/siemagents.yaml");
/// Long enough that a client's bug shows as an error, not as a test that hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Who speaks to the API server. Each has a token of its own, so that the audit log tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// May do everything; the tests themselves.
    Admin,
    /// May do everything; what stands in for kubelet and scheduler.
    Node,
    /// May do everything; KWOK.
    Kwok,
    /// Known, and allowed nothing.
    Nobody,
}

impl User {
    pub(crate) const ALL: [Self; 4] = [Self::Admin, Self::Node, Self::Kwok, Self::Nobody];

    /// The name in the audit log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Node => "node",
            Self::Kwok => "kwok",
            Self::Nobody => "nobody",
        }
    }

    fn token(self) -> String {
        format!("token-of-{}", self.name())
    }
}

/// A running control plane; it ends with this value, and at the latest with the test process.
#[derive(Debug)]
pub struct ControlPlane {
    processes: Vec<Leashed>,
    folder: TempDir,
    port: u16,
    /// The file of the authority that signed the server's certificate.
    pub ca: PathBuf,
    kubectl: PathBuf,
    n_namespaces: AtomicUsize,
    crd: OnceCell<()>,
}

impl ControlPlane {
    /// The one that all tests of this binary share.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// Starts one of its own and waits until it answers.
    ///
    /// # Errors
    /// When a program cannot be built or does not come up, with what it said.
    pub async fn start() -> Result<Self> {
        let names = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];
        let [etcd, server, manager, kubectl] = programs(names).await?;
        let programs = launch::Programs { etcd, server, manager, scheduler: None };
        Self::launch(&programs, kubectl, None).await
    }

    /// What one for a real node consists of, built where it is not yet.
    pub(crate) async fn programs() -> Result<(launch::Programs, PathBuf)> {
        let names =
            ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
        let [etcd, server, manager, scheduler, kubectl] = programs(names).await?;
        Ok((launch::Programs { etcd, server, manager, scheduler: Some(scheduler) }, kubectl))
    }

    /// Starts one for a real node, in the network namespace of the calling thread.
    pub(crate) async fn start_for(site: Site) -> Result<Self> {
        let (programs, kubectl) = Self::programs().await?;
        Self::launch(&programs, kubectl, Some(site)).await
    }

    async fn launch(
        programs: &launch::Programs,
        kubectl: PathBuf,
        site: Option<Site>,
    ) -> Result<Self> {
        let launch::Launched { processes, folder, port, ca } =
            launch::launch(programs, site).await?;
        let n_namespaces = AtomicUsize::new(0);
        let crd = OnceCell::new();
        Ok(Self { processes, folder, port, ca, kubectl, n_namespaces, crd })
    }

    /// Where the API server listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The API server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of everything that it writes; `*.log` is what the programs said.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Process ids of etcd, kube-apiserver and kube-controller-manager.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Leashed::pid).collect()
    }

    /// The kubeconfig of a user, as a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, user: User) -> Result<PathBuf> {
        self.kubeconfig_with(user.name(), &self.url(), &user.token())
    }

    /// The kubeconfig of a user at another URL, as a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_at(&self, user: User, url: &str) -> Result<PathBuf> {
        let port = url.rsplit(':').next().unwrap_or_default();
        self.kubeconfig_with(&format!("{}-{port}", user.name()), url, &user.token())
    }

    /// A kubeconfig file of this name, for this token, at this URL: a proxy's, for tests that cut the connection.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_with(&self, name: &str, url: &str, token: &str) -> Result<PathBuf> {
        let path = self.folder().join(format!("{name}.kubeconfig"));
        // As one step: another test may be reading it.
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(self.folder())?;
            file.write_all(kubeconfig(url, &self.ca, token).to_string().as_bytes())?;
            file.persist(&path)?;
            anyhow::Ok(())
        };
        write().with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// A client that may do everything. A client belongs to the runtime it was made in, so each test makes its own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn client(&self) -> Result<Client> {
        self.client_as(User::Admin).await
    }

    /// A client of this user.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn client_as(&self, user: User) -> Result<Client> {
        self.client_with(&user.token()).await
    }

    /// A client with this token, such as a ServiceAccount's.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn client_with(&self, token: &str) -> Result<Client> {
        client(&self.url(), &self.ca, token).await
    }

    /// kubectl as the admin.
    ///
    /// # Errors
    /// When the kubeconfig cannot be written.
    pub fn kubectl(&self) -> Result<Kubectl> {
        self.kubectl_with(&self.kubeconfig(User::Admin)?)
    }

    /// kubectl with another kubeconfig.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn kubectl_with(&self, kubeconfig: &Path) -> Result<Kubectl> {
        let cache = self.folder().join("kubectl");
        fs::create_dir_all(&cache)?;
        Ok(Kubectl { program: self.kubectl.clone(), kubeconfig: kubeconfig.to_owned(), cache })
    }

    /// Makes a fresh namespace and waits until pods can be made in it.
    ///
    /// # Errors
    /// When the controller manager does not make its ServiceAccount.
    pub async fn namespace(&self) -> Result<String> {
        let name = format!("test-{}", self.n_namespaces.fetch_add(1, Ordering::Relaxed));
        self.make_namespace(&name).await?;
        Ok(name)
    }

    /// Makes a namespace of this name and waits until pods can be made in it.
    ///
    /// # Errors
    /// When it is there already, or the controller manager does not make its ServiceAccount.
    pub async fn make_namespace(&self, name: &str) -> Result<()> {
        let client = self.client().await?;
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, name);
        let until = Instant::now() + PATIENCE;
        while accounts.get_opt("default").await?.is_none() {
            if Instant::now() > until {
                bail!("namespace {name} has no default ServiceAccount: {}", self.log("manager"));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// A token of a ServiceAccount, valid for an hour.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, namespace);
        let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
        Ok(answer.status.context("a token request has no answer")?.token)
    }

    /// Applies the committed CRD, once, and waits until SiemAgents can be made.
    ///
    /// # Errors
    /// When the API server does not establish it.
    pub async fn install_crd(&self) -> Result<()> {
        let install = async || {
            let kubectl = self.kubectl()?;
            kubectl.run(&["apply", "--server-side", "--filename", CRD], "").await?;
            let until = Instant::now() + PATIENCE;
            let crd = "crd/siemagents.siemagent.dev";
            let established = ["wait", "--for=condition=Established", "--timeout=60s", crd];
            // kubectl gives up at once on one that has no status yet.
            while !kubectl.say(&established, "").await?.ok {
                if Instant::now() > until {
                    bail!("the CRD is not established: {}", self.log("server"));
                }
                sleep(LOOK).await;
            }
            // Its schema is published a moment later.
            while !kubectl.say(&["explain", "siemagents.spec"], "").await?.ok {
                if Instant::now() > until {
                    bail!("the CRD's schema is not published: {}", self.log("server"));
                }
                sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        self.crd.get_or_try_init(install).await.copied()
    }

    /// What a program said: `etcd`, `server`, `manager` or `scheduler`.
    pub fn log(&self, program: &str) -> String {
        fs::read_to_string(self.folder().join(format!("{program}.log"))).unwrap_or_default()
    }

    /// How far the audit log has grown.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn audit_position(&self) -> Result<u64> {
        audit::position(self.folder())
    }

    /// Every answered request since a position; 0 for all. Watches stand in it as soon as they are open.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests_since(&self, position: u64) -> Result<Vec<Request>> {
        audit::requests_since(self.folder(), position)
    }
}

fn kubeconfig(url: &str, ca: &Path, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}

async fn client(url: &str, ca: &Path, token: &str) -> Result<Client> {
    // Another test of this process may have done so already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig(url, ca, token))?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // Tests see the first answer, and know soon.
    config.default_retry = false;
    config.read_timeout = Some(READ_TIMEOUT);
    Ok(Client::try_from(config)?)
}
