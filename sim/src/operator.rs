//! The operator as a program, in one namespace, as a ServiceAccount with exactly the rights of `operator/rbac.yaml`.
//!
//! Every operator of a control plane has a namespace of its own, so tests that share one do not see each other. It must
//! never get a right that the file does not give.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::control_plane::ControlPlane;
use crate::forwarder::{LOOK, PATIENCE, free_port, program};
use crate::leash::{self, Leashed};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/rbac.yaml");
const SIDECAR_RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/rbac-sidecars.yaml");
/// The name of its ServiceAccount and of everything that gives it rights.
pub const ACCOUNT: &str = "siem-agent-operator";

/// Where an operator runs and as whom.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where the operator runs.
    pub namespace: String,
    account: String,
    watched: Vec<String>,
    /// The account's kubeconfig.
    pub kubeconfig: PathBuf,
}

impl Place {
    /// Makes the ServiceAccount with its rights, in this namespace and no other.
    ///
    /// # Errors
    /// When the API server does not take them.
    pub async fn new(plane: &ControlPlane, namespace: &str) -> Result<Self> {
        Self::behind(plane, namespace, &plane.url()).await
    }

    /// The same, but the operator reaches the API server by this URL: a proxy's.
    ///
    /// # Errors
    /// When the API server does not take the rights.
    pub async fn behind(plane: &ControlPlane, namespace: &str, url: &str) -> Result<Self> {
        plane.install_crd().await?;
        let kubectl = plane.kubectl()?;
        kubectl.run(&["apply", "--server-side", "--namespace", namespace, "-f", RULES], "").await?;
        let bindings = format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {ACCOUNT}}}\n\
             ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {ACCOUNT}-agents}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {ACCOUNT}}}\n\
             subjects: [{{kind: ServiceAccount, name: {ACCOUNT}, namespace: {namespace}}}]\n\
             ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {ACCOUNT}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {ACCOUNT}}}\n\
             subjects: [{{kind: ServiceAccount, name: {ACCOUNT}, namespace: {namespace}}}]\n"
        );
        let apply = ["apply", "--server-side", "--namespace", namespace, "-f", "-"];
        kubectl.run(&apply, &bindings).await?;
        let token = plane.service_account_token(namespace, ACCOUNT).await?;
        let port = url.rsplit(':').next().unwrap_or_default();
        let name = format!("operator-{namespace}-{port}");
        let kubeconfig = plane.kubeconfig_with(&name, url, &token)?;
        let watched = vec![namespace.to_owned()];
        Ok(Self {
            namespace: namespace.to_owned(),
            account: ACCOUNT.to_owned(),
            watched,
            kubeconfig,
        })
    }

    /// Adds what `operator/rbac-sidecars.yaml` grants, in this namespace.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn allow_sidecars(&self, plane: &ControlPlane) -> Result<()> {
        let (kubectl, namespace) = (plane.kubectl()?, &self.namespace);
        let rules = ["apply", "--server-side", "--namespace", namespace, "-f", SIDECAR_RULES];
        kubectl.run(&rules, "").await?;
        for part in ["sidecars", "hosts"] {
            let role = format!("--clusterrole={ACCOUNT}-{part}");
            let account = format!("--serviceaccount={namespace}:{}", self.account);
            let bind = ["create", "rolebinding", part, "--namespace", namespace, &role, &account];
            kubectl.run(&bind, "").await?;
        }
        Ok(())
    }

    /// An account that stands already, such as a Helm release's, and the namespaces that it watches; none: all.
    ///
    /// # Errors
    /// When there is no such account.
    pub async fn of_account(
        plane: &ControlPlane,
        namespace: &str,
        account: &str,
        watched: Vec<String>,
    ) -> Result<Self> {
        let token = plane.service_account_token(namespace, account).await?;
        let name = format!("operator-{namespace}-{account}");
        let kubeconfig = plane.kubeconfig_with(&name, &plane.url(), &token)?;
        let (namespace, account) = (namespace.to_owned(), account.to_owned());
        Ok(Self { namespace, account, watched, kubeconfig })
    }

    /// The name under which the audit log knows it.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.account)
    }
}

/// A running operator; it ends with this value.
#[derive(Debug)]
pub struct Operator {
    process: Leashed,
    folder: TempDir,
    port: u16,
}

impl Operator {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with what it said.
    pub async fn start(place: &Place, more: &[&str]) -> Result<Self> {
        Self::start_program(&program("siem-operator")?, place, more).await
    }

    /// The same with another build of it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_program(program: &Path, place: &Place, more: &[&str]) -> Result<Self> {
        let mut operator = Self::spawn(program, place, more)?;
        operator.until("readyz").await?;
        Ok(operator)
    }

    /// Waits until it answers 200 at this path.
    ///
    /// # Errors
    /// When it ends or does not in time, with what it said.
    pub async fn until(&mut self, path: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while self.get(path).await.is_err() {
            if Instant::now() > until || self.process.ended()?.is_some() {
                bail!("siem-operator does not answer {path}: {}", self.log());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Starts it and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(program: &Path, place: &Place, more: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        leash::folder(folder.path())?;
        let port = free_port()?;
        let log = File::create(folder.path().join("log"))?;
        let process = Leashed::spawn(
            Command::new(program)
                .arg("run")
                .args(place.watched.iter().map(|namespace| format!("--namespace={namespace}")))
                .args(["--listen", &format!("127.0.0.1:{port}")])
                .args(more)
                .env_clear()
                .env("KUBECONFIG", &place.kubeconfig)
                .env("POD_NAMESPACE", &place.namespace)
                .env("RUST_BACKTRACE", "1")
                // As in its image, which has no CA roots.
                .env("SSL_CERT_FILE", "/dev/null")
                .env("SSL_CERT_DIR", "/dev/null")
                .stdout(Stdio::null())
                .stderr(log),
        )?;
        Ok(Self { process, folder, port })
    }

    /// Everything that it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where its port is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What its port answers.
    ///
    /// # Errors
    /// When it does not answer 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        let answer = reqwest::get(format!("{}/{path}", self.url())).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// The series whose lines begin so, name and labels to value.
    ///
    /// # Errors
    /// When its port does not answer.
    pub async fn series(&self, begins: &str) -> Result<Vec<(String, f64)>> {
        let text = self.get("metrics").await?;
        let lines = text.lines().filter(|line| line.starts_with(begins));
        Ok(lines
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                Some((series.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time, or not with 0.
    pub async fn terminate(mut self) -> Result<String> {
        self.signal(Signal::SIGTERM)?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.ended()? {
                let log = self.log();
                ensure!(status.success(), "siem-operator ended with {status}: {log}");
                return Ok(log);
            }
            if Instant::now() > until {
                bail!("siem-operator does not end: {}", self.log());
            }
            sleep(LOOK).await;
        }
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.bytes("VmRSS:")
    }

    /// What of the resident memory is its own data: heap, stacks, relocated pages.
    ///
    /// # Errors
    /// When it does not run.
    pub fn anonymous_bytes(&self) -> Result<u64> {
        self.bytes("RssAnon:")
    }

    /// What of the resident memory are pages of files: its program's.
    ///
    /// # Errors
    /// When it does not run.
    pub fn file_bytes(&self) -> Result<u64> {
        self.bytes("RssFile:")
    }

    /// The most that it has ever had resident, in bytes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.bytes("VmHWM:")
    }

    fn bytes(&self, figure: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(figure));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("read a figure")?;
        Ok(kib.parse::<u64>()? * 1024)
    }
}
