//! What the tests of a running operator stand on: a namespace, a node, the operator, a portal and receivers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_sim::arrival::{Receiver as _, counts, missing};
use siem_agent_sim::defender::{Defender, Options as Portal};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, program};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::node::{Image, Node, Options};
use siem_agent_sim::operator::Operator;
use siem_agent_sim::rsyslog::Rsyslog;
use siem_agent_tests::scene::Scene;
use tokio::time::{Instant, sleep};

/// An operator with a node to run its pods.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) operator: Operator,
    pub(crate) node: Node,
}

impl Stage {
    pub(crate) async fn new() -> Result<Self> {
        Self::with(Options::default()).await
    }

    /// The same on a node of another kind.
    pub(crate) async fn with(options: Options) -> Result<Self> {
        let scene = Scene::new().await?;
        let address = if options.is_ipv6 { "[$(POD_IP)]" } else { "$(POD_IP)" };
        let forwarder = Image {
            program: program("siem-forwarder")?,
            arguments: vec![format!("--listen={address}:9464")],
        };
        let broken = Image { program: PathBuf::from("/bin/false"), arguments: Vec::new() };
        let images =
            [("forwarder:1".to_owned(), forwarder), ("broken:1".to_owned(), broken)].into();
        let node =
            Node::start(scene.plane, &scene.namespace, Options { images, ..options }).await?;
        let operator = Operator::start(&scene.place, &["--forwarder-image", "forwarder:1"]).await?;
        Ok(Self { scene, operator, node })
    }

    pub(crate) async fn token(&self, token: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "defender"},
            "stringData": {"token": token},
        });
        self.scene.kubectl(&["apply", "-f", "-"], &secret.to_string()).await.map(drop)
    }

    pub(crate) async fn apply(&self, name: &str, url: &str, port: u16, more: &str) -> Result<()> {
        self.apply_to(name, url, ("127.0.0.1", port), more).await
    }

    /// The same with a receiver on another address.
    pub(crate) async fn apply_to(
        &self,
        name: &str,
        url: &str,
        (host, port): (&str, u16),
        more: &str,
    ) -> Result<()> {
        let manifest = Manifest::new(name).url(url).quick().to(host, port).more(more);
        self.scene.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await.map(drop)
    }

    /// Waits until a checkpoint is kept that knows of everything that the portal has made. It is written once a minute.
    pub(crate) async fn until_kept(&self, defender: &Defender) -> Result<Value> {
        let all = format!("/{}", defender.produced().len());
        let until = Instant::now() + 3 * PATIENCE;
        loop {
            let kept = self.scene.until("configmap/soc-checkpoint", |_| true).await?;
            let delivered = kept["metadata"]["annotations"]["siemagent.dev/delivered"].as_str();
            if delivered.is_some_and(|delivered| delivered.ends_with(&all)) {
                return Ok(kept);
            }
            ensure!(Instant::now() < until, "not {all}: {kept:#}");
            sleep(LOOK).await;
        }
    }

    /// Waits until there is another pod than this one.
    pub(crate) async fn another_pod(&self, than: &Value) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let pod = self.pod().await;
            if let Ok(pod) = &pod
                && pod["metadata"]["uid"] != than["metadata"]["uid"]
            {
                return Ok(pod.clone());
            }
            ensure!(Instant::now() < until, "there is no other pod: {pod:?}");
            sleep(LOOK).await;
        }
    }

    pub(crate) async fn pod(&self) -> Result<Value> {
        let pods = self.scene.get("pods").await?.context("list pods")?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let alive = pods.into_iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        alive.context("there is no pod")
    }

    /// Reason and note of the Events about an agent so far, in no order.
    pub(crate) async fn events(&self, name: &str) -> Result<Vec<(String, String)>> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.scene.namespace);
        let list = self.scene.raw(&path).await?.context("list Events")?;
        let events = list["items"].as_array().cloned().unwrap_or_default();
        let about = events.into_iter().filter(|event| {
            event["regarding"]["name"] == name && event["regarding"]["kind"] == "SiemAgent"
        });
        let text = |text: &Value| text.as_str().unwrap_or_default().to_owned();
        Ok(about.map(|event| (text(&event["reason"]), text(&event["note"]))).collect())
    }

    pub(crate) async fn until_metric(
        &self,
        begins: &str,
        is: impl Fn(&[(String, f64)]) -> bool,
    ) -> Result<()> {
        eventually(PATIENCE, async || {
            let series = self.operator.series(begins).await?;
            ensure!(is(&series), "{begins}: {series:?}");
            Ok(())
        })
        .await
    }
}

pub(crate) fn portal(n_history: usize) -> Portal {
    Portal {
        rate: 0.0,
        budget: 0,
        history: (n_history, Duration::from_secs(3600)),
        ..Portal::default()
    }
}

pub(crate) async fn until_all_arrived(
    defender: &Defender,
    receivers: &[&Rsyslog],
) -> Result<BTreeMap<String, usize>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut lines = Vec::new();
        for receiver in receivers {
            lines.extend(receiver.lines()?);
        }
        let counts = counts(&lines);
        let missing = missing(defender, &counts);
        let Some(first) = missing.first() else { return Ok(counts) };
        ensure!(Instant::now() < until, "{} lost, such as {first}", missing.len());
        sleep(LOOK).await;
    }
}
