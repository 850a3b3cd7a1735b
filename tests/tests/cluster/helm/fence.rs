//! The chart's admission policies on a real API server: with them the operator works, and its account, whoever has its
//! token, is refused everything else in words.

mod hosts;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use siem_agent_sim::control_plane::{ControlPlane, User};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_sim::helm::{CHART, Helm};
use siem_agent_sim::kubectl::Kubectl;
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::{Operator, Place};
use tokio::time::{Instant, sleep};

const IMAGE: &str = "--forwarder-image=ghcr.io/siem-agent-operator/siem-forwarder:0.0.0";
const ACCOUNT: &str = "siem-siem-agent-operator";

/// A namespace with an operator's account behind the policies.
struct Fenced {
    admin: Kubectl,
    /// As whoever has the operator's token.
    thief: Kubectl,
    place: Place,
    namespace: String,
}

impl Fenced {
    /// With these values beside the policies.
    async fn new(more: &Value) -> Result<Self> {
        let plane = ControlPlane::shared().await?;
        plane.install_crd().await?;
        let namespace = plane.namespace().await?;
        let helm = Helm::new(Some(&plane.kubeconfig(User::Admin)?)).await?;
        let mut values = json!({
            "watchNamespaces": [namespace], "crds": {"enabled": false}, "replicas": 0,
            "admissionPolicy": {"enabled": true},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            values[name] = value.clone();
        }
        let values = helm.values("fence", &values)?;
        let install = ["install", "siem", CHART, "--namespace", &namespace].map(str::to_owned);
        helm.run(&[&install[..], &values].concat()).await?;
        let place = Place::of_account(plane, &namespace, ACCOUNT, vec![namespace.clone()]).await?;
        let (admin, thief) = (plane.kubectl()?, plane.kubectl_with(&place.kubeconfig)?);
        Ok(Self { admin, thief, place, namespace })
    }

    async fn admin(&self, arguments: &[&str], stdin: &str) -> Result<String> {
        let inside = format!("--namespace={}", self.namespace);
        self.admin.run(&[&[inside.as_str()], arguments].concat(), stdin).await
    }

    /// What the API server says to the operator's account; `None` where it does as it is asked.
    async fn refusal(&self, arguments: &[&str], stdin: &str) -> Result<Option<String>> {
        let inside = format!("--namespace={}", self.namespace);
        let said = self.thief.say(&[&[inside.as_str()], arguments].concat(), stdin).await?;
        Ok((!said.ok).then_some(said.stderr))
    }

    async fn create(&self, object: &Value) -> Result<Option<String>> {
        self.refusal(&["create", "--dry-run=server", "-f", "-"], &object.to_string()).await
    }

    /// Waits for the objects of an agent, as the operator makes them.
    async fn made(&self, what: &str, operator: &Operator) -> Result<Value> {
        eventually(PATIENCE, async || {
            let text = self.admin(&["get", "--ignore-not-found", "-o", "json", what], "").await?;
            ensure!(!text.trim().is_empty(), "{what} is not made: {}", operator.log());
            Ok(serde_json::from_str(&text)?)
        })
        .await
    }
}

fn owner(name: &str) -> Value {
    json!([{
        "apiVersion": "siemagent.dev/v1alpha1", "kind": "SiemAgent", "name": name, "controller": true,
        "uid": "00000000-0000-0000-0000-000000000000",
    }])
}

/// The same object for another agent, as it would be made anew.
fn of_another(object: &Value, agent: &str) -> Value {
    let mut object = object.clone();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let name = name.replacen("soc", agent, 1);
    object["metadata"] = json!({
        "name": name, "labels": object["metadata"]["labels"], "ownerReferences": owner(agent),
    });
    if object["kind"] == "Deployment" {
        object["spec"]["template"]["spec"]["serviceAccountName"] = json!(name);
        object["spec"]["template"]["spec"]["serviceAccount"] = json!(name);
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    object
}

#[tokio::test]
async fn behind_the_policies_the_operator_works_and_its_account_can_do_nothing_else() -> Result<()>
{
    let fenced = Fenced::new(&json!({})).await?;
    let operator = Operator::start(&fenced.place, &[IMAGE]).await?;
    let agent = Manifest::new("soc")
        .more("  forwarder: {persistence: {enabled: true}, networkPolicy: {enabled: true}}\n");
    fenced.admin(&["apply", "-f", "-"], &agent.to_string()).await?;
    let mut made = Vec::new();
    for what in [
        "serviceaccount/soc-forwarder",
        "configmap/soc-config",
        "persistentvolumeclaim/soc-state",
        "networkpolicy/soc-forwarder",
        "deployment/soc-forwarder",
    ] {
        made.push(fenced.made(what, &operator).await?);
    }
    // It may change what it has made, and delete what is no longer wanted.
    let less =
        r#"{"spec": {"forwarder": {"networkPolicy": {"enabled": false}, "logLevel": "debug"}}}"#;
    fenced.admin(&["patch", "siemagent", "soc", "--type=merge", "-p", less], "").await?;
    let until = Instant::now() + PATIENCE;
    let gone = ["get", "--ignore-not-found", "-o", "name", "networkpolicy/soc-forwarder"];
    while !fenced.admin(&gone, "").await?.trim().is_empty() {
        ensure!(Instant::now() < until, "the policy stays: {}", operator.log());
        sleep(LOOK).await;
    }
    let log = operator.terminate().await?;
    ensure!(!log.contains("denied"), "{log}");

    // The server needs a moment to know a policy.
    let until = Instant::now() + PATIENCE;
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bare"}});
    while fenced.create(&bare).await?.is_none() {
        ensure!(Instant::now() < until, "the policies do not hold");
        sleep(LOOK).await;
    }
    for object in &made {
        let refusal = fenced.create(&of_another(object, "other")).await?;
        ensure!(refusal.is_none(), "{} of another agent: {refusal:?}", object["kind"]);
    }
    let [account, config, claim, policy, deployment] = &made[..] else { bail!("five objects") };
    // Every object without its owner, with an owner of another kind, and under a name that is not its agent's.
    for object in [account, config, claim, policy, deployment] {
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 4] = [
            ("no owner", |it| it["metadata"]["ownerReferences"] = json!([])),
            ("an owner of another kind", |it| {
                it["metadata"]["ownerReferences"][0]["kind"] = json!("Deployment");
                it["metadata"]["ownerReferences"][0]["apiVersion"] = json!("apps/v1");
            }),
            ("an owner that does not control it", |it| {
                it["metadata"]["ownerReferences"][0]["controller"] = json!(false);
            }),
            ("another agent's name", |it| {
                it["metadata"]["ownerReferences"][0]["name"] = json!("someone");
            }),
        ];
        for (what, change) in changes {
            let mut changed = of_another(object, "other");
            change(&mut changed);
            let refusal = fenced.create(&changed).await?.unwrap_or_default();
            ensure!(
                refusal.contains("makes only objects that a SiemAgent controls"),
                "{} with {what}: {refusal}",
                object["kind"]
            );
        }
    }
    // A forwarder's Deployment with each thing that reaches further than a forwarder needs.
    let spec = "/spec/template/spec";
    let container = "/spec/template/spec/containers/0";
    let cases = [
        ("mounts no token", spec, json!({"automountServiceAccountToken": true})),
        ("mounts no token", spec, json!({"automountServiceAccountToken": null})),
        (
            "runs as its own ServiceAccount",
            spec,
            json!({"serviceAccountName": "default", "serviceAccount": "default"}),
        ),
        ("of its host", spec, json!({"hostNetwork": true})),
        ("of its host", spec, json!({"hostPID": true})),
        ("of its host", spec, json!({"hostIPC": true})),
        (
            "never a path of the host",
            spec,
            json!({"volumes": [{"name": "more", "hostPath": {"path": "/"}}]}),
        ),
        (
            "never a path of the host or a token",
            spec,
            json!({"volumes": [{"name": "more", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}),
        ),
        (
            "one container",
            spec,
            json!({"initContainers": [{"name": "more", "image": "ghcr.io/siem-agent-operator/siem-forwarder:0.0.0"}]}),
        ),
        ("without a command", container, json!({"command": ["/bin/sh"]})),
        ("Secrets as variables", container, json!({"envFrom": [{"secretRef": {"name": "any"}}]})),
        (
            "Secrets as variables",
            container,
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "any", "key": "a"}}}]}),
        ),
        ("privileged", container, json!({"securityContext": {"privileged": true}})),
        ("not privileged", container, json!({"securityContext": null})),
        (
            "gains no capability",
            container,
            json!({"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_RAW"]}}}),
        ),
        ("is not root", spec, json!({"securityContext": {"runAsNonRoot": false}})),
        (
            "is not root",
            container,
            json!({"securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": false, "runAsUser": 0}}),
        ),
        (
            "is not root",
            container,
            json!({"securityContext": {"allowPrivilegeEscalation": false, "seccompProfile": {"type": "Unconfined"}}}),
        ),
        ("without a command", container, json!({"livenessProbe": {"exec": {"command": ["/x"]}}})),
        (
            "is not one of ghcr.io/siem-agent-operator/siem-forwarder",
            container,
            json!({"image": "evil.example.com/shell:1"}),
        ),
        (
            "is not one of ghcr.io/siem-agent-operator/siem-forwarder",
            container,
            json!({"image": "ghcr.io/siem-agent-operator/siem-forwarder-shell:1"}),
        ),
        (
            "the priority class system-node-critical",
            spec,
            json!({"priorityClassName": "system-node-critical"}),
        ),
    ];
    for (words, at, change) in cases {
        let mut changed = of_another(deployment, "other");
        let place = changed.pointer_mut(at).and_then(Value::as_object_mut).context("a pod")?;
        for (key, value) in change.as_object().into_iter().flatten() {
            match (place.get_mut(key), value) {
                // What is mounted stays.
                (Some(Value::Array(volumes)), Value::Array(more)) if key == "volumes" => {
                    volumes.extend(more.clone());
                }
                (_, value) => drop(place.insert(key.clone(), value.clone())),
            }
        }
        let refusal = fenced.create(&changed).await?.unwrap_or_default();
        ensure!(refusal.contains(words), "{change}: {refusal}");
    }
    let mut account = of_another(account, "other");
    account["automountServiceAccountToken"] = json!(true);
    let refusal = fenced.create(&account).await?.unwrap_or_default();
    ensure!(refusal.contains("mounts no token"), "{refusal}");
    // What somebody else has made is not taken over, and not deleted.
    let theirs = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: theirs-config}\n---\napiVersion: v1\n\
                  kind: PersistentVolumeClaim\nmetadata: {name: theirs-state}\nspec: {accessModes: [ReadWriteOnce], \
                  resources: {requests: {storage: 1Mi}}}\n";
    fenced.admin(&["create", "-f", "-"], theirs).await?;
    let taken = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "theirs-config", "ownerReferences": owner("theirs")},
    });
    let take = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    let refusal = fenced.refusal(&take, &taken.to_string()).await?.unwrap_or_default();
    ensure!(
        refusal.contains("changes and deletes only objects that a SiemAgent controls"),
        "{refusal}"
    );
    let delete =
        ["delete", "--wait=false", "--dry-run=server", "persistentvolumeclaim/theirs-state"];
    let refusal = fenced.refusal(&delete, "").await?.unwrap_or_default();
    ensure!(
        refusal.contains("changes and deletes only objects that a SiemAgent controls"),
        "{refusal}"
    );
    Ok(())
}
