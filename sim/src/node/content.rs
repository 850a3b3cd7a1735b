//! What a volume is to hold, from Secrets, ConfigMaps, the downward API and tokens; or what is missing, in the kubelet's
//! words. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume,
};

use super::environment::field_of;

/// Files by their path in the volume.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// What the volume is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Files that are kept up to date.
    Files(Files),
    /// A folder of the pod's own.
    Empty,
    /// The folder of a claim.
    Claim(String),
}

/// Where it comes from.
pub(super) struct Sources<'a> {
    pub(super) pod: &'a Pod,
    pub(super) address: IpAddr,
    pub(super) secrets: &'a [Arc<Secret>],
    pub(super) config_maps: &'a [Arc<ConfigMap>],
    /// ServiceAccount tokens by audience.
    pub(super) tokens: &'a BTreeMap<String, String>,
}

impl Sources<'_> {
    pub(super) fn content(&self, volume: &Volume) -> Result<Content, String> {
        if volume.empty_dir.is_some() {
            return Ok(Content::Empty);
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            return Ok(Content::Claim(claim.claim_name.clone()));
        }
        self.files(volume).map(Content::Files).map_err(|missing| {
            format!("MountVolume.SetUp failed for volume \"{}\" : {missing}", volume.name)
        })
    }

    fn files(&self, volume: &Volume) -> Result<Files, String> {
        if let Some(of) = &volume.secret {
            let name = of.secret_name.as_deref().unwrap_or_default();
            return self.keys("secret", name, of.items.as_deref(), of.optional == Some(true));
        }
        if let Some(of) = &volume.config_map {
            let optional = of.optional == Some(true);
            return self.keys("configmap", &of.name, of.items.as_deref(), optional);
        }
        if let Some(of) = &volume.downward_api {
            return self.fields(of.items.as_deref().unwrap_or_default());
        }
        let Some(projected) = &volume.projected else {
            return Err("the stand-in does not know this kind of volume".to_owned());
        };
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            if let Some(of) = &source.secret {
                let optional = of.optional == Some(true);
                files.extend(self.keys("secret", &of.name, of.items.as_deref(), optional)?);
            } else if let Some(of) = &source.config_map {
                let optional = of.optional == Some(true);
                files.extend(self.keys("configmap", &of.name, of.items.as_deref(), optional)?);
            } else if let Some(of) = &source.downward_api {
                files.extend(self.fields(of.items.as_deref().unwrap_or_default())?);
            } else if let Some(of) = &source.service_account_token {
                let audience = of.audience.as_deref().unwrap_or_default();
                let token = self.tokens.get(audience).ok_or("there is no token yet")?;
                files.insert(of.path.clone(), token.clone().into_bytes());
            } else {
                return Err("the stand-in does not know this projection".to_owned());
            }
        }
        Ok(files)
    }

    fn fields(&self, items: &[DownwardAPIVolumeFile]) -> Result<Files, String> {
        let mut files = Files::new();
        for item in items {
            let field =
                item.field_ref.as_ref().ok_or("the stand-in does not know resource fields")?;
            let text = field_of(self.pod, &field.field_path, self.address)?;
            files.insert(item.path.clone(), text.into_bytes());
        }
        Ok(files)
    }

    fn keys(
        &self,
        kind: &'static str,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
    ) -> Result<Files, String> {
        let Some(data) = self.data(kind, name) else {
            if optional {
                return Ok(Files::new());
            }
            let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
            return Err(format!("{kind} \"{name}\" not found (namespace {namespace})"));
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else { return Ok(data) };
        let mut files = Files::new();
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => {
                    files.insert(item.path.clone(), bytes.clone());
                }
                None if optional => {}
                None => return Err(format!("references non-existent {kind} key: {}", item.key)),
            }
        }
        Ok(files)
    }

    /// A Secret's or ConfigMap's keys.
    pub(super) fn data(&self, kind: &str, name: &str) -> Option<Files> {
        if kind == "secret" {
            let mut secrets = self.secrets.iter();
            let secret = secrets.find(|secret| secret.metadata.name.as_deref() == Some(name))?;
            let data = secret.data.iter().flatten();
            return Some(data.map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect());
        }
        let mut config_maps = self.config_maps.iter();
        let map = config_maps.find(|map| map.metadata.name.as_deref() == Some(name))?;
        let texts = map.data.iter().flatten();
        let binary = map.binary_data.iter().flatten();
        let mut data: Files =
            texts.map(|(key, text)| (key.clone(), text.clone().into_bytes())).collect();
        data.extend(binary.map(|(key, bytes)| (key.clone(), bytes.0.clone())));
        Some(data)
    }
}
