//! What `tests/run` puts below the target folder: found from the running test, never installed from here.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// A file below the target folder of the running test.
///
/// # Errors
/// When it is not there; names what installs it.
pub fn installed(path: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("find the running test")?;
    let found = test.ancestors().skip(1).map(|folder| folder.join(path)).find(|path| path.exists());
    found.with_context(|| {
        format!("target/{path} is missing: run `tests/run --install-only`, which puts it there")
    })
}
