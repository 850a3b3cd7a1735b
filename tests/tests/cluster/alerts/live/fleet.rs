//! The fleet: two operators, agents that are well, agents that are not, and who watches them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use siem_agent_sim::control_plane::ControlPlane;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Fault, FaultKind, Options as Portal};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{LOOK, PATIENCE, free_port, program};
use siem_agent_sim::manifest::Manifest;
use siem_agent_sim::node::{Image, Node, Options};
use siem_agent_sim::operator::Operator;
use siem_agent_sim::pki::Authority;
use siem_agent_sim::rsyslog::{Input, Rsyslog};
use siem_agent_tests::alert_rules::{document, file};
use siem_agent_tests::discovery;
use siem_agent_tests::prometheus::{Alertmanager, Pager, Prometheus};
use siem_agent_tests::scene::Scene;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::metrics;

/// What the portal of `revoked` takes after it has taken the first one back.
pub(super) const NEXT_TOKEN: &str =
    "bmV4dC10b2tlbi1mb3ItdGhlLXNpbXVsYXRvci1vbmx5LW5vdC1hLXNlY3JldC1laXRoZXI=";

/// The file that says where the operators are.
const OPERATORS: &str = "operators.json";
/// Ready, alive, and without a report: what stands for a forwarder whose report cannot be read.
const MUTE: &str = r#"#!/usr/bin/python3
import http.server, sys
host = next(word for word in sys.argv if word.startswith("--listen="))[len("--listen="):].rsplit(":", 1)[0]
class Mute(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path in ("/readyz", "/livez") else 404)
        self.end_headers()
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer((host, 9464), Mute).serve_forever()
"#;

/// Everything; it ends with this value.
pub(super) struct Fleet {
    pub(super) scene: Scene,
    pub(super) siem_of_away: Rsyslog,
    pub(super) revoked: Defender,
    pub(super) pager: Pager,
    /// The manifests' parts before what a test adds, by name.
    agents: BTreeMap<&'static str, String>,
    operators: BTreeMap<&'static str, Operator>,
    well: Arc<Defender>,
    prometheus: Option<Arc<Prometheus>>,
    alertmanager: Option<Alertmanager>,
    tasks: Vec<JoinHandle<()>>,
    _kept: (Node, Vec<Defender>, Vec<Rsyslog>, TempDir),
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn portal() -> Portal {
    Portal { budget: 0, history: (50, Duration::from_secs(3600)), ..Portal::default() }
}

impl Fleet {
    /// Starts it and waits until those that shall be well are.
    pub(super) async fn start() -> Result<Self> {
        static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
        // It takes a field out of the CRD.
        let scene = Scene::on(PLANE.get_or_try_init(ControlPlane::start).await?, PATIENCE).await?;
        let folder = tempfile::tempdir()?;
        let mute = folder.path().join("mute");
        fs::write(&mute, MUTE)?;
        fs::set_permissions(&mute, fs::Permissions::from_mode(0o755))?;
        let listen = vec!["--listen=$(POD_IP):9464".to_owned()];
        let image = |program| Image { program, arguments: listen.clone() };
        let images = BTreeMap::from([
            ("forwarder:1".to_owned(), image(program("siem-forwarder")?)),
            ("mute:1".to_owned(), image(mute)),
        ]);
        let options = Options { images, ..Options::default() };
        let node = Node::start(scene.plane, &scene.namespace, options).await?;

        let authority = Authority::new("siem")?;
        let server =
            authority.write(&authority.loopback_server()?, &folder.path().join("server"))?;
        let tls =
            Rsyslog::start(Input::Tls { driver: "ossl", files: server, mutual: true }).await?;
        let plain = Rsyslog::start(Input::Tcp).await?;
        let siem_of_away = Rsyslog::start(Input::Tcp).await?;
        let well = Arc::new(Defender::start(portal()).await?);
        let revoked = Defender::start(portal()).await?;
        let throttled = Defender::start(portal()).await?;
        throttled.fault(Fault { n_requests: None, ..Fault::once(FaultKind::Throttle(None)) });
        let nowhere = format!("http://127.0.0.1:{}", free_port()?);

        let tcp = |port: u16| format!("{{host: 127.0.0.1, port: {port}}}");
        let mutual = format!(
            "{{host: localhost, port: {}, protocol: TLS, tls: {{caBundleRef: {{kind: Secret, name: siem-ca, key: ca.crt}}, \
             clientCertificateSecretRef: {{name: client}}}}}}",
            tls.port
        );
        let elsewhere = tcp(plain.port);
        let agents = BTreeMap::from([
            ("soc", manifest("soc", &well.url(), &mutual)),
            ("away", manifest("away", &well.url(), &tcp(siem_of_away.port))),
            ("revoked", manifest("revoked", &revoked.url(), &elsewhere)),
            ("unseen", manifest("unseen", &well.url(), &elsewhere)),
            ("dark", manifest("dark", &nowhere, &elsewhere)),
            ("throttled", manifest("throttled", &throttled.url(), &elsewhere)),
            (
                "broken",
                manifest("broken", &well.url(), &elsewhere) + "  forwarder: {image: nowhere:1}\n",
            ),
            (
                "mute",
                manifest("mute", &well.url(), &elsewhere) + "  forwarder: {image: \"mute:1\"}\n",
            ),
        ]);
        let client = authority.client("forwarder")?;
        let mut secrets = vec![
            json!({"metadata": {"name": "siem-ca"}, "stringData": {"ca.crt": authority.certificate()}}),
            json!({
                "metadata": {"name": "client"}, "type": "kubernetes.io/tls",
                "stringData": {"tls.crt": client.certificate, "tls.key": client.key},
            }),
        ];
        secrets.extend(agents.keys().map(|name| token(name, DEMO_TOKEN)));
        for secret in &mut secrets {
            secret["apiVersion"] = json!("v1");
            secret["kind"] = json!("Secret");
        }
        let all = json!({"apiVersion": "v1", "kind": "List", "items": secrets}).to_string();
        scene.kubectl(&["apply", "-f", "-"], &all).await?;
        let operators = BTreeMap::from([("a", operator(&scene, "forwarder:1").await?)]);
        let manifests: Vec<_> = agents.values().cloned().collect();
        scene.kubectl(&["apply", "-f", "-"], &manifests.join("---\n")).await?;
        let mut fleet = Self {
            siem_of_away,
            revoked,
            pager: Pager::start().await?,
            agents,
            operators,
            well,
            prometheus: None,
            alertmanager: None,
            tasks: Vec::new(),
            _kept: (node, vec![throttled], vec![tls, plain], folder),
            scene,
        };
        for name in ["soc", "away", "revoked", "unseen"] {
            fleet.scene.until_ready_is(name, "Delivering").await?;
        }
        let replica = operator(&fleet.scene, "forwarder:1").await?;
        fleet.operators.insert("b", replica);
        Ok(fleet)
    }

    /// Starts who watches, with these rules.
    pub(super) async fn watch(&mut self, rules: &str) -> Result<()> {
        let mut configuration = document("deploy/prometheus/alertmanager.yaml")?;
        // Each alert by itself, and at once.
        configuration["route"] = json!({
            "receiver": "soc", "group_by": ["..."], "group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h",
        });
        configuration["receivers"] = json!([{"name": "soc", "webhook_configs": [{"url": self.pager.url(), "send_resolved": true}]}]);
        let alertmanager = Alertmanager::start(&configuration).await?;

        let namespace = self.scene.namespace.as_str();
        let mut jobs =
            discovery::scrape_configs(self.scene.plane, namespace, Some(namespace)).await?;
        let [operators, forwarders] = jobs.as_array_mut().context("read the jobs")?.as_mut_slice()
        else {
            bail!("two jobs")
        };
        let operators = operators.as_object_mut().context("read a job")?;
        operators.remove("kubernetes_sd_configs").context("find pods")?;
        let found = json!([{"files": [OPERATORS], "refresh_interval": "1s"}]);
        operators.insert("file_sd_configs".to_owned(), found);
        let rules_of_forwarders =
            forwarders["relabel_configs"].as_array_mut().context("read the relabelling")?;
        rules_of_forwarders
            .push(json!({"source_labels": ["name"], "regex": "unseen", "action": "drop"}));
        let mut configuration = json!({"scrape_configs": jobs});
        configuration["global"] =
            json!({"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"});
        configuration["rule_files"] = json!(["alerts.yaml"]);
        configuration["alerting"] =
            json!({"alertmanagers": [{"static_configs": [{"targets": [alertmanager.address()]}]}]});
        let files = [("alerts.yaml", rules), (OPERATORS, "[]")];
        let prometheus = Arc::new(Prometheus::start(&configuration, &files).await?);
        self.alertmanager = Some(alertmanager);
        self.prometheus = Some(Arc::clone(&prometheus));
        self.show_operators()?;

        // Some traffic, for latencies to be known.
        let well = Arc::clone(&self.well);
        self.tasks.push(tokio::spawn(async move {
            loop {
                well.produce(5);
                sleep(Duration::from_secs(2)).await;
            }
        }));
        Ok(())
    }

    pub(super) fn prometheus(&self) -> Result<Arc<Prometheus>> {
        self.prometheus.clone().context("start Prometheus first")
    }

    /// Applies an agent with more in its spec.
    pub(super) async fn apply(&self, name: &str, more: &str) -> Result<()> {
        let manifest = self.agents.get(name).context("know the agent")?;
        self.scene.kubectl(&["apply", "-f", "-"], &format!("{manifest}{more}")).await.map(drop)
    }

    /// Puts another token into the Secret of an agent.
    pub(super) async fn token(&self, name: &str, text: &str) -> Result<()> {
        let mut secret = token(name, text);
        secret["apiVersion"] = json!("v1");
        secret["kind"] = json!("Secret");
        self.scene.kubectl(&["apply", "-f", "-"], &secret.to_string()).await.map(drop)
    }

    /// Waits until an alert fires in Prometheus, told or not.
    pub(super) async fn until_fires(&self, alert: &str, name: &str, severity: &str) -> Result<()> {
        let until = Instant::now() + 2 * PATIENCE;
        loop {
            let alerts = self.prometheus()?.alerts().await?;
            let fires = alerts.iter().any(|known| {
                let labels = &known["labels"];
                known["state"] == "firing"
                    && labels["alertname"] == alert
                    && labels["name"] == name
                    && labels["severity"] == severity
            });
            if fires {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{alert} does not fire for {name}: {alerts:#?}");
            sleep(LOOK).await;
        }
    }

    /// Waits until nothing fires for these, but that `unseen` is not scraped.
    pub(super) async fn until_quiet(&self, names: &[&str]) -> Result<()> {
        eventually(PATIENCE, async || {
            let alerts = self.prometheus()?.alerts().await?;
            let is_loud = |alert: &Value| {
                let name = alert["labels"]["name"].as_str().unwrap_or_default();
                // What was so from the first is none of it: one is not scraped, and has a twin.
                let of_old = ["SiemAgentForwarderDown", "SiemAgentDuplicateExport"];
                let alertname = alert["labels"]["alertname"].as_str().unwrap_or_default();
                names.contains(&name) && !of_old.contains(&alertname)
            };
            ensure!(!alerts.iter().any(is_loud), "{alerts:#?}");
            Ok(())
        })
        .await
    }

    /// Compares everything that is shown with what is documented.
    pub(super) async fn are_listed(&self) -> Result<()> {
        let leader = self.operators.get("a").context("the operator")?;
        let text = leader.get("metrics").await?;
        metrics::are_listed(&metrics::shown(&text)?, "The operator")?;
        // One has TLS, of another the SIEM was away.
        let mut shown = metrics::Shown::new();
        for name in ["soc", "away"] {
            let pods = self.scene.get("pods").await?.context("list pods")?;
            let pods = pods["items"].as_array().cloned().unwrap_or_default();
            let pod = pods.iter().find(|pod| {
                pod["metadata"]["labels"]["siemagent.dev/name"] == name
                    && pod["metadata"]["deletionTimestamp"].is_null()
            });
            let address = pod.context("find the pod")?["status"]["podIP"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let text = reqwest::get(format!("http://{address}:9464/metrics")).await?.text().await?;
            for (name, labels) in metrics::shown(&text)? {
                shown.entry(name).or_default().extend(labels);
            }
        }
        metrics::are_listed(&shown, "The forwarder")
    }

    /// An earlier release's CRD, as far as anybody can tell.
    pub(super) async fn take_a_field_out_of_the_crd(&self) -> Result<()> {
        const FIELD: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/syslog/properties/confirmGrace";
        let patch = json!([{"op": "remove", "path": FIELD}]).to_string();
        let crd = "crd/siemagents.siemagent.dev";
        self.scene.kubectl(&["patch", crd, "--type=json", "-p", &patch], "").await?;
        let until = Instant::now() + PATIENCE;
        let path = ["get", "--raw", "/openapi/v3/apis/siemagent.dev/v1alpha1"];
        while self.scene.kubectl(&path, "").await?.contains("confirmGrace") {
            ensure!(Instant::now() < until, "the changed CRD is not published");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// The CRD of this release again.
    pub(super) async fn put_the_crd_right(&self) -> Result<()> {
        let crd = file("crds/siemagents.yaml").display().to_string();
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", &crd];
        self.scene.kubectl(&arguments, "").await.map(drop)
    }

    /// Waits until an expression returns data.
    pub(super) async fn until(&self, expression: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(
                !self.prometheus()?.query(expression).await?.is_empty(),
                "no data: {expression}"
            );
            Ok(())
        })
        .await
    }

    /// Kills an operator; Prometheus goes on looking for it where it was.
    pub(super) fn kill_operator(&self, name: &str) -> Result<()> {
        self.operators.get(name).context("know the operator")?.signal(Signal::SIGKILL)
    }

    /// Starts an operator of this release in the place of those that were killed.
    pub(super) async fn start_operator(&mut self, name: &'static str, image: &str) -> Result<()> {
        self.operators.clear();
        self.operators.insert(name, operator(&self.scene, image).await?);
        self.show_operators()
    }

    fn show_operators(&self) -> Result<()> {
        let targets: Vec<_> = self
            .operators
            .iter()
            .map(|(name, operator)| {
                json!({
                    "targets": [operator.url().trim_start_matches("http://")],
                    "labels": {
                        "__meta_kubernetes_namespace": self.scene.namespace,
                        "__meta_kubernetes_pod_name": name,
                        "__meta_kubernetes_pod_phase": "Running",
                        "__meta_kubernetes_pod_container_port_number": "8080",
                    },
                })
            })
            .collect();
        self.prometheus()?.write(OPERATORS, &Value::from(targets).to_string())
    }
}

async fn operator(scene: &Scene, image: &str) -> Result<Operator> {
    Operator::start(&scene.place, &["--forwarder-image", image]).await
}

fn manifest(name: &str, url: &str, syslog: &str) -> String {
    Manifest::new(name).url_and_secret(url, name).quick().syslog(syslog).to_string()
}

fn token(name: &str, token: &str) -> Value {
    json!({"metadata": {"name": name}, "stringData": {"token": token}})
}
