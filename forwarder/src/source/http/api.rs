//! One API over HTTP: asks one page at a time and hands its records on as they arrive.
//!
//! It decides nothing: which question is asked comes in as a `Request`, and what a failure means for the next request is
//! [`Error::failure`]'s. A body is split into records while it streams in, so a page of 5,000 is never held whole.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use serde_json::Value;
use siem_agent_edge::clock;
use siem_agent_edge::error_chain::chain;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::auth::{Auth, Authorization};
use super::client::{Keeper, Response, Sent};
use super::error::Error;
use super::settings::{self, Proxy};
use super::split::{Piece, Splitter};
use super::{answer, echo, refusal};
use crate::secret::Secret;
use crate::source::{Failed, Offer};
use crate::time::Millis;

/// An API sends a page of 5,000 within seconds; one that trickles in is given up. While the target takes its time, this
/// does not run.
const PAGE_TIMEOUT: Duration = Duration::from_secs(120);
/// So much of a page is read in one go.
const YIELD_BYTES: usize = 64 * 1024;
/// A wrong data centre answers this to a good token: not a token problem.
const WRONG_DATA_CENTRE: &str = "Invalid JSON Web Key Set";

/// What a refusal means to one API alone: its status, its words, and the same where they may be shown.
pub(in crate::source) type Meaning = fn(StatusCode, &str, String) -> Result<Error, String>;

/// One API, and who we are to it.
#[derive(Debug)]
pub struct Api {
    auth: Auth,
    client: Keeper,
    meaning: Meaning,
    /// Whether its clock and ours were last seen to differ, by either stream.
    is_clock_wrong: AtomicBool,
}

/// One question.
#[derive(Debug)]
pub(in crate::source) struct Request<'a> {
    pub(in crate::source) url: &'a str,
    /// A body to post, in JSON; without one it is a GET.
    pub(in crate::source) body: Option<&'a Value>,
    /// `Prefer` (RFC 7240).
    pub(in crate::source) prefer: Option<&'static str>,
    /// How long the server may take before it says anything.
    pub(in crate::source) silence: Duration,
    /// What the page is split by.
    pub(in crate::source) splitter: Splitter,
    /// The application permission that it needs, where a refusal is to name it.
    pub(in crate::source) permission: Option<&'static str>,
}

/// A page whose body is still coming in.
#[derive(Debug)]
pub struct Page {
    response: Option<Response>,
    splitter: Splitter,
    /// What is left of the time in which it has to come in.
    patience: Duration,
    /// Bytes since others could use the thread.
    n_unyielded: usize,
    /// `Date`: the server's clock when it answered, as far as it says.
    pub date: Option<Millis>,
}

/// What came in.
#[derive(Debug)]
pub enum Arrived {
    /// Some records, possibly none yet.
    Pieces(Vec<Piece>),
    /// The body is whole: what it says besides its records.
    End(Value),
}

impl Api {
    /// An API that was asked nothing yet.
    pub(in crate::source) fn new(
        auth: settings::Auth,
        scope: String,
        proxy: Option<Proxy>,
        ca_bundle: Option<PathBuf>,
        meaning: Meaning,
    ) -> Self {
        let client = Keeper::new(proxy, ca_bundle);
        Self {
            auth: Auth::new(auth, scope),
            client,
            meaning,
            is_clock_wrong: AtomicBool::new(false),
        }
    }

    /// A stream found that the clocks differ, or do not any more. Says whether no other stream has found so before.
    pub(crate) fn finds_clock(&self, is_wrong: bool) -> bool {
        self.is_clock_wrong.swap(is_wrong, Ordering::Relaxed) != is_wrong
    }

    /// What an error says, for logs, reports and people. Of one that repeats a secret of ours, be it in a server's words, in
    /// a certificate's names or in a proxy's, only what kind of error it is.
    pub(crate) fn words(&self, error: &Error) -> String {
        let whole = chain(error);
        if !self.repeats_a_secret(&whole) {
            return whole;
        }
        let kind = error.to_string();
        if self.repeats_a_secret(&kind) {
            return refusal::WITHHELD.to_owned();
        }
        format!("{kind} ({})", refusal::WITHHELD)
    }

    /// An error as a pipeline sees it.
    pub(in crate::source) fn failed(&self, error: &Error) -> Failed {
        Failed { failure: error.failure(), reason: self.words(error), code: error.code() }
    }

    /// Whether a text repeats a secret of ours, in any usual encoding.
    pub(crate) fn repeats_a_secret(&self, text: &str) -> bool {
        let secrets: Vec<Secret> =
            self.auth.secrets().into_iter().chain(self.client.password()).collect();
        echo::repeats(text, secrets.iter().map(Secret::expose))
    }

    /// The secret as it is now, for one request.
    pub(crate) fn offer(&self) -> Offer {
        Offer::of(self.auth.read())
    }

    /// Asks one question. The records are read from the [`Page`].
    ///
    /// # Errors
    /// [`Error`]: its [`failure`](Error::failure) says what to do.
    pub(in crate::source) async fn ask(
        &self,
        request: Request<'_>,
        offer: Offer,
    ) -> Result<Page, Error> {
        let Request { url, body, prefer, silence, splitter, permission } = request;
        let client = self.client.current()?;
        let secret = offer.into_secret().map_err(Error::Secret)?;
        let authorization = self.auth.authorization(secret, &client).await?;
        let sent = match body {
            Some(body) => Sent::Post("application/json", body.to_string().into_bytes()),
            None => Sent::Get,
        };
        let response = client
            .send(url, sent, Some(&authorization.header), prefer, silence)
            .await
            .map_err(Error::request)?;
        let date = response
            .header(DATE)
            .and_then(|value| httpdate::parse_http_date(value).ok())
            .and_then(|time| jiff::Timestamp::try_from(time).ok());
        if !response.status.is_success() {
            return Err(self.refused(url, &authorization, response, date, permission).await);
        }
        let kind = response.header(CONTENT_TYPE).unwrap_or_default();
        if kind.starts_with("text/html") {
            return Err(Error::NotJson {
                kind: self.auth.shown(kind, "another type", Some(&authorization)),
            });
        }
        self.auth.accepted(&authorization);
        let (patience, date) = (PAGE_TIMEOUT, date.map(clock::millis));
        Ok(Page { response: Some(response), splitter, patience, n_unyielded: 0, date })
    }

    async fn refused(
        &self,
        url: &str,
        authorization: &Authorization,
        mut response: Response,
        date: Option<jiff::Timestamp>,
        permission: Option<&'static str>,
    ) -> Error {
        if let Some(challenge) = response.challenge.take() {
            return Error::ProxyAuthentication(challenge);
        }
        let status = response.status;
        let body = response.beginning().await;
        let now = date.unwrap_or_else(clock::now);
        let header = response.header(RETRY_AFTER);
        let words = refusal::words(&body, status);
        let detail = self.auth.shown(&words, "", Some(authorization));
        let detail = match (self.meaning)(status, &words, detail) {
            Ok(Error::Throttled { detail, .. }) => {
                return Error::Throttled { retry_after: refusal::wait(header, &body, now), detail };
            }
            Ok(error) => return error,
            Err(detail) => detail,
        };
        let throttled = || Error::Throttled {
            retry_after: refusal::wait(header, &body, now),
            detail: String::new(),
        };
        // The API refuses in JSON; where a proxy is on the way, any other refusal is the proxy's.
        let from_the_api = answer::refusal(&body).is_some()
            || (!self.client.has_proxy(url) && !refusal::is_html(&body));
        match status {
            StatusCode::UNAUTHORIZED if words.contains(WRONG_DATA_CENTRE) => {
                Error::WrongDataCentre { detail }
            }
            StatusCode::UNAUTHORIZED if self.auth.refused(authorization) => {
                Error::AccessTokenRefused { detail }
            }
            StatusCode::UNAUTHORIZED => {
                Error::Unauthorized { detail, is_application: self.auth.is_application() }
            }
            StatusCode::FORBIDDEN if is_throttling(&words) => throttled(),
            StatusCode::FORBIDDEN if from_the_api => {
                // What is granted later stands in a later token.
                self.auth.forbidden(authorization);
                match permission {
                    Some(permission) => Error::NoPermission { detail, permission },
                    None => Error::Forbidden { detail },
                }
            }
            StatusCode::FORBIDDEN => Error::ForbiddenByProxy,
            StatusCode::TOO_MANY_REQUESTS => throttled(),
            StatusCode::SERVICE_UNAVAILABLE if header.is_some() => throttled(),
            _ if is_throttling(&words) => throttled(),
            StatusCode::BAD_REQUEST => Error::Refused { detail },
            _ => Error::Status { code: status.as_u16(), detail },
        }
    }
}

/// The API says so under other statuses than 429 too.
fn is_throttling(words: &str) -> bool {
    words.to_ascii_lowercase().contains("throttled")
}

impl Page {
    /// The next records, as many as the next piece of the body completes.
    ///
    /// # Errors
    /// The connection broke, the body is cut, or it is no page. Records handed out before are whole all the same.
    pub(crate) async fn next(&mut self) -> Result<Arrived, Error> {
        // What expands a thousandfold must not keep the thread for the whole page.
        if self.n_unyielded >= YIELD_BYTES {
            self.n_unyielded = 0;
            yield_now().await;
        }
        let Some(response) = &mut self.response else { return Err(Error::Abandoned) };
        let asked = Instant::now();
        let chunk =
            timeout(self.patience, response.chunk()).await.map_err(|_elapsed| Error::Slow)?;
        self.patience = self.patience.saturating_sub(asked.elapsed());
        match chunk.map_err(Error::request)? {
            Some(chunk) => {
                self.n_unyielded += chunk.len();
                self.splitter.feed(&chunk).map_err(Error::Body)?;
                Ok(Arrived::Pieces(std::iter::from_fn(|| self.splitter.next()).collect()))
            }
            None => {
                let splitter = std::mem::take(&mut self.splitter);
                let envelope = splitter.finish().map_err(Error::Body)?;
                Ok(Arrived::End(envelope))
            }
        }
    }

    /// Closes the connection; the rest is asked for again later.
    pub(in crate::source) fn abandon(&mut self) {
        self.response = None;
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::secret::{Kind, SecretFile};
    use crate::source::http::client::READ_TIMEOUT;
    use crate::source::http::settings::{Auth, Proof};

    /// An API at a URL.
    struct Source {
        url: String,
        api: Api,
    }

    impl Source {
        async fn fetch(&self) -> Result<Page, Error> {
            let request = Request {
                url: &self.url,
                body: Some(&Value::Null),
                prefer: None,
                silence: READ_TIMEOUT,
                splitter: Splitter::new(),
                permission: None,
            };
            self.api.ask(request, self.api.offer()).await
        }
    }

    /// An API that answers with these bytes, and then with one more every ten seconds, for ever.
    async fn trickling(begins: &'static str, more: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut head = [0; 4_096];
                    while stream.read(&mut head).await.is_ok_and(|n_bytes| n_bytes == head.len()) {}
                    let mut bytes = begins.as_bytes();
                    while stream.write_all(bytes).await.is_ok() {
                        tokio::time::sleep(Duration::from_secs(10)).await;
                        bytes = more;
                    }
                });
            }
        });
        format!("http://{address}")
    }

    fn source(url: &str, auth: impl FnOnce(SecretFile) -> Auth) -> (Source, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let secret: PathBuf = folder.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        let auth = auth(SecretFile::new(secret, Kind::Token));
        let api = Api::new(auth, "scope".to_owned(), None, None, |_, _, detail| Err(detail));
        (Source { url: format!("{url}/api"), api }, folder)
    }

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_page_that_trickles_in_is_given_up_after_two_minutes() {
        let url = trickling(CHUNKED, b"1\r\n \r\n").await;
        let (source, _folder) = source(&url, Auth::Token);
        let mut page = source.fetch().await.unwrap();
        let began = Instant::now();
        let error = loop {
            match page.next().await {
                Ok(Arrived::Pieces(pieces)) => assert!(pieces.is_empty()),
                Ok(Arrived::End(_)) => panic!("it has no end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Slow), "{error:?}");
        assert!(began.elapsed() <= PAGE_TIMEOUT + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn headers_and_refusals_that_trickle_in_are_given_up() {
        let began = Instant::now();
        let url = trickling("HTTP/1.1 200 OK\r\nX: ", b"x").await;
        let (slow, _folder) = source(&url, Auth::Token);
        let error = slow.fetch().await.unwrap_err();
        assert!(matches!(error, Error::Request(_) | Error::Secret(_)), "{error:?}");
        let url =
            trickling("HTTP/1.1 500 -\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n").await;
        let (source, _folder) = source(&url, Auth::Token);
        let error = source.fetch().await.unwrap_err();
        assert!(matches!(error, Error::Status { code: 500, .. }), "{error:?}");
        assert!(began.elapsed() < PAGE_TIMEOUT);
    }

    fn application(url: &str) -> (Source, tempfile::TempDir) {
        source(url, |client_secret| Auth::ClientCredentials {
            tenant_id: "contoso".to_owned(),
            client_id: "client".to_owned(),
            proof: Proof::Secret(client_secret),
            authority: url.to_owned(),
        })
    }

    #[tokio::test]
    async fn an_access_token_that_lives_for_ever_is_used() {
        let url = trickling(
            "HTTP/1.1 200 OK\r\nContent-Length: 57\r\nConnection: close\r\n\r\n\
             {\"access_token\": \"t\", \"expires_in\": 18446744073709551615}",
            b"",
        );
        let (source, _folder) = application(&url.await);
        assert!(source.fetch().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_access_token_that_trickles_in_is_given_up() {
        let url = trickling(CHUNKED, b"1\r\nx\r\n").await;
        let (source, _folder) = application(&url);
        let began = Instant::now();
        let error = source.fetch().await.unwrap_err();
        assert!(matches!(error, Error::IdentityAnswer(_)), "{error:?}");
        assert!(began.elapsed() < PAGE_TIMEOUT);
    }

    #[test]
    fn an_error_that_repeats_a_secret_says_only_of_what_kind_it_is() {
        use crate::secret::{Kind, SecretFile};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "Pl4nted0Token1").unwrap();
        let auth = Auth::Token(SecretFile::new(path, Kind::Token));
        let source = Api::new(auth, String::new(), None, None, |_, _, detail| Err(detail));
        let forbidden = |detail: &str| Error::Forbidden { detail: detail.to_owned() };
        assert_eq!(source.words(&forbidden("not permitted")), "not permitted");
        assert_eq!(source.words(&forbidden("no role for l4nted0T")), refusal::WITHHELD);
    }
}
