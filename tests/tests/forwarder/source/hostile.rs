//! A portal that means harm, or that somebody else answers for: no token goes elsewhere, memory stays small, and once the
//! portal answers well, nothing is lost.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flate2::write::GzEncoder;
use flate2::{Compress, Compression, FlushCompress};
use futures_util::future::try_join_all;
use serde_json::json;
use siem_agent_crds::report::Stream;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::world::{Manifest, World, tenant};

/// So many connections are met before the portal is itself.
const N_MET: usize = 2;
/// What no forwarder needs, whatever it is sent.
const MAX_MEMORY_KIB: u64 = 48 * 1024;

/// What answers in the portal's place.
struct Answer {
    begins: Vec<u8>,
    /// Sent again and again after the beginning, until nobody takes it any more.
    without_end: Vec<u8>,
}

/// A way to the simulator on which the first connections are answered by somebody else.
struct Front {
    address: SocketAddr,
    n_met: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Front {
    async fn start(portal: SocketAddr, answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let n_met = Arc::new(AtomicUsize::new(0));
        let (counted, answer) = (Arc::clone(&n_met), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let is_met = counted.fetch_add(1, Ordering::Relaxed) < N_MET;
                let answer = is_met.then(|| Arc::clone(&answer));
                // Either side may leave at any time.
                tokio::spawn(async move { drop(serve(stream, portal, answer).await) });
            }
        });
        Ok(Self { address, n_met, task })
    }
}

async fn serve(
    mut stream: TcpStream,
    portal: SocketAddr,
    answer: Option<Arc<Answer>>,
) -> std::io::Result<()> {
    let Some(answer) = answer else {
        let mut behind = TcpStream::connect(portal).await?;
        return copy_bidirectional(&mut stream, &mut behind).await.map(drop);
    };
    let mut head = vec![0; 16 * 1024];
    let _ = stream.read(&mut head).await?;
    stream.write_all(&answer.begins).await?;
    while !answer.without_end.is_empty() {
        stream.write_all(&answer.without_end).await?;
    }
    Ok(())
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn json(body: &str) -> Vec<u8> {
    http("200 OK", "Content-Type: application/json\r\n", body.as_bytes())
}

/// 64 MiB that are small on the way.
fn bomb(begins: &str, fills: u8) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(begins.as_bytes())?;
    let block = vec![fills; 1 << 20];
    for _ in 0..64 {
        encoder.write_all(&block)?;
    }
    let headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    Ok(http("200 OK", headers, &encoder.finish()?))
}

/// Nothing is lost once the portal is itself, no token is blamed, and memory stays small.
async fn survives(what: &str, begins: Vec<u8>, without_end: &[u8]) -> Result<()> {
    let mut world = World::prepare(tenant(60, 120), &Manifest::default()).await?;
    let answer = Answer { begins, without_end: without_end.to_vec() };
    let front = Front::start(world.defender.address(), answer).await?;
    let manifest =
        Manifest { url: Some(format!("http://{}", front.address)), ..Manifest::default() };
    fs::write(world.forwarder.manifest(), manifest.text(&world.defender, &world.receiver))?;
    world.forwarder.start().await?;
    world.all_delivered().await.with_context(|| what.to_owned())?;
    ensure!(front.n_met.load(Ordering::Relaxed) > N_MET, "{what}: it was met");
    let status = world.forwarder.status().await?;
    ensure!(status["token"]["state"] == "Valid", "{what}: {status}");
    ensure!(
        world.receiver.ids().values().all(|count| *count == 1),
        "{what}: nothing is sent that the portal does not have, and nothing twice"
    );
    let pid = world.forwarder.pid().context("it runs")?;
    let memory = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    let peak: u64 = peak.trim_end_matches("kB").trim().parse()?;
    ensure!(peak < MAX_MEMORY_KIB, "{what}: {peak} KiB");
    Ok(())
}

#[tokio::test]
async fn answers_beyond_all_measure_cost_neither_memory_nor_records() -> Result<()> {
    let gzipped = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    let deep = "[".repeat(1 << 20);
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("a header without end", b"HTTP/1.1 200 OK\r\nX: ".to_vec(), &[b'x'; 16_384]),
        ("headers without end", b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n"),
        ("records without end", json("{\"data\": ["), b"{},{\"_id\": 1},[],5,\"x\",null,"),
        ("keys without end", json("{"), b"\"x\": 1,"),
        ("white space that is small on the way", bomb("", b' ')?, b""),
        ("a text that is small on the way", bomb("{\"data\": [{\"_id\": \"", b'x')?, b""),
        ("commas that are small on the way", bomb("{\"data\": [", b',')?, b""),
        ("no gzip at all", http("200 OK", gzipped, b"{\"data\": []}"), b""),
        ("a deep record", json(&format!("{{\"data\": [{{\"a\": {deep}")), b""),
        ("a deep page", json(&format!("{{\"data\": [], \"a\": {deep}")), b""),
        ("a refusal without end", http("500 No", "", b"{\"detail\": \""), &[b'x'; 16_384]),
        ("no HTTP", b"220 mail.example.com ESMTP\r\n".to_vec(), b""),
        ("nothing", Vec::new(), b""),
    ];
    try_join_all(cases.into_iter().map(|(what, begins, end)| survives(what, begins, end))).await?;
    Ok(())
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_no_token_goes_elsewhere() -> Result<()> {
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await?;
        let location = format!("Location: http://{}/\r\n", elsewhere.local_addr()?);
        survives(status, http(status, &location, b""), b"").await?;
        tokio::select! {
            _ = elsewhere.accept() => anyhow::bail!("{status}: it is followed"),
            () = sleep(LOOK) => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_end_is_not_held_up_by_a_portal_that_does_not_answer() -> Result<()> {
    let mut world = World::prepare(tenant(60, 60), &Manifest::default()).await?;
    world.forwarder.start().await?;
    world.all_delivered().await?;
    world.fault("hang:300x*");
    let n_asked = world.defender.requests().len();
    eventually(PATIENCE, async || {
        ensure!(
            world.defender.requests().len() >= n_asked + 2,
            "it stopped asking: {}",
            world.forwarder.log()?
        );
        Ok(())
    })
    .await?;
    ensure!(world.forwarder.terminate().await?.success());
    let log = world.forwarder.log()?;
    ensure!(log.contains("stopping") && !log.contains("did not confirm in time"), "{log}");
    Ok(())
}

/// A page that expands to `n_mib` of the same byte after its beginning, put together of one compressed block.
fn endless_bomb(begins: &str, fills: u8, n_mib: usize) -> Result<Vec<u8>> {
    let mut deflate = Compress::new(Compression::fast(), false);
    let mut pressed = |bytes: &[u8]| -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(bytes.len() + 1_024);
        // Nothing after a full flush refers to what stands before it.
        deflate.compress_vec(bytes, &mut out, FlushCompress::Full)?;
        Ok(out)
    };
    let mut body = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    body.extend(pressed(begins.as_bytes())?);
    let block = pressed(&vec![fills; 1 << 20])?;
    body.extend(block.repeat(n_mib));
    let headers = "Content-Type: application/json\r\nContent-Encoding: gzip\r\n";
    Ok(http("200 OK", headers, &body))
}

#[tokio::test]
async fn a_page_that_expands_holds_up_no_probe() -> Result<()> {
    for (what, begins) in
        [("white space in a record", "{\"data\": [{\"_id\": 1"), ("white space", "{\"data\": [")]
    {
        let mut world = World::prepare(tenant(60, 120), &Manifest::default()).await?;
        let begins = endless_bomb(begins, b' ', 512)?;
        let front =
            Front::start(world.defender.address(), Answer { begins, without_end: Vec::new() })
                .await?;
        let manifest =
            Manifest { url: Some(format!("http://{}", front.address)), ..Manifest::default() };
        fs::write(world.forwarder.manifest(), manifest.text(&world.defender, &world.receiver))?;
        world.forwarder.start().await?;
        let began = Instant::now();
        while front.n_met.load(Ordering::Relaxed) <= N_MET {
            let probe = timeout(Duration::from_secs(2), world.forwarder.get("livez")).await;
            probe.with_context(|| format!("{what}: /livez in time"))??;
            ensure!(began.elapsed() < PATIENCE, "{what}: {}", world.forwarder.log()?);
            sleep(LOOK).await;
        }
        world.all_delivered().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_page_that_is_too_large_is_asked_for_again_with_fewer_records() -> Result<()> {
    // The API gives at least 500 at once where it is scanned, however few are asked for.
    const N_RECORDS: usize = 800;
    let mut world = World::prepare(tenant(0, 0), &Manifest::default()).await?;
    let padding = "p".repeat(100_000);
    for index in 0..N_RECORDS {
        let record = json!({
            "_id": format!("large-{index}"),
            "timestamp": 1_793_000_113_000_i64,
            "eventTypeName": "EVENT_CATEGORY_LOGIN",
            "description": padding,
        });
        world.defender.inject(Stream::Activities, &record.to_string());
    }
    world.forwarder.start().await?;
    world.all_delivered().await?;
    ensure!(world.receiver.ids().len() == N_RECORDS, "all of them arrive");
    ensure!(world.receiver.ids().values().all(|count| *count == 1), "each arrives once");
    let requests = world.defender.requests();
    let limits: BTreeSet<_> =
        requests.iter().filter_map(|it| it.question["limit"].as_u64()).collect();
    ensure!(limits.iter().any(|limit| *limit <= 500), "fewer records are asked for: {limits:?}");
    let log = world.forwarder.log()?;
    ensure!(log.contains("larger than"), "the log names the reason: {log}");
    Ok(())
}
