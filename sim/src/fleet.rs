//! Agents by the hundred, and the bare client that applies what they own: for tests and for the benchmark.

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::control_plane::Request;

/// As many requests at once as the operator has passes.
pub const AT_ONCE: usize = 16;

/// An agent's manifest; `spec` is merged over the least that works.
pub fn manifest(name: &str, url: &str, spec: Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "siemagent.dev/v1alpha1", "kind": "SiemAgent", "metadata": {"name": name},
        "spec": {
            "source": {"cloudApps": {"url": url}, "auth": {"tokenSecretRef": {"name": "defender"}}},
            "syslog": {"host": format!("{name}.siem.example.com")},
        },
    });
    if let (Some(own), Value::Object(more)) = (manifest["spec"].as_object_mut(), spec) {
        own.extend(more);
    }
    manifest
}

/// An agent of about the largest legal size: every list and text that may be long is.
pub fn largest(name: &str, url: &str) -> Value {
    let text = |n: usize, first: usize| format!("{first:03}{}", "a".repeat(n - 3));
    let many = |n_entries: usize, n: usize| (0..n_entries).map(move |at| text(n, at));
    let annotations: serde_json::Map<_, _> =
        (0..5).map(|n| (format!("example.com/a{n}"), json!(text(4_096, n)))).collect();
    let labels: serde_json::Map<_, _> =
        many(30, 63).map(|name| (name.clone(), json!(name))).collect();
    let mut largest = manifest(name, url, json!({}));
    largest["spec"]["source"]["proxy"] =
        json!({"url": "http://proxy:3128", "noProxy": many(60, 250).collect::<Vec<_>>()});
    largest["spec"]["eventTypes"] = json!({
        "activities": {"filter": {"users": many(50, 320).collect::<Vec<_>>()}},
        // Small parts take the most memory once they are read.
        "alerts": {"filter": {"raw": {"x": {"eq": vec![1; 2_000]}}}},
    });
    largest["spec"]["forwarder"] = json!({"podAnnotations": annotations, "nodeSelector": labels});
    largest
}

/// So many agents on so many URLs.
pub fn manifests(n_agents: usize, n_urls: usize) -> Vec<Value> {
    let url = |n: usize| format!("https://t{}.portal.cloudappsecurity.com", n % n_urls);
    (0..n_agents).map(|n| manifest(&format!("a{n}"), &url(n), json!({}))).collect()
}

/// Applies an object; what the server made of it.
///
/// # Errors
/// When it is refused.
pub async fn apply(client: &Client, namespace: &str, object: &Value) -> Result<DynamicObject> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let api = text("/apiVersion");
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let kind = kube::core::GroupVersionKind::gvk(group, version, text("/kind"));
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let parameters = PatchParams::apply("bare-client").force();
    let name = text("/metadata/name");
    api.patch(name, &parameters, &Patch::Apply(object))
        .await
        .with_context(|| format!("apply {} {name}", text("/kind")))
}

/// Applies agents, a few at once, as whoever has them in Git.
///
/// # Errors
/// When one is refused.
pub async fn apply_all(client: &Client, namespace: &str, objects: &[Value]) -> Result<()> {
    let applied = stream::iter(objects).map(|object| apply(client, namespace, object));
    applied.buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await
}

/// What a user has made of what agents own.
pub fn n_made(requests: &[Request], user: &str) -> usize {
    let owned = ["serviceaccounts", "configmaps", "deployments"];
    let made = requests.iter().filter(|request| {
        request.user == user && request.code == 201 && owned.contains(&&*request.resource)
    });
    made.count()
}
