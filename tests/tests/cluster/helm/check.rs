//! `siem-operator check`, which `helm test` runs: it passes where all is well, and names what is not.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use siem_agent_sim::control_plane::{ControlPlane, User};
use siem_agent_sim::forwarder::{LOOK, PATIENCE, program};
use siem_agent_sim::operator::Operator;
use siem_agent_tests::scene::Scene;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// Its exit code and what it said.
async fn check(kubeconfig: &Path, namespace: &str, more: &[&str]) -> Result<(Option<i32>, String)> {
    let out = Command::new(program("siem-operator")?)
        .args(["check", "--namespace", namespace])
        .args(more)
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .env("POD_NAMESPACE", namespace)
        // As in its image, which has no CA roots.
        .env("SSL_CERT_FILE", "/dev/null")
        .env("SSL_CERT_DIR", "/dev/null")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    Ok((out.status.code(), String::from_utf8(out.stdout)? + &String::from_utf8(out.stderr)?))
}

#[track_caller]
fn says(said: &str, expected: &[&str]) {
    for words in expected {
        assert!(said.contains(words), "{words} is not in:\n{said}");
    }
}

#[tokio::test]
async fn a_whole_installation_passes_and_each_missing_part_is_named() -> Result<()> {
    let scene = Scene::new().await?;
    let operator = Operator::start(&scene.place, &[]).await?;
    let url = operator.url();
    let (code, said) =
        check(&scene.place.kubeconfig, &scene.namespace, &["--operator-url", &url]).await?;
    ensure!(code == Some(0) && !said.contains("FAIL"), "{said}");
    says(
        &said,
        &[
            "ok   API server",
            "ok   CRD",
            "ok   rights",
            "ok   Secrets",
            "ok   leader",
            "ok   operator",
        ],
    );

    // One right less: exactly that one is named.
    let role =
        scene.kubectl(&["get", "clusterrole", "siem-agent-operator", "-o", "json"], "").await?;
    let narrowed = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: narrowed}}\nrules: {}\n",
        narrowed(&role)?
    );
    scene.kubectl(&["create", "-f", "-"], &narrowed).await?;
    scene.kubectl(&["delete", "rolebinding", "siem-agent-operator-agents"], "").await?;
    let account = format!("--serviceaccount={}:siem-agent-operator", scene.namespace);
    scene.kubectl(&["create", "rolebinding", "narrowed", "--role=narrowed", &account], "").await?;
    let place = format!("FAIL rights: may not patch deployments.apps in {}. Bind", scene.namespace);
    let until = Instant::now() + PATIENCE;
    loop {
        let (code, said) = check(&scene.place.kubeconfig, &scene.namespace, &[]).await?;
        // The server needs a moment to know its new roles.
        if said.contains(&place) {
            assert_eq!(code, Some(1), "{said}");
            says(&said, &["ok   API server", "ok   CRD", "note operator"]);
            break;
        }
        ensure!(Instant::now() < until, "{place} is not in:\n{said}");
        sleep(LOOK).await;
    }

    // Nobody leads and nobody answers any more.
    operator.terminate().await?;
    let (code, said) = check(
        &scene.place.kubeconfig,
        &scene.namespace,
        &["--operator-url", &url, "--timeout", "1"],
    )
    .await?;
    assert_eq!(code, Some(1), "{said}");
    says(&said, &["FAIL leader: nobody holds the Lease", "FAIL operator", "ok   CRD"]);
    Ok(())
}

/// The rules without the right to patch Deployments.
fn narrowed(role: &str) -> Result<String> {
    let mut role: serde_json::Value = serde_json::from_str(role)?;
    let rules = role["rules"].as_array_mut().context("rules")?;
    for rule in rules.iter_mut().filter(|rule| rule["resources"][0] == "deployments") {
        rule["verbs"].as_array_mut().context("verbs")?.retain(|verb| verb != "patch");
    }
    Ok(role["rules"].to_string())
}

#[tokio::test]
async fn an_account_with_too_much_or_nothing_and_a_server_without_the_crd_are_told() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let (code, said) =
        check(&plane.kubeconfig(User::Admin)?, "default", &["--timeout", "1"]).await?;
    assert_eq!(code, Some(1), "{said}");
    says(
        &said,
        &[
            "FAIL CRD",
            "crds.enabled",
            "note Secrets: the account may read them in default",
            "FAIL leader: there is no Lease",
        ],
    );
    let (code, said) =
        check(&plane.kubeconfig(User::Nobody)?, "default", &["--timeout", "1"]).await?;
    assert_eq!(code, Some(1), "{said}");
    says(
        &said,
        &[
            "FAIL rights",
            "may not get siemagents.siemagent.dev in default",
            "create events.events.k8s.io",
        ],
    );
    Ok(())
}
