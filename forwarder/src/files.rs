//! Files that this program owns or is given, opened so that nothing in their place misleads it or holds it up.
//!
//! A pipe, a device, a socket or a folder in a file's place is an error at once. What the program owns is its user's
//! alone, whatever the umask, and no symbolic link leads away from it; what it is given may be a link, as Kubernetes
//! mounts Secrets.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _,
    PermissionsExt as _,
};
use std::path::Path;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Something else stands in a file's place.
#[derive(Debug, thiserror::Error)]
#[error("it is a {0}, not a file")]
struct NotAFile(&'static str);

/// The file is longer than anything that belongs there.
#[derive(Debug, thiserror::Error)]
#[error("it is longer than {0} bytes")]
struct TooLong(u64);

/// Reads a file that somebody else provides.
///
/// # Errors
/// When it is absent, no file, longer than `max_bytes`, or refuses.
pub fn read_given(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    read(open_given(path)?, max_bytes)
}

/// Opens a file that somebody else provides.
///
/// # Errors
/// When it is absent, no file, or refuses.
pub fn open_given(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().read(true), path, 0)
}

/// The same as text.
///
/// # Errors
/// Also when it is not UTF-8.
pub fn read_given_text(path: &Path, max_bytes: u64) -> io::Result<String> {
    let bytes = read_given(path, max_bytes)?;
    String::from_utf8(bytes)
        .map_err(|_utf8| io::Error::new(ErrorKind::InvalidData, "it is not text in UTF-8"))
}

/// Reads a file of our own.
///
/// # Errors
/// When it is absent, no file, longer than `max_bytes`, or refuses.
pub fn read_own(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    read(open(OpenOptions::new().read(true), path, libc::O_NOFOLLOW)?, max_bytes)
}

/// Opens a file of our own to read and write it, and makes it where it is absent; what is in it stays.
///
/// # Errors
/// When something else is in its place, or the folder refuses.
pub fn open_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    own(&options, path)
}

/// Makes a file of our own, or empties it.
///
/// # Errors
/// When something else is in its place, or the folder refuses.
pub fn create_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Emptied only once it is known to be a file.
    options.write(true).create(true).truncate(false).mode(FILE_MODE);
    let file = own(&options, path)?;
    file.set_len(0)?;
    Ok(file)
}

/// Opens a file of our own to write at its end, and makes it where it is absent.
///
/// # Errors
/// When something else is in its place, or the folder refuses.
pub fn append_own(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE);
    own(&options, path)
}

/// Makes a folder of our own, and those above it, where they are absent. One that is there stays as it is: it may be a
/// volume that others prepared.
///
/// # Errors
/// When it cannot be made, or something else is in its place.
pub fn create_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_folder(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        // The umask may have taken the user's own rights away.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if path.is_dir() {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ENOTDIR))
            }
        }
        Err(error) => Err(error),
    }
}

fn own(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let file = open(options, path, libc::O_NOFOLLOW)?;
    // It may be from an earlier version, or the umask may have taken the user's own rights away.
    let mode = file.metadata()?.mode() & 0o777;
    if mode != FILE_MODE
        && let Err(error) = file.set_permissions(Permissions::from_mode(FILE_MODE))
    {
        // Another user's, on a volume that a group shares: nobody else reads it all the same.
        if error.kind() != ErrorKind::PermissionDenied || mode & 0o007 != 0 {
            return Err(error);
        }
    }
    Ok(file)
}

/// Without `O_NONBLOCK` a pipe is waited for until somebody opens its other end.
fn open(options: &OpenOptions, path: &Path, flags: i32) -> io::Result<File> {
    let opened = options.clone().custom_flags(flags | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| explain(error, path, flags))?;
    match other_kind(file.metadata()?.file_type()) {
        Some(kind) => Err(io::Error::new(ErrorKind::InvalidInput, NotAFile(kind))),
        None => Ok(file),
    }
}

/// The system's words for a pipe or a link are of little help.
fn explain(error: io::Error, path: &Path, flags: i32) -> io::Error {
    let there =
        if flags & libc::O_NOFOLLOW == 0 { fs::metadata(path) } else { fs::symlink_metadata(path) };
    match there.ok().and_then(|there| other_kind(there.file_type())) {
        Some(kind) => io::Error::new(ErrorKind::InvalidInput, NotAFile(kind)),
        None => error,
    }
}

fn other_kind(kind: fs::FileType) -> Option<&'static str> {
    [
        (kind.is_dir(), "folder"),
        (kind.is_symlink(), "symbolic link"),
        (kind.is_fifo(), "pipe"),
        (kind.is_socket(), "socket"),
        (kind.is_char_device() || kind.is_block_device(), "device"),
    ]
    .into_iter()
    .find_map(|(is_it, name)| is_it.then_some(name))
}

/// Removes the folders in a folder of our own but for the one of this name, as far as that goes.
pub fn remove_other_folders(path: &Path, name: &str) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && entry.file_name() != *name {
            // Nobody reads it; it only takes room.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn read(file: File, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|n_bytes| n_bytes <= max_bytes) {
        Ok(bytes)
    } else {
        Err(io::Error::new(ErrorKind::FileTooLarge, TooLong(max_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    type Open = fn(&Path) -> io::Result<File>;

    const KINDS: [&str; 4] = ["folder", "symbolic link", "pipe", "socket"];

    /// One of each kind that is not a file, by its name.
    fn others(folder: &Path) -> Vec<(&'static str, std::path::PathBuf)> {
        let path = |name: &str| folder.join(name);
        fs::create_dir(path("folder")).unwrap();
        fs::write(path("elsewhere"), "untouched").unwrap();
        symlink(path("elsewhere"), path("symbolic link")).unwrap();
        mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        drop(UnixListener::bind(path("socket")).unwrap());
        KINDS.into_iter().map(|name| (name, path(name))).collect()
    }

    #[test]
    fn what_is_not_a_file_is_refused_at_once_and_in_words() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, path) in others(folder.path()) {
            let words = format!("it is a {kind}, not a file");
            let own: [(&str, Open); 3] =
                [("open", open_own), ("create", create_own), ("append", append_own)];
            for (way, open) in own {
                assert_eq!(open(&path).unwrap_err().to_string(), words, "{way}");
            }
            assert_eq!(read_own(&path, 100).unwrap_err().to_string(), words);
            match read_given(&path, 100) {
                // A mounted Secret is one.
                Ok(bytes) => {
                    assert_eq!((kind, bytes.as_slice()), ("symbolic link", &b"untouched"[..]));
                }
                Err(error) => assert_eq!(error.to_string(), words),
            }
        }
        assert_eq!(fs::read(folder.path().join("elsewhere")).unwrap(), b"untouched");
        assert_eq!(
            read_given(Path::new("/dev/zero"), 100).unwrap_err().to_string(),
            "it is a device, not a file"
        );
    }

    #[test]
    fn a_file_of_our_own_is_the_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let deep = folder.path().join("a/b");
        create_folder(&deep).unwrap();
        create_folder(&deep).unwrap();
        assert_eq!((mode(&deep), mode(&folder.path().join("a"))), (0o700, 0o700));
        let path = deep.join("file");
        fs::write(&path, "an earlier version's").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(open_own(&path).unwrap());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_own(&path, 100).unwrap(), b"an earlier version's");
        assert_eq!(read_own(&path, 5).unwrap_err().to_string(), "it is longer than 5 bytes");
        drop(create_own(&path).unwrap());
        assert_eq!(read_own(&path, 0).unwrap(), b"");
        assert!(create_folder(&path).is_err());
        assert!(create_folder(&path.join("below")).is_err());
    }
}
