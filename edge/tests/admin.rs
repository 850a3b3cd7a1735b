//! Clients that are slow, many or endless, on real sockets, while probes are answered.

#![expect(clippy::unwrap_used, reason = "a helper of a test ends the test")]

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// What a kubelet gives a probe here.
const PROBE: Duration = Duration::from_secs(2);
/// What the server gives a request and an answer together, and some more.
const LONGEST_LIFE: Duration = Duration::from_secs(25);
const PLACES: usize = 32;
/// Far more than both kernels buffer on a connection.
const N_BIG: usize = 4 * 1024 * 1024;

async fn server() -> SocketAddr {
    siem_agent_edge::limits::raise_open_files();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/big", get(|| async { "x".repeat(N_BIG) }));
    tokio::spawn(siem_agent_edge::admin::serve(listener, routes, std::future::pending()));
    address
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer takes nothing from it.
    let _ = timeout(LONGEST_LIFE, stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn probe(address: SocketAddr) {
    let began = Instant::now();
    let answer = timeout(PROBE, ask(address, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let answer = answer.expect("a probe is answered in time");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"),
        "{answer}"
    );
    assert!(began.elapsed() < PROBE);
}

/// Reads to the end, however it comes.
async fn is_closed(stream: &mut TcpStream, patience: Duration) -> bool {
    let mut bytes = [0; 4096];
    let ended = async { while matches!(stream.read(&mut bytes).await, Ok(1..)) {} };
    timeout(patience, ended).await.is_ok()
}

#[tokio::test]
async fn a_thousand_idle_connections_keep_no_probe_out() {
    let address = server().await;
    let mut idle = Vec::new();
    for n in 0..1_000 {
        idle.push(TcpStream::connect(address).await.unwrap());
        if n % 50 == 0 {
            probe(address).await;
        }
    }
    probe(address).await;
    let mut n_open = 0;
    for stream in &mut idle {
        n_open += usize::from(!is_closed(stream, Duration::from_millis(20)).await);
    }
    assert!(n_open <= PLACES, "{n_open} are open");
    let newest = idle.last_mut().unwrap();
    assert!(is_closed(newest, LONGEST_LIFE).await, "one that never asks is never given up");
}

#[tokio::test]
async fn requests_that_trickle_in_are_given_up_while_probes_are_answered() {
    let address = server().await;
    let mut slow = JoinSet::new();
    for _ in 0..100 {
        slow.spawn(async move {
            let began = Instant::now();
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut next =
                b"GET /livez HTTP/1.1\r\nX-Long: ".iter().chain(std::iter::repeat(&b'x'));
            while stream.write_all(&[*next.next().unwrap()]).await.is_ok() {
                assert!(began.elapsed() < LONGEST_LIFE, "a request of any length in time");
                sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while !slow.is_empty() {
        probe(address).await;
        let _ = timeout(Duration::from_millis(200), slow.join_next()).await;
    }
}

/// Sends without end, and gives what could be sent and what came back.
async fn flood(address: SocketAddr, head: &str) -> (usize, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let sends = async {
        let mut n_sent = 0;
        let mut next = head.as_bytes().to_vec();
        while write.write_all(&next).await.is_ok() {
            n_sent += next.len();
            next = b"xxxx: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n".to_vec();
        }
        n_sent
    };
    let mut answer = Vec::new();
    let (n_sent, _) =
        timeout(LONGEST_LIFE, async { tokio::join!(sends, read.read_to_end(&mut answer)) })
            .await
            .expect("a client without end is cut off");
    (n_sent, String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn a_request_without_end_is_cut_off() {
    let address = server().await;
    for head in [
        "GET /livez HTTP/1.1\r\n",
        "GET /livez HTTP/1.1\r\nX: ",
        "GET /",
        "POST /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    ] {
        let (n_sent, answer) = flood(address, head).await;
        assert!(n_sent < 2 * 1024 * 1024, "{n_sent} bytes of {head:?} were taken");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{head:?}: {answer}");
        probe(address).await;
    }
}

#[tokio::test]
async fn a_connection_has_one_answer_of_http_1() {
    let address = server().await;
    let twice = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2);
    let answer = ask(address, &twice).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    let preface = ask(address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").await;
    assert!(preface.is_empty() || preface.starts_with("HTTP/1.1 4"), "{preface:?}");
    let upgrade = "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    assert!(ask(address, upgrade).await.starts_with("HTTP/1.1 200 "));
    for (request, status) in [
        ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("DELETE /livez HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

/// Connections of this port that nobody holds any more, but the kernel, because their peer does not read.
fn orphans(port: u16) -> usize {
    let suffix = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_orphan = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        // 04: FIN_WAIT1, 0B: CLOSING, 09: LAST_ACK.
        local.ends_with(&suffix) && matches!(words.nth(1), Some("04" | "0B" | "09"))
    };
    table.lines().filter(is_orphan).count()
}

async fn ask_and_never_read(address: SocketAddr, path: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into()).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn peers_that_never_read_hold_neither_places_nor_memory() {
    let address = server().await;
    let mut deaf = Vec::new();
    for _ in 0..200 {
        deaf.push(ask_and_never_read(address, "/big").await);
        probe(address).await;
    }
    let began = Instant::now();
    for stream in &mut deaf {
        let patience = LONGEST_LIFE.saturating_sub(began.elapsed());
        let ended = async {
            while stream.take_error().unwrap().is_none() && stream.peek(&mut [0]).await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(patience, ended).await.expect("an answer that nobody takes is given up");
    }
    let gone = async {
        while orphans(address.port()) > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONGEST_LIFE, gone).await.expect("the kernel keeps what nobody will read");
    probe(address).await;
}

#[tokio::test]
async fn a_slow_reader_in_time_has_all_of_its_answer() {
    let address = server().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut n_bytes = 0;
    let mut bytes = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut bytes).await.unwrap() {
            0 => break,
            n_read => n_bytes += n_read,
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert!(n_bytes > N_BIG, "{n_bytes}");
}
