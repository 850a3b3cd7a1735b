//! From `helm install` to lines at a real rsyslog, on a real node with the real images, typed as the chart's README says;
//! then everything that happens to a release while events keep coming. Nothing may be lost.
//!
//! A binary of its own, because its kubelet is restarted and its CRD is deleted in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival::{Receiver as _, counts, missing};
use siem_agent_sim::control_plane::User;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Options};
use siem_agent_sim::helm::CHART;
use siem_agent_sim::images::Images;
use siem_agent_sim::kubectl::Kubectl;
use siem_agent_sim::pki::Authority;
use siem_agent_sim::real_node::{self, ADDRESS, RealNode, Service};
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::discovery;
use siem_agent_tests::prometheus::Prometheus;
use siem_agent_tests::typed::{Page, Typist};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Longer than the kubelet takes to bring a changed Secret, and the polls after it.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the receiver's file is read.
const LOOK: Duration = Duration::from_millis(500);
const NEXT_TOKEN: &str =
    "bmV4dC10b2tlbi1vZi1hdC1sZWFzdC1zaXh0eS1mb3VyLWNoYXJhY3RlcnMtb25seS1mb3ItdGVzdHM=";
/// What the README calls them, and what they are called here.
const HOSTS: [(&str, &str); 2] = [
    ("contoso.us2.portal.cloudappsecurity.com", "portal.siem.test"),
    ("siem.example.com", "siem.siem.test"),
];
const OPERATOR: &str = "system:serviceaccount:siem-system:siem-agent-operator";

/// A tenant and a SIEM, with certificates of an authority of their own.
struct World {
    node: &'static RealNode,
    defender: Defender,
    rsyslog: Rsyslog,
    kubectl: Kubectl,
    typist: Typist,
    /// The certificates' files, which rsyslog reads when it likes.
    _folder: TempDir,
}

impl World {
    async fn new(node: &'static RealNode) -> Result<Self> {
        let authority = Authority::new("corporate")?;
        let identity = authority.server(&["portal.siem.test", "siem.siem.test"])?;
        let folder = tempfile::tempdir()?;
        let files = authority.write(&identity, folder.path())?;
        let defender = Defender::start(Options {
            listen: (ADDRESS, 443).into(),
            rate: 5.0,
            // Two operators do not share the tenant's requests, and have it twice in the end.
            budget: 60,
            history: (200, Duration::from_secs(3600)),
            tls: Some(identity),
            ..Options::default()
        })
        .await?;
        let tls = Input::Tls { driver: "gtls", files, mutual: false };
        let mut rsyslog = Rsyslog::start_at(ADDRESS, tls).await?;
        // On the port that the README names.
        rsyslog.end(Signal::SIGTERM)?;
        rsyslog.port = 6514;
        rsyslog.again().await?;
        let plane = node.plane();
        let typist = Typist::new(&plane.kubeconfig(User::Admin)?, &HOSTS).await?;
        typist.file("ca.crt", &authority.certificate())?;
        typist.file("token.txt", DEMO_TOKEN)?;
        let kubectl = plane.kubectl()?;
        Ok(Self { node, defender, rsyslog, kubectl, typist, _folder: folder })
    }

    async fn pod(&self) -> Result<Value> {
        let get = ["get", "pods", "-n", "security", "-l", "siemagent.dev/name=soc", "-o", "json"];
        let pods: Value = serde_json::from_str(&self.kubectl.run(&get, "").await?)?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let alive = pods.into_iter().find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        alive.context("there is no forwarder")
    }

    /// What the agent and the programs say of themselves.
    async fn situation(&self) -> Result<String> {
        let mut said = String::new();
        for words in [
            "get siemagents -A -o yaml",
            "get pods -A",
            "logs -n siem-system deployment/siem-agent-operator --tail=20",
            "logs -n security deployment/soc-forwarder --tail=20",
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            said += &self.kubectl.say(&words, "").await?.stdout;
        }
        Ok(said)
    }

    async fn until_ready(&self) -> Result<()> {
        let wait = ["wait", "-n", "security", "--for=condition=Ready", "--timeout=3m"];
        self.kubectl.run(&[&wait[..], &["siemagent/soc"]].concat(), "").await.map(drop)
    }

    /// The forwarder's pod that comes after this one, as soon as it is ready.
    async fn next_pod(&self, before: &Value, after: &str) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            // Between the two there is none for a moment.
            if let Ok(pod) = self.pod().await
                && pod["metadata"]["uid"] != before["metadata"]["uid"]
                && pod["status"]["containerStatuses"][0]["ready"] == true
            {
                return Ok(pod);
            }
            if Instant::now() > until {
                let situation = self.situation().await?;
                anyhow::bail!("no other forwarder is ready after {after}: {situation}");
            }
            sleep(LOOK).await;
        }
    }

    /// Makes some more records, and waits until they and all before them have arrived.
    async fn all_arrive(&self, after: &str) -> Result<()> {
        self.defender.produce(50);
        self.until_arrived(&self.defender.produced(), 1, after).await
    }

    /// Waits until each of these has arrived so many times.
    async fn until_arrived(
        &self,
        records: &BTreeSet<(Stream, String)>,
        n_times: usize,
        after: &str,
    ) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let arrived = counts(&self.rsyslog.lines()?);
            let has_not = |id: &String| arrived.get(id).is_none_or(|n| *n < n_times);
            let n_missing = records.iter().filter(|(_, id)| has_not(id)).count();
            if n_missing == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                let situation = self.situation().await?;
                anyhow::bail!("{n_missing} have not arrived after {after}: {situation}");
            }
            sleep(LOOK).await;
        }
    }
}

#[test]
fn what_the_readme_says_leads_to_events_and_loses_none_on_a_real_node() -> Result<()> {
    real_node::run(async |node| {
        let images = Images::build().await?;
        node.import(&images.operator).await?;
        node.import(&images.forwarder).await?;
        let mut world = World::new(node).await?;
        let readme = Page::read(format!("{CHART}/README.md"))?;

        let [install] = readme.blocks("Install")?;
        let said = world.typist.types(&install).await?;
        for line in ["ok   CRD", "ok   rights", "ok   Secrets", "ok   leader", "ok   operator"] {
            ensure!(said.contains(line), "{line} is not in what helm test says: {said}");
        }
        let [secret, agent, authority, wait] = readme.blocks("Export a tenant")?;
        for block in [secret, agent, authority] {
            world.typist.types(&block).await?;
        }
        for namespace in ["siem-system", "security"] {
            let label = "pod-security.kubernetes.io/enforce=restricted";
            world.kubectl.run(&["label", "namespace", namespace, label], "").await?;
        }
        let said = match world.typist.types(&wait).await {
            Ok(said) => said,
            Err(error) => return Err(error.context(world.situation().await?)),
        };
        ensure!(said.contains("Connected"), "{said}");
        world.all_arrive("the installation").await?;
        is_scraped(node).await?;

        rotate(&world, &readme).await?;
        let repeated = counts(&world.rsyslog.lines()?).into_iter().find(|(_, n)| *n > 1);
        assert_eq!(repeated, None, "until here nothing was disturbed");
        kill(&world).await?;
        upgrade(&world, &readme, &images).await?;
        granted_is_used(&world)?;

        // The operator goes; the forwarder stays at work.
        let [uninstall, remove, ..]: [String; 3] = readme.blocks("Uninstall")?;
        let before = world.pod().await?;
        world.typist.types(&uninstall).await?;
        world.defender.produce(50);
        world.defender.quiet();
        world.all_arrive("the operator is gone").await?;
        assert_eq!(world.pod().await?["metadata"]["uid"], before["metadata"]["uid"]);
        let lost = missing(&world.defender, &counts(&world.rsyslog.lines()?));
        assert_eq!(lost, Vec::<String>::new());

        world.typist.types(&remove).await?;
        several(&world, &readme).await
    })
}

/// A Prometheus with the configuration that ships finds the pods of both, and each series says whose it is.
async fn is_scraped(node: &RealNode) -> Result<()> {
    let jobs = discovery::scrape_configs(node.plane(), "default", None).await?;
    let configuration = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs});
    let prometheus = Prometheus::start(&configuration, &[]).await?;
    let until = Instant::now() + PATIENCE;
    for series in [
        r#"up{job="siem-agent-operator", namespace="siem-system", pod=~"siem-agent-operator-.+"}"#,
        r#"up{job="siem-agent-forwarder", namespace="security", name="soc", pod=~"soc-forwarder-.+"}"#,
        r#"siemagent_token_valid{job="siem-agent-operator", namespace="security", name="soc"}"#,
        r#"siem_forwarder_token_valid{job="siem-agent-forwarder", namespace="security", name="soc"}"#,
    ] {
        while prometheus.query(&format!("{series} == 1")).await?.len() != 1 {
            let all = prometheus.query("up").await?;
            ensure!(Instant::now() < until, "no {series}: {all:?} {}", prometheus.log());
            sleep(LOOK).await;
        }
    }
    Ok(())
}

/// The token is changed while events keep coming; the kubelet brings it at its own pace.
async fn rotate(world: &World, readme: &Page) -> Result<()> {
    let before = world.pod().await?;
    world.typist.file("token.txt", NEXT_TOKEN)?;
    let [rotate] = readme.blocks("Change the token")?;
    world.typist.types(&rotate).await?;
    world.defender.set_token(NEXT_TOKEN);
    world.all_arrive("the rotation").await?;
    let after = world.pod().await?;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "without a restart");
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    Ok(())
}

/// The forwarder's pod is lost, then the kubelet.
async fn kill(world: &World) -> Result<()> {
    let before = world.pod().await?;
    let pods = ["-n", "security", "-l", "siemagent.dev/name=soc"];
    let delete = ["delete", "pod", "--grace-period=0", "--force"];
    world.kubectl.run(&[&delete[..], &pods].concat(), "").await?;
    // A pod that is lost together with the kubelet waits for it; here the next one outlives it.
    world.next_pod(&before, "the loss of the pod").await?;
    world.all_arrive("the loss of the pod").await?;
    world.node.end(Service::Kubelet, Signal::SIGKILL)?;
    world.all_arrive("the loss of the kubelet").await?;
    world.node.start_again(Service::Kubelet).await?;
    world.until_ready().await
}

/// Operator and forwarder become others, as with a new release; the images are the same under a new name.
async fn upgrade(world: &World, readme: &Page, images: &Images) -> Result<()> {
    for name in [&images.operator_name, &images.forwarder_name] {
        let next = format!("{}:next", name.rsplit_once(':').context("a tag")?.0);
        world.node.ctr(&["images", "tag", name, &next]).await?;
    }
    let before = world.pod().await?;
    let [upgrade] = readme.blocks("Upgrade")?;
    let upgrade = upgrade.trim_end().to_owned()
        + " --set image.tag=next --set forwarder.image.tag=next --set replicas=2";
    world.typist.types(&upgrade).await?;
    let after = world.next_pod(&before, "the upgrade").await?;
    let image = &after["spec"]["containers"][0]["image"];
    ensure!(image.as_str().is_some_and(|image| image.ends_with(":next")), "{image}");
    world.until_ready().await?;
    world.all_arrive("the upgrade").await
}

/// The operator in its container did all that with the chart's rights: nothing was refused, and no Secret was read.
fn granted_is_used(world: &World) -> Result<()> {
    let requests = world.node.plane().requests_since(0)?;
    let its: Vec<_> = requests.iter().filter(|request| request.user == OPERATOR).collect();
    ensure!(its.iter().any(|request| request.writes()), "the operator wrote nothing");
    for request in its {
        ensure!(request.code != 403, "{request:?}");
        ensure!(request.resource != "secrets", "{request:?}");
    }
    Ok(())
}

/// Two releases, each with a namespace of its own.
async fn several(world: &World, readme: &Page) -> Result<()> {
    for team in ["team-a", "team-b"] {
        world.kubectl.run(&["create", "namespace", team], "").await?;
    }
    let [several] = readme.blocks("Several operators")?;
    world.typist.types(&several).await?;
    let [secret, agent, authority, wait] = readme.blocks::<4>("Export a tenant")?;
    for team in ["team-a", "team-b"] {
        let secret = secret.replace("kubectl create namespace security\n", "");
        for block in [&secret, &agent, &authority, &wait] {
            let block = block.replace("--namespace security", &format!("--namespace {team}"));
            let block = block.replace("namespace: security", &format!("namespace: {team}"));
            world.typist.types(&block).await?;
        }
        world.typist.types(&format!("helm test {team} --namespace {team}-ops --logs")).await?;
    }
    // Both send to one SIEM.
    let before = world.defender.produced();
    world.defender.produce(20);
    let new = &world.defender.produced() - &before;
    world.until_arrived(&new, 2, "two operators").await
}
