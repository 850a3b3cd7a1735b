//! The volume of the forwarder's state, where persistence is asked for. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::validated::Validated;
use crate::names::{self, Owned};

pub(super) fn claim(validated: &Validated<'_>) -> PersistentVolumeClaim {
    let persistence = &validated.spec().forwarder.persistence;
    PersistentVolumeClaim {
        metadata: names::metadata(validated.agent, Owned::Claim),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    Quantity(persistence.size.clone()),
                )])),
                limits: None,
            }),
            // Absent is the cluster's default class, and an empty one asks for no class.
            storage_class_name: persistence.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
