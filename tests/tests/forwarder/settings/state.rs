//! The state folder and the files beside it: one agent's, one program's, their user's alone, and never a trap.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use siem_agent_sim::forwarder::Forwarder;
use siem_agent_tests::program::Ended;
use tokio::time::timeout;

use super::wrong::{MINIMAL, complains, folder, run};

/// Nobody is there: the program runs all the same.
const NOBODY: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn a_state_folder_is_one_programs_and_one_agents() -> Result<()> {
    let mut first = Forwarder::new(NOBODY, "dG9rZW4=", "{host: 127.0.0.1, port: 1}", "")?;
    first.start().await?;
    let pid = first.pid().context("it runs")?.to_string();
    let state = first.state().display().to_string();
    let second = folder();
    let named = MINIMAL.replace("{name: soc}", "{name: soc, namespace: security}");
    let started =
        async |manifest: String| run(second.path(), &manifest, &["--state-dir", &state]).await;
    let words = ["is in use by process", &pid, &state, "--state-dir"];
    complains("a second one", &started(named.clone()).await, 2, &words);
    let status = first.terminate().await?;
    ensure!(status.success(), "{status}");
    let other = named.replace("name: soc,", "name: other,");
    let words = ["belongs to the agent security/soc, not to security/other", &state, "--state-dir"];
    complains("another agent", &started(other).await, 2, &words);
    let elsewhere = named.replace(NOBODY, "http://127.0.0.1:2");
    let words =
        ["belongs to the source http://127.0.0.1:1, not to http://127.0.0.1:2", "--state-dir"];
    complains("another source", &started(elsewhere).await, 2, &words);
    for entry in fs::read_dir(first.state())? {
        let path = entry?.path();
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{}: {mode:o}", path.display());
    }
    let mode = fs::metadata(first.state())?.permissions().mode() & 0o777;
    ensure!(mode == 0o700, "{mode:o}");
    // It is still the first one's.
    first.start().await?;
    Ok(())
}

/// Puts something that is no file there, by its kind.
fn put(kind: &str, path: &Path) {
    match kind {
        "pipe" => mkfifo(path, Mode::S_IRWXU).unwrap(),
        "folder" => fs::create_dir(path).unwrap(),
        _ => {
            let elsewhere = path.with_extension("elsewhere");
            fs::write(&elsewhere, "untouched").unwrap();
            symlink(elsewhere, path).unwrap();
        }
    }
}

async fn in_time(what: &str, running: impl Future<Output = Ended>) -> Ended {
    timeout(Duration::from_secs(30), running).await.expect(what)
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_file_of_the_state_is_named_at_once() {
    for kind in ["pipe", "folder", "symbolic link"] {
        for name in ["checkpoint.a", "checkpoint.b", "checkpoint.tmp", "lock"] {
            let folder = folder();
            let state = folder.path().join("state");
            fs::create_dir(&state).unwrap();
            put(kind, &state.join(name));
            let what = format!("a {kind} as {name}");
            let ended = in_time(&what, run(folder.path(), MINIMAL, &[])).await;
            complains(&what, &ended, 2, &[name, &format!("it is a {kind}, not a file")]);
            if kind == "symbolic link" {
                let elsewhere = state.join(name).with_extension("elsewhere");
                assert_eq!(fs::read_to_string(elsewhere).unwrap(), "untouched");
            }
        }
    }
}

#[tokio::test]
async fn a_pipe_among_what_the_program_is_given_is_named_at_once() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    put("pipe", &pipe);
    let pipe = pipe.display().to_string();
    let words = ["pipe", "it is a pipe, not a file"];
    let ended = in_time("a token", run(folder.path(), MINIMAL, &["--token-file", &pipe])).await;
    complains("a token", &ended, 2, &words);
    let manifest = ["run", "--manifest", &pipe, "--state-dir", "unused"];
    let ended = in_time("a manifest", async {
        siem_agent_tests::program::forwarder(&manifest, "").await.unwrap()
    });
    complains("a manifest", &ended.await, 2, &words);
    let tls = MINIMAL.replace(
        "port: 1}",
        "port: 1, protocol: TLS, tls: {caBundleRef: {kind: Secret, name: defender, key: pipe}}}",
    );
    put("pipe", &folder.path().join("secrets/defender/pipe"));
    complains("a bundle", &in_time("a bundle", run(folder.path(), &tls, &[])).await, 2, &words);
}
