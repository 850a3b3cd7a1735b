//! `siem-operator render`: what would be applied, by the code that applies it, without a cluster.
//!
//! Refuses what the API server would refuse. A manifest that was read back from a cluster, with its `uid`, gives the very
//! bytes that are applied there while the agent has its tenant's budget to itself; one that was never applied has no
//! owner to name.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use serde::Serialize;
use siem_agent_crds::SiemAgent;
use siem_agent_crds::defaults::{self, EffectiveSpec};
use siem_agent_crds::manifest;

use super::{Failure, RenderArguments, print, read};
use crate::budget;
use crate::error_chain::chain;
use crate::forwarders::sighting::Sighting;
use crate::objects;
use crate::observed::Observed;
use crate::platform::{Place, Platform};
use crate::reconcile::validate;
use crate::release::Settings;
use crate::rollout::{Mark, Stance, Trial};
use crate::tenants::Tenants;
use crate::workload::Workload;

pub(super) fn run(arguments: &RenderArguments) -> Result<(), Failure> {
    let RenderArguments { file, effective, forwarder_image, openshift, operator_namespace } =
        arguments;
    let platform = if *openshift { Platform::OpenShift } else { Platform::Kubernetes };
    let place = Place { platform, namespace: operator_namespace.clone() };
    let (agent, objects) =
        render(&read(file)?, &file.display().to_string(), forwarder_image, &place)?;
    if !effective {
        return print(&objects);
    }
    let ObjectMeta { name, namespace, labels, annotations, .. } = agent.metadata.clone();
    let shown = Effective {
        api_version: SiemAgent::api_version(&()).into_owned(),
        kind: SiemAgent::kind(&()).into_owned(),
        metadata: ObjectMeta { name, namespace, labels, annotations, ..ObjectMeta::default() },
        spec: defaults::effective(&agent, forwarder_image),
    };
    let shown = serde_json::to_value(&shown).map_err(|error| Failure::World(error.to_string()))?;
    print(&serde_saphyr::to_string(&shown).map_err(|error| Failure::World(error.to_string()))?)
}

/// A SiemAgent as it works.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Effective {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: EffectiveSpec,
}

/// The agent, and what would be applied for it.
fn render(
    text: &str,
    file: &str,
    image: &str,
    place: &Place,
) -> Result<(SiemAgent, String), Failure> {
    let refuse = |problems: Vec<String>| {
        let lines: Vec<_> =
            problems.into_iter().map(|problem| format!("{file}: {problem}")).collect();
        Failure::Given(lines.join("\n"))
    };
    let agent = manifest::read(text)
        .map_err(|problems| refuse(problems.0.iter().map(ToString::to_string).collect()))?;
    let observed = Observed {
        live: BTreeMap::new(),
        absent: BTreeSet::new(),
        written: BTreeMap::new(),
        kept: None,
        workload: Workload::Progressing("nothing is applied"),
        pod: None,
        sighting: Sighting::default(),
        allowed: budget::alone(&agent, &Tenants::default()),
        twins: Vec::new(),
        is_settled: false,
        is_shown: false,
        host: None,
        left: Vec::new(),
        has_own_pods: false,
    };
    let settings = Settings::new(image.to_owned(), place.clone())
        .map_err(|error| Failure::World(chain(&error)))?;
    let image = settings.image(&agent);
    let mark = Mark::new(&settings.release(image), Trial::Passed);
    let stance = Stance { image: image.to_owned(), mark: Some(mark), wait: None };
    let validated = validate::validate(&agent, &observed, &stance, place)
        .map_err(|problems| refuse(problems.iter().map(ToString::to_string).collect()))?;
    let objects = objects::objects(&validated).map_err(|error| match error {
        objects::Error::PodOverrides(_) => refuse(vec![error.to_string()]),
        error => Failure::World(chain(&error)),
    })?;
    let mut yaml = String::new();
    let own = objects.list.iter().map(|desired| &desired.object);
    // What is applied to its host, under a field manager of the agent's own.
    let of_host = objects.sidecar.iter().map(|part| &part.object);
    for object in own.chain(of_host) {
        let object =
            serde_saphyr::to_string(object).map_err(|error| Failure::World(error.to_string()))?;
        yaml.push_str("---\n");
        yaml.push_str(&object);
        if !object.ends_with('\n') {
            yaml.push('\n');
        }
    }
    Ok((agent, yaml))
}
