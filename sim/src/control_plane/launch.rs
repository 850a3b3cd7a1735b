//! Files, flags and order: what has to stand in a folder before etcd, kube-apiserver and kube-controller-manager start, and
//! kube-scheduler where there is a real node.
//!
//! Ports are found free and can be taken by someone else before they are used: a start that ends by itself is tried
//! again. No flag weakens what is tested: RBAC, admission and validation are the defaults.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{User, audit, client, kubeconfig};
use crate::forwarder::{LOOK, PATIENCE, free_port};
use crate::issuer;
use crate::leash::{self, Leashed};
use crate::pki::Authority;

/// Services' addresses; nothing routes them here.
const SERVICES: &str = "10.96.0.0/16";
/// Starts that may fail because of a port.
const N_TRIES: usize = 3;
/// The controller manager's token; its name is the one that Kubernetes' own roles are bound to.
const MANAGER: (&str, &str) = ("token-of-manager", "system:kube-controller-manager");
/// The scheduler's.
const SCHEDULER: (&str, &str) = ("token-of-scheduler", "system:kube-scheduler");
/// As whom the API server speaks to the kubelet.
pub(crate) const KUBELETS_CLIENT: &str = "kube-apiserver";

/// The programs.
pub(crate) struct Programs {
    pub(super) etcd: PathBuf,
    pub(super) server: PathBuf,
    pub(super) manager: PathBuf,
    /// Where pods are to be put on a real node.
    pub(super) scheduler: Option<PathBuf>,
}

/// A real node that belongs to the control plane, in the network namespace in which it is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// The node's name.
    pub(crate) name: &'static str,
    /// The address at which pods and kubelet find the API server, and it the kubelet.
    pub(crate) address: Ipv4Addr,
    /// The kubelet's token.
    pub(crate) kubelet: &'static str,
    /// kube-proxy's token.
    pub(crate) proxy: &'static str,
}

pub(super) struct Launched {
    pub(super) processes: Vec<Leashed>,
    pub(super) folder: TempDir,
    pub(super) port: u16,
    pub(super) ca: PathBuf,
}

pub(super) async fn launch(programs: &Programs, site: Option<Site>) -> Result<Launched> {
    let folder = tempfile::Builder::new().prefix("siem-control-plane-").tempdir()?;
    leash::folder(folder.path())?;
    write_files(folder.path(), site)?;
    let mut n_tries = 0;
    loop {
        n_tries += 1;
        match attempt(folder.path(), programs, site).await {
            Ok((processes, port)) => {
                let ca = folder.path().join("ca.crt");
                return Ok(Launched { processes, folder, port, ca });
            }
            Err(error) if n_tries == N_TRIES || !format!("{error:#}").contains("in use") => {
                return Err(error);
            }
            Err(_) => {}
        }
    }
}

fn write_files(folder: &Path, site: Option<Site>) -> Result<()> {
    let authority = Authority::new("siem-control-plane")?;
    let address = site.map_or(Ipv4Addr::LOCALHOST, |site| site.address).to_string();
    // The address at which pods find the API server, and its names, besides loopback's.
    let names = [
        address.as_str(),
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    authority.write(&authority.server(&names)?, folder)?;
    let line =
        |token: &str, name: &str, groups: &str| format!("{token},{name},{name},\"{groups}\"\n");
    let users: String = User::ALL
        .map(|user| {
            let groups = if user == User::Nobody { "nobodies" } else { "system:masters" };
            line(&user.token(), user.name(), groups)
        })
        .concat();
    let more: String = site
        .map(|site| {
            let node = format!("system:node:{}", site.name);
            authority.write(&authority.server(&[site.name, &address])?, &folder.join("kubelet"))?;
            authority
                .write(&authority.client(KUBELETS_CLIENT)?, &folder.join("kubelets-client"))?;
            anyhow::Ok([
                line(site.kubelet, &node, "system:nodes"),
                line(site.proxy, "system:kube-proxy", ""),
                line(SCHEDULER.0, SCHEDULER.1, ""),
            ])
        })
        .transpose()?
        .unwrap_or_default()
        .concat();
    let files = [
        // RSA, as a cluster's is: Entra ID takes no other signature of a token.
        ("service-accounts.key", issuer::KEY.to_owned()),
        ("users.csv", users + &line(MANAGER.0, MANAGER.1, "") + &more),
        ("audit.yaml", audit::POLICY.to_owned()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

/// One start. An error holds what the program said that ended.
async fn attempt(
    folder: &Path,
    programs: &Programs,
    site: Option<Site>,
) -> Result<(Vec<Leashed>, u16)> {
    let at = |name: &str| folder.join(name).display().to_string();
    let [clients, peers, port] = [free_port()?, free_port()?, free_port()?];
    let data = folder.join("etcd");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let etcd = spawn(
        folder,
        "etcd",
        Command::new(&programs.etcd).args([
            "--name=test".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls=http://127.0.0.1:{clients}"),
            format!("--advertise-client-urls=http://127.0.0.1:{clients}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-cluster=test=http://127.0.0.1:{peers}"),
            // Nothing here outlives the machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ]),
    )?;
    let server = spawn(
        folder,
        "server",
        Command::new(&programs.server).args(reached(folder, site)).args([
            format!("--etcd-servers=http://127.0.0.1:{clients}"),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", at("tls.crt")),
            format!("--tls-private-key-file={}", at("tls.key")),
            format!("--client-ca-file={}", at("ca.crt")),
            format!("--token-auth-file={}", at("users.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", at("service-accounts.key")),
            format!("--service-account-signing-key-file={}", at("service-accounts.key")),
            format!("--audit-policy-file={}", at("audit.yaml")),
            format!("--audit-log-path={}", at(audit::LOG)),
            // Never rotated: tests read it whole.
            "--audit-log-maxsize=4000".to_owned(),
        ]),
    )?;
    let mut processes = vec![etcd, server];
    let admin =
        client(&format!("https://127.0.0.1:{port}"), &folder.join("ca.crt"), &User::Admin.token())
            .await?;
    let until = Instant::now() + 3 * PATIENCE;
    while !is_ready(&admin).await {
        for (process, name) in processes.iter_mut().zip(["etcd", "server"]) {
            if process.ended()?.is_some() {
                bail!("{name} has ended: {}", last_lines(folder, name));
            }
        }
        if Instant::now() > until {
            bail!("the API server is not ready: {}", last_lines(folder, "server"));
        }
        sleep(LOOK).await;
    }
    let its = folder.join("manager.kubeconfig");
    let config =
        kubeconfig(&format!("https://127.0.0.1:{port}"), &folder.join("ca.crt"), MANAGER.0);
    fs::write(&its, config.to_string())?;
    processes.push(spawn(
        folder,
        "manager",
        Command::new(&programs.manager).args([
            format!("--kubeconfig={}", its.display()),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", at("service-accounts.key")),
            format!("--root-ca-file={}", at("ca.crt")),
            // The default rate makes default ServiceAccounts wait for seconds.
            "--kube-api-qps=300".to_owned(),
            "--kube-api-burst=600".to_owned(),
            // Nobody asks it anything.
            "--secure-port=0".to_owned(),
        ]),
    )?);
    if let Some(scheduler) = &programs.scheduler {
        let its = folder.join("scheduler.kubeconfig");
        let url = format!("https://127.0.0.1:{port}");
        fs::write(&its, kubeconfig(&url, &folder.join("ca.crt"), SCHEDULER.0).to_string())?;
        processes.push(spawn(
            folder,
            "scheduler",
            Command::new(scheduler).args([
                format!("--kubeconfig={}", its.display()),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ]),
        )?);
    }
    Ok((processes, port))
}

/// Where the API server is reached, and how it reaches the kubelet.
fn reached(folder: &Path, site: Option<Site>) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    match site {
        None => vec![
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ],
        Some(site) => vec![
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={}", site.address),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--kubelet-certificate-authority={}", at("ca.crt")),
            format!("--kubelet-client-certificate={}", at("kubelets-client/tls.crt")),
            format!("--kubelet-client-key={}", at("kubelets-client/tls.key")),
        ],
    }
}

fn spawn(folder: &Path, name: &str, command: &mut Command) -> Result<Leashed> {
    let log = File::create(folder.join(format!("{name}.log")))?;
    Leashed::spawn(command.current_dir(folder).stdout(log.try_clone()?).stderr(log))
}

async fn is_ready(client: &Client) -> bool {
    match axum::http::Request::get("/readyz").body(Vec::new()) {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    }
}

fn last_lines(folder: &Path, name: &str) -> String {
    let log = fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
