//! The machine: namespaces and cgroups of its own, its disk in one folder, and the services that run on it.
//!
//! A service's process is held from here, so that it can be ended as a crash ends it and started again. Ending the machine's
//! first process ends everything on it, the pods too; the disk stays, as after a loss of power.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::cgroups::Cgroups;
use super::{MACHINE, NAME, wait_for};
use crate::leash::Leashed;

/// Where Debian's programs are, and those that a kubelet calls.
pub(super) const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What runs on the machine besides pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// containerd; what runs in its containers outlives it.
    Containerd,
    /// The kubelet; so do pods.
    Kubelet,
    /// kube-proxy.
    Proxy,
}

impl Service {
    /// Its name, and that of its log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }

    fn arguments(self, folder: &Path) -> Vec<String> {
        let at = |name: &str| folder.join(name).display().to_string();
        match self {
            Self::Containerd => vec![format!("--config={}", at("containerd.toml"))],
            Self::Kubelet => vec![
                format!("--config={}", at("kubelet.json")),
                format!("--kubeconfig={}", at("kubelet.kubeconfig")),
                format!("--root-dir={}", at("kubelet")),
                format!("--cert-dir={}", at("kubelet/pki")),
                format!("--hostname-override={NAME}"),
                format!("--node-ip={}", super::ADDRESS),
                "--v=2".to_owned(),
            ],
            Self::Proxy => vec![format!("--config={}", at("kube-proxy.json"))],
        }
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    services: BTreeMap<Service, Leashed>,
    first: Option<(Leashed, String)>,
    folder: PathBuf,
    programs: PathBuf,
    // Last, when nothing lives in them any more.
    cgroups: Cgroups,
}

impl Machine {
    /// Makes one whose disk is this folder and whose services' programs stand in the other.
    pub(super) fn boot(folder: &Path, programs: &Path) -> Result<Self> {
        let name = folder.file_name().context("a machine's folder has a name")?;
        let cgroups = Cgroups::make(&name.to_string_lossy())?;
        let lines: Vec<String> =
            cgroups.folders.iter().map(|cgroup| cgroup.display().to_string()).collect();
        fs::write(folder.join("cgroups"), lines.join("\n") + "\n")?;
        fs::copy(programs.join("pause"), folder.join("pause"))?;
        let mut machine = Self {
            services: BTreeMap::new(),
            first: None,
            folder: folder.to_owned(),
            programs: programs.to_owned(),
            cgroups,
        };
        machine.again()?;
        Ok(machine)
    }

    /// Boots it anew after [`Self::halt`].
    pub(super) fn again(&mut self) -> Result<()> {
        let ready = self.folder.join("pid");
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        let log = self.log("machine")?;
        let mut first = Leashed::spawn(
            Command::new(MACHINE).arg("boot").arg(&self.folder).stdout(Stdio::null()).stderr(log),
        )?;
        wait_for(|| Ok(ready.exists() || first.ended()?.is_some()))?;
        if let Some(status) = first.ended()? {
            let said = fs::read_to_string(self.folder.join("machine.log"))?;
            bail!("boot the node's machine: {status}: {}", said.trim_end());
        }
        let pid = fs::read_to_string(&ready)?.trim().to_owned();
        self.first = Some((first, pid));
        Ok(())
    }

    /// Everything on it is gone at once.
    pub(super) fn halt(&mut self) {
        self.services.clear();
        self.first = None;
    }

    pub(super) fn start(&mut self, service: Service) -> Result<()> {
        let (_, pid) = self.first.as_ref().context("the node's machine is not booted")?;
        let path = format!("{}:{}", self.programs.display(), PATH.join(":"));
        let log = self.log(service.name())?;
        let process = Leashed::spawn(
            Command::new(MACHINE)
                .arg("enter")
                .arg(&self.folder)
                .arg(pid)
                .arg(self.programs.join(service.name()))
                .args(service.arguments(&self.folder))
                .env_clear()
                .env("PATH", path)
                .env("HOME", &self.folder)
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        self.services.insert(service, process);
        Ok(())
    }

    /// Ends a service by a signal, and waits until it has ended.
    pub(super) fn end(&mut self, service: Service, signal: Signal) -> Result<()> {
        let name = service.name();
        let mut process =
            self.services.remove(&service).with_context(|| format!("{name} does not run"))?;
        process.signal(signal)?;
        wait_for(|| Ok(process.ended()?.is_some())).with_context(|| format!("end {name}"))
    }

    /// The name of a service that has ended by itself.
    pub(super) fn ended(&mut self) -> Result<Option<&'static str>> {
        for (service, process) in &mut self.services {
            if process.ended()?.is_some() {
                return Ok(Some(service.name()));
            }
        }
        Ok(None)
    }

    /// The cgroups of everything that runs on it.
    pub(super) fn cgroups(&self) -> &[PathBuf] {
        &self.cgroups.folders
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        log.with_context(|| format!("open {}", path.display()))
    }
}
