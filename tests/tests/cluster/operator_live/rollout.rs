//! Another operator brings another release of the forwarder: one agent goes first, and one that does not come up costs no
//! other agent anything.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::arrival::{Receiver as _, counts};
use siem_agent_sim::control_plane::Request;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, program};
use siem_agent_sim::node::Image;
use siem_agent_sim::operator::Operator;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::scene::condition;
use tokio::time::{Instant, sleep};

use super::stage::{Stage, portal};

const N: usize = 20;

impl Stage {
    /// The forwarders' images, by Deployment.
    async fn images(&self) -> Result<BTreeMap<String, String>> {
        let list = self.scene.get("deployments").await?.context("list Deployments")?;
        let image = |deployment: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let pod = &deployment["spec"]["template"]["spec"];
            (text(&deployment["metadata"]["name"]), text(&pod["containers"][0]["image"]))
        };
        Ok(list["items"].as_array().into_iter().flatten().map(image).collect())
    }

    async fn n_with(&self, image: &str) -> Result<usize> {
        Ok(self.images().await?.values().filter(|with| *with == image).count())
    }

    /// How many agents are Ready, and how many say of their roll-out that it is halted.
    async fn n_ready_and_halted(&self) -> Result<(usize, usize)> {
        let list = self.scene.get("siemagents").await?.context("list agents")?;
        let agents: Vec<_> = list["items"].as_array().cloned().unwrap_or_default();
        let is_ready = |agent: &&Value| condition(agent, "Ready")["status"] == "True";
        let is_halted =
            |agent: &&Value| condition(agent, "Reconciling")["reason"] == "RolloutHalted";
        Ok((agents.iter().filter(is_ready).count(), agents.iter().filter(is_halted).count()))
    }

    async fn until_ready_and_halted(&self, expected: (usize, usize)) -> Result<()> {
        let until = Instant::now() + 3 * PATIENCE;
        loop {
            let seen = self.n_ready_and_halted().await?;
            if seen == expected {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "{seen:?} are Ready and halted: {}",
                self.operator.log()
            );
            sleep(LOOK).await;
        }
    }

    /// What the operator has written since a position, checkpoints apart.
    fn writes_since(&self, position: u64) -> Result<Vec<Request>> {
        let mut writes = self.scene.writes_since(position)?;
        writes.retain(|write| !write.name.ends_with("-checkpoint"));
        Ok(writes)
    }

    /// Waits until the operator has written nothing but checkpoints for so long.
    async fn until_quiet(&self, quiet: Duration) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut position = self.scene.plane.audit_position()?;
        let (mut since, mut last) = (Instant::now(), Vec::new());
        while since.elapsed() < quiet {
            ensure!(Instant::now() < until, "the operator does not come to rest: {last:?}");
            sleep(LOOK).await;
            let writes = self.writes_since(position)?;
            if !writes.is_empty() {
                last = writes;
                position = self.scene.plane.audit_position()?;
                since = Instant::now();
            }
        }
        Ok(())
    }

    /// Another operator, with another release, in the place of this one.
    async fn another_operator(self, image: &str) -> Result<Self> {
        let Self { scene, operator, node } = self;
        operator.terminate().await?;
        let operator = Operator::start(&scene.place, &["--forwarder-image", image]).await?;
        Ok(Self { scene, operator, node })
    }

    /// Waits until so many agents have delivered what the portal makes now.
    async fn until_exported_by(&self, n: usize, defender: &Defender, siem: &Rsyslog) -> Result<()> {
        let before = defender.produced();
        defender.produce(1);
        let new: Vec<_> = defender.produced().difference(&before).cloned().collect();
        eventually(PATIENCE, async || {
            let counts = counts(&siem.lines()?);
            let least = new.iter().map(|(_, id)| counts.get(id).copied().unwrap_or(0)).min();
            ensure!(least >= Some(n), "{least:?} of {n} export");
            Ok(())
        })
        .await
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_costs_one_agent_of_twenty() -> Result<()> {
    let mut stage = Stage::new().await?;
    let defender = Defender::start(portal(5)).await?;
    let siem = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    for n in 0..N {
        stage.apply(&format!("a{n:02}"), &defender.url(), siem.port, "").await?;
    }
    stage.until_ready_and_halted((N, 0)).await?;
    stage.until_exported_by(N, &defender, &siem).await?;

    // Nobody has the image.
    stage = stage.another_operator("forwarder:2").await?;
    stage.until_ready_and_halted((N - 1, N - 1)).await?;
    assert_eq!(
        (stage.n_with("forwarder:2").await?, stage.n_with("forwarder:1").await?),
        (1, N - 1)
    );
    stage.until_metric("siemagent_rollout_halted ", |series| series[0].1 > 0.5).await?;
    stage.until_exported_by(N - 1, &defender, &siem).await?;
    let images = stage.images().await?;
    let first = images.iter().find(|(_, image)| *image == "forwarder:2").context("one went")?.0;
    let first = first.trim_end_matches("-forwarder").to_owned();
    let waiting = if first == "a07" { "a08" } else { "a07" };
    let agent = stage.scene.until(&format!("siemagent/{waiting}"), |_| true).await?;
    let says = condition(&agent, "Reconciling")["message"].as_str().unwrap_or_default().to_owned();
    for part in [&format!("/{first} "), "forwarder:2", "ImagePullBackOff"] {
        ensure!(says.contains(part), "{part}: {says}");
    }
    ensure!(stage.operator.log().contains("roll-out halted"), "{}", stage.operator.log());
    let events = stage.events(waiting).await?;
    ensure!(
        events.iter().any(|(reason, note)| reason == "RolloutHalted" && *note == says),
        "{events:?}"
    );
    let agent = stage.scene.until(&format!("siemagent/{first}"), |_| true).await?;
    assert_eq!(condition(&agent, "Ready")["reason"], "ImagePullBackOff");

    // An operator that starts anew finds it so, and has nothing to write.
    stage.until_quiet(Duration::from_secs(3)).await?;
    let position = stage.scene.plane.audit_position()?;
    stage = stage.another_operator("forwarder:2").await?;
    stage
        .until_metric("siemagent_rollout_halted ", |series| {
            series.first().is_some_and(|(_, halted)| *halted > 0.5)
        })
        .await?;
    stage.until_quiet(Duration::from_secs(5)).await?;
    let writes = stage.writes_since(position)?;
    ensure!(writes.is_empty(), "{writes:?}");
    assert_eq!(stage.n_with("forwarder:2").await?, 1);

    // What somebody changes by hand is put back, and what a user changes is done, with the image that works.
    let place = format!("deployment/{waiting}-forwarder");
    stage.scene.kubectl(&["scale", &place, "--replicas=0"], "").await?;
    stage.scene.until(&place, |deployment| deployment["spec"]["replicas"] == 1).await?;
    let labels = "  forwarder: {podLabels: {team: soc}}\n";
    stage.apply(waiting, &defender.url(), siem.port, labels).await?;
    let template = "/spec/template/metadata/labels/team";
    stage.scene.until(&place, |now| now.pointer(template) == Some(&json!("soc"))).await?;
    stage.until_ready_and_halted((N - 1, N - 1)).await?;
    assert_eq!(stage.images().await?[&format!("{waiting}-forwarder")], "forwarder:1");
    // What is made now is made by the release that stands, and harms nobody.
    stage.until_exported_by(N - 1, &defender, &siem).await?;

    // Mended: all follow, never more than five at a time.
    let forwarder = Image {
        program: program("siem-forwarder")?,
        arguments: vec!["--listen=$(POD_IP):9464".to_owned()],
    };
    stage.node.add_image("forwarder:2", forwarder);
    let until = Instant::now() + 4 * PATIENCE;
    let mut most = 0;
    loop {
        let deployments = stage.scene.get("deployments").await?.context("list Deployments")?;
        let deployments = deployments["items"].as_array().cloned().unwrap_or_default();
        let is_down = |deployment: &&Value| deployment["status"]["readyReplicas"] != 1;
        most = most.max(deployments.iter().filter(is_down).count());
        if stage.n_with("forwarder:2").await? == N && stage.n_ready_and_halted().await? == (N, 0) {
            break;
        }
        ensure!(Instant::now() < until, "{:?}: {}", stage.images().await?, stage.operator.log());
        sleep(LOOK).await;
    }
    ensure!((1..=5).contains(&most), "{most} at once");
    stage.until_metric("siemagent_rollout_halted ", |series| series[0].1 < 0.5).await?;
    ensure!(stage.operator.log().contains("roll-out resumed"), "{}", stage.operator.log());
    stage.until_exported_by(N, &defender, &siem).await?;
    for line in stage.operator.log().lines().filter(|line| line.contains("applied")) {
        ensure!(
            line.contains("kind") && line.contains("name") && line.contains("reason"),
            "{line}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn another_release_mends_a_crash_loop_and_no_agent_holds_it_up_for_reasons_of_its_own()
-> Result<()> {
    let mut stage = Stage::new().await?;
    let defender = Defender::start(portal(5)).await?;
    let siem = Rsyslog::start(Input::Tcp).await?;
    stage.token(DEMO_TOKEN).await?;
    // First by name: its token is missing. Another one's user has chosen an image.
    for name in ["b", "c"] {
        stage.apply(name, &defender.url(), siem.port, "").await?;
    }
    stage.apply("a", &defender.url(), siem.port, "").await?;
    let patch = json!({"spec": {"source": {"auth": {"tokenSecretRef": {"name": "absent"}}}}});
    let patch = patch.to_string();
    stage.scene.kubectl(&["patch", "siemagent/a", "--type=merge", "-p", &patch], "").await?;
    let pinned = "  forwarder: {image: \"forwarder:1\"}\n";
    stage.apply("pinned", &defender.url(), siem.port, pinned).await?;
    stage.scene.until_ready_is("a", "SecretMissing").await?;
    stage.until_ready_and_halted((3, 0)).await?;

    // It crashes at once.
    stage = stage.another_operator("broken:1").await?;
    stage.until_ready_and_halted((2, 2)).await?;
    let images = stage.images().await?;
    assert_eq!(images["a-forwarder"], "forwarder:1", "one that is Ready goes first");
    assert_eq!(images["pinned-forwarder"], "forwarder:1");
    assert_eq!(images.values().filter(|image| *image == "broken:1").count(), 1);

    // The next release is good; the agent without a token comes up as well as it can, and holds up nobody.
    let forwarder = Image {
        program: program("siem-forwarder")?,
        arguments: vec!["--listen=$(POD_IP):9464".to_owned()],
    };
    stage.node.add_image("forwarder:2", forwarder);
    stage = stage.another_operator("forwarder:2").await?;
    stage.until_ready_and_halted((3, 0)).await?;
    eventually(PATIENCE, async || {
        ensure!(
            stage.n_with("forwarder:2").await? >= 3,
            "{:?}: {}",
            stage.images().await?,
            stage.operator.log()
        );
        Ok(())
    })
    .await?;
    assert_eq!(stage.images().await?["pinned-forwarder"], "forwarder:1");
    stage.scene.until_ready_is("a", "SecretMissing").await?;
    Ok(())
}
