//! What can go wrong at a source that speaks HTTP, in words for people and as a [`Failure`] for the next step.

use std::time::Duration;

use siem_agent_crds::siem_agent::StreamSource;

use crate::source::endless::Endless;
use crate::source::failure::{Failure, Refusal};
use crate::source::http::client::{Failed, Unusable};
use crate::source::http::connect::{self, Challenge};
use crate::source::http::mend::Mend;
use crate::source::http::{auth, split};
use crate::{secret, tls};

/// What the API answers to a request that has lost its `Authorization` on the way.
const NO_CREDENTIALS: &str = "credentials were not provided";

/// Why a page did not come.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable secret.
    #[error("no usable secret")]
    Secret(#[source] secret::Error),
    /// The proxy's credentials are not there.
    #[error("no usable credentials for the proxy")]
    ProxySecret(#[source] secret::Error),
    /// 401: in the API's own words.
    #[error("{detail}")]
    Unauthorized {
        /// The server's words.
        detail: String,
        /// Whether an application was refused, and no token of the portal.
        is_application: bool,
    },
    /// The identity provider refuses the application: in its own words, and what to do.
    #[error("{}. {mend}", detail.trim_end_matches('.'))]
    IdentityRefused {
        /// The provider's words.
        detail: String,
        /// What has to be mended.
        mend: Mend,
    },
    /// 401 for an access token that had been taken before; a fresh one may help.
    #[error("the API refuses the access token (401): {detail}; a fresh one is being requested")]
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
    /// 403 of Graph for one endpoint: in its own words, and the permission that it wants.
    #[error(
        "{}. Add the permission {permission} (application) and grant admin consent",
        detail.trim_end_matches('.')
    )]
    NoPermission {
        /// The server's words.
        detail: String,
        /// The application permission.
        permission: &'static str,
    },
    /// 401 of a data centre that does not know the tenant.
    #[error(
        "this data centre does not know the tenant (401): {detail}; use the tenant's own API URL"
    )]
    WrongDataCentre {
        /// The server's words.
        detail: String,
    },
    /// 400: a filter that the API does not take.
    #[error("the API refuses the filter (400): {detail}")]
    Refused {
        /// The server's words.
        detail: String,
    },
    /// 429 or its like.
    #[error("the API is throttling us (429){}{detail}", if detail.is_empty() { "" } else { ": " })]
    Throttled {
        /// What the server asked for.
        retry_after: Option<Duration>,
        /// The server's words, where they say more.
        detail: String,
    },
    /// The answer would be larger than the server gives: a smaller question is asked.
    #[error("the API finds its answer too large: {detail}; less is being requested")]
    ResultTooLarge {
        /// The server's words.
        detail: String,
    },
    /// The way to the next page leads to another host.
    #[error(
        "the API's link to the next page (@odata.nextLink) leads to another host and is not followed"
    )]
    ForeignLink,
    /// 429 of the identity provider.
    #[error("the identity provider is throttling us (429)")]
    IdentityThrottled {
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// 407.
    #[error("{0}")]
    ProxyAuthentication(Challenge),
    /// 403 that is not the API's.
    #[error("the proxy or a gateway refuses the request (403), not the API")]
    ForbiddenByProxy,
    /// The proxy does not connect us to the API.
    #[error("the proxy refuses to connect us to the server ({status})")]
    Tunnel {
        /// HTTP status.
        status: u16,
    },
    /// Any other status.
    #[error("the API answered {code}: {detail}")]
    Status {
        /// HTTP status.
        code: u16,
        /// The server's words.
        detail: String,
    },
    /// A page in HTML where JSON was expected.
    #[error("the API's answer is {kind}, not JSON: a login page or a proxy answers in its place")]
    NotJson {
        /// The content type.
        kind: String,
    },
    /// The body ended early or is no page.
    #[error("the API's answer is not a whole page")]
    Body(#[source] split::Error),
    /// The body trickles in.
    #[error("the API's answer is not whole after two minutes")]
    Slow,
    /// No connection, a time-out, a broken one.
    #[error("cannot reach the API")]
    Request(#[source] Failed),
    /// The identity provider cannot be reached.
    #[error("cannot reach the identity provider")]
    Identity(#[source] Failed),
    /// TLS fails on the way.
    #[error("no TLS with {to}")]
    Handshake {
        /// The API or the identity provider.
        to: &'static str,
        /// What it means.
        #[source]
        source: tls::Fault,
    },
    /// The identity provider answered something else.
    #[error("the identity provider answered {code}: {detail}")]
    IdentityStatus {
        /// HTTP status.
        code: u16,
        /// The server's words.
        detail: String,
    },
    /// The identity provider's answer holds no token that can be used.
    #[error("the identity provider's answer {0}")]
    IdentityAnswer(&'static str),
    /// The CA bundle cannot be used.
    #[error("the CA bundle for the API is unusable")]
    Tls(#[source] tls::Error),
    /// The proxy's URL is invalid.
    #[error("invalid proxy URL")]
    ProxyUrl,
    /// The list would not end.
    #[error("the list was given up and is read again from the watermark")]
    Endless(#[source] Endless),
    /// What Graph always gives with rows, and with none.
    #[error("the API's answer has no schema: it is not that of a hunting query")]
    NoSchema,
    /// Rows that are not in the order that was asked for prove nothing of what lies behind them.
    #[error("the API's rows are not in the order that was asked for")]
    Unordered,
    /// An empty page that announces another one, without a cursor to it.
    #[error(
        "the API says that there is more (hasNext), and not where: an empty page without nextQueryFilters"
    )]
    Nowhere,
    /// `skip` is used up, and there is no other way on.
    #[error("the API holds more records of one millisecond than it lets anyone read")]
    SkipLimit,
    /// The target stopped taking records in the middle of a page; the page is asked for again.
    #[error("the SIEM stalled in the middle of a page; the page will be requested again")]
    Abandoned,
}

/// What TLS says of a failed request, if TLS is why.
fn handshake(failed: &Failed) -> Option<tls::Fault> {
    let peer = tls::Peer { side: tls::Side::Source, with_client_certificate: false };
    if failed.connecting().is_some() {
        return peer.connecting(failed);
    }
    tls::failure(failed).map(|failure| peer.explain(failure))
}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::ProxySecret(source) => Self::ProxySecret(source),
            Unusable::Tls(source) => Self::Tls(source),
            Unusable::ProxyUrl => Self::ProxyUrl,
        }
    }
}

impl From<auth::Error> for Error {
    fn from(error: auth::Error) -> Self {
        match error {
            auth::Error::Request(failed) => Self::identity(failed),
            auth::Error::Challenged(challenge) => Self::ProxyAuthentication(challenge),
            auth::Error::Throttled { retry_after } => Self::IdentityThrottled { retry_after },
            auth::Error::Refused { detail, mend } => Self::IdentityRefused { detail, mend },
            auth::Error::Status { code, detail } => Self::IdentityStatus { code, detail },
            auth::Error::Answer(what) => Self::IdentityAnswer(what),
        }
    }
}

impl Error {
    /// A request to the API got no whole answer.
    pub(in crate::source) fn request(failed: Failed) -> Self {
        Self::on_the_way("the API", failed).unwrap_or_else(Self::Request)
    }

    /// A request to the identity provider got none.
    fn identity(failed: Failed) -> Self {
        Self::on_the_way("the identity provider", failed).unwrap_or_else(Self::Identity)
    }

    /// What TLS says, and what a proxy says to CONNECT.
    fn on_the_way(to: &'static str, failed: Failed) -> Result<Self, Failed> {
        if let Some(source) = handshake(&failed) {
            return Ok(Self::Handshake { to, source });
        }
        match failed.connecting() {
            Some(connect::Error::Challenged(challenge)) => {
                Ok(Self::ProxyAuthentication(challenge.clone()))
            }
            Some(connect::Error::Refused { status }) => Ok(Self::Tunnel { status: *status }),
            Some(_) | None => Err(failed),
        }
    }

    /// What somebody can do about it, where it is this source's.
    pub fn advice(&self, source: StreamSource) -> String {
        let url = match source {
            StreamSource::CloudApps => "spec.source.cloudApps.url",
            StreamSource::Graph => "spec.source.graph.url",
        };
        match self {
            Self::Unauthorized { detail, .. } if detail.contains(NO_CREDENTIALS) => {
                "Something on the way takes the Authorization header out of the request: check the proxy or gateway"
            }
            Self::Unauthorized { is_application: true, .. } => {
                return match source {
                    StreamSource::CloudApps => "Check that spec.source.cloudApps.url is the URL of the tenant tenantId, and that the application has the permission Investigation.read with an administrator's consent",
                    StreamSource::Graph => "Check that tenantId is the tenant's, and that spec.source.graph.cloud is where it lives",
                }
                .to_owned();
            }
            Self::Unauthorized { is_application: false, .. } => {
                "Make a new token in the portal and store it in the Secret; a token dies with its maker's account"
            }
            // It says so itself.
            Self::IdentityRefused { .. }
            | Self::Secret(secret::Error::Malformed { .. })
            | Self::NoPermission { .. }
            | Self::Handshake { .. }
            | Self::Tls(_) => "",
            Self::Forbidden { .. } => {
                "Give the token's owner or the application the permission Investigation.read"
            }
            Self::Refused { .. } | Self::SkipLimit => "Correct spec.eventTypes…filter",
            Self::Secret(_) => "Store the secret in the file that is named",
            Self::ProxySecret(_) => {
                "Store username and password in the Secret of spec.source.proxy.credentialsSecretRef"
            }
            Self::Throttled { .. } => match source {
                StreamSource::CloudApps => {
                    "Other clients use up the tenant's 30 requests a minute; wait a minute, or lower theirs"
                }
                StreamSource::Graph => {
                    "Other clients use up what Graph allows the tenant; wait, for a spent CPU quota 15 minutes, or lower theirs"
                }
            },
            Self::IdentityThrottled { .. } => "Wait a minute",
            Self::ProxyAuthentication(challenge) => challenge.advice(),
            Self::Tunnel { .. } | Self::ForbiddenByProxy => {
                "Let whoever runs the proxy allow this host and port"
            }
            Self::WrongDataCentre { .. } => "The portal shows it: Settings, Cloud Apps, About",
            Self::Status { code: 500.., .. } => {
                return format!(
                    "The forwarder tries again by itself. Check {url}, the proxy, and whether Microsoft reports an outage"
                );
            }
            Self::IdentityStatus { code: 500.., .. } => {
                "The forwarder tries again by itself. Check authorityUrl, the proxy, and whether Microsoft reports an outage"
            }
            Self::ResultTooLarge { .. } => "The forwarder asks for less by itself",
            Self::AccessTokenRefused { .. }
            | Self::Status { .. }
            | Self::NotJson { .. }
            | Self::Body(_)
            | Self::Slow
            | Self::Request(_)
            | Self::ProxyUrl
            | Self::Endless(_)
            | Self::Nowhere
            | Self::ForeignLink
            | Self::Unordered
            | Self::NoSchema
            | Self::Abandoned => {
                return format!(
                    "Check {url}, DNS, the proxy, firewalls and spec.source.caBundleRef"
                );
            }
            Self::Identity(_) | Self::IdentityStatus { .. } | Self::IdentityAnswer(_) => {
                "Check authorityUrl, DNS, the proxy, firewalls and spec.source.caBundleRef"
            }
        }
        .to_owned()
    }

    /// What it means for the next request.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Secret(secret::Error::Missing { .. }) => Failure::Refused(Refusal::Missing),
            Self::Secret(_) => Failure::Refused(Refusal::Unusable),
            Self::Unauthorized { .. } | Self::IdentityRefused { .. } => {
                Failure::Refused(Refusal::Credential)
            }
            Self::Forbidden { .. } | Self::NoPermission { .. } => Failure::Refused(Refusal::Stream),
            Self::Refused { .. } | Self::SkipLimit => Failure::Refused(Refusal::Question),
            Self::Throttled { retry_after, .. } | Self::IdentityThrottled { retry_after } => {
                Failure::Throttled { retry_after: *retry_after }
            }
            // A fresh access token is asked for, or the target holds the page up.
            Self::AccessTokenRefused { .. } | Self::Abandoned => Failure::Again,
            // A smaller question is another one; where it is the smallest, waiting may help.
            Self::ResultTooLarge { .. }
            | Self::WrongDataCentre { .. }
            | Self::ProxyAuthentication(_)
            | Self::Tunnel { .. }
            | Self::ProxySecret(_)
            | Self::ForbiddenByProxy
            | Self::Status { .. }
            | Self::NotJson { .. }
            | Self::Body(_)
            | Self::Endless(_)
            | Self::Nowhere
            | Self::ForeignLink
            | Self::Unordered
            | Self::NoSchema
            | Self::Slow
            | Self::Request(_)
            | Self::Identity(_)
            | Self::Handshake { .. }
            | Self::IdentityStatus { .. }
            | Self::IdentityAnswer(_)
            | Self::Tls(_)
            | Self::ProxyUrl => Failure::Transient,
        }
    }

    /// The HTTP status as a metric label, or `error` where there was none. `None` where no request was made.
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Unauthorized { .. }
            | Self::AccessTokenRefused { .. }
            | Self::WrongDataCentre { .. } => Some("401".to_owned()),
            Self::Forbidden { .. } | Self::NoPermission { .. } | Self::ForbiddenByProxy => {
                Some("403".to_owned())
            }
            Self::Refused { .. } | Self::ResultTooLarge { .. } => Some("400".to_owned()),
            Self::Throttled { .. } => Some("429".to_owned()),
            Self::ProxyAuthentication(_) => Some("407".to_owned()),
            Self::Status { code, .. } => Some(code.to_string()),
            Self::NotJson { .. }
            | Self::Body(_)
            | Self::Slow
            | Self::Request(_)
            | Self::Handshake { to: "the API", .. }
            | Self::Tunnel { .. } => Some("error".to_owned()),
            Self::Secret(_)
            | Self::SkipLimit
            | Self::Endless(_)
            | Self::Nowhere
            | Self::ForeignLink
            | Self::Unordered
            | Self::NoSchema
            | Self::ProxySecret(_)
            | Self::Identity(_)
            | Self::IdentityRefused { .. }
            | Self::IdentityThrottled { .. }
            | Self::Handshake { .. }
            | Self::IdentityStatus { .. }
            | Self::IdentityAnswer(_)
            | Self::Tls(_)
            | Self::ProxyUrl
            | Self::Abandoned => None,
        }
    }
}
