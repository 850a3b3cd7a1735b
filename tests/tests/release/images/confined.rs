//! Runs a program of an unpacked image as a node would at its strictest: the image's files and nothing else, read-only,
//! as a user that no file knows, without a capability, `/proc` or an environment. Devices and `/etc/hosts` are what every
//! runtime puts there.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result};

/// As OpenShift chooses them.
const ANY_USER: &str = "1000660000";
/// Arguments: root, user, a folder of the machine, the folder in which the program finds it, then the command.
const SCRIPT: &str = r#"
set -e
root=$1 user=$2 from=$3 to=$4
shift 4
mount --bind "$root" "$root"
mount --bind "$from" "$root$to"
for device in null zero random urandom; do
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mount -o remount,bind,ro "$root"
exec unshare --user --map-user="$user" --map-group=0 --root="$root" -- "$@"
"#;

/// Where the program finds the folder that it is given.
pub(crate) const GIVEN: &str = "/given";

/// Runs it to its end.
pub(crate) fn run(root: &Path, given: &Path, command: &[&str]) -> Result<Output> {
    // Whoever starts containers makes what something is mounted on.
    for folder in ["dev", "etc", GIVEN.trim_start_matches('/')] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    std::fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "confined"])
        .args([root, Path::new(ANY_USER), given, Path::new(GIVEN)])
        .args(command)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .context("run unshare")
}
