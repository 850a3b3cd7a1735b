//! The operator has exactly the rights that it uses, and notices a CRD that is not its own.

use super::*;

/// What the operator's account has asked for, as `VERB RESOURCE.GROUP`.
fn used(plane: &ControlPlane, place: &Place) -> Result<BTreeSet<String>> {
    let mut used = BTreeSet::new();
    for request in plane.requests_since(0)? {
        // Everybody may ask what they may do.
        let is_review = request.group == "authorization.k8s.io";
        if request.user != place.user() || request.resource.is_empty() || is_review {
            continue;
        }
        ensure!(request.code != 403, "{request:?}");
        let mut resource = request.resource.clone();
        if !request.subresource.is_empty() {
            resource = format!("{resource}/{}", request.subresource);
        }
        used.insert(format!("{} {resource}.{}", request.verb, request.group));
        // Applying what is not there makes it, and asks for that right as well.
        if request.verb == "patch" && request.code == 201 {
            used.insert(format!("create {resource}.{}", request.group));
        }
    }
    Ok(used)
}

#[tokio::test]
async fn what_is_granted_is_used_and_a_foreign_crd_is_noticed() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let namespace = plane.namespace().await?;
    let place = Place::new(&plane, &namespace).await?;
    let kubectl = plane.kubectl()?;
    let inside = format!("--namespace={namespace}");
    let crd = "crd/siemagents.siemagent.dev";
    // A CRD of a later release knows a protocol that this operator cannot read.
    let protocol = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/syslog/properties/protocol/enum/-";
    let later = json!([{"op": "add", "path": protocol, "value": "RELP"}]).to_string();
    kubectl.run(&["patch", crd, "--type=json", "-p", &later], "").await?;
    let operator = Operator::start(&place, &[]).await?;
    assert_eq!(operator.series("siemagent_operator_crd_outdated ").await?[0].1.to_string(), "0");
    let apply = ["apply", "-f", "-", inside.as_str()];
    let unreadable =
        manifest("later", "").replace("siem.example.com", "siem.example.com, protocol: RELP");
    eventually(PATIENCE, async || {
        ensure!(kubectl.say(&apply, &unreadable).await?.ok, "the changed CRD is not in force");
        Ok(())
    })
    .await?;
    kubectl.run(&apply, &manifest("soc", MORE)).await?;
    let wait = async |what: &str, path: &str| {
        kubectl.run(&["wait", what, &format!("--for={path}"), "--timeout=60s", &inside], "").await
    };
    // One that cannot be read harms no other.
    wait("siemagent/soc", "jsonpath={.status.state}=Created").await?;
    wait("siemagent/later", "condition=Stalled").await?;
    wait("deployment/soc-forwarder", "create").await?;
    // Without the label that the watches select by, the operator meets its own objects as if they were somebody else's.
    let owned = [
        "serviceaccount/soc-forwarder",
        "configmap/soc-config",
        "pvc/soc-state",
        "networkpolicy/soc-forwarder",
        "deployment/soc-forwarder",
    ];
    let unlabel = ["label", "app.kubernetes.io/managed-by-", inside.as_str()];
    kubectl.run(&[&unlabel[..1], &owned, &unlabel[1..]].concat(), "").await?;
    for object in owned {
        let label =
            r"jsonpath={.metadata.labels.app\.kubernetes\.io/managed-by}=siem-agent-operator";
        wait(object, label).await?;
    }
    kubectl.run(&apply, &manifest("soc", "")).await?;
    wait("networkpolicy/soc-forwarder", "delete").await?;
    wait("pvc/soc-state", "delete").await?;
    // A transition, and so an Event.
    kubectl.run(&apply, &manifest("soc", "  suspend: true\n")).await?;
    wait("siemagent/soc", "jsonpath={.status.state}=Suspended").await?;
    operator.terminate().await?;

    // With the rights for sidecars: an agent moves from its Deployment into a host, and from there into another.
    place.allow_sidecars(&plane).await?;
    let operator = Operator::start(&place, &[]).await?;
    kubectl.run(&apply, &manifest("moves", "")).await?;
    wait("deployment/moves-forwarder", "create").await?;
    for (kind, what) in [("Deployment", "deployment/host"), ("StatefulSet", "statefulset/host")] {
        let strategy = if kind == "Deployment" { "strategy: {type: Recreate}, " } else { "" };
        let host = format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: host, annotations: {{siemagent.dev/allow-sidecar: moves}}}}\n\
             spec: {{{strategy}selector: {{matchLabels: {{app: host}}}}, template: {{metadata: {{labels: {{app: host}}}}, \
             spec: {{containers: [{{name: a, image: a}}]}}}}}}\n"
        );
        kubectl.run(&apply, &host).await?;
        let placed = format!("  placement: {{sidecarOf: {{kind: {kind}, name: host}}}}\n");
        kubectl.run(&apply, &manifest("moves", &placed)).await?;
        let path = r"jsonpath={.spec.template.spec.initContainers[0].name}=siem-forwarder";
        wait(what, path).await?;
    }
    operator.terminate().await?;

    let mut granted = BTreeSet::new();
    let mut roles = Vec::new();
    for role in [ACCOUNT, &format!("{ACCOUNT}-sidecars"), &format!("{ACCOUNT}-hosts")] {
        roles.push(kubectl.run(&["get", "clusterrole", role, "-o", "json"], "").await?);
    }
    roles.push(kubectl.run(&["get", "role", ACCOUNT, "-o", "json", &inside], "").await?);
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten();
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    for role in roles {
        let role: Value = serde_json::from_str(&role)?;
        for rule in role["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        granted.insert(format!("{verb} {resource}.{group}"));
                    }
                }
            }
        }
    }
    let used = used(&plane, &place)?;
    assert_eq!(used, granted);
    ensure!(!granted.iter().any(|right| {
        ["secrets", "nodes", "customresourcedefinitions"].iter().any(|of| right.contains(of))
    }));

    // A CRD of an earlier release drops what this operator knows.
    let grace = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/syslog/properties/confirmGrace";
    let earlier = json!([{"op": "remove", "path": grace}]).to_string();
    kubectl.run(&["patch", crd, "--type=json", "-p", &earlier], "").await?;
    // It is published a moment later; an operator that is started then sees it.
    let until = Instant::now() + PATIENCE;
    loop {
        let operator = Operator::start(&place, &[]).await?;
        sleep(Duration::from_secs(1)).await;
        if operator.series("siemagent_operator_crd_outdated ").await?[0].1 > 0.5 {
            ensure!(operator.get("readyz").await?.contains("CRD"));
            ensure!(operator.log().contains("spec.syslog.confirmGrace"), "{}", operator.log());
            return Ok(());
        }
        ensure!(Instant::now() < until, "the outdated CRD is not noticed");
    }
}
