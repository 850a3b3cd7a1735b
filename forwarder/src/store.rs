//! The checkpoint's file: saved atomically, in two generations, each with a checksum.
//!
//! Owns the form around the positions, which their source alone reads. A save writes a temporary file, makes it durable, and renames it over
//! the *older* generation, so that at every moment at least one whole generation is on disk. A generation that does not
//! match its checksum is set aside under another name, reported, and the other one is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use siem_agent_crds::position::{Position, StreamPosition};

use crate::checkpoint::Checkpoint;
use crate::event::Stream;
use crate::files;
use crate::time::Millis;

const VERSION: u32 = 1;
const GENERATIONS: [&str; 2] = ["checkpoint.a", "checkpoint.b"];
const TEMPORARY: &str = "checkpoint.tmp";
/// Far more than a day of 200,000 alerts takes.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// A line of 64 hexadecimal digits and a line feed closes the file.
const CHECKSUM_BYTES: usize = 65;

/// Why the checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or the folder refuses.
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
    /// The stored form could not be written out.
    #[error("cannot encode the checkpoint")]
    Encode(#[source] serde_json::Error),
}

/// What was found at the start.
#[derive(Debug)]
pub struct Loaded {
    /// The newest whole generation.
    pub checkpoint: Option<Checkpoint>,
    /// Generations that were damaged, under the names that they have now.
    pub set_aside: Vec<PathBuf>,
}

/// The folder with the two generations.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    sequence: u64,
}

/// The positions lie under the names of their streams, as their source wrote them.
#[derive(Serialize)]
struct Stored<'a> {
    version: u32,
    sequence: u64,
    source: &'a str,
    exported: &'a BTreeSet<Stream>,
    through: BTreeMap<Stream, Millis>,
    /// The sources of positions that are not of the one above.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sources: BTreeMap<Stream, &'a str>,
    alerts: Option<&'a Position>,
    activities: Option<&'a Position>,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    sequence: u64,
    source: String,
    exported: Vec<Stream>,
    /// Absent in what the versions before wrote, which say it within the position.
    #[serde(default)]
    through: BTreeMap<Stream, Millis>,
    #[serde(default)]
    sources: BTreeMap<Stream, String>,
    alerts: Option<Position>,
    activities: Option<Position>,
}

impl Store {
    /// Opens the folder, making it where it is absent, and reads what is there.
    ///
    /// # Errors
    /// [`Error::File`] when the folder cannot be made, read or written: the forwarder must not run without state.
    pub fn open(folder: &Path) -> Result<(Self, Loaded), Error> {
        files::create_folder(folder).map_err(file("make the folder", folder))?;
        let probe = folder.join(TEMPORARY);
        files::create_own(&probe).map_err(file("write", &probe))?;
        let mut newest: Option<Read> = None;
        let mut set_aside = Vec::new();
        for name in GENERATIONS {
            let path = folder.join(name);
            let bytes = match files::read_own(&path, MAX_BYTES) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(file("read", &path)(error)),
            };
            match decode(&bytes) {
                Some(stored)
                    if newest.as_ref().is_none_or(|newest| newest.sequence < stored.sequence) =>
                {
                    newest = Some(stored);
                }
                Some(_) => {}
                None => {
                    let aside = free_name(&path);
                    fs::rename(&path, &aside).map_err(file("set aside", &path))?;
                    set_aside.push(aside);
                }
            }
        }
        let sequence = newest.as_ref().map_or(0, |stored| stored.sequence);
        let store = Self { folder: folder.to_owned(), sequence };
        Ok((store, Loaded { checkpoint: newest.map(Read::into_checkpoint), set_aside }))
    }

    /// Makes this checkpoint durable.
    ///
    /// # Errors
    /// [`Error`]; what was saved before is still whole then.
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let sequence = self.sequence + 1;
        let temporary = self.folder.join(TEMPORARY);
        let failed = |source| Error::File { verb: "write", path: temporary.clone(), source };
        let out = files::create_own(&temporary).map_err(failed)?;
        let mut out = Digesting { out: BufWriter::new(out), digest: Sha256::new() };
        serde_json::to_writer(&mut out, &Stored::of(checkpoint, sequence))
            .map_err(Error::Encode)?;
        let Digesting { mut out, digest } = out;
        writeln!(out, "{}", hex(&digest.finalize())).map_err(failed)?;
        let out = out.into_inner().map_err(|error| failed(error.into_error()))?;
        out.sync_all().map_err(failed)?;
        fail::fail_point!("before_rename", |_| std::process::abort());
        let [even, odd] = GENERATIONS;
        let generation = self.folder.join(if sequence.is_multiple_of(2) { even } else { odd });
        fs::rename(&temporary, &generation).map_err(file("rename to", &generation))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(file("sync", &self.folder))?;
        self.sequence = sequence;
        Ok(())
    }
}

impl<'a> Stored<'a> {
    fn of(checkpoint: &'a Checkpoint, sequence: u64) -> Self {
        let position = |stream| checkpoint.position(stream).map(|at| &at.position);
        let through = checkpoint.positions().iter().map(|(stream, at)| (*stream, at.through));
        Self {
            version: VERSION,
            sequence,
            source: checkpoint.source(),
            exported: checkpoint.exported(),
            through: through.collect(),
            sources: checkpoint
                .positions()
                .iter()
                .filter_map(|(stream, at)| Some((*stream, at.source.as_deref()?)))
                .collect(),
            alerts: position(Stream::Alerts),
            activities: position(Stream::Activities),
        }
    }
}

impl Read {
    fn into_checkpoint(mut self) -> Checkpoint {
        /// Of a position of the versions before.
        #[derive(Deserialize)]
        struct Watermark {
            watermark: Millis,
        }
        let mut checkpoint = Checkpoint::new(self.source).exporting(self.exported);
        let positions = [(Stream::Alerts, self.alerts), (Stream::Activities, self.activities)];
        for (stream, position) in positions {
            let position = position.unwrap_or_default();
            let through = self.through.get(&stream).copied();
            let within = || position.read().map(|Watermark { watermark }| watermark);
            if let Some(through) = through.or_else(within) {
                let source = self.sources.remove(&stream);
                checkpoint.set(stream, StreamPosition { through, position, source });
            }
        }
        checkpoint
    }
}

/// Passes bytes on and digests them.
struct Digesting {
    out: BufWriter<File>,
    digest: Sha256,
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.out.write(bytes)?;
        self.digest.update(bytes.get(..n_bytes).unwrap_or(bytes));
        fail::fail_point!("between_bytes", |_| {
            let _ = self.out.flush();
            std::process::abort()
        });
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `None` for anything but a whole generation of a version that this program knows.
fn decode(bytes: &[u8]) -> Option<Read> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
    if checksum.trim_ascii_end() != hex(&Sha256::digest(body)).as_bytes() {
        return None;
    }
    serde_json::from_slice(body).ok().filter(|stored: &Read| stored.version == VERSION)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn free_name(path: &Path) -> PathBuf {
    let numbered = |n: u32| path.with_added_extension(format!("damaged-{n}"));
    let is_free = |path: &PathBuf| fs::symlink_metadata(path).is_err();
    (1..).map(numbered).find(is_free).unwrap_or_else(|| numbered(0))
}

fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { verb, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(through: Millis) -> Checkpoint {
        let mut checkpoint = Checkpoint::new("https://contoso").exporting([Stream::Activities]);
        let position = Position::of(&serde_json::json!({"version": 9, "any": [through, "one"]}));
        checkpoint.set(Stream::Activities, StreamPosition { through, position, source: None });
        checkpoint
    }

    #[test]
    fn what_is_saved_is_loaded_and_the_newest_wins() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, loaded) = Store::open(folder.path()).unwrap();
        assert!(loaded.checkpoint.is_none());
        for watermark in [1_000, 2_000, 3_000] {
            store.save(&checkpoint(watermark)).unwrap();
            let (_, loaded) = Store::open(folder.path()).unwrap();
            assert_eq!(loaded.checkpoint, Some(checkpoint(watermark)));
        }
        let mut timed = checkpoint(4_000);
        let position = Position::default();
        timed.set(Stream::Alerts, StreamPosition { through: 5, position, source: None });
        store.save(&timed).unwrap();
        let (_, loaded) = Store::open(folder.path()).unwrap();
        assert_eq!(loaded.checkpoint, Some(timed), "a time without a position too");
    }

    #[test]
    fn any_damage_falls_back_to_the_other_generation() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(folder.path()).unwrap();
        store.save(&checkpoint(1_000)).unwrap();
        store.save(&checkpoint(2_000)).unwrap();
        let newest = folder.path().join("checkpoint.a");
        let whole = fs::read(&newest).unwrap();
        for n_bytes in [0, 1, CHECKSUM_BYTES, whole.len() / 2, whole.len() - 1] {
            fs::write(&newest, &whole[..n_bytes]).unwrap();
            let (_, loaded) = Store::open(folder.path()).unwrap();
            assert_eq!(loaded.checkpoint, Some(checkpoint(1_000)), "cut to {n_bytes} bytes");
            assert_eq!(loaded.set_aside.len(), 1);
        }
        let mut flipped = whole.clone();
        flipped[10] ^= 1;
        fs::write(&newest, flipped).unwrap();
        assert_eq!(Store::open(folder.path()).unwrap().1.checkpoint, Some(checkpoint(1_000)));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(matches!(Store::open(&path), Err(Error::File { .. })));
    }

    /// Whole generations as versions before this one wrote them.
    #[test]
    fn files_of_the_versions_before_are_read() {
        for (file, body) in [
            ("checkpoint.b", include_str!("../fixtures/state/first-version.json")),
            ("checkpoint.a", include_str!("../fixtures/state/cursor.json")),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let body = body.trim_end();
            let checksum = hex(&Sha256::digest(body));
            fs::write(folder.path().join(file), format!("{body}{checksum}\n")).unwrap();
            let (mut store, loaded) = Store::open(folder.path()).unwrap();
            let checkpoint = loaded.checkpoint.unwrap();
            assert_eq!(checkpoint.source(), "https://contoso");
            assert_eq!(checkpoint.exported().len(), 2);
            for (stream, at) in checkpoint.positions() {
                assert_eq!(at.through, 900_000_000, "{file} {stream}");
                assert!(body.contains(at.position.text()), "as it was written");
            }
            assert_eq!(checkpoint.positions().len(), 2);
            store.save(&checkpoint).unwrap();
            let again = Store::open(folder.path()).unwrap().1.checkpoint;
            assert_eq!(again, Some(checkpoint));
        }
    }
}
