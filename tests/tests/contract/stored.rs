//! What a real API server stores of a SiemAgent: what was written, and whose each field is.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::manifest::Manifest;

/// kubectl in a namespace of its own.
async fn place() -> Result<(&'static ControlPlane, String)> {
    let plane = ControlPlane::shared().await?;
    plane.install_crd().await?;
    Ok((plane, format!("--namespace={}", plane.namespace().await?)))
}

#[tokio::test]
async fn a_minimal_agent_is_stored_as_it_was_written_and_differs_in_nothing() -> Result<()> {
    let (plane, inside) = place().await?;
    let kubectl = plane.kubectl()?;
    let written = json!({
        "apiVersion": "siemagent.dev/v1alpha1", "kind": "SiemAgent", "metadata": {"name": "soc"},
        "spec": {
            "source": {
                "cloudApps": {"url": "https://contoso.us2.portal.cloudappsecurity.com"},
                "auth": {"tokenSecretRef": {"name": "defender"}},
            },
            "syslog": {"host": "siem.example.com"},
        },
    });
    for apply in [&["apply", "--server-side"][..], &["apply"][..]] {
        let arguments = [apply, &[&inside, "--filename=-"]].concat();
        kubectl.run(&arguments, &written.to_string()).await?;
        let stored = kubectl.run(&["get", "siemagent/soc", &inside, "--output=json"], "").await?;
        let stored: Value = serde_json::from_str(&stored)?;
        let mut expected = written["spec"].clone();
        // The one discriminator that lies below what was written.
        expected["syslog"]["protocol"] = json!("TCP");
        assert_eq!(stored["spec"], expected);
        let arguments = ["diff", &inside, "--filename=-"];
        let said = kubectl.say(&arguments, &written.to_string()).await?;
        ensure!(said.ok && said.stdout.is_empty(), "{}{}", said.stdout, said.stderr);
        kubectl.run(&["delete", "siemagent/soc", &inside], "").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_reference_belongs_to_one_manager_as_a_whole() -> Result<()> {
    let (plane, inside) = place().await?;
    let kubectl = plane.kubectl()?;
    let apply = async |manager: &str, manifest: String| {
        let manager = format!("--field-manager={manager}");
        kubectl.say(&["apply", "--server-side", &manager, &inside, "--filename=-"], &manifest).await
    };
    let said = apply("one", Manifest::new("soc").to_string()).await?;
    ensure!(said.ok, "{}", said.stderr);
    // A key alone would leave the name with the other manager, and the two of them with a Secret that neither meant.
    let source = "auth: {tokenSecretRef: {name: other, key: token}}";
    let other = |fields: &str| {
        let text =
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {name: soc}\nspec:\n";
        format!("{text}  {fields}\n")
    };
    let said = apply("two", other(&format!("source: {{{source}}}"))).await?;
    ensure!(!said.ok && said.stderr.contains("conflict"), "{}{}", said.stdout, said.stderr);
    ensure!(said.stderr.contains(".spec.source.auth.tokenSecretRef"), "{}", said.stderr);
    // Sets are shared: each manager has its own entries.
    let filter = |word: &str| {
        other(&format!("eventTypes: {{activities: {{filter: {{countries: [{word}]}}}}}}"))
    };
    for (manager, country) in [("two", "NL"), ("three", "BE")] {
        let said = apply(manager, filter(country)).await?;
        ensure!(said.ok, "{}", said.stderr);
    }
    let stored = kubectl.run(&["get", "siemagent/soc", &inside, "--output=json"], "").await?;
    let stored: Value = serde_json::from_str(&stored)?;
    let countries = &stored["spec"]["eventTypes"]["activities"]["filter"]["countries"];
    let mut countries: Vec<_> = countries.as_array().context("countries")?.clone();
    countries.sort_by_key(ToString::to_string);
    assert_eq!(countries, [json!("BE"), json!("NL")]);
    Ok(())
}
