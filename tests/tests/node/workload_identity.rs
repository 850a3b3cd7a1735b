//! An agent without any Secret: a real kubelet projects a token of the pod's ServiceAccount, the forwarder exchanges it, and
//! the identity provider checks it by the API server's own signing keys.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use siem_agent_sim::defender::Options;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::real_node;
use siem_agent_tests::scene::condition;
use siem_agent_tests::stage::{PATIENCE, Stage};

const AUDIENCE: &str = "api://AzureADTokenExchange";

fn portal() -> Options {
    Options { rate: 5.0, history: (100, Duration::from_secs(3_600)), ..Options::default() }
}

/// What a token claims.
fn claims(token: &str) -> Result<Value> {
    let claims = token.split('.').nth(1).context("a token has three parts")?;
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims)?)?)
}

fn n_restarts(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["restartCount"]
}

/// How many assertions the identity provider was given, and access tokens it gave.
fn n_exchanged(stage: &Stage) -> [usize; 2] {
    let requests = stage.portal.requests();
    let asked = requests.iter().filter(|request| request.what == "token").count();
    [asked, stage.portal.access_tokens().len()]
}

#[test]
fn a_pods_own_token_is_all_that_an_agent_needs_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = Stage::new(node, portal()).await?;
        stage.federate("soc", AUDIENCE).await?;
        stage.apply_by_identity("soc", AUDIENCE).await?;
        let agent = stage.scene.until_ready_is("soc", "Delivering").await?;
        assert_eq!(agent["status"]["token"]["state"], "Valid");

        // No Secret exists, and none is mounted; the one token of the pod is for the identity provider.
        assert_eq!(stage.scene.kubectl(&["get", "secrets", "-o", "name"], "").await?, "");
        let pod = stage.pod("soc").await?;
        let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        ensure!(volumes.iter().all(|volume| volume["secret"].is_null()), "{volumes:#?}");
        let projected =
            volumes.iter().filter_map(|volume| volume["projected"]["sources"].as_array());
        let projected: Vec<_> = projected.flatten().collect();
        let expected = json!({"serviceAccountToken": {
            "audience": AUDIENCE, "expirationSeconds": 3600, "path": "token",
        }});
        assert_eq!(projected, [&expected], "Kubernetes' own token is not mounted beside it");
        let token = fs::read_to_string(stage.identity(&pod)?)?;
        let claims = claims(&token)?;
        assert_eq!(claims["aud"], json!([AUDIENCE]));
        let subject = format!("system:serviceaccount:{}:soc-forwarder", stage.scene.namespace);
        assert_eq!(claims["sub"], json!(subject));
        let second = |name: &str| claims[name].as_i64().context("a time");
        assert_eq!(second("exp")? - second("iat")?, 3_600, "an hour");
        assert_eq!(claims["kubernetes.io"]["pod"]["uid"], pod["metadata"]["uid"]);

        // Access tokens are taken back: the same token is exchanged again.
        let before = n_exchanged(&stage);
        stage.portal.revoke();
        stage.portal.produce(50);
        stage.until_all_arrived("soc").await?;
        ensure!(n_exchanged(&stage).iter().zip(before).all(|(after, before)| *after > before));

        // What stands in the file is what is exchanged, whoever writes it; the kubelet writes its own again in its time.
        fs::write(stage.identity(&pod)?, "eyJhbGciOiJSUzI1NiJ9.e30.bm9ib2R5")?;
        stage.portal.revoke();
        let agent = stage.scene.until_ready_is("soc", "TokenInvalid").await?;
        let said = condition(&agent, "TokenValid")["message"].to_string();
        ensure!(said.contains("AADSTS"), "{said}");
        eventually(PATIENCE, async || {
            let again = fs::read_to_string(stage.identity(&pod)?)?;
            ensure!(claims_of_the_same(&again, &subject), "the kubelet has not written it again");
            Ok(())
        })
        .await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        let after = stage.pod("soc").await?;
        assert_eq!(after["metadata"]["uid"], pod["metadata"]["uid"], "no pod was replaced");
        assert_eq!(n_restarts(&after), &json!(0));
        stage.portal.quiet();
        stage.until_all_arrived("soc").await.map(drop)
    })
}

fn claims_of_the_same(token: &str, subject: &str) -> bool {
    claims(token).is_ok_and(|claims| claims["sub"] == subject)
}

#[test]
fn a_token_for_another_audience_is_refused_with_advice_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let mut stage = Stage::new(node, portal()).await?;
        stage.federate("soc", AUDIENCE).await?;
        stage.apply_by_identity("soc", "api://SomebodyElse").await?;
        let agent = stage.scene.until_ready_is("soc", "TokenInvalid").await?;
        let valid = condition(&agent, "TokenValid");
        assert_eq!((&valid["status"], &valid["reason"]), (&json!("False"), &json!("Invalid")));
        let said = valid["message"].as_str().unwrap_or_default();
        for words in ["AADSTS700212", "api://SomebodyElse", "workloadIdentity.audience"] {
            ensure!(said.contains(words), "{words}: {said}");
        }
        ensure!(stage.portal.access_tokens().is_empty(), "nobody was let in");
        // Put right by the spec, all of it arrives.
        stage.apply_by_identity("soc", AUDIENCE).await?;
        stage.scene.until_ready_is("soc", "Delivering").await?;
        stage.portal.quiet();
        stage.until_all_arrived("soc").await.map(drop)
    })
}
