//! What a page of documentation tells people to type, typed: its shell blocks, by heading, with the real programs.
//!
//! Nothing of a block is changed but the words that a test hands in to be put in the place of others, such as host names.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use siem_agent_sim::leash;
use siem_agent_sim::programs::programs;

/// A page, as its headings with their shell blocks.
#[derive(Debug)]
pub struct Page(Vec<(String, Vec<String>)>);

impl Page {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut page: Vec<(String, Vec<String>)> = Vec::new();
        let mut block: Option<String> = None;
        for line in text.lines() {
            match &mut block {
                Some(_) if line == "```" => {
                    let blocks = page.last_mut().map(|(_, blocks)| blocks);
                    blocks.context("a block stands below a heading")?.extend(block.take());
                }
                Some(block) => {
                    block.push_str(line);
                    block.push('\n');
                }
                None if line == "```sh" => block = Some(String::new()),
                None => {
                    if let Some(heading) = line.strip_prefix("## ") {
                        page.push((heading.to_owned(), Vec::new()));
                    }
                }
            }
        }
        Ok(Self(page))
    }

    /// The shell blocks below a heading, in their order.
    ///
    /// # Errors
    /// When there is no such heading, or not this many blocks.
    pub fn blocks<const N: usize>(&self, heading: &str) -> Result<[String; N]> {
        let found = self.0.iter().find(|(of, _)| of == heading);
        let (_, blocks) = found.with_context(|| format!("the page has no heading {heading}"))?;
        let n_blocks = blocks.len();
        blocks
            .clone()
            .try_into()
            .map_err(|_| anyhow::anyhow!("{heading} has {n_blocks} blocks, not {N}"))
    }
}

/// Somebody at a shell, with kubectl, helm and a folder in which the charts of this project lie.
#[derive(Debug)]
pub struct Typist {
    folder: TempDir,
    kubeconfig: PathBuf,
    instead: Vec<(String, String)>,
}

impl Typist {
    /// Sits down; `instead` are the words that are put in the place of others.
    ///
    /// # Errors
    /// When a program cannot be built.
    pub async fn new(kubeconfig: &Path, instead: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("siem-typist-").tempdir()?;
        leash::folder(folder.path())?;
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin)?;
        for (name, program) in ["kubectl", "helm"].iter().zip(programs(["kubectl", "helm"]).await?)
        {
            std::os::unix::fs::symlink(program, bin.join(name))?;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        for name in ["charts", "deploy"] {
            std::os::unix::fs::symlink(root.join(name), folder.path().join(name))?;
        }
        let instead = instead.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned()));
        Ok(Self { kubeconfig: kubeconfig.to_owned(), instead: instead.collect(), folder })
    }

    /// Puts a file into the folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.folder.path().join(name), text).with_context(|| format!("write {name}"))
    }

    /// Types a block, ends at the first command that fails, and gives what was said.
    ///
    /// # Errors
    /// When one fails, with what it said.
    pub async fn types(&self, block: &str) -> Result<String> {
        let mut block = block.to_owned();
        for (from, to) in &self.instead {
            block = block.replace(from, to);
        }
        let path = format!("{}:/usr/bin:/bin", self.folder.path().join("bin").display());
        let out = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &block])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("start bash")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&out.stdout);
        ensure!(out.status.success(), "{block}: {}\n{said}{}", out.status, text(&out.stderr));
        Ok(said)
    }
}
