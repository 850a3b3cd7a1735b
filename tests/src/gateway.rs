//! A gateway to the API server that a test can spoil: it counts writes, cuts after one of them, answers in the server's
//! place, or does not answer at all.
//!
//! The other side speaks plain HTTP to it, on loopback, with a token of its own; the gateway adds nothing and keeps
//! nothing. It must never repeat a request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::forwarder::LOOK;

/// No request of an operator is larger.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// How it treats requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// They go through.
    Open,
    /// After so many writes, Leases apart, nothing goes through and nothing is answered, the last of them included.
    CutAfterWrite(usize),
    /// Each is answered with this status, and not passed on.
    Answer(u16),
    /// An apply that carries the resourceVersion of nothing is refused, whatever is there; everything else goes through.
    MakeNothingOfAVersion,
    /// Writes, Leases apart, wait until it is open again; everything else goes through.
    HoldWrites,
    /// None is answered.
    Hang,
}

#[derive(Debug)]
struct Shared {
    server: String,
    client: reqwest::Client,
    state: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    manner: Manner,
    n_writes: usize,
    n_spoilt: usize,
}

/// A running gateway; it ends with this value.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateway {
    /// Starts one in front of a control plane.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn to(plane: &ControlPlane, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for the gateway")?;
        let address = listener.local_addr()?;
        let authority = reqwest::Certificate::from_pem(&std::fs::read(&plane.ca)?)?;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build()?;
        let state = Mutex::new(Kept { manner, n_writes: 0, n_spoilt: 0 });
        let shared = Arc::new(Shared { server: plane.url(), client, state });
        let routes = axum::Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, shared, task })
    }

    /// Where it stands for the API server.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Treats requests otherwise from now on; watches that are open go on.
    pub fn set_manner(&self, manner: Manner) {
        self.shared.kept().manner = manner;
    }

    /// How many writes have been answered by the server, Leases apart.
    pub fn n_writes(&self) -> usize {
        self.shared.kept().n_writes
    }

    /// How many requests did not go through, or had to wait.
    pub fn n_spoilt(&self) -> usize {
        self.shared.kept().n_spoilt
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while writes are held.
    async fn held(&self) {
        let is_held = || self.kept().manner == Manner::HoldWrites;
        if is_held() {
            self.kept().n_spoilt += 1;
        }
        while is_held() {
            sleep(LOOK).await;
        }
    }

    /// What is to be done with a request: `None` to pass it on.
    fn instead(&self) -> Option<Manner> {
        let mut kept = self.kept();
        let instead = match kept.manner {
            Manner::Open | Manner::HoldWrites | Manner::MakeNothingOfAVersion => None,
            Manner::CutAfterWrite(n) if kept.n_writes < n => None,
            manner => Some(manner),
        };
        kept.n_spoilt += usize::from(instead.is_some());
        instead
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    match shared.instead() {
        None => {}
        Some(Manner::Answer(code)) => return refusal(code),
        Some(_) => return std::future::pending().await,
    }
    // Leases apart, and reviews of rights, of which nothing is kept.
    let not_counted = ["/apis/coordination.k8s.io/", "/apis/authorization.k8s.io/"];
    let path = request.uri().path();
    let is_write = ![Method::GET, Method::HEAD].contains(request.method())
        && !not_counted.iter().any(|group| path.starts_with(group));
    if is_write {
        shared.held().await;
    }
    match forward(&shared, request).await {
        Ok(answer) => {
            if is_write {
                shared.kept().n_writes += 1;
                if shared.instead().is_some() {
                    return std::future::pending().await;
                }
            }
            answer
        }
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn forward(shared: &Shared, request: Request) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = head.headers;
    headers.remove(header::HOST);
    let body = to_bytes(body, MAX_BODY_BYTES).await?;
    if shared.kept().manner == Manner::MakeNothingOfAVersion
        && serde_json::from_slice::<Value>(&body)
            .is_ok_and(|body| body["metadata"]["resourceVersion"] == "1")
    {
        shared.kept().n_spoilt += 1;
        return Ok(refusal(409));
    }
    let answer = shared
        .client
        .request(head.method, format!("{}{path}", shared.server))
        .headers(headers)
        .body(body)
        .send()
        .await?;
    // As it comes, so that a watch goes through event by event.
    let mut answer = Response::<reqwest::Body>::from(answer).map(Body::new);
    answer.headers_mut().remove(header::TRANSFER_ENCODING);
    Ok(answer)
}

/// As the API server refuses.
fn refusal(code: u16) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": match code {
            409 => "Conflict",
            429 => "TooManyRequests",
            _ => "ServiceUnavailable",
        },
        "message": "the gateway refuses",
    });
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (code, [(header::RETRY_AFTER, "1")], axum::Json(status)).into_response()
}
