//! What the operator was started with, and the name of the release that it makes of an image. Pure.
//!
//! The name is a digest of the image and of the Deployment and sidecar that this program makes of samples, so that whatever
//! another operator changes in every pod is another release, and nothing else is.

use siem_agent_crds::manifest::{self, Problems};
use siem_agent_crds::siem_agent::{HostKind, Placement, SidecarOf};
use siem_agent_crds::{SiemAgent, SiemAgentStatus};

use crate::budget::Allowed;
use crate::drift;
use crate::names::Owned;
use crate::objects;
use crate::objects::validated::{Traits, Validated};
use crate::platform::Place;

/// A label's value has 63 characters, of which a mark takes some.
const LENGTH: usize = 16;
/// The least that an agent says.
const SAMPLE: &str = "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: sample}\n\
     spec: {source: {cloudApps: {url: 'https://sample.example'}, auth: {tokenSecretRef: {name: sample}}}, syslog: {host: sample.example}}\n";

/// What the operator was started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The forwarder's image where an agent pins none.
    image: String,
    pub(crate) place: Place,
    template: String,
}

/// The samples cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The sample is no SiemAgent of this version.
    #[error("read the sample agent")]
    Sample(#[source] Problems),
    /// It cannot be made into objects.
    #[error("build the sample agent")]
    Build(#[source] objects::Error),
}

impl Settings {
    /// # Errors
    /// [`Error`]; none in practice.
    pub(crate) fn new(image: String, place: Place) -> Result<Self, Error> {
        let mut agent = manifest::read(SAMPLE).map_err(Error::Sample)?;
        let mut templates = String::new();
        let of = SidecarOf { kind: HostKind::Deployment, name: "sample".to_owned() };
        let sidecar = Placement { sidecar_of: Some(of) };
        for (has_volume, placement) in [(false, None), (true, None), (false, Some(sidecar))] {
            agent.spec.forwarder.persistence.enabled = has_volume;
            agent.spec.placement = placement;
            let validated = Validated {
                agent: &agent,
                image: String::new(),
                mark: None,
                platform: place.platform,
                operator_namespace: place.namespace.clone(),
                host: Traits::default(),
                allowed: Allowed::default(),
            };
            let objects = objects::objects(&validated).map_err(Error::Build)?;
            let deployments =
                objects.list.iter().filter(|desired| desired.which == Owned::Deployment);
            templates.extend(deployments.map(|desired| desired.digest.as_str()));
            templates.extend(objects.sidecar.iter().map(|part| part.digest.as_str()));
        }
        Ok(Self { image, place, template: templates })
    }

    /// The image that an agent is to run: the one that its user pins, or this operator's.
    pub(crate) fn image<'a>(&'a self, agent: &'a SiemAgent) -> &'a str {
        agent.spec.forwarder.image.as_deref().unwrap_or(&self.image)
    }

    /// The name of the release that runs this image.
    pub(crate) fn release(&self, image: &str) -> String {
        let mut name = drift::hex(format!("{}\n{image}", self.template));
        name.truncate(LENGTH);
        name
    }
}

/// The image of an agent's present Deployment.
pub(crate) fn runs(status: Option<&SiemAgentStatus>) -> Option<&str> {
    status?.image.as_deref().filter(|image| !image.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;

    #[test]
    fn a_release_is_an_image_on_a_platform() {
        let on = |platform| {
            let place = Place { platform, namespace: "siem-system".to_owned() };
            Settings::new("image:1".to_owned(), place).unwrap()
        };
        let plain = on(Platform::Kubernetes);
        assert_eq!(plain.release("image:1").len(), LENGTH);
        assert_eq!(plain.release("image:1"), on(Platform::Kubernetes).release("image:1"));
        assert_ne!(plain.release("image:1"), plain.release("image:2"));
        assert_ne!(plain.release("image:1"), on(Platform::OpenShift).release("image:1"));
    }
}
