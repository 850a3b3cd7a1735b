//! The forwarder's container and what it mounts, in a pod of its own and as a sidecar in another workload's. Pure.
//!
//! Secrets and bundles are folders of their own, each optional: a missing one is reported by the forwarder instead of
//! blocking the pod, and a changed one is read live.
//!
//! In a host's pod nothing may keep the host from starting or being ready, so there is no probe and every volume is
//! optional. Nothing may depend on the pod's own security context. A change of the agent may not start the host anew, so
//! Secrets are mounted whole; and the host's ServiceAccount token is hidden behind an empty folder.
//!
//! An agent that authenticates by who its pod is has a token for that, which the API server of Kubernetes refuses.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    EnvVarSource, HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, Probe, ProjectedVolumeSource, SeccompProfile,
    SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use siem_agent_crds::config::ADMIN_PORT;
use siem_agent_crds::defaults;
use siem_agent_crds::siem_agent::{BundleKind, SidecarOf, SiemAgentSpec};

use super::paths::{
    CHECKPOINT, CONFIG, CONFIG_KEY, CONFIG_MAPS, IDENTITY, IDENTITY_TOKEN, SECRETS, STATE,
    workload_identity,
};
use super::validated::{Traits, Validated};
use crate::names::{CONTAINER, Owned, SIDECAR};
use crate::platform::Platform;

/// Two generations of a checkpoint of 100,000 ids take 8 MiB.
const STATE_LIMIT: &str = "64Mi";
/// The image's own user: a host's pod may have another one, root even.
const USER: i64 = 65_532;
/// Where the API server's admission mounts a ServiceAccount's token, unless something is mounted there already
/// (Kubernetes, "Configure Service Accounts for Pods").
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long the token that says who the pod is may be used; the kubelet renews it before.
const IDENTITY_SECONDS: i64 = 3_600;
/// Nobody writes there.
const NO_TOKEN_LIMIT: &str = "1Mi";

/// Whose pod it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pod<'a> {
    /// The agent's own Deployment's.
    Own,
    /// Another workload's.
    Hosts(&'a SidecarOf, Traits),
}

impl Pod<'_> {
    fn volume(self, name: &str) -> String {
        match self {
            Self::Own => name.to_owned(),
            Self::Hosts(..) => format!("{SIDECAR}-{name}"),
        }
    }

    fn is_own(self) -> bool {
        self == Self::Own
    }
}

pub(super) fn container(validated: &Validated<'_>, pod: Pod<'_>) -> Container {
    let config = format!("--config={CONFIG}/{CONFIG_KEY}");
    let sidecar_of = match pod {
        Pod::Own => None,
        Pod::Hosts(of, _) => Some(format!("--sidecar-of={}", of.path())),
    };
    let args =
        ["run", &config].into_iter().chain(sidecar_of.as_deref()).chain(["--log-format=json"]);
    // A port's name may be asked for by whoever speaks of the host's own. On the network of a node a port is the node's.
    let (name, port) = if pod.is_own() { (CONTAINER, "http") } else { (SIDECAR, "siem-http") };
    let on_node = matches!(pod, Pod::Hosts(_, Traits { on_node: true, .. }));
    Container {
        name: name.to_owned(),
        image: Some(validated.image.clone()),
        args: Some(args.map(str::to_owned).collect()),
        env: Some(vec![from_pod("POD_UID", "metadata.uid"), from_pod("POD_IP", "status.podIP")]),
        ports: (!on_node).then(|| {
            vec![ContainerPort {
                name: Some(port.to_owned()),
                container_port: ADMIN_PORT.into(),
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]
        }),
        resources: Some(defaults::resources(&validated.spec().forwarder.resources)),
        security_context: Some(security(validated, pod)),
        // It listens once its configuration and state are loaded.
        startup_probe: pod.is_own().then(|| probe("/readyz", 2, 60)),
        readiness_probe: pod.is_own().then(|| probe("/readyz", 10, 3)),
        liveness_probe: pod.is_own().then(|| probe("/livez", 20, 3)),
        // What makes an init container a sidecar (Kubernetes 1.29).
        restart_policy: (!pod.is_own()).then(|| "Always".to_owned()),
        volume_mounts: Some(mounted(validated, pod).into_iter().map(|(_, mount)| mount).collect()),
        ..Container::default()
    }
}

pub(super) fn volumes(validated: &Validated<'_>, pod: Pod<'_>) -> Vec<Volume> {
    mounted(validated, pod).into_iter().map(|(volume, _)| volume).collect()
}

pub(super) fn pull_secrets(validated: &Validated<'_>) -> Option<Vec<LocalObjectReference>> {
    let given = &validated.spec().forwarder.image_pull_secrets;
    let reference = |name: &String| LocalObjectReference { name: name.clone() };
    (!given.is_empty()).then(|| given.iter().map(|secret| reference(&secret.name)).collect())
}

pub(super) fn seccomp_profile() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn security(validated: &Validated<'_>, pod: Pod<'_>) -> SecurityContext {
    let own = SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    };
    let Pod::Hosts(_, Traits { as_root, .. }) = pod else { return own };
    // OpenShift chooses a user itself, unless the pod is one that may choose root.
    let user = (as_root || validated.platform == Platform::Kubernetes).then_some(USER);
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: user,
        run_as_group: user,
        seccomp_profile: Some(seccomp_profile()),
        ..own
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

/// Each volume with where it is mounted.
fn mounted(validated: &Validated<'_>, pod: Pod<'_>) -> Vec<(Volume, VolumeMount)> {
    let spec = validated.spec();
    let name = validated.agent.metadata.name.as_deref().unwrap_or_default();
    let mut mounted = Vec::new();
    let mut add = |volume: Volume, path: String, read_only: bool| {
        let mount = VolumeMount {
            name: volume.name.clone(),
            mount_path: path,
            // The server drops what is false, so it is not sent.
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        };
        mounted.push((volume, mount));
    };
    // In a pod of its own not optional: it was applied before the Deployment, and there is no forwarder without it.
    let config = Owned::Config.name(name);
    add(config_map(pod.volume("config"), &config, None, !pod.is_own()), CONFIG.to_owned(), true);
    let checkpoint = Owned::Checkpoint.name(name);
    let volume = config_map(pod.volume("checkpoint"), &checkpoint, None, true);
    add(volume, CHECKPOINT.to_owned(), true);
    add(state(spec, name, pod), STATE.to_owned(), false);
    let (secrets, config_maps) = references(spec);
    let items = |keys| pod.is_own().then(|| items(keys));
    for (index, (secret, keys)) in secrets.into_iter().enumerate() {
        let volume = Volume {
            name: pod.volume(&format!("secret-{index}")),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.to_owned()),
                items: items(keys),
                optional: Some(true),
                default_mode: None,
            }),
            ..Volume::default()
        };
        add(volume, format!("{SECRETS}/{secret}"), true);
    }
    for (index, (bundle, keys)) in config_maps.into_iter().enumerate() {
        let volume = pod.volume(&format!("config-map-{index}"));
        add(config_map(volume, bundle, items(keys), true), format!("{CONFIG_MAPS}/{bundle}"), true);
    }
    if let Some(identity) = workload_identity(spec) {
        add(token(pod.volume("identity"), &identity.audience), IDENTITY.to_owned(), true);
    }
    if !pod.is_own() {
        add(empty(pod.volume("no-token"), NO_TOKEN_LIMIT), TOKEN.to_owned(), true);
    }
    mounted
}

fn state(spec: &SiemAgentSpec, name: &str, pod: Pod<'_>) -> Volume {
    if !spec.forwarder.persistence.enabled {
        return empty(pod.volume("state"), STATE_LIMIT);
    }
    Volume {
        name: pod.volume("state"),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: Owned::Claim.name(name),
            read_only: None,
        }),
        ..Volume::default()
    }
}

fn token(volume: String, audience: &str) -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(audience.to_owned()),
        expiration_seconds: Some(IDENTITY_SECONDS),
        path: IDENTITY_TOKEN.to_owned(),
    };
    let source =
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    Volume {
        name: volume,
        projected: Some(ProjectedVolumeSource { sources: Some(vec![source]), default_mode: None }),
        ..Volume::default()
    }
}

fn empty(volume: String, limit: &str) -> Volume {
    Volume {
        name: volume,
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: Some(Quantity(limit.to_owned())),
            medium: None,
        }),
        ..Volume::default()
    }
}

fn config_map(volume: String, name: &str, items: Option<Vec<KeyToPath>>, optional: bool) -> Volume {
    Volume {
        name: volume,
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
    let client = auth.client_credentials.as_ref();
    if let Some(secret) = client.and_then(|client| client.client_secret_ref.as_ref()) {
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
