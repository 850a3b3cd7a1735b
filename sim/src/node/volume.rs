//! A volume's folder: files appear as the kubelet makes them appear, all at once by the swap of `..data`.
//!
//! A change waits for the delay that the test has set. A volume that cannot be read again keeps what it has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::content::{Content, Files};
use super::make_folder;

/// A mounted volume.
#[derive(Debug)]
pub(super) struct Mounted {
    pub(super) folder: PathBuf,
    held: Option<Files>,
    changed: Option<(Files, Instant)>,
    n_swaps: u32,
}

impl Mounted {
    /// Mounts it: files are there at once.
    pub(super) fn mount(
        content: Content,
        folder: PathBuf,
        claim: impl Fn(&str) -> PathBuf,
    ) -> Result<Self, String> {
        let folder = if let Content::Claim(name) = &content { claim(name) } else { folder };
        make_folder(&folder)?;
        let mut mounted = Self { folder, held: None, changed: None, n_swaps: 0 };
        if let Content::Files(files) = content {
            mounted.swap(files)?;
        }
        Ok(mounted)
    }

    /// Brings the files up to date, once they have been out of date for the delay.
    pub(super) fn refresh(
        &mut self,
        content: Content,
        delay: Duration,
        now: Instant,
    ) -> Result<(), String> {
        let Content::Files(files) = content else { return Ok(()) };
        if self.held.as_ref() == Some(&files) {
            self.changed = None;
            return Ok(());
        }
        let since = match &self.changed {
            // The delay is that of the first change: the kubelet looks at its own times.
            Some((_, since)) => *since,
            None => now,
        };
        if now.duration_since(since) < delay {
            self.changed = Some((files, since));
            return Ok(());
        }
        self.changed = None;
        self.swap(files)
    }

    fn swap(&mut self, files: Files) -> Result<(), String> {
        let data = self.folder.join("..data");
        let before = fs::read_link(&data).ok();
        // After a restart of the stand-in the folder is there already.
        let name = loop {
            self.n_swaps += 1;
            let name = format!("..data_{}", self.n_swaps);
            if !self.folder.join(&name).exists() {
                break name;
            }
        };
        self.write(&files, &name, &data, before.as_deref())
            .map_err(|error| format!("write the volume {}: {error}", self.folder.display()))?;
        self.held = Some(files);
        Ok(())
    }

    fn write(
        &self,
        files: &Files,
        name: &str,
        data: &Path,
        before: Option<&Path>,
    ) -> std::io::Result<()> {
        let next = self.folder.join(name);
        fs::create_dir(&next)?;
        for (path, bytes) in files {
            let path = next.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        let link = self.folder.join("..data_next");
        symlink(name, &link)?;
        fs::rename(&link, data)?;
        let first_steps: Vec<&str> =
            files.keys().filter_map(|path| path.split('/').next()).collect();
        for step in &first_steps {
            let link = self.folder.join(step);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(step), link)?;
            }
        }
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with("..") && !first_steps.contains(&&*name) {
                fs::remove_file(entry.path())?;
            }
        }
        match before {
            Some(before) => fs::remove_dir_all(self.folder.join(before)),
            None => Ok(()),
        }
    }
}
