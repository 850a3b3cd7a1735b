//! The admin port of a running forwarder under clients that mean harm, while probes are answered and the export runs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::forwarder::Forwarder;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::world::{Manifest, World, tenant};

/// What the operator's probes give it.
const PROBE: Duration = Duration::from_secs(2);
/// The most that any storm may make of a program that takes 13 MiB as it ships; a debug build is larger.
const MAX_MEMORY_KIB: u64 = 48 * 1024;

/// A client that was cut off comes back after this.
const COME_BACK: Duration = Duration::from_millis(500);

/// A client that begins with these bytes, repeats the others, and never reads.
async fn client(address: String, begins: Vec<u8>, repeats: &'static [u8], pause: Duration) {
    loop {
        let Ok(mut stream) = TcpStream::connect(&address).await else { return };
        if stream.write_all(&begins).await.is_ok() {
            while !repeats.is_empty() && stream.write_all(repeats).await.is_ok() {
                sleep(pause).await;
            }
        }
        // One that says no more waits until it is given up, and comes back.
        let _ = timeout(Duration::from_secs(3), stream.readable()).await;
        sleep(COME_BACK).await;
    }
}

/// Who asks from the storm's own address shares its places, so one question may be cut off; a kubelet and the operator ask
/// again, and a probe fails when it has failed this often in a row.
const TRIES: usize = 3;

async fn tried<T>(what: &str, ask: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut n_failed = 0;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if n_failed + 1 == TRIES => return Err(error.context(what.to_owned())),
            Err(_cut_off) => n_failed += 1,
        }
    }
}

async fn probe(forwarder: &Forwarder) -> Result<()> {
    for path in ["livez", "readyz", "status", "metrics"] {
        let ask = async || timeout(PROBE, forwarder.get(path)).await.context("in time")?;
        tried(path, ask).await?;
    }
    Ok(())
}

fn peak_kib(pid: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    Ok(peak.trim_end_matches("kB").trim().parse()?)
}

/// Records come, are delivered and saved while this storm blows.
async fn exports_through(
    what: &str,
    mut world: World,
    storm: impl Fn(String) -> JoinSet<()>,
) -> Result<()> {
    world.forwarder.start().await?;
    world.all_delivered().await?;
    let pid = world.forwarder.pid().context("it runs")?.to_string();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let files = limits.lines().find(|line| line.starts_with("Max open files")).context("files")?;
    let [soft, hard] = [3, 4].map(|word| files.split_whitespace().nth(word));
    ensure!(soft == hard, "the soft limit is not raised: {files}");
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).context("core")?;
    ensure!(core.split_whitespace().skip(4).take(2).eq(["0", "0"]), "it may dump core: {core}");
    let limited = Command::new("prlimit").args(["--pid", &pid, "--nofile=256:256"]).status()?;
    ensure!(limited.success(), "{limited}");
    let address = world.forwarder.address();
    let mut clients = storm(address);
    for _ in 0..5 {
        world.defender.produce(20);
        tried(what, async || world.all_delivered().await).await?;
        probe(&world.forwarder).await.with_context(|| what.to_owned())?;
    }
    let n_open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    ensure!(n_open < 128, "{what}: {n_open} descriptors");
    let peak = peak_kib(&pid)?;
    ensure!(peak < MAX_MEMORY_KIB, "{what}: {peak} KiB");
    clients.shutdown().await;
    let failed = world.forwarder.metric("siem_forwarder_checkpoint_save_failures_total").await?;
    ensure!(failed == 0.0, "{what}: {failed} saves failed");
    let status = world.forwarder.terminate().await?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}

fn storm(
    address: &str,
    n_clients: usize,
    begins: &[u8],
    repeats: &'static [u8],
    pause: Duration,
) -> JoinSet<()> {
    let clients =
        (0..n_clients).map(|_| client(address.to_owned(), begins.to_vec(), repeats, pause));
    clients.collect()
}

#[tokio::test]
async fn no_storm_on_the_admin_port_stops_probes_export_or_checkpoint() -> Result<()> {
    type Case = (&'static str, usize, &'static [u8], &'static [u8], u64);
    let cases: [Case; 6] = [
        ("idle connections", 300, b"", b"", 0),
        ("headers that trickle in", 100, b"GET /livez HTTP/1.1\r\nX: ", b"x", 20),
        ("headers without end", 20, b"GET /livez HTTP/1.1\r\nX: ", &[b'x'; 4096], 0),
        (
            "bodies without end",
            20,
            b"POST /status HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"400\r\n",
            0,
        ),
        ("answers that nobody reads", 100, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", b"", 0),
        ("HTTP/2", 50, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"", 0),
    ];
    for (what, n_clients, begins, repeats, pause) in cases {
        let world = World::prepare(tenant(50, 5), &Manifest::default()).await?;
        let pause = Duration::from_millis(pause);
        exports_through(what, world, |address| storm(&address, n_clients, begins, repeats, pause))
            .await?;
    }
    Ok(())
}
