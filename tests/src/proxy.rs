//! A forward proxy inside the test: CONNECT and absolute-form, with credentials, or refusing everything.
//!
//! It remembers what it was asked for. One request a connection in absolute-form, as the simplest proxies do.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How it treats its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// Everyone may pass.
    Open,
    /// Only with this user name and password; others get 407.
    Credentials(String, String),
    /// Nobody who cannot speak these schemes: 407, each in a header of its own.
    Schemes(&'static [&'static str]),
    /// Nobody: 403, with a page in this content type.
    Forbidden(&'static str),
}

/// One request to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// `CONNECT`, `POST`…
    pub method: String,
    /// What was asked for: `host:port` or a URL.
    pub target: String,
    /// The whole head as it came.
    pub head: String,
    /// 200 where it was let through, else the refusal.
    pub status: u16,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    passed: Vec<Passed>,
}

type Shared = Arc<Mutex<State>>;

/// A running proxy; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Shared,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts it on a free port of loopback.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(policy: Policy) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the proxy")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { policy, passed: Vec::new() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client that leaves early, or a server that is not there, ends the connection.
                    let _ = serve(client, &shared).await;
                });
            }
        });
        Ok(Self { address, state, task })
    }

    /// Its address as `host:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Treats clients otherwise from now on.
    pub fn set_policy(&self, policy: Policy) {
        lock(&self.state).policy = policy;
    }

    /// Every request so far.
    pub fn passed(&self) -> Vec<Passed> {
        lock(&self.state).passed.clone()
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut client: TcpStream, state: &Shared) -> Result<()> {
    let (head, body) = head(&mut client).await?;
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (status, refusal) = judge(&lock(state).policy, &head);
    lock(state).passed.push(Passed {
        method: method.clone(),
        target: target.clone(),
        head: head.clone(),
        status,
    });
    if let Some(refusal) = refusal {
        client.write_all(refusal.as_bytes()).await?;
        return Ok(client.shutdown().await?);
    }
    if method == "CONNECT" {
        let mut server = TcpStream::connect(&target).await?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let rest = target.strip_prefix("http://").context("an absolute form of http")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut server = TcpStream::connect(authority).await?;
    server.write_all(forwarded(&head, &method, path).as_bytes()).await?;
    server.write_all(&body).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The head of a request, and what came with it.
async fn head(client: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8(bytes)?, body));
        }
        anyhow::ensure!(bytes.len() < MAX_HEAD_BYTES, "the head is too long");
        anyhow::ensure!(client.read_buf(&mut bytes).await? > 0, "the client left");
    }
}

fn judge(policy: &Policy, head: &str) -> (u16, Option<String>) {
    let answer = |status: &str, more: &str, kind: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n{more}Content-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    match policy {
        Policy::Open => (200, None),
        Policy::Credentials(name, password) => {
            let wanted = format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{password}")));
            let given = header(head, "proxy-authorization");
            if given == Some(wanted.as_str()) {
                return (200, None);
            }
            let more = "Proxy-Authenticate: Basic realm=\"proxy\"\r\n";
            let body = "<html>Proxy authentication required</html>";
            let status = "407 Proxy Authentication Required";
            (407, Some(answer(status, more, "text/html", body)))
        }
        Policy::Schemes(schemes) => {
            let more: String =
                schemes.iter().map(|one| format!("Proxy-Authenticate: {one}\r\n")).collect();
            let status = "407 Proxy Authentication Required";
            (407, Some(answer(status, &more, "text/html", "<html>Log on</html>")))
        }
        Policy::Forbidden(kind) => {
            (403, Some(answer("403 Forbidden", "", kind, "Access denied by policy")))
        }
    }
}

/// A header's value.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (there, value) = line.split_once(':')?;
        there.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The request as the server gets it: origin form, without what was meant for the proxy.
fn forwarded(head: &str, method: &str, path: &str) -> String {
    let mut request = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n");
    let own = ["proxy-authorization", "proxy-connection", "connection"];
    for line in head.lines().skip(1).filter(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if !own.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            request.push_str(line);
            request.push_str("\r\n");
        }
    }
    request.push_str("\r\n");
    request
}
