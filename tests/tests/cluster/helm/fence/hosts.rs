//! With `sidecars.enabled`: in another workload the operator's account changes one container with its volumes, where the
//! workload allows it, and nothing else.

use super::*;

const HOST: &str = "deployment/collector";

fn host() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "collector", "annotations": {"siemagent.dev/allow-sidecar": "soc"}},
        "spec": {
            "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"app": "collector"}},
            "template": {
                "metadata": {"labels": {"app": "collector"}},
                "spec": {
                    "containers": [{"name": "rsyslog", "image": "rsyslog:1"}],
                    "volumes": [{"name": "queue", "emptyDir": {}}],
                },
            },
        },
    })
}

#[tokio::test]
async fn behind_the_policies_a_host_takes_a_sidecar_and_nothing_else() -> Result<()> {
    let fenced = Fenced::new(&json!({"sidecars": {"enabled": true}})).await?;
    fenced.admin(&["apply", "-f", "-"], &host().to_string()).await?;
    let mut other = host();
    other["metadata"] = json!({"name": "other"});
    fenced.admin(&["apply", "-f", "-"], &other.to_string()).await?;
    let operator = Operator::start(&fenced.place, &[IMAGE]).await?;
    let placed = "  placement: {sidecarOf: {kind: Deployment, name: collector}}\n";
    let agent = Manifest::new("soc").more(placed);
    fenced.admin(&["apply", "-f", "-"], &agent.to_string()).await?;
    eventually(PATIENCE, async || {
        let host = fenced.made(HOST, &operator).await?;
        let sidecars = &host["spec"]["template"]["spec"]["initContainers"];
        ensure!(sidecars.is_array(), "no sidecar: {}", operator.log());
        Ok(())
    })
    .await?;
    // Its Events too are let through.
    let log = operator.terminate().await?;
    ensure!(!log.contains("denied"), "{log}");

    // By the same manager as the operator's, and by another: each with one thing more than a sidecar is.
    let patched = async |what: &str, patch: &Value| {
        let patch = patch.to_string();
        let patch = ["patch", what, "--type=strategic", "--dry-run=server", "-p", &patch];
        anyhow::Ok(fenced.refusal(&patch, "").await?.unwrap_or_default())
    };
    let template = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    let sidecar = |more: Value| {
        let mut sidecar = json!({"name": "siem-forwarder"});
        for (name, value) in more.as_object().into_iter().flatten() {
            sidecar[name] = value.clone();
        }
        template(json!({"initContainers": [sidecar]}))
    };
    let nothing_else = "changes nothing of a host";
    let no_more = "a sidecar has no command";
    let volume = "a sidecar's volumes are";
    let image = "the image of a sidecar is one that";
    let cases = [
        (nothing_else, json!({"spec": {"replicas": 2}})),
        (nothing_else, json!({"spec": {"paused": true}})),
        (nothing_else, json!({"metadata": {"labels": {"more": "x"}}})),
        (nothing_else, json!({"metadata": {"annotations": {"more": "x"}}})),
        (
            nothing_else,
            json!({"metadata": {"ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000",
            }]}}),
        ),
        (nothing_else, template(json!({"terminationGracePeriodSeconds": 0}))),
        (nothing_else, json!({"spec": {"template": {"metadata": {"labels": {"more": "x"}}}}})),
        (nothing_else, template(json!({"containers": [{"name": "rsyslog", "image": "evil:1"}]}))),
        (nothing_else, template(json!({"containers": [{"name": "more", "image": "evil:1"}]}))),
        (nothing_else, template(json!({"initContainers": [{"name": "more", "image": "evil:1"}]}))),
        (nothing_else, template(json!({"serviceAccountName": "admin"}))),
        (nothing_else, template(json!({"hostNetwork": true}))),
        (nothing_else, template(json!({"securityContext": {"runAsUser": 0}}))),
        (volume, template(json!({"volumes": [{"name": "more", "secret": {"secretName": "any"}}]}))),
        (
            volume,
            template(json!({"volumes": [{"name": "siem-forwarder-x", "hostPath": {"path": "/"}}]})),
        ),
        (no_more, sidecar(json!({"command": ["/bin/sh"]}))),
        (no_more, sidecar(json!({"securityContext": {"capabilities": {"add": ["NET_RAW"]}}}))),
        (no_more, sidecar(json!({"securityContext": {"runAsUser": 0}}))),
        (no_more, sidecar(json!({"volumeMounts": [{"name": "queue", "mountPath": "/queue"}]}))),
        (
            no_more,
            sidecar(
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "any", "key": "a"}}}]}),
            ),
        ),
        (image, sidecar(json!({"image": "evil.example.com/shell:1"}))),
    ];
    for (words, patch) in &cases {
        let refusal = patched(HOST, patch).await?;
        ensure!(refusal.contains(words), "{patch}: {refusal}");
    }
    // Where it is not allowed there is no sidecar either.
    let host: Value = serde_json::from_str(&fenced.admin(&["get", "-o", "json", HOST], "").await?)?;
    let pod = &host["spec"]["template"]["spec"];
    let whole =
        template(json!({"initContainers": pod["initContainers"], "volumes": pod["volumes"]}));
    let refusal = patched("deployment/other", &whole).await?;
    ensure!(refusal.contains("only where its annotation"), "{refusal}");
    // Nor does the operator's account allow it to itself.
    let mut consenting = whole.clone();
    consenting["metadata"] = json!({"annotations": {"siemagent.dev/allow-sidecar": "soc"}});
    let refusal = patched("deployment/other", &consenting).await?;
    ensure!(refusal.contains("only where its annotation"), "{refusal}");
    Ok(())
}
