//! The control plane that other tests stand on: what it promises them, on the real programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use siem_agent_sim::control_plane::{ControlPlane, User};

#[tokio::test]
async fn rights_are_enforced_and_every_request_is_recorded() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let namespace = plane.namespace().await?;
    let position = plane.audit_position()?;
    let nobody: Api<ConfigMap> = Api::namespaced(plane.client_as(User::Nobody).await?, &namespace);
    let refused = nobody.list(&kube::api::ListParams::default()).await;
    let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(said.contains("\"nobody\" cannot list resource \"configmaps\""), "{said}");

    let requests = plane.requests_since(position)?;
    let found: Vec<_> = requests.iter().filter(|request| request.user == "nobody").collect();
    let [request] = found[..] else { anyhow::bail!("{found:?}") };
    assert_eq!(
        (&*request.verb, &*request.resource, &*request.namespace, request.code),
        ("list", "configmaps", &*namespace, 403)
    );
    ensure!(!request.writes());
    Ok(())
}

#[tokio::test]
async fn a_deployment_gets_its_pods_and_its_garbage_is_collected() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let namespace = plane.namespace().await?;
    let kubectl = plane.kubectl()?;
    let version = kubectl.run(&["version", "--output=json"], "").await?;
    let version: serde_json::Value = serde_json::from_str(&version)?;
    let minor = |of: &str| version.pointer(&format!("/{of}Version/minor")).cloned();
    assert_eq!(minor("server"), Some("37".into()), "the linker flags were set");
    assert_eq!(minor("client"), Some("37".into()));

    let inside = format!("--namespace={namespace}");
    kubectl
        .run(&["create", "deployment", "web", "--image=none", "--replicas=2", &inside], "")
        .await?;
    let waits = "--timeout=60s";
    let n_pods = "--for=jsonpath={.status.replicas}=2";
    kubectl.run(&["wait", "deployment/web", n_pods, waits, &inside], "").await?;
    kubectl.run(&["delete", "deployment", "web", &inside], "").await?;
    kubectl.run(&["wait", "pods", "--all", "--for=delete", waits, &inside], "").await?;
    Ok(())
}

#[tokio::test]
async fn a_service_account_is_someone_without_rights() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let namespace = plane.namespace().await?;
    let token = plane.service_account_token(&namespace, "default").await?;
    let kubeconfig = plane.kubeconfig_with("an-account", &plane.url(), &token)?;
    let kubectl = plane.kubectl_with(&kubeconfig)?;
    let who = kubectl.run(&["auth", "whoami", "--output=jsonpath={.status.userInfo.username}"], "");
    assert_eq!(who.await?, format!("system:serviceaccount:{namespace}:default"));
    let said = kubectl.refused(&["get", "secrets", "--namespace", &namespace], "").await?;
    ensure!(said.contains("Forbidden"), "{said}");
    Ok(())
}

#[test]
fn without_go_one_line_says_what_is_missing_and_given_programs_are_taken() -> Result<()> {
    let tools = tempfile::tempdir()?;
    for tool in ["bash", "cat", "cut", "dirname", "mkdir", "sha256sum"] {
        let found = Command::new("which").arg(tool).output()?.stdout;
        symlink(String::from_utf8(found)?.trim(), tools.path().join(tool))?;
    }
    let (empty, assets) = (tools.path().join("target"), tools.path().join("assets"));
    fs::create_dir(&assets)?;
    symlink("/bin/true", assets.join("kubectl"))?;
    let run = |name: &str| {
        let out = Command::new("bash")
            .args([concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/programs/build"), name])
            .env("PATH", tools.path())
            .env("CARGO_TARGET_DIR", &empty)
            .env("KUBEBUILDER_ASSETS", &assets)
            .output()?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes);
        anyhow::Ok((out.status.code(), text(out.stdout)?, text(out.stderr)?))
    };
    let missing = "sim/programs/build: Go is missing; it builds Kubernetes' programs for the tests: \
                   install Go 1.26 from https://go.dev/dl\n";
    assert_eq!(run("etcd")?, (Some(1), String::new(), missing.to_owned()));
    let given = format!("kubectl {}\n", assets.join("kubectl").display());
    assert_eq!(run("kubectl")?, (Some(0), given, String::new()));
    Ok(())
}
