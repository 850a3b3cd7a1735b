//! A SiemAgent as the watch decodes it: read, or what can be said of one that cannot be. Pure.
//!
//! It is cut down while it is decoded: of its metadata nothing is kept that a user may make large and that nobody here
//! reads; of a spec that is larger than one may be, only that it is. kube's `DeserializeGuard` would hold three copies of
//! the object, and costs the program a quarter of a megabyte.

use std::borrow::Cow;
use std::ops::Deref;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use siem_agent_crds::manifest::too_large;
use siem_agent_crds::siem_agent::PAUSED_ANNOTATION;
use siem_agent_crds::{SiemAgent, SiemAgentStatus};

use crate::key::Key;

/// What of the metadata is read.
const KEPT: [&str; 8] = [
    "creationTimestamp",
    "deletionTimestamp",
    "generateName",
    "generation",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
];

/// A SiemAgent that the server has, with what it has given it. Made once, where it is decoded: nobody asks afterwards
/// whether it has a name.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) key: Key,
    pub(crate) uid: String,
    object: SiemAgent,
}

/// An agent, or why this version cannot read it.
#[derive(Debug, Clone)]
pub(crate) struct Decoded(pub(crate) Result<Agent, Undecodable>);

/// An agent that cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct Undecodable {
    /// Why, for people.
    pub(crate) error: String,
    pub(crate) metadata: ObjectMeta,
    /// Of one that is too large to be kept; that of others is read from the server.
    pub(crate) status: Option<SiemAgentStatus>,
}

impl Agent {
    /// `None` for one that no server has.
    pub(crate) fn new(object: SiemAgent) -> Option<Self> {
        let ObjectMeta { namespace, name, uid, .. } = &object.metadata;
        let key = Key::new(namespace.as_ref()?, name.as_ref()?);
        Some(Self { key, uid: uid.clone()?, object })
    }

    /// The generation of its spec.
    pub(crate) fn generation(&self) -> i64 {
        self.object.metadata.generation.unwrap_or(0)
    }

    /// With a status that is newer than what the watch shows, and the resourceVersion that it has since.
    pub(crate) fn with_status(mut self, resource_version: String, status: SiemAgentStatus) -> Self {
        self.object.metadata.resource_version = Some(resource_version);
        self.object.status = Some(status);
        self
    }
}

impl Deref for Agent {
    type Target = SiemAgent;

    fn deref(&self) -> &SiemAgent {
        &self.object
    }
}

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            let paused = metadata.get("annotations").and_then(|all| all.get(PAUSED_ANNOTATION));
            let is_paused = paused.is_some_and(|value| value == "true");
            let annotations = is_paused.then(|| json!({PAUSED_ANNOTATION: "true"}));
            metadata.retain(|name, _| KEPT.contains(&name.as_str()));
            metadata.extend(annotations.map(|kept| ("annotations".to_owned(), kept)));
        }
        let metadata = object.get("metadata").cloned().unwrap_or_default();
        let metadata: ObjectMeta = serde_json::from_value(metadata).map_err(D::Error::custom)?;
        if let Some(problem) = object.get("spec").and_then(too_large) {
            let status = object.get_mut("status").map(Value::take).unwrap_or_default();
            let status = serde_json::from_value::<Option<_>>(status).unwrap_or_default();
            let status = Some(status.unwrap_or_default());
            return Ok(Self(Err(Undecodable { error: problem.to_string(), metadata, status })));
        }
        let agent = serde_json::from_value(object).map_err(|error| error.to_string());
        let agent = agent.and_then(|agent| {
            Agent::new(agent).ok_or_else(|| "it has no name, namespace or UID".to_owned())
        });
        Ok(Self(agent.map_err(|error| Undecodable { error, metadata, status: None })))
    }
}

impl Resource for Decoded {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        SiemAgent::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        SiemAgent::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        SiemAgent::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        SiemAgent::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(agent) => &agent.metadata,
            Err(undecodable) => &undecodable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(agent) => &mut agent.object.metadata,
            Err(undecodable) => &mut undecodable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::DerefMut;

    use super::*;

    impl DerefMut for Agent {
        fn deref_mut(&mut self) -> &mut SiemAgent {
            &mut self.object
        }
    }

    impl Agent {
        /// As if a server had taken it.
        pub(crate) fn for_test(mut object: SiemAgent) -> Self {
            object.metadata.namespace.get_or_insert_with(|| "default".to_owned());
            object.metadata.uid.get_or_insert_with(|| "u".to_owned());
            Self::new(object).unwrap()
        }
    }

    fn decoded(spec: Value) -> Decoded {
        let object = json!({
            "apiVersion": "siemagent.dev/v1alpha1",
            "kind": "SiemAgent",
            "metadata": {
                "name": "soc", "namespace": "security", "uid": "u", "generation": 3, "resourceVersion": "9",
                "annotations": {"large": "x".repeat(1_000)}, "labels": {"a": "b"},
                "managedFields": [{"manager": "kubectl"}], "finalizers": ["a/b"],
            },
            "spec": spec,
            "status": {"observedGeneration": 2},
        });
        serde_json::from_value(object).unwrap()
    }

    fn spec() -> Value {
        json!({
            "source": {"cloudApps": {"url": "https://contoso.us2.portal.cloudappsecurity.com"}, "auth": {"tokenSecretRef": {"name": "a"}}},
            "syslog": {"host": "h"},
        })
    }

    #[test]
    fn what_can_be_read_is_kept_without_what_nobody_reads() {
        let agent = decoded(spec());
        let read = agent.0.as_ref().unwrap();
        assert_eq!(read.spec.syslog.host, "h");
        let meta = agent.meta();
        assert_eq!((meta.name.as_deref(), meta.generation), (Some("soc"), Some(3)));
        assert_eq!(meta.resource_version.as_deref(), Some("9"));
        assert!(meta.annotations.is_none() && meta.labels.is_none());
        assert!(meta.managed_fields.is_none() && meta.finalizers.is_none());
        assert!(!read.is_paused());
    }

    #[test]
    fn of_the_annotations_the_pause_is_kept() {
        for (value, is_paused) in [("true", true), ("false", false), ("", false)] {
            let object = json!({
                "apiVersion": "siemagent.dev/v1alpha1", "kind": "SiemAgent", "spec": spec(),
                "metadata": {
                    "name": "soc", "namespace": "security", "uid": "u",
                    "annotations": {"siemagent.dev/paused": value, "large": "x".repeat(1_000)},
                },
            });
            let agent: Decoded = serde_json::from_value(object).unwrap();
            assert_eq!(agent.0.as_ref().unwrap().is_paused(), is_paused, "{value}");
            let kept = agent.meta().annotations.as_ref().map(BTreeMap::len);
            assert_eq!(kept, is_paused.then_some(1));
        }
    }

    #[test]
    fn what_cannot_be_read_and_what_is_too_large_say_why_and_whose_they_are() {
        let agent = decoded(json!({"source": 5}));
        let undecodable = agent.0.as_ref().unwrap_err();
        assert!(undecodable.status.is_none() && !undecodable.error.is_empty());
        assert_eq!(agent.meta().name.as_deref(), Some("soc"));

        let mut large = spec();
        large["displayName"] = json!("x".repeat(100_000));
        let undecodable = decoded(large).0.unwrap_err();
        assert_eq!(undecodable.status.unwrap().observed_generation, 2);
        assert!(undecodable.error.contains("at most"), "{}", undecodable.error);
    }
}
