//! `cargo node`: the real node of the tests, for people. `up` leaves it running and says how to use it, `down` ends it.
//!
//! A process in the background holds it, and hands on connections from loopback to its API server; the node ends with that
//! process, however it ends.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use siem_agent_sim::control_plane::User;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::real_node::{self, ADDRESS};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};

/// A real Kubernetes node of one's own, without a way out: kubelet, containerd and a control plane. Needs root.
#[derive(Debug, Parser)]
#[command(name = "cargo node")]
enum Cli {
    /// Starts it and prints how to use it.
    Up {
        /// An OCI or Docker archive whose images the node shall have. May be given several times.
        #[arg(long, value_name = "ARCHIVE")]
        image: Vec<PathBuf>,
    },
    /// Ends it; nothing of it stays.
    Down,
    /// Holds it until it is told to end.
    #[command(hide = true)]
    Hold { image: Vec<PathBuf> },
}

fn main() -> Result<()> {
    let program = std::env::current_exe()?;
    let folder = program.parent().context("a program stands in a folder")?.join("real-node");
    match Cli::parse() {
        Cli::Up { image } => up(&program, &folder, &image),
        Cli::Down => down(&folder),
        Cli::Hold { image } => hold(folder, image),
    }
}

fn up(program: &Path, folder: &Path, images: &[PathBuf]) -> Result<()> {
    ensure!(holder(folder).is_none(), "it is up already; end it with: cargo node down");
    fs::create_dir_all(folder)?;
    for left in ["ready", "kubeconfig"] {
        // What an earlier one has written, which may never have come so far.
        let _ = fs::remove_file(folder.join(left));
    }
    let log = File::create(folder.join("log"))?;
    let mut held = Command::new(program)
        .arg("hold")
        .args(images)
        // Ctrl-C in this terminal is not meant for it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    fs::write(folder.join("pid"), held.id().to_string())?;
    // Programs that are not built yet are built first, and that takes minutes.
    while !folder.join("ready").exists() {
        if held.try_wait()?.is_some() {
            bail!("{}", fs::read_to_string(folder.join("log"))?.trim_end());
        }
        thread::sleep(LOOK);
    }
    let out = &mut std::io::stdout();
    writeln!(out, "export KUBECONFIG={}", folder.join("kubeconfig").display())?;
    let network = fs::read_to_string(folder.join("ready"))?;
    writeln!(
        out,
        "# its network: nsenter --net=/proc/{network}/ns/net; pods reach it as {ADDRESS}"
    )?;
    Ok(writeln!(out, "# its end: cargo node down")?)
}

fn down(folder: &Path) -> Result<()> {
    let pid = holder(folder).context("it is not up")?;
    let disk = fs::read_to_string(folder.join("disk")).unwrap_or_default();
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
        if holder(folder).is_none() && (disk.is_empty() || !Path::new(&disk).exists()) {
            fs::remove_dir_all(folder)?;
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    bail!("it does not end; its log is {}", folder.join("log").display())
}

/// The process that holds a node, while it runs.
fn holder(folder: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(folder.join("pid")).ok()?.parse().ok()?;
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    command.split('\0').nth(1).is_some_and(|verb| verb == "hold").then_some(pid)
}

fn hold(folder: PathBuf, images: Vec<PathBuf>) -> Result<()> {
    // Opened out here, it is reached from out here.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    real_node::run(async move |node| {
        for image in &images {
            node.import(image).await.with_context(|| format!("import {}", image.display()))?;
        }
        let url = format!("https://{}", listener.local_addr()?);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let kubeconfig = node.plane().kubeconfig_at(User::Admin, &url)?;
        fs::copy(kubeconfig, folder.join("kubeconfig"))?;
        fs::write(folder.join("disk"), node.folder().display().to_string())?;
        fs::write(folder.join("ready.next"), node.network_pid().to_string())?;
        fs::rename(folder.join("ready.next"), folder.join("ready"))?;
        let port = node.plane().port();
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                accepted = listener.accept() => {
                    let (mut near, _) = accepted?;
                    tokio::spawn(async move {
                        if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                            // Either side may end it.
                            let _ = copy_bidirectional(&mut near, &mut far).await;
                        }
                    });
                }
            }
        }
    })
}
