//! `siem-operator crd`: the CustomResourceDefinition that goes with this program.

use siem_agent_crds::schema;

use super::{Failure, print};

pub(super) fn run() -> Result<(), Failure> {
    print(&schema::yaml())
}
