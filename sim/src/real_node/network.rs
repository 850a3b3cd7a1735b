//! A network namespace that nothing gets out of, and the threads that live in it.
//!
//! A process holds it open; it is gone with that process and those started in it, so there is nothing to take down.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::{MACHINE, wait_for};
use crate::leash::Leashed;

/// Its only address besides loopback's. From the range for documentation: if it ever got out it would reach nobody.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

#[derive(Debug)]
pub(super) struct Network {
    holder: Leashed,
    namespace: File,
}

impl Network {
    /// Makes one with its interfaces.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let log = File::create(folder.join("network.log"))?;
        let mut holder = Leashed::spawn(
            Command::new("unshare")
                .args(["--net", "--", MACHINE, "network"])
                .arg(folder)
                .arg(ADDRESS.to_string())
                .stdout(Stdio::null())
                .stderr(log),
        )?;
        let made = folder.join("network");
        wait_for(|| Ok(made.exists() || holder.ended()?.is_some()))?;
        if let Some(status) = holder.ended()? {
            let said = std::fs::read_to_string(folder.join("network.log"))?;
            bail!("make a network namespace: {status}: {}", said.trim_end());
        }
        let path = format!("/proc/{}/ns/net", holder.pid());
        let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
        Ok(Self { holder, namespace })
    }

    /// The process that holds it.
    pub(super) fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Puts the calling thread into it, and with it every process and thread that it starts.
    pub(super) fn enter(&self) -> Result<()> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")
    }
}
