//! The HTTP client: its proxy, trust and time-outs. Built again when the CA bundle or the proxy's credentials change.
//!
//! Nothing is taken from the environment: where data goes is in the manifest alone. No redirect is followed, because a
//! token must not travel to another host, and no request that a server may have seen is repeated, because requests are
//! counted.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, PROXY_AUTHENTICATE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;
use tower::Service as _;
use tower_http::decompression::Decompression;

use super::connect::{self, Challenge, Connector};
use super::proxy::{self, Way};
use super::settings::Proxy;
use crate::secret::{self, Secret};
use crate::tls::{self, Material};

/// The longest silence of a server; a page of 5,000 takes the portal's API seconds to put together.
pub(in crate::source) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// A refusal is a short text, and an access token too; more is not read, and not longer.
const MAX_SHORT_BYTES: usize = 64 * 1024;
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request got no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// No connection, or it broke.
    #[error("the request failed")]
    Send(#[source] legacy::Error),
    /// The body broke off, or is not encoded as it says.
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came for so long.
    #[error("no answer within {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The address is no URL.
    #[error("invalid URL")]
    Url,
}

impl Failed {
    /// Why there was no connection, where that is the reason.
    pub(in crate::source) fn connecting(&self) -> Option<&connect::Error> {
        let Self::Send(error) = self else { return None };
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            if let Some(error) = error.downcast_ref() {
                return Some(error);
            }
            source = error.source();
        }
        None
    }
}

/// Why there is no client to ask with.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The proxy's credentials are not there.
    #[error("no usable credentials for the proxy")]
    ProxySecret(#[source] secret::Error),
    /// The CA bundle cannot be used.
    #[error("the CA bundle is unusable")]
    Tls(#[source] tls::Error),
    /// The proxy's URL cannot be read.
    #[error("invalid proxy URL")]
    ProxyUrl,
}

/// RFC 7240, section 2.
const PREFER: http::HeaderName = http::HeaderName::from_static("prefer");

/// What a request carries.
#[derive(Debug)]
pub(in crate::source) enum Sent {
    /// Nothing.
    Get,
    /// A body of this type.
    Post(&'static str, Vec<u8>),
}

/// A shorter password may be a word of our own.
const MIN_PASSWORD: usize = 8;

/// Sends requests.
#[derive(Clone)]
pub(in crate::source) struct Client {
    http: Decompression<legacy::Client<Connector, Full<Bytes>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// An answer whose body is still coming in.
#[derive(Debug)]
pub(in crate::source) struct Response {
    pub(in crate::source) status: StatusCode,
    pub(in crate::source) headers: HeaderMap,
    /// What a gateway that answered 407 in the server's place asks for.
    pub(in crate::source) challenge: Option<Challenge>,
    body: BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>,
}

impl Client {
    fn new(config: Arc<rustls::ClientConfig>, way: Option<Way>) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(2)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(Connector::new(config, way));
        Self { http: Decompression::new(client) }
    }

    /// Sends a request, and waits at most `silence` for the beginning of its answer.
    pub(in crate::source) async fn send(
        &self,
        url: &str,
        sent: Sent,
        authorization: Option<&HeaderValue>,
        prefer: Option<&'static str>,
        silence: Duration,
    ) -> Result<Response, Failed> {
        let uri: Uri = url.parse().map_err(|_url| Failed::Url)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(USER_AGENT, HeaderValue::from_static(connect::US));
        if let Some(prefer) = prefer {
            headers.insert(PREFER, HeaderValue::from_static(prefer));
        }
        if let Some(authorization) = authorization {
            headers.insert(http::header::AUTHORIZATION, authorization.clone());
        }
        let (method, body) = match sent {
            Sent::Get => (http::Method::GET, Vec::new()),
            Sent::Post(content_type, body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                (http::Method::POST, body)
            }
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let mut http = self.http.clone();
        let answer = timeout(silence, http.call(request)).await;
        let answer = answer.map_err(|_elapsed| Failed::Silent(silence))?.map_err(Failed::Send)?;
        let (parts, body) = answer.into_parts();
        let challenge = (parts.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED).then(|| {
            let values = parts.headers.get_all(PROXY_AUTHENTICATE);
            Challenge::read(values.iter().filter_map(|value| value.to_str().ok()), false)
        });
        Ok(Response { status: parts.status, headers: parts.headers, challenge, body: body.boxed() })
    }
}

impl Response {
    /// A header's value, where it is text.
    pub(in crate::source) fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next bytes of the body; `None` at its end.
    pub(in crate::source) async fn chunk(&mut self) -> Result<Option<Bytes>, Failed> {
        loop {
            let frame = timeout(READ_TIMEOUT, self.body.frame()).await;
            match frame.map_err(|_elapsed| Failed::Silent(READ_TIMEOUT))? {
                None => return Ok(None),
                Some(frame) => {
                    // Trailers say nothing to us.
                    if let Ok(data) = frame.map_err(Failed::Body)?.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

impl Response {
    /// The beginning of a body that should be short, as far as it comes in time.
    pub(in crate::source) async fn beginning(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        let reading = async {
            while body.len() < MAX_SHORT_BYTES
                && let Ok(Some(chunk)) = self.chunk().await
            {
                body.extend_from_slice(&chunk);
            }
        };
        // What has come by then has to do.
        let _ = timeout(SHORT_TIMEOUT, reading).await;
        body
    }
}

/// Keeps the client until something that it was built from changes.
#[derive(Debug)]
pub(in crate::source) struct Keeper {
    proxy: Option<Proxy>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tls: tls::Keeper,
    built: Option<Built>,
}

#[derive(Debug)]
struct Built {
    client: Client,
    config: Arc<rustls::ClientConfig>,
    credentials: Option<(Secret, Secret)>,
}

impl Keeper {
    pub(in crate::source) fn new(proxy: Option<Proxy>, ca_bundle: Option<PathBuf>) -> Self {
        let tls = tls::Keeper::new(Some(Material { ca_bundle, client: None }));
        Self { proxy, state: Mutex::new(State { tls, built: None }) }
    }

    /// Whether somebody else may answer in the place of this URL's server.
    pub(in crate::source) fn has_proxy(&self, url: &str) -> bool {
        let serves = |proxy: &Proxy| url.parse().is_ok_and(|url| proxy.serves(&url));
        self.proxy.as_ref().is_some_and(serves)
    }

    /// The proxy's password, where there is one that no word could be by chance.
    pub(in crate::source) fn password(&self) -> Option<Secret> {
        let credentials = self.proxy.as_ref()?.credentials.as_ref()?;
        credentials.password.read().ok().filter(|password| password.expose().len() >= MIN_PASSWORD)
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    pub(in crate::source) fn current(&self) -> Result<Client, Unusable> {
        let credentials = self.credentials()?;
        let mut state = self.state.lock().expect("nothing panics while the lock is held");
        let config = state.tls.current().map_err(Unusable::Tls)?.config;
        if let Some(built) = &state.built
            && Arc::ptr_eq(&built.config, &config)
            && built.credentials == credentials
        {
            return Ok(built.client.clone());
        }
        let client = self.build(&config, credentials.as_ref())?;
        state.built = Some(Built { client: client.clone(), config, credentials });
        Ok(client)
    }

    fn credentials(&self) -> Result<Option<(Secret, Secret)>, Unusable> {
        let Some(credentials) = self.proxy.as_ref().and_then(|proxy| proxy.credentials.as_ref())
        else {
            return Ok(None);
        };
        let username = credentials.username.read().map_err(Unusable::ProxySecret)?;
        let password = credentials.password.read().map_err(Unusable::ProxySecret)?;
        Ok(Some((username, password)))
    }

    fn build(
        &self,
        config: &Arc<rustls::ClientConfig>,
        credentials: Option<&(Secret, Secret)>,
    ) -> Result<Client, Unusable> {
        let way = match &self.proxy {
            None => None,
            Some(proxy) => {
                let url: Uri = proxy.url.parse().map_err(|_url| Unusable::ProxyUrl)?;
                let authorization =
                    credentials.and_then(|(name, password)| proxy::basic(name, password));
                Some(Way { proxy: proxy.clone(), url, authorization })
            }
        };
        Ok(Client::new(Arc::clone(config), way))
    }
}
