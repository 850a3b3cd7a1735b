//! Secrets: read from files when they are needed, never kept longer, never shown.
//!
//! A mounted Secret may appear, change or vanish while the program runs, so each use reads the file again. Nothing here
//! has a `Debug` or `Display` that tells more than the file's path.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The longest secret that is believed; a longer file is a mistake.
const MAX_BYTES: usize = 64 * 1024;

/// A secret's value. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret that came over the network.
    pub(crate) fn of(value: String) -> Self {
        Self(value)
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// A file that holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

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
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something that cannot be a token or a password.
    #[error("{path} {problem}: store the value alone, on one line")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl SecretFile {
    /// A file that is read at each use.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the value; line ends after it are no part of it.
    ///
    /// # Errors
    /// [`Error`] for a file that is absent, unreadable, empty, too long, not text, or of several lines.
    pub fn read(&self) -> Result<Secret, Error> {
        let bytes = std::fs::read(&self.0).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Error::Missing { path: self.0.clone() }
            }
            _ => Error::Read { path: self.0.clone(), source },
        })?;
        let malformed = |problem| Error::Malformed { path: self.0.clone(), problem };
        if bytes.len() > MAX_BYTES {
            return Err(malformed("is longer than any token"));
        }
        let text = String::from_utf8(bytes).map_err(|_utf8| malformed("is not text"))?;
        let value = text.trim_end_matches(['\r', '\n']);
        if value.trim().is_empty() {
            return Err(malformed("is empty"));
        }
        if value.chars().any(char::is_control) {
            return Err(malformed("holds a line break or another control character"));
        }
        if value.trim() != value {
            return Err(malformed("begins or ends with a space"));
        }
        Ok(Secret(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Secret, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, content).unwrap();
        SecretFile::new(path).read()
    }

    #[test]
    fn a_line_end_after_the_value_is_no_part_of_it() {
        assert_eq!(read(b"abc==\n").unwrap().expose(), "abc==");
        assert_eq!(read(b"abc\r\n").unwrap().expose(), "abc");
    }

    #[test]
    fn what_cannot_be_a_token_is_refused_without_being_shown() {
        for content in
            [&b"PLANTED\nPLANTED"[..], b"", b"\n", b" PLANTED", b"PLANTED\xff", b"PLANTED\0"]
        {
            let error = read(content).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }));
            assert!(!format!("{error} {error:?}").contains("PLANTED"));
        }
        assert_eq!(format!("{:?}", read(b"PLANTED").unwrap()), "Secret");
    }

    #[test]
    fn an_absent_file_is_missing() {
        let file = SecretFile::new("/nonexistent/defender/token".into());
        assert!(matches!(file.read(), Err(Error::Missing { .. })));
    }
}
