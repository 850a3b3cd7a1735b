//! The forwarder's Deployment: one replica, never two at once, under the restricted Pod Security Standard. Pure.
//!
//! Secrets and bundles are folders of their own, each optional: a missing one is reported by the forwarder instead of
//! blocking the pod, and a changed one is read live. Only the keys that the agent names are mounted. `replicas` is set
//! here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
    EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use siem_agent_crds::config::ADMIN_PORT;
use siem_agent_crds::defaults;
use siem_agent_crds::siem_agent::{BundleKind, SecretRef, SiemAgentSpec};

use super::paths::{CHECKPOINT, CONFIG, CONFIG_KEY, CONFIG_MAPS, SECRETS, STATE};
use super::validated::Validated;
use crate::names::{self, CONFIG_HASH_ANNOTATION, CONTAINER, Owned, RELEASE_LABEL};
use crate::platform::Platform;

/// The forwarder gives the receiver 20 s to confirm, and takes a few more to save and to end.
const GRACE_SECONDS: i64 = 30;
/// Two generations of a checkpoint of 100,000 ids take 8 MiB.
const STATE_LIMIT: &str = "64Mi";
/// What a node carries that is lost, by its own word and by its silence.
const LOST_NODE_TAINTS: [&str; 2] =
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// A forwarder is started on another node so many seconds after its own is given up.
const LOST_NODE_SECONDS: i64 = 30;
const NO_EXECUTE: &str = "NoExecute";
/// A volume's files are made accessible to this group, because the user is not fixed.
const STATE_GROUP: i64 = 65_532;

pub(super) fn deployment(validated: &Validated<'_>, config_hash: &str) -> Deployment {
    let spec = validated.spec();
    let name = validated.agent.metadata.name.as_deref().unwrap_or_default();
    let mut labels = spec.forwarder.pod_labels.clone();
    labels.extend(names::labels(name));
    let mut metadata = names::metadata(validated.agent, Owned::Deployment);
    if let Some(mark) = &validated.mark {
        labels.insert(RELEASE_LABEL.to_owned(), mark.release.clone());
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(RELEASE_LABEL.to_owned(), mark.to_string());
    }
    let mut annotations = spec.forwarder.pod_annotations.clone();
    annotations.insert(CONFIG_HASH_ANNOTATION.to_owned(), config_hash.to_owned());
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(i32::from(!spec.suspend)),
            revision_history_limit: Some(2),
            selector: LabelSelector {
                match_labels: Some(names::selector(name)),
                match_expressions: None,
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_owned()),
                rolling_update: None,
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(validated, name)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(validated: &Validated<'_>, name: &str) -> PodSpec {
    let forwarder = &validated.spec().forwarder;
    let (volumes, mounts) = volumes(validated.spec(), name);
    PodSpec {
        service_account_name: Some(Owned::ServiceAccount.name(name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            // OpenShift gives the pod the group of its namespace, and refuses one that is asked for.
            fs_group: (forwarder.persistence.enabled && validated.platform == Platform::Kubernetes)
                .then_some(STATE_GROUP),
            fs_group_change_policy: forwarder
                .persistence
                .enabled
                .then(|| "OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(validated, mounts)],
        volumes: Some(volumes),
        image_pull_secrets: some(pull_secrets(&forwarder.image_pull_secrets)),
        node_selector: (!forwarder.node_selector.is_empty())
            .then(|| forwarder.node_selector.clone()),
        tolerations: Some(tolerations(&forwarder.tolerations)),
        affinity: (forwarder.affinity != Affinity::default()).then(|| forwarder.affinity.clone()),
        priority_class_name: forwarder.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn pull_secrets(given: &[SecretRef]) -> Vec<LocalObjectReference> {
    given.iter().map(|secret| LocalObjectReference { name: secret.name.clone() }).collect()
}

/// The user's, and for each taint of a lost node that they leave open one of [`LOST_NODE_SECONDS`], because the default of
/// the API server is five minutes.
fn tolerations(given: &[Toleration]) -> Vec<Toleration> {
    let is_open = |taint: &&str| {
        !given.iter().any(|toleration| {
            let says = |text: &Option<String>, value: &str| {
                text.as_deref().is_none_or(|text| text.is_empty() || text == value)
            };
            says(&toleration.key, taint) && says(&toleration.effect, NO_EXECUTE)
        })
    };
    let own = LOST_NODE_TAINTS.into_iter().filter(is_open).map(|taint| Toleration {
        key: Some(taint.to_owned()),
        operator: Some("Exists".to_owned()),
        value: None,
        effect: Some(NO_EXECUTE.to_owned()),
        toleration_seconds: Some(LOST_NODE_SECONDS),
    });
    given.iter().cloned().chain(own).collect()
}

fn container(validated: &Validated<'_>, mounts: Vec<VolumeMount>) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(validated.image.clone()),
        args: Some(vec![
            "run".to_owned(),
            format!("--config={CONFIG}/{CONFIG_KEY}"),
            "--log-format=json".to_owned(),
        ]),
        env: Some(vec![from_pod("POD_UID", "metadata.uid"), from_pod("POD_IP", "status.podIP")]),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: ADMIN_PORT.into(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(defaults::resources(&validated.spec().forwarder.resources)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        // It listens once its configuration and state are loaded.
        startup_probe: Some(probe("/readyz", 2, 60)),
        readiness_probe: Some(probe("/readyz", 10, 3)),
        liveness_probe: Some(probe("/livez", 20, 3)),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn from_pod(name: &str, field: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: field.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn volumes(spec: &SiemAgentSpec, name: &str) -> (Vec<Volume>, Vec<VolumeMount>) {
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    let mut add = |volume: Volume, path: String, read_only: bool| {
        mounts.push(VolumeMount {
            name: volume.name.clone(),
            mount_path: path,
            // The server drops what is false, so it is not sent.
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        });
        volumes.push(volume);
    };
    // Not optional: it was applied before the Deployment, and there is no forwarder without it.
    add(config_map("config", &Owned::Config.name(name), None, false), CONFIG.to_owned(), true);
    let checkpoint = Owned::Checkpoint.name(name);
    add(config_map("checkpoint", &checkpoint, None, true), CHECKPOINT.to_owned(), true);
    add(state(spec, name), STATE.to_owned(), false);
    let (secrets, config_maps) = references(spec);
    for (index, (secret, keys)) in secrets.into_iter().enumerate() {
        let volume = Volume {
            name: format!("secret-{index}"),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                items: Some(items(keys)),
                optional: Some(true),
                default_mode: None,
            }),
            ..Volume::default()
        };
        add(volume, format!("{SECRETS}/{secret}"), true);
    }
    for (index, (bundle, keys)) in config_maps.into_iter().enumerate() {
        let volume = config_map(&format!("config-map-{index}"), bundle, Some(items(keys)), true);
        add(volume, format!("{CONFIG_MAPS}/{bundle}"), true);
    }
    (volumes, mounts)
}

fn state(spec: &SiemAgentSpec, name: &str) -> Volume {
    let persistent = spec.forwarder.persistence.enabled;
    Volume {
        name: "state".to_owned(),
        persistent_volume_claim: persistent.then(|| PersistentVolumeClaimVolumeSource {
            claim_name: Owned::Claim.name(name),
            read_only: None,
        }),
        empty_dir: (!persistent).then(|| EmptyDirVolumeSource {
            size_limit: Some(Quantity(STATE_LIMIT.to_owned())),
            medium: None,
        }),
        ..Volume::default()
    }
}

fn config_map(volume: &str, name: &str, items: Option<Vec<KeyToPath>>, optional: bool) -> Volume {
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.to_owned(),
            items,
            optional: Some(optional),
            default_mode: None,
        }),
        ..Volume::default()
    }
}

fn items(keys: BTreeSet<&str>) -> Vec<KeyToPath> {
    let item = |key: &str| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None };
    keys.into_iter().map(item).collect()
}

type Keys<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// The Secrets and ConfigMaps that the agent names, each with the keys that it needs.
fn references(spec: &SiemAgentSpec) -> (Keys<'_>, Keys<'_>) {
    let mut secrets = Keys::new();
    let mut config_maps = Keys::new();
    let auth = &spec.source.auth;
    if let Some(token) = &auth.token_secret_ref {
        secrets.entry(&token.name).or_default().insert(&token.key);
    }
    if let Some(client) = &auth.client_credentials {
        let secret = &client.client_secret_ref;
        secrets.entry(&secret.name).or_default().insert(&secret.key);
    }
    let proxy = spec.source.proxy.as_ref();
    if let Some(secret) = proxy.and_then(|proxy| proxy.credentials_secret_ref.as_ref()) {
        let keys = [secret.username_key.as_str(), secret.password_key.as_str()];
        secrets.entry(&secret.name).or_default().extend(keys);
    }
    let tls = spec.syslog.tls.as_ref();
    if let Some(secret) = tls.and_then(|tls| tls.client_certificate_secret_ref.as_ref()) {
        secrets.entry(&secret.name).or_default().extend(["tls.crt", "tls.key"]);
    }
    for bundle in
        [spec.source.ca_bundle_ref.as_ref(), tls.and_then(|tls| tls.ca_bundle_ref.as_ref())]
            .into_iter()
            .flatten()
    {
        let of_kind = match bundle.kind {
            BundleKind::Secret => &mut secrets,
            BundleKind::ConfigMap => &mut config_maps,
        };
        of_kind.entry(&bundle.name).or_default().insert(&bundle.key);
    }
    (secrets, config_maps)
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_node_is_borne_for_30_seconds_unless_the_user_says_otherwise() {
        let given = |key: &str, effect: &str, seconds: Option<i64>| Toleration {
            key: Some(key.to_owned()).filter(|key| !key.is_empty()),
            operator: Some("Exists".to_owned()),
            value: None,
            effect: Some(effect.to_owned()).filter(|effect| !effect.is_empty()),
            toleration_seconds: seconds,
        };
        let [not_ready, unreachable] = LOST_NODE_TAINTS;
        let added = |given: &[Toleration]| {
            let all = tolerations(given);
            assert_eq!(all[..given.len()], *given, "the user's stand first, as they are");
            let own = &all[given.len()..];
            assert!(own.iter().all(|own| own.toleration_seconds == Some(30)));
            own.iter().map(|own| own.key.clone().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(added(&[]), [not_ready, unreachable]);
        assert_eq!(added(&[given("dedicated", NO_EXECUTE, None)]), [not_ready, unreachable]);
        assert_eq!(added(&[given(not_ready, NO_EXECUTE, Some(600))]), [unreachable]);
        assert_eq!(added(&[given(unreachable, "", None)]), [not_ready]);
        assert_eq!(added(&[given(not_ready, "NoSchedule", None)]), [not_ready, unreachable]);
        // Everything is borne, for ever.
        assert_eq!(added(&[given("", "", None)]), Vec::<String>::new());
        assert_eq!(added(&[given("", "NoSchedule", None)]), [not_ready, unreachable]);
    }
}
