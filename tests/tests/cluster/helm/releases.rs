//! Two releases side by side, each with namespaces of its own: what each may do, and what each does.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use siem_agent_sim::control_plane::{ControlPlane, User};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;
use siem_agent_sim::helm::{CHART, Helm, objects};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::operator::{Operator, Place};

use super::rendered::Rendered;

/// The Deployment's own arguments, but for the port and what the test's place says already.
fn more(rendered: &Rendered) -> Result<Vec<String>> {
    let own = ["run", "--listen", "--namespace"];
    let arguments = rendered.arguments()?.into_iter();
    Ok(arguments.filter(|argument| !own.iter().any(|own| argument.starts_with(own))).collect())
}

#[tokio::test]
async fn two_releases_watch_and_may_touch_their_own_namespaces_only() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    plane.install_crd().await?;
    let kubectl = plane.kubectl()?;
    let helm = Helm::new(Some(&plane.kubeconfig(User::Admin)?)).await?;
    let mut sides = Vec::new();
    for _ in 0..2 {
        let (watched, own) = (plane.namespace().await?, plane.namespace().await?);
        let values = json!({"watchNamespaces": [watched], "crds": {"enabled": false}});
        let values = helm.values(&own, &values)?;
        // The same name, so that what is the cluster's must not collide.
        let place = ["siem", CHART, "--namespace", &own].map(str::to_owned);
        helm.run(&[&["install".to_owned()], &place[..], &values].concat()).await?;
        let rendered = Rendered(objects(
            &helm.run(&[&["template".to_owned()], &place[..], &values].concat()).await?,
        )?);
        sides.push((watched, own, rendered));
    }
    let mut running = Vec::new();
    for (at, (watched, own, rendered)) in sides.iter().enumerate() {
        let account =
            rendered.one("ServiceAccount")?["metadata"]["name"].as_str().context("a name")?;
        let user = format!("--as=system:serviceaccount:{own}:{account}");
        let other = &sides[1 - at].0;
        for (verb, resource, namespace, expected) in [
            ("patch", "deployments.apps", watched, true),
            ("list", "siemagents.siemagent.dev", watched, true),
            ("update", "leases.coordination.k8s.io/siem-agent-operator", own, true),
            ("update", "leases.coordination.k8s.io/other", own, false),
            ("list", "siemagents.siemagent.dev", other, false),
            ("patch", "deployments.apps", other, false),
            ("patch", "deployments.apps", own, false),
            ("get", "secrets", watched, false),
            ("get", "secrets", own, false),
        ] {
            let question = ["auth", "can-i", verb, resource, "--namespace", namespace, &user];
            // The server needs a moment to know its new roles.
            eventually(PATIENCE, async || {
                ensure!(
                    kubectl.say(&question, "").await?.ok == expected,
                    "{verb} {resource} in {namespace} is not {expected}"
                );
                Ok(())
            })
            .await?;
        }
        let place = Place::of_account(plane, own, account, vec![watched.clone()]).await?;
        let more = more(rendered)?;
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        running.push((Operator::start(&place, &more).await?, place.user()));
    }
    let position = plane.audit_position()?;
    for (watched, ..) in &sides {
        let agent = Manifest::new("soc").to_string();
        kubectl.run(&["create", "--namespace", watched, "-f", "-"], &agent).await?;
    }
    for ((watched, ..), (operator, user)) in sides.iter().zip(&running) {
        eventually(PATIENCE, async || {
            ensure!(
                kubectl
                    .say(&["get", "--namespace", watched, "deployment", "soc-forwarder"], "")
                    .await?
                    .ok,
                "no forwarder in {watched}: {}",
                operator.log()
            );
            Ok(())
        })
        .await?;
        let asked = plane.requests_since(position)?;
        for request in asked.iter().filter(|request| request.user == *user) {
            ensure!(request.code != 403, "{request:?}");
            let place = request.namespace.as_str();
            ensure!(
                place.is_empty()
                    || sides.iter().any(|(watched_by, own, _)| (watched_by == watched)
                        && (place == watched_by || place == own)),
                "{request:?}"
            );
        }
    }
    for (operator, _) in running {
        operator.terminate().await?;
    }
    Ok(())
}
