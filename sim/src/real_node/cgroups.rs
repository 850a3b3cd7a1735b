//! A cgroup in each hierarchy for all that runs on the node; they are removed with this value, and at the latest with the
//! test process.
//!
//! Version 1: below those of the calling process. Version 2 has no room there beside the process itself, so it is made at
//! the top. Each has a child `node` for the machine's own processes, beside which the kubelet puts the pods.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::wait_for;
use crate::leash;

const ROOT: &str = "/sys/fs/cgroup";

#[derive(Debug)]
pub(super) struct Cgroups {
    pub(super) folders: Vec<PathBuf>,
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.folders {
            // The last of its processes may be on their way out; the leash tries again.
            let _ = wait_for(|| Ok(remove(folder).is_ok()));
        }
    }
}

impl Cgroups {
    pub(super) fn make(name: &str) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("read the own cgroup")?;
        let mut folders = Vec::new();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                continue;
            }
            let hierarchy = controllers.trim_start_matches("name=");
            let parent = Path::new(ROOT).join(hierarchy).join(path.trim_start_matches('/'));
            ensure!(parent.is_dir(), "{} is not mounted", parent.display());
            folders.push(parent.join(name));
        }
        if folders.is_empty() {
            for controller in fs::read_to_string(format!("{ROOT}/cgroup.controllers"))?.split(' ') {
                // What the kernel cannot share out yet is not asked for by any test.
                let _ = fs::write(
                    format!("{ROOT}/cgroup.subtree_control"),
                    format!("+{}", controller.trim()),
                );
            }
            folders.push(Path::new(ROOT).join(name));
        }
        for folder in &folders {
            leash::cgroup(folder)?;
        }
        let cgroups = Self { folders };
        for folder in &cgroups.folders {
            make(folder)?;
            make(&folder.join("node"))?;
        }
        Ok(cgroups)
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir(folder).with_context(|| format!("make the cgroup {}", folder.display()))?;
    // In version 1 nothing may enter before these are set.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let parents = folder.parent().context("a cgroup has a parent")?.join(file);
        if folder.join(file).exists() && parents.exists() {
            fs::write(folder.join(file), fs::read(parents)?)?;
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}
