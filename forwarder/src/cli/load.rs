//! From files and flags to a checked configuration, for every command alike.

use std::path::{Path, PathBuf};

use siem_agent_crds::config::{ADMIN_PORT, Config, Paths};
use siem_agent_crds::siem_agent::{Proxy, SiemAgent};
use siem_agent_crds::{manifest, proxy_address};
use tracing::warn;

use super::given::{Given, Overrides};
use super::{Failure, token};
use crate::delivery::settings::Transport;
use crate::files;
use crate::secret::{Kind, SecretFile};
use crate::settings::Settings;
use crate::source::http::settings::{Auth, Proof};
use crate::tls::Material;

/// The longest manifest or configuration; an object in the API server is shorter.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// A configuration with what the flags changed.
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) settings: Settings,
    /// The text that the configuration's hash is taken of.
    pub(super) text: String,
    /// What flags say instead of the manifest.
    pub(super) overridden: Vec<&'static str>,
}

impl Loaded {
    /// A warning, because it is meant to be read at every level.
    pub(super) fn tell_overridden(&self) {
        for overridden in &self.overridden {
            warn!(overridden, "a flag wins over the manifest");
        }
    }
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    files::read_given_text(path, MAX_BYTES)
        .map_err(|error| Failure::Settings(format!("cannot read {}: {error}", path.display())))
}

pub(super) fn manifest(path: &Path) -> Result<SiemAgent, Failure> {
    let text = read(path)?;
    manifest::read(&text).map_err(|problems| named(path, &problems.to_string()))
}

/// Every line of the problems with the file's name before it.
fn named(path: &Path, problems: &str) -> Failure {
    let lines = problems.lines().map(|line| format!("{}: {line}", path.display()));
    Failure::Settings(lines.collect::<Vec<_>>().join("\n"))
}

/// The agent of the file that is given.
pub(super) fn agent(given: Given<'_>, state: Option<PathBuf>) -> Result<Loaded, Failure> {
    match given {
        Given::Config(path) => from_config(path),
        Given::Manifest(path, overrides) => from_manifest(path, overrides, state),
    }
}

/// The configuration that the operator wrote.
fn from_config(path: &Path) -> Result<Loaded, Failure> {
    from_config_text(path, &read(path)?)
}

/// The same, of a text that is read already.
pub(super) fn from_config_text(path: &Path, text: &str) -> Result<Loaded, Failure> {
    let text = text.to_owned();
    let config = Config::read(&text).map_err(|problems| named(path, &problems.to_string()))?;
    let settings = Settings::of(&config).map_err(|problems| named(path, &problems.to_string()))?;
    Ok(Loaded { config, settings, text, overridden: Vec::new() })
}

/// A manifest with the flags. With `--token` this does not return: the program starts again.
pub(super) fn from_manifest(
    path: &Path,
    overrides: &Overrides,
    state: Option<PathBuf>,
) -> Result<Loaded, Failure> {
    if let Some(token) = &overrides.token {
        return Err(token::start_again_without(token));
    }
    let mut agent = manifest(path)?;
    let mut overridden = Vec::new();
    if let Some(address) = &overrides.proxy {
        if agent.spec.source.proxy.is_some() {
            overridden.push("--proxy instead of spec.source.proxy");
        }
        agent.spec.source.proxy = Some(proxy(address)?);
    }
    let name = agent.metadata.name.clone().unwrap_or_default();
    let namespace = agent.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let paths = Paths {
        secrets: overrides.secrets().to_owned(),
        config_maps: overrides.secrets().to_owned(),
        state: state.unwrap_or_else(|| {
            PathBuf::from(format!("/var/lib/siem-forwarder/{namespace}.{name}"))
        }),
        checkpoint: None,
        live: None,
        identity: None,
    };
    let mut config = Config::for_agent(&agent, paths);
    config.listen = format!("127.0.0.1:{ADMIN_PORT}");
    config.suspend = agent.spec.suspend;
    let mut settings =
        Settings::of(&config).map_err(|problems| named(path, &problems.to_string()))?;
    if let Some(file) = &overrides.token_file {
        overridden.push("--token-file instead of spec.source.auth");
        for auth in settings.sources.auths_mut() {
            *auth = with_file(auth, file);
        }
    }
    for auth in settings.sources.auths_mut() {
        auth.file().read().map_err(|error| Failure::settings(&error))?;
    }
    check_files(&settings)?;
    let text = serde_json::to_string(&config).map_err(|error| Failure::settings(&error))?;
    Ok(Loaded { config, settings, text, overridden })
}

/// The same with what lies in another file: who proves himself by a ServiceAccount's token still does, anybody else has a
/// token of the portal.
fn with_file(auth: &Auth, file: &Path) -> Auth {
    match auth {
        Auth::ClientCredentials { tenant_id, client_id, proof: Proof::Assertion(_), authority } => {
            Auth::ClientCredentials {
                tenant_id: tenant_id.clone(),
                client_id: client_id.clone(),
                proof: Proof::Assertion(SecretFile::new(file.to_owned(), Kind::Assertion)),
                authority: authority.clone(),
            }
        }
        Auth::Token(_) | Auth::ClientCredentials { .. } => {
            Auth::Token(SecretFile::new(file.to_owned(), Kind::Token))
        }
    }
}

/// Outside a cluster nobody brings a missing file later: what the manifest names must be there.
fn check_files(settings: &Settings) -> Result<(), Failure> {
    for (proxy, _) in settings.sources.ways() {
        let credentials = proxy.and_then(|proxy| proxy.credentials.as_ref());
        for file in credentials.iter().flat_map(|of| [&of.username, &of.password]) {
            file.read().map_err(|error| Failure::settings(&error))?;
        }
    }
    let source = settings
        .sources
        .ways()
        .map(|(_, ca_bundle)| Material { ca_bundle: ca_bundle.cloned(), client: None });
    let source: Vec<_> = source.collect();
    let sink = match &settings.sink.transport {
        Transport::Tls { material, .. } => Some(material),
        Transport::Udp | Transport::Tcp => None,
    };
    for material in source.iter().chain(sink) {
        material.build().map_err(|error| Failure::settings(&error))?;
    }
    Ok(())
}

/// `ADDRESS[:PORT]`, as the vendor's agent took it.
fn proxy(address: &str) -> Result<Proxy, Failure> {
    let url = proxy_address::url(address).ok_or_else(|| {
        Failure::Settings(
            "--proxy: must be ADDRESS[:PORT], without credentials; these go into the manifest, \
             spec.source.proxy.credentialsSecretRef"
                .to_owned(),
        )
    })?;
    Ok(Proxy { url, no_proxy: Vec::new(), credentials_secret_ref: None })
}
