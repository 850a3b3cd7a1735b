//! The HTTP client: proxy, trust and time-outs. Built again when the CA bundle or the proxy's credentials change.
//!
//! Nothing is taken from the environment: where data goes is in the manifest alone. No redirect is followed, because a
//! token must not travel to another host, and no request is repeated behind our back, because requests are counted.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::{Client, Url, redirect};

use super::{Error, no_proxy};
use crate::secret::{Secret, SecretFile};
use crate::tls::{self, Material};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest silence in an answer; a page of 5,000 takes the API seconds to put together.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// A proxy on the way to the API.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// Hosts, domains and networks that are reached without it, as in `NO_PROXY`.
    pub no_proxy: Vec<String>,
    /// User name and password, for Basic authentication.
    pub credentials: Option<Credentials>,
}

impl Proxy {
    /// Whether a URL is reached through it.
    pub(crate) fn serves(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        !no_proxy::matches(&self.no_proxy, host, url.port_or_known_default().unwrap_or(0))
    }
}

/// The files of a proxy's credentials.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Holds the user name.
    pub username: SecretFile,
    /// Holds the password.
    pub password: SecretFile,
}

/// Keeps the client until something that it was built from changes.
#[derive(Debug)]
pub(super) struct Keeper {
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
    config: std::sync::Arc<rustls::ClientConfig>,
    credentials: Option<(Secret, Secret)>,
}

impl Keeper {
    pub(super) fn new(proxy: Option<Proxy>, ca_bundle: Option<PathBuf>) -> Self {
        let tls = tls::Keeper::new(Some(Material { ca_bundle, client: None }));
        Self { proxy, state: Mutex::new(State { tls, built: None }) }
    }

    /// Whether somebody else may answer in the API's place.
    pub(super) fn has_proxy(&self) -> bool {
        self.proxy.is_some()
    }

    #[expect(clippy::expect_used, reason = "nothing panics while the lock is held")]
    pub(super) fn current(&self) -> Result<Client, Error> {
        let credentials = self.credentials()?;
        let mut state = self.state.lock().expect("nothing panics while the lock is held");
        let config = state.tls.current().map_err(Error::Tls)?.config;
        if let Some(built) = &state.built
            && std::sync::Arc::ptr_eq(&built.config, &config)
            && built.credentials == credentials
        {
            return Ok(built.client.clone());
        }
        let client = self.build(&config, credentials.as_ref())?;
        state.built = Some(Built { client: client.clone(), config, credentials });
        Ok(client)
    }

    fn credentials(&self) -> Result<Option<(Secret, Secret)>, Error> {
        let Some(credentials) = self.proxy.as_ref().and_then(|proxy| proxy.credentials.as_ref())
        else {
            return Ok(None);
        };
        let username = credentials.username.read().map_err(Error::ProxySecret)?;
        let password = credentials.password.read().map_err(Error::ProxySecret)?;
        Ok(Some((username, password)))
    }

    fn build(
        &self,
        config: &rustls::ClientConfig,
        credentials: Option<&(Secret, Secret)>,
    ) -> Result<Client, Error> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(config.clone())
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .pool_max_idle_per_host(2)
            .user_agent(concat!("siem-forwarder/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &self.proxy {
            // Read now, so that a URL that is none is told.
            let way = Url::parse(&proxy.url).map_err(|_url| Error::ProxyUrl)?;
            let serving = proxy.clone();
            let mut rule =
                reqwest::Proxy::custom(move |url| serving.serves(url).then(|| way.clone()));
            if let Some((username, password)) = credentials {
                rule = rule.basic_auth(username.expose(), password.expose());
            }
            builder = builder.proxy(rule);
        }
        builder.build().map_err(Error::Client)
    }
}
