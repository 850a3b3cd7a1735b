//! Values that are wrong: each is refused by its name before anything is rendered.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;
use siem_agent_sim::helm::{CHART, Helm};

#[tokio::test]
async fn wrong_values_are_refused_by_name() -> Result<()> {
    let helm = Helm::new(None).await?;
    let wrong = [
        (json!({"replica": 3}), vec!["replica"]),
        (json!({"image": {"tga": "1"}}), vec!["/image", "tga"]),
        (
            json!({"monitoring": {"rules": {"tresholds": {}}}}),
            vec!["/monitoring/rules", "tresholds"],
        ),
        (
            json!({"networkPolicy": {"agents": {"enable": true}}}),
            vec!["/networkPolicy/agents", "enable"],
        ),
        (
            json!({"monitoring": {"renderMode": "never"}}),
            vec!["/monitoring/renderMode", "alwaysRender"],
        ),
        (
            json!({"monitoring": {"renderMode": "failIfMissing"}}),
            vec!["monitoring.renderMode", "Prometheus Operator"],
        ),
        (json!({"image": {"digest": "sha256:1"}}), vec!["/image/digest"]),
        (json!({"replicas": "three"}), vec!["/replicas", "integer"]),
        (json!({"log": {"level": "loud"}}), vec!["/log/level"]),
        (json!({"watchNamespaces": ["Team"]}), vec!["/watchNamespaces/0"]),
        (
            json!({"networkPolicy": {"agents": {"enabled": true}}}),
            vec!["networkPolicy.agents.namespaces", "watchNamespaces"],
        ),
        (json!({"tenants": [{"requestsPerMinute": 3}]}), vec!["/tenants/0", "url"]),
        (json!({"tenants": [{"url": "t.example.com"}]}), vec!["/tenants/0/url"]),
        (
            json!({"tenants": [{"url": "https://t.example.com", "requestsPerMinute": 0}]}),
            vec!["/tenants/0/requestsPerMinute"],
        ),
        (
            json!({"tenants": [{"url": "https://t.example.com", "namespaces": []}]}),
            vec!["/tenants/0/namespaces"],
        ),
        (json!({"admissionPolicy": {"image": "x"}}), vec!["/admissionPolicy", "image"]),
        (json!({"enabled": false}), vec!["/enabled"]),
    ];
    for (values, expected) in wrong {
        let arguments = helm.values("wrong", &values)?;
        let template = ["template", "it", CHART].map(str::to_owned);
        let said = helm.refused(&[&template[..], &arguments].concat()).await?;
        for words in expected {
            ensure!(said.contains(words), "{values}: {words} is not in: {said}");
        }
    }
    // Without a cluster there is nothing to monitor with, and that is no error.
    let rendered = helm.run(&["template", "it", CHART]).await?;
    ensure!(!rendered.contains("monitoring.coreos.com"), "skipped where it is missing");
    ensure!(Path::new(CHART).is_dir());
    Ok(())
}
