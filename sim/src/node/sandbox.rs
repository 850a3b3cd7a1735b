//! The command that puts a program into a root of its own: user and mount namespaces, so that mount paths are real
//! without being root.
//!
//! The root is a tmpfs with the host's `/usr`, `/proc` and `/dev`, the program, and the volumes. Nothing else of the
//! machine is in it: what a container reads, it was given. The process keeps its id from the shell to the program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments: root, program, `ro` or `rw`, then source, target and `ro` or `rw` of each volume up to `--`, then the
/// command with `env -i`.
const SCRIPT: &str = r#"
set -e
root=$1 program=$2 root_mode=$3
shift 3
mount -t tmpfs -o mode=755 container "$root"
mkdir "$root/usr" "$root/proc" "$root/dev" "$root/etc"
mount --rbind /usr "$root/usr"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
for name in bin sbin lib lib32 lib64; do
  if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$root/$name"
  elif [ -d "/$name" ]; then mkdir "$root/$name"; mount --rbind "/$name" "$root/$name"; fi
done
for name in ld.so.cache resolv.conf nsswitch.conf; do
  if [ -f "/etc/$name" ]; then cp "/etc/$name" "$root/etc/$name"; fi
done
echo '127.0.0.1 localhost' >"$root/etc/hosts"
: >"$root/${program##*/}"
mount --bind "$program" "$root/${program##*/}"
while [ "$1" != -- ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  if [ "$3" = ro ]; then mount -o remount,bind,ro "$root$2"; fi
  shift 3
done
shift
if [ "$root_mode" = ro ]; then mount -o remount,bind,ro "$root"; fi
exec chroot "$root" "$@"
"#;

/// A volume in a container.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) from: PathBuf,
    pub(super) to: String,
    pub(super) read_only: bool,
}

/// The command, ready to be started; `root` is an empty folder.
pub(super) fn command(
    root: &Path,
    program: &Path,
    read_only: bool,
    mounts: &[Mount],
    environment: &BTreeMap<String, String>,
    arguments: &[String],
) -> Command {
    let mode = |read_only: bool| if read_only { "ro" } else { "rw" };
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sandbox"])
        .arg(root)
        .arg(program)
        .arg(mode(read_only));
    for mount in mounts {
        command.arg(&mount.from).arg(&mount.to).arg(mode(mount.read_only));
    }
    command.args(["--", "/usr/bin/env", "-i", "PATH=/usr/bin:/bin"]);
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
    command.args(arguments);
    command
}
