//! A Secret or ConfigMap as a kubelet mounts it: a folder of links through `..data`, which is swapped as one step.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// A mounted folder.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    n_swaps: u32,
}

impl Mounted {
    /// Mounts these files there.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn new(folder: &Path, files: &[(&str, &str)]) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut mounted = Self { folder: folder.to_owned(), n_swaps: 0 };
        mounted.swap(files)?;
        for (key, _) in files {
            symlink(Path::new("..data").join(key), folder.join(key))?;
        }
        Ok(mounted)
    }

    /// Replaces all files at once.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn swap(&mut self, files: &[(&str, &str)]) -> Result<()> {
        self.n_swaps += 1;
        let generation = format!("..generation_{}", self.n_swaps);
        fs::create_dir(self.folder.join(&generation))?;
        for (key, content) in files {
            fs::write(self.folder.join(&generation).join(key), content)?;
        }
        let next = self.folder.join("..data_tmp");
        symlink(&generation, &next)?;
        Ok(fs::rename(next, self.folder.join("..data"))?)
    }
}
