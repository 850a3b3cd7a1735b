//! From a validated agent to the objects that it is to own. Pure: the same agent gives the same bytes.
//!
//! One object a file, below. `Objects<Prepared>` can only be made here, `Objects<Applied>` only by `into_applied`, so a status
//! can only speak of what is on the server.

pub(crate) mod validated;
mod paths;
mod service_account;
mod config_map;
mod claim;
mod network_policy;
mod container;
mod deployment;
mod sidecar;
mod strategic_merge;
mod restricted;
mod pod_overrides;

use std::marker::PhantomData;

use serde::Serialize;
use serde_json::Value;

pub(crate) use sidecar::Part;
use strategic_merge::Refused;

use crate::drift;
use crate::names::Owned;
use validated::Validated;

/// Not on the server yet.
#[derive(Debug)]
pub(crate) struct Prepared;
/// On the server.
#[derive(Debug)]
pub(crate) struct Applied;

/// What an agent owns, apart from the checkpoint, which has its own schedule.
#[derive(Debug)]
pub(crate) struct Objects<State> {
    /// In the order in which they are applied.
    pub(crate) list: Vec<Desired>,
    /// Its part of the workload that hosts it, where it has no Deployment.
    pub(crate) sidecar: Option<Part>,
    /// The SHA-256 of the configuration's text, which the forwarder reports.
    pub(crate) config_hash: String,
    /// The forwarder's image.
    pub(crate) image: String,
    state: PhantomData<State>,
}

/// The desired state of one object.
#[derive(Debug, Clone)]
pub(crate) struct Desired {
    pub(crate) which: Owned,
    pub(crate) object: Value,
    pub(crate) digest: String,
}

/// Why objects cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An object.
    #[error("cannot encode the {0}")]
    Object(&'static str, #[source] serde_json::Error),
    /// The configuration's text.
    #[error("cannot encode the configuration")]
    Configuration(#[source] serde_saphyr::ser::Error),
    /// `spec.forwarder.podOverrides` touches what the operator needs itself.
    #[error("{}: {}", .0.path, .0.why)]
    PodOverrides(Refused),
}

impl Objects<Prepared> {
    pub(crate) fn into_applied(self) -> Objects<Applied> {
        let Self { list, sidecar, config_hash, image, state: _ } = self;
        Objects { list, sidecar, config_hash, image, state: PhantomData }
    }
}

/// All objects of an agent.
///
/// # Errors
/// [`Error::PodOverrides`]; the others not in practice.
pub(crate) fn objects(validated: &Validated<'_>) -> Result<Objects<Prepared>, Error> {
    let configuration = config_map::configuration(validated)?;
    let config_hash = drift::hex(&configuration);
    let image = validated.image.clone();
    let config = plain(Owned::Config, &config_map::config_map(validated, configuration)?)?;
    if let Some(of) = validated.spec().sidecar_of() {
        let sidecar = Some(sidecar::sidecar(validated, of)?);
        return Ok(Objects { list: vec![config], sidecar, config_hash, image, state: PhantomData });
    }
    let mut list =
        vec![plain(Owned::ServiceAccount, &service_account::service_account(validated))?, config];
    if validated.spec().forwarder.persistence.enabled {
        list.push(plain(Owned::Claim, &claim::claim(validated))?);
    }
    if validated.spec().forwarder.network_policy.enabled {
        list.push(plain(Owned::NetworkPolicy, &network_policy::network_policy(validated))?);
    }
    let mut deployment =
        encoded(Owned::Deployment, &deployment::deployment(validated, &config_hash))?;
    if let Some(overrides) = &validated.spec().forwarder.pod_overrides
        && let Some(template) = deployment.pointer_mut("/spec/template")
    {
        pod_overrides::apply(template, overrides).map_err(Error::PodOverrides)?;
    }
    list.push(desired(Owned::Deployment, deployment));
    Ok(Objects { list, sidecar: None, config_hash, image, state: PhantomData })
}

fn encoded(which: Owned, object: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|source| Error::Object(which.kind(), source))
}

fn plain(which: Owned, object: &impl Serialize) -> Result<Desired, Error> {
    Ok(desired(which, encoded(which, object)?))
}

fn desired(which: Owned, object: Value) -> Desired {
    let digest = drift::of_desired(&object);
    Desired { which, object, digest }
}
