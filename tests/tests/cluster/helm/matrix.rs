//! Many sets of values: each renders to objects that a real API server takes to the letter, with the least rights and
//! the strictest pod security; wrong ones are refused by name.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::control_plane::{ControlPlane, User};
use siem_agent_sim::helm::{CHART, Helm, objects};
use siem_agent_tests::prometheus_operator;

mod sidecars;

use super::rendered::{Rendered, needed_rules};

const NAMESPACE: &str = "siem-system";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Row {
    name: &'static str,
    values: Value,
    holds: fn(&Rendered) -> Result<()>,
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row { name: "defaults", values: json!({}), holds: defaults },
        Row {
            name: "namespaces",
            values: json!({"watchNamespaces": ["team-a", "team-b"]}),
            holds: |it| {
                ensure!(it.of_kind("ClusterRoleBinding").is_empty(), "nothing is bound everywhere");
                let arguments = it.arguments()?;
                for namespace in ["team-a", "team-b"] {
                    ensure!(
                        arguments.contains(&format!("--namespace={namespace}")),
                        "{arguments:?}"
                    );
                }
                Ok(())
            },
        },
        Row {
            name: "own namespace among the watched ones",
            values: json!({"watchNamespaces": [NAMESPACE]}),
            holds: |it| {
                ensure!(it.of_kind("Role").len() == 2, "agents and Lease");
                Ok(())
            },
        },
        Row {
            name: "images",
            values: json!({
                "global": {"imageRegistry": "registry.example.com:5000/mirror", "imagePullSecrets": [{"name": "all"}]},
                "image": {"tag": "1.2.3", "digest": DIGEST, "pullPolicy": "Never"},
                "imagePullSecrets": [{"name": "mine"}],
                "forwarder": {"image": {"tag": "4.5.6"}},
            }),
            holds: images,
        },
        Row {
            name: "images without a registry",
            values: json!({"image": {"registry": ""}, "forwarder": {"image": {"registry": "", "digest": DIGEST}}}),
            holds: |it| {
                let image =
                    &it.one("Deployment")?["spec"]["template"]["spec"]["containers"][0]["image"];
                ensure!(
                    image == &format!("siem-agent-operator/siem-operator:{}", version()),
                    "{image}"
                );
                Ok(())
            },
        },
        Row {
            name: "three replicas",
            values: json!({"replicas": 3, "priorityClassName": "system-cluster-critical"}),
            holds: |it| {
                let budget = it.one("PodDisruptionBudget")?;
                ensure!(budget["spec"]["maxUnavailable"] == 1, "{budget}");
                let spread =
                    &it.one("Deployment")?["spec"]["template"]["spec"]["topologySpreadConstraints"];
                ensure!(spread[0]["topologyKey"] == "kubernetes.io/hostname", "{spread}");
                ensure!(spread[0]["labelSelector"]["matchLabels"].is_object(), "{spread}");
                Ok(())
            },
        },
        Row {
            name: "monitoring",
            values: json!({"monitoring": {"renderMode": "alwaysRender", "labels": {"release": "kps"}, "namespace": "team-a"}}),
            holds: monitoring,
        },
        Row {
            name: "monitoring where it is known",
            values: json!({"monitoring": {"renderMode": "failIfMissing"}}),
            holds: |it| {
                ensure!(it.of_kind("PodMonitor").len() == 2, "operator and forwarders");
                Ok(())
            },
        },
        Row {
            name: "nothing but the operator",
            values: json!({
                "crds": {"enabled": false}, "rbac": {"create": false}, "test": {"enabled": false},
                "serviceAccount": {"create": false, "name": "given"},
                "monitoring": {"operatorPodMonitor": {"enabled": false}, "forwarderPodMonitor": {"enabled": false}, "rules": {"enabled": false}, "dashboard": {"enabled": false}},
            }),
            holds: |it| {
                let mut kinds: Vec<_> = it.0.iter().map(|object| object["kind"].clone()).collect();
                kinds.sort_by_key(ToString::to_string);
                ensure!(kinds == ["Deployment", "Service"], "{kinds:?}");
                ensure!(
                    it.one("Deployment")?["spec"]["template"]["spec"]["serviceAccountName"]
                        == "given"
                );
                Ok(())
            },
        },
        Row {
            name: "tenants",
            values: json!({"tenants": [
                {"url": "https://contoso.us2.portal.cloudappsecurity.com", "requestsPerMinute": 60, "namespaces": ["team-a"]},
                {"url": "https://fabrikam.portal.cloudappsecurity.com"},
            ]}),
            holds: |it| {
                let arguments = it.arguments()?;
                let tenants: Vec<Value> = arguments
                    .iter()
                    .filter_map(|argument| {
                        serde_json::from_str(argument.strip_prefix("--tenant=")?).ok()
                    })
                    .collect();
                ensure!(
                    tenants.len() == 2 && tenants[0]["requestsPerMinute"] == 60,
                    "{arguments:?}"
                );
                ensure!(tenants[0]["namespaces"] == json!(["team-a"]), "{arguments:?}");
                Ok(())
            },
        },
        Row {
            name: "admission policies",
            values: json!({
                "admissionPolicy": {"enabled": true, "images": ["registry.example.com/a:1", "registry.example.com/b"]},
            }),
            holds: |it| {
                ensure!(
                    it.of_kind("ValidatingAdmissionPolicy").len() == 3,
                    "objects, pods, accounts"
                );
                ensure!(it.of_kind("ValidatingAdmissionPolicyBinding").len() == 3, "one each");
                Ok(())
            },
        },
        Row {
            name: "network policies",
            values: json!({
                "watchNamespaces": ["team-a"],
                "networkPolicy": {
                    "operator": {"enabled": true, "ingressFrom": [monitoring_alone()], "apiServerTo": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "extraEgress": [{"ports": [{"port": 8443}]}]},
                    "agents": {"enabled": true, "ingressFrom": [monitoring_alone()]},
                },
            }),
            holds: policies,
        },
        Row {
            name: "a network policy without the test",
            values: json!({
                "networkPolicy": {"operator": {"enabled": true, "ingressFrom": [monitoring_alone()]}},
                "test": {"enabled": false},
            }),
            holds: |it| {
                let from = &it.one("NetworkPolicy")?["spec"]["ingress"][0]["from"];
                ensure!(*from == json!([monitoring_alone()]), "{from}");
                Ok(())
            },
        },
        Row {
            name: "a network policy that names nobody",
            values: json!({"networkPolicy": {"operator": {"enabled": true}}}),
            holds: |it| {
                let policy = it.one("NetworkPolicy")?;
                let namespace = &policy["metadata"]["namespace"];
                let own = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]);
                ensure!(policy["spec"]["ingress"][0]["from"] == own, "{policy}");
                Ok(())
            },
        },
        Row {
            name: "roles for people",
            values: json!({"rbac": {"aggregateToView": false, "aggregateToEdit": true, "aggregateToAdmin": false}}),
            holds: |it| {
                let label = "rbac.authorization.k8s.io/aggregate-to-edit";
                let roles = it.of_kind("ClusterRole");
                let of_people = |end: &str| {
                    roles
                        .iter()
                        .find(|role| {
                            role["metadata"]["name"]
                                .as_str()
                                .is_some_and(|name| name.ends_with(end))
                        })
                        .copied()
                };
                ensure!(of_people("-edit").context("edit")?["metadata"]["labels"][label] == "true");
                ensure!(of_people("-view").context("view")?["metadata"]["labels"][label].is_null());
                Ok(())
            },
        },
        Row {
            name: "objects of the user's own",
            values: json!({"extraObjects": [
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-one"}},
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include \"siem.fullname\" . }}-two\n",
            ]}),
            holds: |it| {
                let names: Vec<_> = it
                    .of_kind("ConfigMap")
                    .iter()
                    .map(|map| map["metadata"]["name"].clone())
                    .collect();
                ensure!(
                    names.contains(&json!("siem-agent-operator-one"))
                        && names.contains(&json!("siem-agent-operator-two")),
                    "{names:?}"
                );
                Ok(())
            },
        },
        Row {
            name: "names",
            values: json!({"nameOverride": "exporter", "fullnameOverride": "a".repeat(63)}),
            holds: |_| Ok(()),
        },
    ];
    rows.push(Row { name: "everything", values: everything(), holds: everywhere });
    rows
}

/// Every value that can be set, set.
fn everything() -> Value {
    serde_saphyr::from_str(include_str!("everything.yaml")).expect("values are YAML")
}

/// Who may ask.
fn monitoring_alone() -> Value {
    json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}})
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

fn defaults(it: &Rendered) -> Result<()> {
    let arguments = it.arguments()?;
    let image =
        format!("--forwarder-image=ghcr.io/siem-agent-operator/siem-forwarder:{}", version());
    ensure!(arguments.contains(&image), "{arguments:?}");
    ensure!(it.of_kind("PodDisruptionBudget").is_empty(), "one replica has none");
    let crd = it.one("CustomResourceDefinition")?;
    ensure!(
        crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep",
        "{}",
        crd["metadata"]
    );
    let labels = &it
        .of_kind("ClusterRole")
        .iter()
        .find(|role| role["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-edit")))
        .context("the role for writers")?["metadata"]["labels"];
    ensure!(
        labels["rbac.authorization.k8s.io/aggregate-to-edit"].is_null(),
        "writing is given on purpose only"
    );
    Ok(())
}

fn images(it: &Rendered) -> Result<()> {
    let spec = &it.one("Deployment")?["spec"]["template"]["spec"];
    let image = format!(
        "registry.example.com:5000/mirror/siem-agent-operator/siem-operator:1.2.3@{DIGEST}"
    );
    ensure!(spec["containers"][0]["image"] == image, "{spec}");
    ensure!(spec["imagePullSecrets"] == json!([{"name": "all"}, {"name": "mine"}]), "{spec}");
    ensure!(
        it.one("Pod")?["spec"]["containers"][0]["image"] == image,
        "the check is of the same image"
    );
    let forwarder = "--forwarder-image=registry.example.com:5000/mirror/siem-agent-operator/siem-forwarder:4.5.6";
    ensure!(it.arguments()?.iter().any(|argument| argument == forwarder));
    Ok(())
}

fn monitoring(it: &Rendered) -> Result<()> {
    let monitors = it.of_kind("PodMonitor");
    let [operator, forwarders] = monitors[..] else { anyhow::bail!("two monitors: {monitors:?}") };
    ensure!(operator["spec"]["podMetricsEndpoints"][0]["honorLabels"] == true, "{operator}");
    ensure!(
        operator["metadata"]["namespace"] == "team-a"
            && operator["metadata"]["labels"]["release"] == "kps"
    );
    ensure!(operator["spec"]["namespaceSelector"]["matchNames"] == json!([NAMESPACE]));
    ensure!(forwarders["spec"]["namespaceSelector"]["any"] == true, "{forwarders}");
    ensure!(
        forwarders["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["targetLabel"] == "name"
    );
    let rule = it.one("PrometheusRule")?;
    ensure!(rule["metadata"]["labels"]["release"] == "kps", "{}", rule["metadata"]);
    ensure!(rule.to_string().contains("docs/runbooks/"), "every alert has a page");
    let dashboard = it.one("ConfigMap")?;
    ensure!(dashboard["metadata"]["labels"]["grafana_dashboard"] == "1", "{dashboard}");
    let json = dashboard["data"]["siem-agent-operator.json"].as_str().context("a dashboard")?;
    let json: Value = serde_json::from_str(json)?;
    ensure!(json["panels"].is_array(), "{json}");
    Ok(())
}

fn policies(it: &Rendered) -> Result<()> {
    let policies = it.of_kind("NetworkPolicy");
    let [operator, agents] = policies[..] else { anyhow::bail!("two policies: {policies:?}") };
    let egress = operator["spec"]["egress"].as_array().context("egress")?;
    ensure!(
        egress.len() == 4 && egress[1]["to"][0]["ipBlock"]["cidr"] == "10.0.0.1/32",
        "{egress:?}"
    );
    // `helm test` asks the operator, whoever else may.
    let [monitoring, test] =
        &operator["spec"]["ingress"][0]["from"].as_array().context("from")?[..]
    else {
        anyhow::bail!("two may ask: {operator}");
    };
    ensure!(*monitoring == monitoring_alone(), "{monitoring}");
    let labels = test["podSelector"]["matchLabels"].as_object().context("labels")?;
    let pod = &it.one("Pod")?["metadata"]["labels"];
    ensure!(
        labels.len() == 3 && labels.iter().all(|(name, value)| pod[name] == *value),
        "{labels:?} of {pod}"
    );
    ensure!(agents["metadata"]["namespace"] == "team-a", "{agents}");
    ensure!(agents["spec"]["ingress"][0]["from"].as_array().is_some_and(|from| from.len() == 2));
    Ok(())
}

fn everywhere(it: &Rendered) -> Result<()> {
    for object in it.0.iter().filter(|object| object["metadata"]["name"] != "extra") {
        let metadata = &object["metadata"];
        ensure!(metadata["labels"]["team"] == "soc", "{metadata}");
        ensure!(metadata["annotations"]["example.com/owner"] == "soc", "{metadata}");
    }
    let template = &it.one("Deployment")?["spec"]["template"];
    ensure!(
        template["metadata"]["labels"]["team"] == "soc"
            && template["metadata"]["labels"]["pod"] == "label"
    );
    ensure!(
        template["spec"]["containers"][0]["startupProbe"].is_null(),
        "null switches a probe off"
    );
    ensure!(template["spec"]["hostUsers"] == false);
    Ok(())
}

/// What holds whatever the values are.
fn always(row: &Row, it: &Rendered) -> Result<()> {
    let [of_agents, of_lease] = needed_rules()?;
    let granted: Vec<&Value> =
        ["ClusterRole", "Role"].iter().flat_map(|kind| it.of_kind(kind)).collect();
    for role in &granted {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        for rule in role["rules"].as_array().context("rules")? {
            let text = rule.to_string();
            for word in [
                "secrets",
                "\"*\"",
                "nodes",
                "customresourcedefinitions",
                "escalate",
                "impersonate",
            ] {
                ensure!(!text.contains(word), "{name}: {text}");
            }
        }
        let is_for_people = name.ends_with("-view") || name.ends_with("-edit");
        let of_sidecars = sidecars::rules(name)?;
        let expected = match &of_sidecars {
            Some(rules) => rules,
            None if name.ends_with("-leader") => &of_lease,
            None => &of_agents,
        };
        let is_one = is_for_people || expected.is_null() || role["rules"] == *expected;
        ensure!(is_one, "{name} is not one of operator/rbac.yaml and operator/rbac-sidecars.yaml");
    }
    let watched = row.values["watchNamespaces"].as_array().map_or(0, Vec::len);
    if row.values["rbac"]["create"] != false && row.values["sidecars"].is_null() {
        let expected = if watched == 0 { 1 + 2 + 1 } else { watched + 2 + 1 };
        ensure!(granted.len() == expected, "{} roles", granted.len());
    }
    for binding in ["ClusterRoleBinding", "RoleBinding"].iter().flat_map(|kind| it.of_kind(kind)) {
        let subject = &binding["subjects"][0];
        ensure!(
            subject["kind"] == "ServiceAccount" && subject["namespace"] == NAMESPACE,
            "{subject}"
        );
    }
    // By this label the operator finds what its agents own.
    for object in &it.0 {
        let labels = &object["metadata"]["labels"];
        ensure!(labels["app.kubernetes.io/managed-by"] != "siem-agent-operator", "{labels}");
    }
    (row.holds)(it)
}

#[tokio::test]
async fn every_row_is_taken_to_the_letter() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let kubectl = plane.kubectl()?;
    for file in prometheus_operator::crds().await? {
        let file = file.display().to_string();
        kubectl.run(&["apply", "--server-side", "-f", &file], "").await?;
    }
    kubectl
        .run(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"], "")
        .await?;
    for namespace in [NAMESPACE, "team-a", "team-b"] {
        let manifest = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        kubectl.run(&["create", "-f", "-"], &manifest.to_string()).await?;
        let wait = ["wait", "--for=create", "--timeout=60s", "serviceaccount/default"];
        kubectl.run(&[&["--namespace", namespace], &wait[..]].concat(), "").await?;
    }
    let helm = Helm::new(Some(&plane.kubeconfig(User::Admin)?)).await?;
    for row in rows().into_iter().chain(sidecars::rows()) {
        let checked = async {
            let yaml = render(&helm, &row).await?;
            let rendered = Rendered(objects(&yaml)?);
            always(&row, &rendered)?;
            let apply =
                "apply --server-side --force-conflicts --dry-run=server --validate=strict -f -";
            let apply: Vec<&str> = apply.split(' ').collect();
            // The test's pod is admitted below: its account is not there in a dry run.
            let stays = |document: &&str| !document.contains("helm.sh/hook: test");
            let yaml: Vec<&str> = yaml.split("\n---\n").filter(stays).collect();
            kubectl.run(&apply, &yaml.join("\n---\n")).await?;
            for pod in rendered.pods(NAMESPACE)? {
                let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
                kubectl.run(&create, &pod.to_string()).await?;
            }
            anyhow::Ok(())
        };
        checked.await.with_context(|| format!("row {}", row.name))?;
    }
    Ok(())
}

async fn render(helm: &Helm, row: &Row) -> Result<String> {
    let values = helm.values(row.name, &row.values)?;
    let lint = [&["lint", "--strict", CHART].map(str::to_owned)[..], &values].concat();
    if row.values["monitoring"]["renderMode"] != "failIfMissing" {
        helm.run(&lint).await?;
    }
    // With the server's APIs, as an installation has them.
    let template =
        ["template", "siem-agent-operator", CHART, "--namespace", NAMESPACE, "--dry-run=server"];
    helm.run(&[&template.map(str::to_owned)[..], &values].concat()).await
}
