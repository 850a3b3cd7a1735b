//! `siem-operator render`: what would be applied, by the code that applies it, without a cluster.
//!
//! Refuses what the API server would refuse. A manifest that was read back from a cluster, with its `uid`, gives the very
//! bytes that are applied there while the agent has its tenant's budget to itself; one that was never applied has no
//! owner to name.

use std::collections::{BTreeMap, BTreeSet};

use siem_agent_crds::manifest;

use super::{Failure, RenderArguments, print, read};
use crate::error_chain::chain;
use crate::reconcile::build;
use crate::reconcile::gather::Observed;
use crate::reconcile::validate::{self, Settings};
use crate::reports::Sighting;
use crate::workload::Workload;

pub(super) fn run(arguments: &RenderArguments) -> Result<(), Failure> {
    let RenderArguments { file, forwarder_image } = arguments;
    print(&render(&read(file)?, &file.display().to_string(), forwarder_image)?)
}

fn render(text: &str, file: &str, image: &str) -> Result<String, Failure> {
    let refuse = |problems: Vec<String>| {
        let lines: Vec<_> =
            problems.into_iter().map(|problem| format!("{file}: {problem}")).collect();
        Failure::Given(lines.join("\n"))
    };
    let agent = manifest::read(text)
        .map_err(|problems| refuse(problems.0.iter().map(ToString::to_string).collect()))?;
    let budget = u32::try_from(agent.spec.source.requests_per_minute).unwrap_or(1);
    let observed = Observed {
        live: BTreeMap::new(),
        absent: BTreeSet::new(),
        workload: Workload::Progressing("nothing is applied"),
        sighting: Sighting::default(),
        requests_per_minute: budget,
        twins: Vec::new(),
        is_settled: false,
    };
    let settings = Settings { image: image.to_owned() };
    let validated = validate::validate(&agent, &observed, &settings)
        .map_err(|problems| refuse(problems.iter().map(ToString::to_string).collect()))?;
    let objects = build::objects(&validated).map_err(|error| Failure::World(chain(&error)))?;
    let mut yaml = String::new();
    for desired in &objects.list {
        let object = serde_saphyr::to_string(&desired.object)
            .map_err(|error| Failure::World(error.to_string()))?;
        yaml.push_str("---\n");
        yaml.push_str(&object);
        if !object.ends_with('\n') {
            yaml.push('\n');
        }
    }
    Ok(yaml)
}
