//! `--token TOKEN`, as the vendor's agent had it: everyone on the machine can read a command line, so the token is moved
//! into a file in memory that only this process can open, and the program starts itself again without the argument.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{Failure, complain};

/// Replaces this process by one without the token among its arguments; returns only when that fails.
pub(super) fn start_again_without(token: &str) -> Failure {
    complain(
        "warning: --token shows the token to everyone on this machine; starting again without it, use --token-file",
    );
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::world(error);
    // Not closed at exec: the next program reads it.
    let file = match memfd_create(c"token", MFdFlags::empty()) {
        Ok(file) => file,
        Err(error) => return failed(&error),
    };
    let mut file = File::from(file);
    if let Err(error) = file.write_all(token.as_bytes()) {
        return failed(&error);
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return failed(&error),
    };
    let mut arguments = Vec::new();
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("--token") => {
                given.next();
            }
            Some(text) if text.starts_with("--token=") => {}
            Some(_) | None => arguments.push(argument),
        }
    }
    arguments.push("--token-file".into());
    arguments.push(format!("/proc/self/fd/{}", file.as_raw_fd()).into());
    failed(&std::process::Command::new(program).args(arguments).exec())
}
