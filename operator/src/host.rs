//! What matters of a workload that hosts a forwarder as a sidecar, or is asked to. Pure.
//!
//! The workload is somebody else's: nothing here says how it ought to be, only whether it takes a sidecar, what of it
//! is ours, and how its pod fares. Which fields are ours the server itself knows, by the field manager (`fieldsV1`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kube::core::Selector;
use serde_json::Value;
use siem_agent_crds::condition::Reason;
use siem_agent_crds::config::ADMIN_PORT;
use siem_agent_crds::siem_agent::{ALLOW_SIDECAR_ANNOTATION, HostKind, SidecarOf};

use crate::drift;
use crate::names::{SIDECAR, SIDECAR_LABEL, sidecar_manager};
use crate::objects::validated::Traits;
use crate::observed_object::ObservedObject;
use crate::workload::{PodSight, Workload};

/// A workload, as one agent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) of: SidecarOf,
    /// Its digest is that of this agent's part of it, its mark that of the sidecar.
    pub(crate) live: ObservedObject,
    /// Of its spec: another one starts its pods anew.
    pub(crate) generation: Option<i64>,
    /// The agent whose sidecar it allows.
    pub(crate) allows: Option<String>,
    /// The agent whose sidecar is in it, by the label.
    pub(crate) taken_by: Option<String>,
    pub(crate) replicas: i64,
    /// Its update strategy, where that may run two pods at once.
    pub(crate) surges: Option<String>,
    /// Whether this agent's sidecar is in the pod template.
    pub(crate) has_sidecar: bool,
    /// Who else has written a container of the sidecar's name: appliers alone, and all.
    pub(crate) also_applied_by: Vec<String>,
    pub(crate) also_written_by: Vec<String>,
    /// Containers, volumes and ports that are not this agent's and that its sidecar would need.
    pub(crate) clashes: Vec<String>,
    pub(crate) traits: Traits,
    /// Whether the containers of its pods see each other's processes, and so each other's files.
    shares_processes: bool,
    /// By which its pods are found.
    pub(crate) selector: String,
    rollout: Rollout,
}

/// How far its controller has come with it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rollout {
    is_seen: bool,
    is_updated: bool,
    /// Its pods are replaced only when somebody deletes them.
    is_by_hand: bool,
    /// Why its controller cannot make the pod.
    failing: Option<(String, String)>,
}

/// A pod of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPod {
    /// As the sidecar's: ready where that container runs.
    pub(crate) sight: PodSight,
    /// Whether the sidecar is in it.
    pub(crate) has_sidecar: bool,
    /// Whether it is on its way out.
    pub(crate) is_leaving: bool,
}

impl Host {
    /// What matters to this agent of a workload.
    pub(crate) fn of(object: &DynamicObject, of: SidecarOf, agent: &str) -> Self {
        let manager = sidecar_manager(agent);
        let whole = serde_json::to_value(object).unwrap_or_default();
        let at = |pointer: &str| whole.pointer(pointer);
        let template = at("/spec/template/spec").cloned().unwrap_or_default();
        let ours = Claims::of(&whole, |entry| entry == manager);
        let appliers = writers(&whole, &manager, true);
        let is = |pointer: &str| template.pointer(pointer) == Some(&Value::Bool(true));
        let digest = drift::of_live(&whole, &manager);
        let live = ObservedObject { digest, ..ObservedObject::of(object) };
        let selector = at("/spec/selector").cloned().unwrap_or_default();
        let selector = serde_json::from_value::<LabelSelector>(selector).unwrap_or_default();
        Self {
            generation: object.metadata.generation,
            allows: object.annotations().get(ALLOW_SIDECAR_ANNOTATION).cloned(),
            taken_by: object.labels().get(SIDECAR_LABEL).cloned(),
            replicas: at("/spec/replicas").and_then(Value::as_i64).unwrap_or(1),
            surges: surges(of.kind, &whole),
            has_sidecar: ours.container && containers(&template, "initContainers").any(is_sidecar),
            also_written_by: writers(&whole, &manager, false),
            also_applied_by: appliers.clone(),
            clashes: clashes(&template, &ours, !appliers.is_empty()),
            traits: Traits {
                as_root: template.pointer("/securityContext/runAsUser") == Some(&Value::from(0)),
                on_node: is("/hostNetwork"),
            },
            shares_processes: is("/shareProcessNamespace") || is("/hostPID"),
            // One that is no selector finds nothing: no pod has such a label.
            selector: Selector::try_from(selector)
                .map_or_else(|_| SIDECAR_LABEL.to_owned(), |selector| selector.to_string()),
            rollout: Rollout::of(of.kind, object.metadata.generation, &whole),
            of,
            live,
        }
    }

    /// Why this agent's sidecar must not be here, though the workload is: the gravest first, and what to do.
    pub(crate) fn refusal(&self, agent: &str, is_replaced: bool) -> Option<(Reason, String)> {
        let of = &self.of;
        let allow = format!("annotate it with {ALLOW_SIDECAR_ANNOTATION}={agent}");
        match self.allows.as_deref() {
            Some(allowed) if allowed == agent => {}
            _ if is_replaced => {
                let text = format!(
                    "{of} is another object than the one that the sidecar was in, and does not allow it: {allow}"
                );
                return Some((Reason::SidecarHostReplaced, text));
            }
            None => {
                let text = format!("{of} does not allow the sidecar: {allow}");
                return Some((Reason::SidecarNotAllowed, text));
            }
            Some(other) => {
                let text = format!(
                    "{of} allows only the sidecar of the agent {other}: {allow}, or choose another workload"
                );
                return Some((Reason::SidecarNotAllowed, text));
            }
        }
        if let Some(other) = self.taken_by.as_deref().filter(|other| *other != agent) {
            let text = format!(
                "{of} still has the sidecar of the SiemAgent {other}: the operator removes it when {other} is deleted or names another workload; where no operator serves {other}, see docs/sidecar.md"
            );
            return Some((Reason::SidecarHostTaken, text));
        }
        if self.replicas > 1 {
            let text = format!(
                "{of} has {} replicas, and each would export everything: it must have one, or the agent a Deployment of its own",
                self.replicas
            );
            return Some((Reason::SidecarHostScaled, text));
        }
        if let Some(strategy) = &self.surges {
            let text = format!(
                "{of} is updated by {strategy}, which runs two pods at once, and both would export everything: it needs the strategy Recreate, or RollingUpdate with maxSurge 0"
            );
            return Some((Reason::SidecarHostStrategy, text));
        }
        if self.shares_processes {
            let text = format!(
                "the containers of {of} share a process namespace (shareProcessNamespace or hostPID), through which each reads the others' Secrets: it must not"
            );
            return Some((Reason::SidecarHostProcesses, text));
        }
        if !self.clashes.is_empty() {
            let clashes = self.clashes.join(", ");
            let text = match self.also_applied_by.as_slice() {
                [] => format!(
                    "{of} has {clashes}, which the sidecar needs: rename the container or volume, or change the port"
                ),
                others => format!(
                    "{of} has {clashes}, which the sidecar needs: remove it from what {} applies",
                    others.join(" and ")
                ),
            };
            return Some((Reason::SidecarNameClash, text));
        }
        None
    }

    /// What somebody has to do, where its pods are not replaced by themselves.
    pub(crate) fn by_hand(&self) -> &'static str {
        let is_held = self.of.kind == HostKind::StatefulSet && !self.rollout.is_updated;
        if self.rollout.is_by_hand || is_held {
            ": if it does not end, delete it (a StatefulSet does not replace a pod under OnDelete, nor one that never became ready)"
        } else {
            ""
        }
    }

    /// Whether this agent has a part of it, be it the label alone. A label by itself may be anybody's.
    pub(crate) fn has_part(&self) -> bool {
        self.live.digest.is_some()
    }

    /// Whether the newest pod is of the present template.
    pub(crate) fn is_updated(&self) -> bool {
        self.rollout.is_seen && self.rollout.is_updated
    }

    /// Judges the sidecar by the host's pods, the newest first.
    pub(crate) fn judge(&self, pods: &[HostPod]) -> Workload {
        let pods: Vec<_> = pods.iter().filter(|pod| !pod.is_leaving).collect();
        let failing = |(reason, message): &(String, String)| Workload::Failing {
            reason: reason.clone(),
            message: format!("{}: {message}", self.of),
        };
        if self.replicas == 0 {
            let message = "it has no replica, and so the sidecar has no pod; scale it to one";
            return failing(&(Reason::SidecarHostScaledToZero.to_string(), message.to_owned()));
        }
        if !self.rollout.is_seen {
            return Workload::Progressing("the host is being rolled out");
        }
        let pod = pods.first().filter(|pod| pod.has_sidecar);
        if let Some((reason, message)) = pod.and_then(|pod| pod.sight.trouble.as_ref()) {
            let by_hand = match self.of.kind {
                HostKind::StatefulSet if !self.rollout.is_updated => {
                    "; when that is mended, delete the pod: a StatefulSet does not replace one that never became ready"
                }
                _ => "",
            };
            return failing(&(reason.clone(), format!("{message}{by_hand}")));
        }
        match pod {
            Some(pod) if pod.sight.is_ready && self.is_updated() => Workload::Running,
            _ if let Some(trouble) = &self.rollout.failing => failing(trouble),
            _ if self.rollout.is_by_hand && !self.rollout.is_updated => Workload::Progressing(
                "the host is updated only by hand (OnDelete): delete its pod to start it with the sidecar",
            ),
            None if pods.is_empty() => Workload::Progressing(
                "the host's pod is being made; if that lasts, the host's Events say why",
            ),
            None => {
                Workload::Progressing("the host's pod is being replaced by one with the sidecar")
            }
            Some(_) => Workload::Progressing("the host's pod is starting"),
        }
    }
}

/// What of a host's pod template a field manager applies.
struct Claims {
    container: bool,
    volumes: Vec<String>,
}

impl Claims {
    fn of(object: &Value, is_theirs: impl Fn(&str) -> bool) -> Self {
        let fields: Vec<&Value> = entries(object, is_theirs).map(|(_, fields)| fields).collect();
        let names = |list: &str| {
            let pointer = format!("/f:spec/f:template/f:spec/f:{list}");
            let items = fields.iter().filter_map(|fields| fields.pointer(&pointer)?.as_object());
            items.flat_map(|items| items.keys().filter_map(|key| item_name(key))).collect()
        };
        let containers: Vec<String> = names("initContainers");
        Self { container: containers.iter().any(|name| name == SIDECAR), volumes: names("volumes") }
    }
}

/// Who applies what, of appliers alone: an edit is put back, an applier would apply it again.
fn entries(
    object: &Value,
    is_theirs: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (&str, &Value)> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(move |entry| {
        let manager = text_of(entry, "manager")?;
        let is_apply = text_of(entry, "operation") == Some("Apply");
        let applies = is_apply && entry.get("subresource").is_none();
        (applies && is_theirs(manager)).then_some((manager, entry.get("fieldsV1")?))
    })
}

/// Others that have written a container of the sidecar's name, or only those that apply it.
fn writers(object: &Value, manager: &str, appliers: bool) -> Vec<String> {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let others = entries.into_iter().flatten().filter_map(|entry| {
        let is_other = text_of(entry, "manager") != Some(manager);
        let counts = !appliers || text_of(entry, "operation") == Some("Apply");
        (is_other && counts).then_some((text_of(entry, "manager")?, entry.get("fieldsV1")?))
    });
    let claims = others.filter(|(_, fields)| {
        let containers = fields.pointer("/f:spec/f:template/f:spec/f:initContainers");
        let mut keys = containers.and_then(Value::as_object).into_iter().flat_map(|it| it.keys());
        keys.any(|key| item_name(key).as_deref() == Some(SIDECAR))
    });
    claims.map(|(manager, _)| manager.to_owned()).collect()
}

/// The name in `k:{"name":"x"}`.
fn item_name(key: &str) -> Option<String> {
    let keys: Value = serde_json::from_str(key.strip_prefix("k:")?).ok()?;
    keys.get("name")?.as_str().map(str::to_owned)
}

fn containers<'a>(template: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    template.get(list).and_then(Value::as_array).into_iter().flatten()
}

fn name(of: &Value) -> &str {
    text_of(of, "name").unwrap_or_default()
}

fn text_of<'a>(of: &'a Value, field: &str) -> Option<&'a str> {
    of.get(field)?.as_str()
}

fn is_sidecar(container: &Value) -> bool {
    name(container) == SIDECAR
}

fn clashes(template: &Value, ours: &Claims, is_shared: bool) -> Vec<String> {
    let is_ours = ours.container && !is_shared;
    let mut clashes = Vec::new();
    let is_init = containers(template, "initContainers").any(is_sidecar) && !is_ours;
    if is_init || containers(template, "containers").any(is_sidecar) {
        clashes.push(format!("a container {SIDECAR}"));
    }
    let volumes = containers(template, "volumes").map(name);
    let taken = volumes.filter(|volume| {
        volume.strip_prefix(SIDECAR).is_some_and(|rest| rest.starts_with('-'))
            && !ours.volumes.iter().any(|own| own == volume)
    });
    clashes.extend(taken.map(|volume| format!("a volume {volume}")));
    let all = containers(template, "initContainers").chain(containers(template, "containers"));
    let ports = all.filter(|container| !is_sidecar(container)).filter(|container| {
        containers(container, "ports").any(|port| {
            port.get("containerPort").and_then(Value::as_u64) == Some(ADMIN_PORT.into())
        })
    });
    clashes.extend(ports.map(|of| format!("the port {ADMIN_PORT} in the container {}", name(of))));
    clashes
}

/// Two pods of a StatefulSet's ordinal never run at once; a Deployment's may.
fn surges(kind: HostKind, object: &Value) -> Option<String> {
    if kind == HostKind::StatefulSet {
        return None;
    }
    if object.pointer("/spec/strategy/type").and_then(Value::as_str) == Some("Recreate") {
        return None;
    }
    let surge = object.pointer("/spec/strategy/rollingUpdate/maxSurge");
    match surge {
        Some(Value::Number(surge)) if surge.as_i64() == Some(0) => None,
        Some(Value::String(surge)) if ["0", "0%"].contains(&surge.as_str()) => None,
        Some(Value::String(surge)) => Some(format!("RollingUpdate with maxSurge {surge}")),
        Some(surge) => Some(format!("RollingUpdate with maxSurge {surge}")),
        None => Some("RollingUpdate with maxSurge 25%".to_owned()),
    }
}

impl Rollout {
    fn of(kind: HostKind, generation: Option<i64>, object: &Value) -> Self {
        let status = object.get("status").unwrap_or(&Value::Null);
        let number = |field: &str| status.get(field).and_then(Value::as_i64);
        let condition = |type_: &str| {
            let conditions = status.get("conditions").and_then(Value::as_array);
            let is = |condition: &&Value| text_of(condition, "type") == Some(type_);
            conditions.into_iter().flatten().find(is)
        };
        let says = |condition: Option<&Value>, is: &str| {
            let found = condition.filter(|found| text_of(found, "status") == Some(is))?;
            let text = |field: &str| text_of(found, field).unwrap_or_default().to_owned();
            Some((text("reason"), text("message")))
        };
        let strategy = object.pointer("/spec/updateStrategy/type").and_then(Value::as_str);
        Self {
            is_seen: number("observedGeneration") >= generation,
            is_updated: number("updatedReplicas") == Some(1) && number("replicas") == Some(1),
            is_by_hand: kind == HostKind::StatefulSet && strategy == Some("OnDelete"),
            failing: says(condition("ReplicaFailure"), "True")
                .or_else(|| says(condition("Progressing"), "False")),
        }
    }
}

#[cfg(test)]
mod tests;
