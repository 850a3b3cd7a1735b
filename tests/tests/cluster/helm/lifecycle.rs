//! A release from its first installation to its last removal, on a server of its own, because the CRD is the whole
//! cluster's: agents outlive all of it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use siem_agent_sim::control_plane::{ControlPlane, User};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::helm::{CHART, Helm};
use siem_agent_sim::kubectl::Kubectl;
use siem_agent_sim::manifest::Manifest;

const RELEASE: &str = "siem-agent-operator";
const NAMESPACE: &str = "siem-system";
const CRD: &str = "crd/siemagents.siemagent.dev";
const PLAIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/install.yaml");

struct Cluster {
    helm: Helm,
    kubectl: Kubectl,
}

impl Cluster {
    async fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.helm.run(&[arguments, &["--namespace", NAMESPACE]].concat()).await
    }

    async fn install(&self, more: &[&str]) -> Result<String> {
        let install = ["install", RELEASE, CHART, "--create-namespace"];
        self.helm(&[&install[..], more].concat()).await
    }

    async fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", RELEASE, "--wait"]).await?;
        let left = self
            .kubectl
            .run(
                &[
                    "get",
                    "deployment,role,rolebinding,service,serviceaccount",
                    "-A",
                    "-l",
                    "app.kubernetes.io/part-of=siem-agent-operator",
                    "-o",
                    "name",
                ],
                "",
            )
            .await?;
        ensure!(left.is_empty(), "left behind: {left}");
        Ok(())
    }

    async fn json(&self, what: &[&str]) -> Result<Value> {
        let get = [&["get", "-o", "json"], what].concat();
        Ok(serde_json::from_str(&self.kubectl.run(&get, "").await?)?)
    }

    /// The agent's UID: another one would be another agent.
    async fn agent(&self) -> Result<Value> {
        Ok(self.json(&["siemagent", "soc"]).await?["metadata"]["uid"].clone())
    }

    /// Waits until the schema that the server publishes does or does not have a field.
    async fn until_field(&self, field: &str, there: bool) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(
                self.kubectl.say(&["explain", field], "").await?.ok == there,
                "{field} is there: not {there}"
            );
            Ok(())
        })
        .await
    }
}

/// The chart with one more field in its CRD, and a version of its own.
fn next_version(into: &Path) -> Result<String> {
    let copied = std::process::Command::new("cp").arg("-r").arg(CHART).arg(into).status()?;
    ensure!(copied.success(), "copy the chart");
    let chart = into.join("siem-agent-operator");
    let change = |file: &str, from: &str, to: &str| {
        let path = chart.join(file);
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{file} has {from}");
        Ok(std::fs::write(&path, text.replacen(from, to, 1))?)
    };
    change("Chart.yaml", "\nversion: ", "\nversion: 9")?;
    let next = "              nextField:\n                description: Of the next version.\n                type: string\n";
    change(
        "files/crds/siemagents.yaml",
        "              displayName:\n",
        &format!("{next}              displayName:\n"),
    )?;
    Ok(chart.display().to_string())
}

/// Who has Kubernetes' own roles reads agents; only admins write them unless that is given on purpose.
async fn people_may(kubectl: &Kubectl) -> Result<()> {
    for role in ["view", "edit", "admin"] {
        let binding = format!("of-{role}");
        let (role, user) = (format!("--clusterrole={role}"), format!("--user=of-{role}"));
        kubectl.run(&["create", "rolebinding", &binding, &role, &user], "").await?;
    }
    // What shall not be is asked after what shall be: roles are put together in the background.
    for (role, verb, expected) in [
        ("view", "list", true),
        ("edit", "watch", true),
        ("admin", "create", true),
        ("edit", "create", false),
        ("view", "create", false),
    ] {
        let user = format!("--as=of-{role}");
        let question = ["auth", "can-i", verb, "siemagents.siemagent.dev", &user];
        eventually(PATIENCE, async || {
            ensure!(
                kubectl.say(&question, "").await?.ok == expected,
                "{role} may {verb}: not {expected}"
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn agents_outlive_upgrade_rollback_removal_and_another_installation() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let kubectl = plane.kubectl()?;
    let helm = Helm::new(Some(&plane.kubeconfig(User::Admin)?)).await?;
    let cluster = Cluster { helm, kubectl };

    // Without the Prometheus Operator it installs, unless told that it must be there.
    let missing = [
        "install",
        RELEASE,
        CHART,
        "--create-namespace",
        "--namespace",
        NAMESPACE,
        "--set",
        "monitoring.renderMode=failIfMissing",
    ];
    let said = cluster.helm.refused(&missing).await?;
    ensure!(said.contains("install the Prometheus Operator"), "{said}");
    let notes = cluster.install(&[]).await?;
    for words in [
        "helm test siem-agent-operator --namespace siem-system",
        "kubectl wait --for=condition=Ready",
        "deploy/prometheus",
    ] {
        ensure!(notes.contains(words), "{words} is not in the notes: {notes}");
    }
    cluster.until_field("siemagents.spec.syslog", true).await?;
    let agent = Manifest::new("soc").to_string();
    cluster.kubectl.run(&["create", "-f", "-"], &agent).await?;
    let agent = cluster.agent().await?;

    let second = cluster
        .helm
        .refused(&[
            "install",
            "second",
            CHART,
            "--namespace",
            NAMESPACE,
            "--set",
            "crds.enabled=false",
        ])
        .await?;
    ensure!(second.contains("both would share one Lease"), "{second}");

    people_may(&cluster.kubectl).await?;

    // The CRD goes forward and back with the release.
    let next = next_version(cluster.helm.folder())?;
    cluster.helm(&["upgrade", RELEASE, &next]).await?;
    cluster.until_field("siemagents.spec.nextField", true).await?;
    cluster.helm(&["rollback", RELEASE, "1"]).await?;
    cluster.until_field("siemagents.spec.nextField", false).await?;
    cluster.helm(&["upgrade", RELEASE, CHART]).await?;
    assert_eq!(cluster.agent().await?, agent);

    // The CRD stays, and is taken back without a word.
    cluster.uninstall().await?;
    assert_eq!(cluster.agent().await?, agent);
    cluster.install(&[]).await?;
    cluster.uninstall().await?;

    // Under another name only on purpose, as the README says.
    let elsewhere =
        ["install", "exporter", CHART, "--namespace", "elsewhere", "--create-namespace"];
    let said = cluster.helm.refused(&elsewhere).await?;
    ensure!(said.contains("siemagents.siemagent.dev") && said.contains("release-name"), "{said}");
    cluster.helm.run(&[&elsewhere[..], &["--take-ownership"]].concat()).await?;
    cluster.helm.run(&["uninstall", "exporter", "--namespace", "elsewhere", "--wait"]).await?;
    assert_eq!(cluster.agent().await?, agent);

    // From plain manifests to Helm, both by kubectl's two ways.
    for way in
        [&["apply", "--server-side", "--force-conflicts", "-f", PLAIN][..], &["apply", "-f", PLAIN]]
    {
        cluster.kubectl.run(way, "").await?;
        let said =
            cluster.helm.refused(&["install", RELEASE, CHART, "--namespace", NAMESPACE]).await?;
        ensure!(said.contains("invalid ownership metadata"), "{said}");
        cluster.install(&["--take-ownership", "--force-conflicts"]).await?;
        cluster.uninstall().await?;
        assert_eq!(cluster.agent().await?, agent);
    }

    // Nothing is kept where that is not wanted.
    cluster.install(&["--take-ownership", "--set", "crds.keep=false"]).await?;
    cluster.uninstall().await?;
    let gone = ["wait", "--for=delete", "--timeout=60s", CRD];
    cluster.kubectl.run(&gone, "").await.context("the CRD goes with the release")?;
    Ok(())
}
