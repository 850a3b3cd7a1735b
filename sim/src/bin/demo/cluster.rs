//! The agent in a cluster: a control plane, an operator and a node on this machine, kubectl to speak to them, and a play
//! in three acts: all is well, the token is broken, the token is repaired.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use siem_agent_crds::SiemAgent;
use siem_agent_sim::control_plane::{ControlPlane, User};
use siem_agent_sim::defender::DEMO_TOKEN;
use siem_agent_sim::forwarder::{PATIENCE, program};
use siem_agent_sim::kubectl::Kubectl;
use siem_agent_sim::node::{Image, Node, Options};
use siem_agent_sim::operator::{Operator, Place};
use tokio::time::Instant;

use crate::screen::Screen;
use crate::source::Source;

const NAMESPACE: &str = "security";
const NAME: &str = "soc";
const IMAGE: &str = "siem-forwarder:demo";
/// As long as a real one, and not the portal's.
const BROKEN_TOKEN: &str =
    "d3JvbmctdG9rZW4tb2YtYXQtbGVhc3Qtc2l4dHktZm91ci1jaGFyYWN0ZXJzLXdyb25nLXRva2Vu";
/// So long one can look at an act before the next begins.
const LOOKED_AT: Duration = Duration::from_secs(4);

/// The agent's cluster; it ends with this value.
pub(crate) struct Cluster {
    // The first three in the order in which they end.
    operator: Operator,
    _node: Node,
    _plane: ControlPlane,
    kubectl: Kubectl,
    agents: Api<SiemAgent>,
    pods: Api<Pod>,
    http: reqwest::Client,
    act: Act,
    since: Instant,
    glance: Glance,
    is_ending: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// The agent has been applied and turns Ready.
    Beginning,
    /// Events flow.
    Well,
    /// The token was broken.
    Breaking,
    /// The agent says so.
    Broken,
    /// The token was repaired.
    Mending,
    /// The agent is Ready again.
    Over,
}

/// What `kubectl get` shows of the agent, and Ready's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Glance {
    ready: String,
    reason: String,
    state: String,
    token: String,
    lag: String,
}

impl Cluster {
    /// Starts everything and applies a SiemAgent for this portal and receiver.
    pub(crate) async fn start(
        screen: &Screen,
        source: Source,
        url: &str,
        syslog: &str,
    ) -> Result<Self> {
        screen
            .say("starting a Kubernetes control plane, a node and the operator on this machine…")?;
        let plane = ControlPlane::start().await?;
        plane.make_namespace(NAMESPACE).await?;
        let place = Place::new(&plane, NAMESPACE).await?;
        let forwarder = Image {
            program: program("siem-forwarder")?,
            arguments: vec!["--listen=$(POD_IP):9464".to_owned()],
        };
        let options =
            Options { images: [(IMAGE.to_owned(), forwarder)].into(), ..Options::default() };
        let node = Node::start(&plane, NAMESPACE, options).await?;
        let operator = Operator::start(&place, &["--forwarder-image", IMAGE]).await?;
        let client = plane.client().await?;
        let (kubectl, kubeconfig) = (plane.kubectl()?, plane.kubeconfig(User::Admin)?);
        screen.say(&format!(
            "they run; to look from another terminal:\n  {} --kubeconfig {} --namespace {NAMESPACE} get siemagents --watch",
            kubectl.program().display(),
            kubeconfig.display()
        ))?;
        let cluster = Self {
            kubectl,
            agents: Api::namespaced(client.clone(), NAMESPACE),
            pods: Api::namespaced(client, NAMESPACE),
            http: reqwest::Client::builder().no_proxy().build()?,
            act: Act::Beginning,
            since: Instant::now(),
            glance: Glance::default(),
            is_ending: false,
            operator,
            _node: node,
            _plane: plane,
        };
        cluster.token(screen, DEMO_TOKEN, source.secret()).await?;
        let manifest = format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: {NAME}, namespace: {NAMESPACE}}}\nspec:\n  \
             source:\n    {}\n  syslog: {syslog}\n",
            source.fields(url)
        );
        screen.say(&manifest)?;
        cluster.run(screen, "apply -f siemagent.yaml", &["apply", "-f", "-"], &manifest).await?;
        Ok(cluster)
    }

    /// Looks at the agent, tells what has changed, and goes on with the play.
    pub(crate) async fn look(&mut self, screen: &Screen) -> Result<()> {
        let agent = self.agents.get(NAME).await?;
        let (glance, message) = Glance::of(&agent);
        if glance != self.glance {
            let of = ["get", "siemagents"];
            self.run(screen, "get siemagents", &of, "").await?;
            if glance.reason != self.glance.reason && !message.is_empty() {
                screen.say(&format!("  {}: {message}", glance.reason))?;
            }
            self.glance = glance;
        }
        let (is_ready, looked_at) =
            (self.glance.ready == "True", self.since.elapsed() >= LOOKED_AT);
        match self.act {
            Act::Beginning if is_ready => self.enter(Act::Well),
            Act::Well if looked_at && !self.is_ending => {
                self.token(screen, BROKEN_TOKEN, "a token that the portal refuses").await?;
                self.enter(Act::Breaking);
            }
            Act::Breaking if self.glance.reason == "TokenInvalid" => self.enter(Act::Broken),
            Act::Broken if looked_at => {
                self.token(screen, DEMO_TOKEN, "the good one again").await?;
                self.enter(Act::Mending);
            }
            Act::Mending if is_ready => self.enter(Act::Over),
            Act::Beginning | Act::Breaking | Act::Mending if self.since.elapsed() > PATIENCE => {
                bail!("the agent stays {}: {}", self.how(), self.operator.log())
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the play is over.
    pub(crate) fn is_over(&self) -> bool {
        self.act == Act::Over
    }

    /// Whether nothing can flow just now.
    pub(crate) fn is_held_up(&self) -> bool {
        !matches!(self.act, Act::Well | Act::Over)
    }

    /// The agent in a few words.
    pub(crate) fn how(&self) -> String {
        let Glance { ready, reason, state, token, lag } = &self.glance;
        if ready.is_empty() {
            return format!("SiemAgent {NAME}: applied");
        }
        format!("SiemAgent {NAME}: Ready {ready} ({reason}), {state}, token {token}, lag {lag}")
    }

    /// Leaves the play so that what was produced can be delivered.
    pub(crate) async fn mend(&mut self, screen: &Screen) -> Result<()> {
        self.is_ending = true;
        if matches!(self.act, Act::Breaking | Act::Broken) {
            self.token(screen, DEMO_TOKEN, "the good one again").await?;
            self.enter(Act::Mending);
        }
        Ok(())
    }

    /// The sum of the forwarder's series whose lines begin so, as its pod tells; nothing while it does not run.
    pub(crate) async fn metric(&self, begins: &str) -> Result<Option<f64>> {
        let of = ListParams::default().labels(&format!("siemagent.dev/name={NAME}"));
        let pods = self.pods.list(&of).await?;
        let address = pods.items.into_iter().find_map(|pod| pod.status?.pod_ip);
        let Some(address) = address else { return Ok(None) };
        let Ok(answer) = self.http.get(format!("http://{address}:9464/metrics")).send().await
        else {
            return Ok(None);
        };
        let text = answer.text().await?;
        let values = text.lines().filter(|line| line.starts_with(begins));
        let values = values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok(values.reduce(|sum, value| sum + value))
    }

    /// Tells the Events and deletes the agent; nothing of it stays.
    pub(crate) async fn end(self, screen: &Screen) -> Result<()> {
        let about = format!("siemagent/{NAME}");
        let events = ["events", "--for", &about];
        self.run(screen, &events.join(" "), &events, "").await?;
        let delete = ["delete", "siemagent", NAME];
        self.run(screen, &delete.join(" "), &delete, "").await?;
        let gone = ["wait", "pods", "--all", "--for=delete", "--timeout=60s"];
        self.run(screen, "wait pods --all --for=delete", &gone, "").await?;
        self.operator.terminate().await.map(drop)
    }

    async fn token(&self, screen: &Screen, token: &str, what: &str) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "defender"},
            "stringData": {"token": token},
        });
        let shown = format!("apply -f secret.yaml    # {what}");
        self.run(screen, &shown, &["apply", "-f", "-"], &secret.to_string()).await
    }

    async fn run(
        &self,
        screen: &Screen,
        shown: &str,
        arguments: &[&str],
        stdin: &str,
    ) -> Result<()> {
        screen.say(&format!("$ kubectl {shown}"))?;
        let inside = ["--namespace", NAMESPACE];
        let arguments: Vec<_> = inside.iter().chain(arguments).copied().collect();
        let said = self.kubectl.run(&arguments, stdin).await.context("kubectl")?;
        screen.say(&said)
    }

    fn enter(&mut self, act: Act) {
        self.act = act;
        self.since = Instant::now();
    }
}

impl Glance {
    fn of(agent: &SiemAgent) -> (Self, String) {
        let status = agent.status.clone().unwrap_or_default();
        let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
        let Some(ready) = ready else { return (Self::default(), String::new()) };
        let glance = Self {
            ready: ready.status,
            reason: ready.reason,
            state: status.state.map(|state| format!("{state:?}")).unwrap_or_default(),
            token: status.token.map(|token| format!("{:?}", token.state)).unwrap_or_default(),
            lag: status.lag.unwrap_or_default(),
        };
        (glance, ready.message)
    }
}
