//! `siem-operator crd`: the CustomResourceDefinition that goes with this program.

use siem_agent_crds::schema;

use super::{Failure, print};

pub(super) fn run() -> Result<(), Failure> {
    let yaml = serde_saphyr::to_string(&schema::crd())
        .map_err(|error| Failure::World(error.to_string()))?;
    print(&yaml)
}
