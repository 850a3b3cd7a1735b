//! What can go wrong at the source, in words for people and as a [`Failure`] for the next step.

use std::time::Duration;

use crate::error_chain::chain;
use crate::parse::split;
use crate::retry::Failure;
use crate::run::walk::Endless;
use crate::{secret, tls};

/// Why a page did not come.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable secret.
    #[error("read the secret")]
    Secret(#[source] secret::Error),
    /// The proxy's credentials are not there.
    #[error("read the proxy's credentials")]
    ProxySecret(#[source] secret::Error),
    /// The token holds characters that no header can carry.
    #[error("send the token: it holds characters that no HTTP header can carry")]
    TokenUnsendable,
    /// 401, or the identity provider's refusal: in its own words.
    #[error("{detail}")]
    Unauthorized {
        /// The server's words.
        detail: String,
    },
    /// 401 for an access token that had been taken before; a fresh one may help.
    #[error("use the access token: the API answered 401 {detail}; ask for a fresh one")]
    AccessTokenRefused {
        /// The server's words.
        detail: String,
    },
    /// 403 for this stream: in the API's own words.
    #[error("{detail}")]
    Forbidden {
        /// The server's words.
        detail: String,
    },
    /// 401 of a data centre that does not know the tenant.
    #[error("ask the right data centre: it answered 401 `{detail}`; use the tenant's own API URL")]
    WrongDataCentre {
        /// The server's words.
        detail: String,
    },
    /// 400: a filter that the API does not take.
    #[error("ask with these filters: the API answered 400 {detail}")]
    Refused {
        /// The server's words.
        detail: String,
    },
    /// 429 or its like.
    #[error("ask more often than the API allows")]
    Throttled {
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// 407.
    #[error("pass the proxy: it wants other credentials (407)")]
    ProxyAuthentication,
    /// 403 that is not the API's.
    #[error("pass the proxy or gateway: it refuses the request (403), not the API")]
    ForbiddenByProxy,
    /// The proxy does not connect us to the API.
    #[error("pass the proxy: it refuses to connect to the API")]
    Tunnel(#[source] reqwest::Error),
    /// Any other status.
    #[error("ask the API: it answered {code} {detail}")]
    Status {
        /// HTTP status.
        code: u16,
        /// The server's words.
        detail: String,
    },
    /// A page in HTML where JSON was expected.
    #[error(
        "read the answer: it is {kind}, not JSON; a login page or a proxy answers in the API's place"
    )]
    NotJson {
        /// The content type.
        kind: String,
    },
    /// The body ended early or is no page.
    #[error("read the answer")]
    Body(#[source] split::Error),
    /// The body trickles in.
    #[error("read the answer: it is not whole after two minutes")]
    Slow,
    /// No connection, a time-out, a broken one.
    #[error("reach the API")]
    Request(#[source] reqwest::Error),
    /// The identity provider cannot be reached.
    #[error("reach the identity provider")]
    Identity(#[source] reqwest::Error),
    /// The identity provider answered something else.
    #[error("ask for an access token: the identity provider answered {code} {detail}")]
    IdentityStatus {
        /// HTTP status.
        code: u16,
        /// The server's words.
        detail: String,
    },
    /// The identity provider's answer holds no token.
    #[error("read the identity provider's answer: it holds no access token")]
    IdentityAnswer,
    /// The CA bundle cannot be used.
    #[error("read the CA bundle for the API")]
    Tls(#[source] tls::Error),
    /// The proxy's URL is none.
    #[error("read the proxy's URL: it is none")]
    ProxyUrl,
    /// The HTTP client cannot be set up from these settings.
    #[error("set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The list would not end.
    #[error("the list was given up and is read again from the watermark")]
    Endless(#[source] Endless),
    /// An empty page that announces another one, without a cursor to it.
    #[error(
        "the API says that there is more (hasNext), and not where: an empty page without nextQueryFilters"
    )]
    Nowhere,
    /// `skip` is used up, and there is no other way on.
    #[error("read on: there are more records of one millisecond than the API lets anyone read")]
    SkipLimit,
    /// The target stopped taking records in the middle of a page; the page is asked for again.
    #[error("hold the page while the target takes no records")]
    Abandoned,
}

impl Error {
    /// An error of the HTTP client, without the URL, which may hold more than people should see.
    pub(super) fn request(error: reqwest::Error) -> Self {
        Self::on_the_way(error).unwrap_or_else(|error| Self::Request(error.without_url()))
    }

    pub(super) fn identity(error: reqwest::Error) -> Self {
        Self::on_the_way(error).unwrap_or_else(|error| Self::Identity(error.without_url()))
    }

    /// What a proxy says to CONNECT; the client has no other name for it than its text.
    fn on_the_way(error: reqwest::Error) -> Result<Self, reqwest::Error> {
        let text = chain(&error);
        if text.contains("proxy authorization required") {
            return Ok(Self::ProxyAuthentication);
        }
        if text.contains("tunnel error: unsuccessful") {
            return Ok(Self::Tunnel(error.without_url()));
        }
        Err(error)
    }

    /// What it means for the next request.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Secret(_) | Self::TokenUnsendable => Failure::SecretMissing,
            Self::Unauthorized { .. } => Failure::Unauthorized,
            Self::Forbidden { .. } => Failure::Forbidden,
            Self::Refused { .. } | Self::SkipLimit => Failure::Refused,
            Self::Throttled { retry_after } => Failure::Throttled { retry_after: *retry_after },
            Self::WrongDataCentre { .. }
            | Self::AccessTokenRefused { .. }
            | Self::ProxyAuthentication
            | Self::Tunnel(_)
            | Self::ProxySecret(_)
            | Self::ForbiddenByProxy
            | Self::Status { .. }
            | Self::NotJson { .. }
            | Self::Body(_)
            | Self::Endless(_)
            | Self::Nowhere
            | Self::Slow
            | Self::Request(_)
            | Self::Identity(_)
            | Self::IdentityStatus { .. }
            | Self::IdentityAnswer
            | Self::Tls(_)
            | Self::ProxyUrl
            | Self::Client(_)
            | Self::Abandoned => Failure::Transient,
        }
    }

    /// The HTTP status as a metric label, or `error` where there was none. `None` where no request was made.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Unauthorized { .. }
            | Self::AccessTokenRefused { .. }
            | Self::WrongDataCentre { .. } => Some("401".to_owned()),
            Self::Forbidden { .. } | Self::ForbiddenByProxy => Some("403".to_owned()),
            Self::Refused { .. } => Some("400".to_owned()),
            Self::Throttled { .. } => Some("429".to_owned()),
            Self::ProxyAuthentication => Some("407".to_owned()),
            Self::Status { code, .. } => Some(code.to_string()),
            Self::NotJson { .. }
            | Self::Body(_)
            | Self::Slow
            | Self::Request(_)
            | Self::Tunnel(_) => Some("error".to_owned()),
            Self::Secret(_)
            | Self::TokenUnsendable
            | Self::SkipLimit
            | Self::Endless(_)
            | Self::Nowhere
            | Self::ProxySecret(_)
            | Self::Identity(_)
            | Self::IdentityStatus { .. }
            | Self::IdentityAnswer
            | Self::Tls(_)
            | Self::ProxyUrl
            | Self::Client(_)
            | Self::Abandoned => None,
        }
    }
}
