//! An OCI archive, unpacked: its manifest, its configuration, and the files of its layers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct Archive {
    /// What names the image wherever it is.
    pub(crate) digest: String,
    /// The name under which it is imported.
    pub(crate) name: String,
    /// The image's configuration, as the OCI image specification has it.
    pub(crate) config: Value,
    /// What the layers hold: a line of `tar --list --verbose` each.
    pub(crate) files: Vec<String>,
    folder: TempDir,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        for name in ["archive", "root"] {
            fs::create_dir(at(name))?;
        }
        tar(&["--extract", "--directory"], &at("archive"), path)?;
        let index = json(&at("archive/index.json"))?;
        let listed = index["manifests"].as_array().context("an index lists manifests")?;
        ensure!(listed.len() == 1, "one manifest, not {index}");
        let digest = text(&listed[0]["digest"])?;
        let name = text(&listed[0]["annotations"]["org.opencontainers.image.ref.name"])?;
        let blob =
            |digest: &Value| anyhow::Ok(at("archive/blobs").join(text(digest)?.replace(':', "/")));
        let manifest = json(&blob(&listed[0]["digest"])?)?;
        let config = json(&blob(&manifest["config"]["digest"])?)?;
        let mut files = Vec::new();
        for layer in manifest["layers"].as_array().context("a manifest lists layers")? {
            let layer = blob(&layer["digest"])?;
            let listing = tar(
                &["--list", "--verbose", "--numeric-owner", "--directory"],
                &at("root"),
                &layer,
            )?;
            files.extend(listing.lines().map(str::to_owned));
            tar(&["--extract", "--directory"], &at("root"), &layer)?;
        }
        Ok(Self { digest, name, config, files, folder })
    }

    /// The folder that a container of it sees as `/`.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

fn tar(arguments: &[&str], folder: &Path, archive: &Path) -> Result<String> {
    let out = Command::new("tar").args(arguments).arg(folder).arg("--file").arg(archive).output();
    let out = out.context("run tar")?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "tar {arguments:?} {}: {error}", archive.display());
    Ok(String::from_utf8(out.stdout)?)
}

fn json(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("a text, not {value}"))?.to_owned())
}
