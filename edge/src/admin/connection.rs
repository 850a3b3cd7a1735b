//! One connection: one request, one answer, and the peer's close. However it ends, nothing of it stays in the kernel.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt as _;

use super::ticket::Ticket;

/// The longest head of a request; the least that the library takes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// Lines of a request's head.
const MAX_HEADERS: usize = 64;
/// What a peer may send beyond its request before it is cut off.
const MAX_IGNORED_BYTES: usize = 64 * 1024;

/// Until the peer has its answer, its time is over, or its place is taken.
pub(crate) async fn serve(stream: TcpStream, ticket: Ticket, routes: Router) {
    let exchange = exchange(stream, &ticket, &routes);
    tokio::pin!(exchange);
    loop {
        let deadline = ticket.deadline();
        tokio::select! {
            () = &mut exchange => return,
            () = ticket.displaced() => return,
            // It is another one when the answer has begun in between.
            () = sleep_until(deadline) => if ticket.deadline() <= Instant::now() { return },
        }
    }
}

async fn exchange(mut stream: TcpStream, ticket: &Ticket, routes: &Router) {
    let service = service_fn(|request| answer(request, ticket, routes));
    // An error has been answered already, where it can be.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .half_close(true)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(&mut stream), service)
        .await;
    // The peer may not have it yet: it has when it closes, too.
    ticket.close();
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut ignored = [0; 1024];
    let mut n_ignored = 0;
    while let Ok(n_bytes @ 1..) = stream.read(&mut ignored).await {
        n_ignored += n_bytes;
        if n_ignored > MAX_IGNORED_BYTES {
            return;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    ticket: &Ticket,
    routes: &Router,
) -> Result<Response<Body>, Infallible> {
    let answer = if request.body().is_end_stream() {
        routes.clone().oneshot(request.map(Body::new)).await?
    } else {
        (StatusCode::PAYLOAD_TOO_LARGE, "no request here has a body\n").into_response()
    };
    let n_bytes = answer.body().size_hint().exact().unwrap_or(u64::MAX);
    let n_bytes = usize::try_from(n_bytes).unwrap_or(usize::MAX);
    Ok(match ticket.answer(n_bytes) {
        Ok(()) => answer,
        Err(_full) => {
            let later = [(header::RETRY_AFTER, "1")];
            let reason = "too many answers are under way\n";
            (StatusCode::SERVICE_UNAVAILABLE, later, reason).into_response()
        }
    })
}
