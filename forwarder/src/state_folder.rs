//! The state folder is one agent's, and one running program's: a lock that the kernel drops with the process, in a file
//! that names both. Two programs on one folder would each deliver what the other has already taken for its own.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use siem_agent_crds::config::Config;
use siem_agent_crds::printable::printable;
use tracing::warn;

use crate::files;

const LOCK: &str = "lock";
/// Two short lines.
const MAX_BYTES: u64 = 4 * 1024;

/// Why the folder cannot be this program's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or the lock's file refuses.
    #[error("cannot {verb} {path}")]
    File {
        /// What was being done.
        verb: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Another program runs on it.
    #[error(
        "the state folder {path} is in use by {by}: stop that one, or give this one its own folder (--state-dir)"
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// The other process, as far as it has said.
        by: String,
    },
    /// It holds the state of another agent.
    #[error(
        "the state folder {path} belongs to the agent {owner}, not to {agent}: give each agent its own folder \
         (--state-dir); where the old state is not needed any more, remove the folder"
    )]
    OtherAgent {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who wanted it.
        agent: String,
    },
}

/// A folder that nobody else uses while this lives.
#[derive(Debug)]
pub struct StateFolder {
    _lock: Option<Flock<File>>,
}

/// The agent as its state knows it: in a pod the object's UID, on a plain server the name of the manifest.
pub fn agent(config: &Config) -> String {
    match (&config.paths.checkpoint, &config.agent.uid) {
        (Some(_), Some(uid)) => uid.clone(),
        _ => format!("{}/{}", config.agent.namespace, config.agent.name),
    }
}

impl StateFolder {
    /// Makes the folder where it is absent, and takes it for this agent.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(path: &Path, agent: &str) -> Result<Self, Error> {
        files::create_folder(path).map_err(file("make the folder", path))?;
        let lock = path.join(LOCK);
        let opened = files::open_own(&lock).map_err(file("open", &lock))?;
        let mut locked = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => locked,
            Err((mut opened, Errno::EWOULDBLOCK)) => {
                let by = read(&mut opened).ok().and_then(|(process, _)| process);
                let by =
                    by.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"));
                return Err(Error::Busy { path: path.to_owned(), by });
            }
            Err((_, error @ (Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS))) => {
                warn!(folder = %path.display(), reason = %error, "the state folder cannot be locked: see that no other forwarder uses it");
                return Ok(Self { _lock: None });
            }
            Err((_, error)) => return Err(file("lock", &lock)(error.into())),
        };
        let (_, owner) = read(&mut locked).map_err(file("read", &lock))?;
        if let Some(owner) = owner.filter(|owner| owner != agent) {
            let owner = printable(&owner).into_owned();
            return Err(Error::OtherAgent {
                path: path.to_owned(),
                owner,
                agent: agent.to_owned(),
            });
        }
        if let Err(error) = write(&mut locked, agent) {
            // A full disk is no reason to stand still: the folder is locked all the same.
            warn!(path = %lock.display(), reason = %error, "the lock's file cannot be written");
        }
        Ok(Self { _lock: Some(locked) })
    }
}

/// The process that has the lock, and whose folder it is, as far as the file says.
fn read(file: &mut File) -> io::Result<(Option<u32>, Option<String>)> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let after = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let owner = after("agent ").map(str::to_owned);
    Ok((after("process ").and_then(|id| id.parse().ok()), owner))
}

/// The agent first: where the rest does not fit on the disk any more, it is still known whose the folder is.
fn write(file: &mut File, agent: &str) -> io::Result<()> {
    let text = format!("agent {agent}\nprocess {}\n", std::process::id());
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { verb, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use siem_agent_edge::error_chain::chain;

    #[test]
    fn a_folder_is_one_programs_at_a_time_and_one_agents_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let first = StateFolder::open(&path, "security/soc").unwrap();
        let busy = StateFolder::open(&path, "security/soc").unwrap_err().to_string();
        assert!(busy.contains(&format!("process {}", std::process::id())), "{busy}");
        drop(first);
        drop(StateFolder::open(&path, "security/soc").unwrap());
        let other = StateFolder::open(&path, "security/other").unwrap_err().to_string();
        assert!(
            other.contains("belongs to the agent security/soc, not to security/other"),
            "{other}"
        );
        // Trying changed nothing.
        drop(StateFolder::open(&path, "security/soc").unwrap());
        std::fs::write(path.join(LOCK), "").unwrap();
        drop(StateFolder::open(&path, "an agent after a crash").unwrap());
    }

    #[test]
    fn what_is_no_lock_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(LOCK)).unwrap();
        let error = StateFolder::open(folder.path(), "security/soc").unwrap_err();
        assert!(chain(&error).ends_with("it is a folder, not a file"), "{}", chain(&error));
    }
}
