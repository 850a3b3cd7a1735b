//! Secrets: read from files when they are needed, never kept longer, never shown.
//!
//! A mounted Secret may appear, change or vanish while the program runs, so each use reads the file again. Nothing here
//! has a `Debug` or `Display` that shows more than the file's path.

mod clean;
pub(crate) mod file;
mod id;

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::files;

pub(crate) use clean::is_token;
pub use clean::{Flaw, Kind};
pub use file::SecretFile;
pub use id::SecretId;

/// A secret's value. It cannot be printed, and is overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A secret that came over the network.
    pub(crate) fn of(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// By what it is distinguished from another one.
    pub fn id(&self) -> SecretId {
        SecretId::of(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Why a file gives no secret. Shows the path, never the content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file: the Secret or its key is missing.
    #[error("{path} is missing: create the Secret and its key, or correct the reference")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something that cannot be such a secret.
    #[error("{path} {flaw}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

impl SecretFile {
    /// Reads the value, without what editors, shells and copying leave around it.
    ///
    /// # Errors
    /// [`Error`] for a file that is absent, unreadable, or holds what cannot be such a secret.
    pub fn read(&self) -> Result<Secret, Error> {
        let path = || self.path.clone();
        let mut bytes = Zeroizing::new(Vec::new());
        files::open_given(&self.path)
            .and_then(|file| file.take(clean::MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    Error::Missing { path: path() }
                }
                _ => Error::Read { path: path(), source },
            })?;
        clean::clean(&bytes, self.kind)
            .map(Secret::of)
            .map_err(|flaw| Error::Malformed { path: path(), flaw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Secret, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, content).unwrap();
        SecretFile::new(path, Kind::Token).read()
    }

    #[test]
    fn a_line_end_after_the_value_is_no_part_of_it() {
        assert_eq!(read(b"abc==\n").unwrap().expose(), "abc==");
        assert_eq!(read(b"abc\r\n").unwrap().expose(), "abc");
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_being_shown() {
        for content in
            [&b"PLANTED\nPLANTED"[..], b"", b"\n", b"PLANTED PLANTED", b"PLANTED\xff", b"PLANTED\0"]
        {
            let error = read(content).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }));
            assert!(!format!("{error} {error:?}").contains("PLANTED"));
        }
        assert_eq!(format!("{:?}", read(b"PLANTED").unwrap()), "Secret");
    }

    #[test]
    fn an_absent_file_is_missing() {
        let file = SecretFile::new("/nonexistent/defender/token".into(), Kind::Token);
        assert!(matches!(file.read(), Err(Error::Missing { .. })));
    }
}
