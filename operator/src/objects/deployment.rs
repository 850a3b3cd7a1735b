//! The forwarder's Deployment: one replica, never two at once, under the restricted Pod Security Standard. Pure.
//!
//! What is in the pod is `container`'s to say. `replicas` is set here and nowhere else.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Affinity, PodSecurityContext, PodSpec, PodTemplateSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::container::{self, Pod};
use super::validated::Validated;
use crate::names::{self, CONFIG_HASH_ANNOTATION, Owned, RELEASE_LABEL};
use crate::platform::Platform;

/// The forwarder gives the receiver 20 s to confirm, and takes a few more to save and to end.
const GRACE_SECONDS: i64 = 30;
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
    let container = container::container(validated, Pod::Own);
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
            seccomp_profile: Some(container::seccomp_profile()),
            ..PodSecurityContext::default()
        }),
        containers: vec![container],
        volumes: Some(container::volumes(validated, Pod::Own)),
        image_pull_secrets: container::pull_secrets(validated),
        node_selector: (!forwarder.node_selector.is_empty())
            .then(|| forwarder.node_selector.clone()),
        tolerations: Some(tolerations(&forwarder.tolerations)),
        affinity: (forwarder.affinity != Affinity::default()).then(|| forwarder.affinity.clone()),
        priority_class_name: forwarder.priority_class_name.clone(),
        ..PodSpec::default()
    }
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
