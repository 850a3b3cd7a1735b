//! A simulator, a receiver and a forwarder between them, and what these tests ask of all three.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{DEMO_TOKEN, Defender, Fault, Options};
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::{Forwarder, LOOK, PATIENCE};
use siem_agent_tests::receiver::{Framing, Receiver};
use tokio::time::{Instant, sleep};

/// An unlimited simulator with records of the last hour.
pub(crate) fn tenant(n_activities: usize, n_alerts: usize) -> Options {
    Options {
        budget: 0,
        history: (n_activities, Duration::from_secs(3600)),
        alert_history: Some(n_alerts),
        ..Options::default()
    }
}

/// What a manifest says besides where source and target are.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// `spec.source.auth`.
    pub(crate) auth: String,
    /// More lines of `spec.source`, each a field.
    pub(crate) source: Vec<String>,
    /// More lines of `spec`, each a field.
    pub(crate) spec: Vec<String>,
    /// `spec.source.cloudApps.requestsPerMinute`.
    pub(crate) budget: u32,
    /// `spec.source.cloudApps.pollInterval`.
    pub(crate) interval: String,
    /// `spec.source.cloudApps.url`, where it is not the simulator's.
    pub(crate) url: Option<String>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            auth: "{tokenSecretRef: {name: defender}}".to_owned(),
            source: Vec::new(),
            spec: Vec::new(),
            budget: 6000,
            interval: "1s".to_owned(),
            url: None,
        }
    }
}

impl Manifest {
    /// With another field of `spec.source`.
    pub(crate) fn source(mut self, line: impl Into<String>) -> Self {
        self.source.push(line.into());
        self
    }

    /// With another field of `spec`.
    pub(crate) fn spec(mut self, line: impl Into<String>) -> Self {
        self.spec.push(line.into());
        self
    }

    /// The text of it.
    pub(crate) fn text(&self, defender: &Defender, receiver: &Receiver) -> String {
        let url = self.url.clone().unwrap_or_else(|| defender.url());
        let (auth, budget, port) = (&self.auth, self.budget, receiver.port());
        let lines = |lines: &[String], indent: &str| {
            lines.iter().map(|line| format!("{indent}{line}\n")).collect::<String>()
        };
        format!(
            "apiVersion: siemagent.dev/v1alpha1\nkind: SiemAgent\nmetadata: {{name: soc, namespace: security}}\nspec:\n  \
             source:\n    cloudApps: {{url: '{url}', requestsPerMinute: {budget}, pollInterval: {}, overlap: 30s}}\n    \
             auth: {auth}\n{}  syslog: {{host: 127.0.0.1, port: {port}}}\n{}",
            self.interval,
            lines(&self.source, "    "),
            lines(&self.spec, "  "),
        )
    }
}

/// All three.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) defender: Defender,
    pub(crate) receiver: Receiver,
    pub(crate) forwarder: Forwarder,
}

impl World {
    /// Everything but the forwarder's process runs.
    pub(crate) async fn prepare(options: Options, manifest: &Manifest) -> Result<Self> {
        Self::of(options, |defender, receiver| manifest.text(defender, receiver)).await
    }

    /// The same with the manifest's whole text.
    pub(crate) async fn of(
        options: Options,
        manifest: impl FnOnce(&Defender, &Receiver) -> String,
    ) -> Result<Self> {
        let defender = Defender::start(options).await?;
        let receiver = Receiver::start(Framing::Newline, None).await?;
        let forwarder = Forwarder::new(&defender.url(), DEMO_TOKEN, "{host: unused}", "")?;
        fs::write(forwarder.manifest(), manifest(&defender, &receiver))?;
        Ok(Self { defender, receiver, forwarder })
    }

    /// Everything runs.
    pub(crate) async fn start(options: Options, manifest: &Manifest) -> Result<Self> {
        let mut world = Self::prepare(options, manifest).await?;
        world.forwarder.start().await?;
        Ok(world)
    }

    /// Puts a file where a pod would have it mounted.
    pub(crate) fn mount(&self, name: &str, key: &str, content: &str) -> Result<()> {
        let folder = self.forwarder.secrets().join(name);
        fs::create_dir_all(&folder)?;
        let next = folder.join("next");
        fs::write(&next, content)?;
        Ok(fs::rename(next, folder.join(key))?)
    }

    /// Adds a fault by its text.
    pub(crate) fn fault(&self, text: &str) {
        self.defender.fault(text.parse::<Fault>().unwrap());
    }

    /// Waits until every record that exists is shown and delivered, and holds one set against the other.
    pub(crate) async fn all_delivered(&self) -> Result<()> {
        self.delivered(PATIENCE, true).await
    }

    /// The same, in so much time and not more.
    pub(crate) async fn delivered_within(&self, patience: Duration) -> Result<()> {
        self.delivered(patience, false).await
    }

    /// With `renewed`, the time begins anew whenever another record arrives.
    async fn delivered(&self, patience: Duration, renewed: bool) -> Result<()> {
        let (mut until, mut n_delivered, mut seen) = (Instant::now() + patience, 0, None);
        loop {
            // As long as both stand still nothing can have become equal: more may exist, and never less.
            let counts = (self.receiver.n_ids(), self.defender.n_shown());
            let may_be = counts.0 >= counts.1 && seen != Some(counts);
            if !may_be && Instant::now() <= until {
                if renewed && counts.0 > n_delivered {
                    (until, n_delivered) = (Instant::now() + patience, counts.0);
                }
                sleep(LOOK).await;
                continue;
            }
            seen = Some(counts);
            let ids = |of: BTreeSet<(Stream, String)>| -> BTreeSet<String> {
                of.into_iter().map(|(_, id)| id).collect()
            };
            let delivered: BTreeSet<String> = self.receiver.ids().into_keys().collect();
            let (produced, shown) = (ids(self.defender.produced()), ids(self.defender.shown()));
            if produced == shown && shown == delivered {
                return Ok(());
            }
            if renewed && delivered.len() > n_delivered {
                (until, n_delivered) = (Instant::now() + patience, delivered.len());
            }
            if Instant::now() > until {
                let n_strange = delivered.difference(&shown).count();
                bail!(
                    "{} exist, {} were shown, {} delivered, {n_strange} of them never shown\n{}",
                    produced.len(),
                    shown.len(),
                    delivered.len(),
                    self.forwarder.log()?
                );
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until the report is as wanted.
    pub(crate) async fn until(&self, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.forwarder.status().await?;
            if good(&status) {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "{what}: {status}\n{}", self.forwarder.log()?);
            sleep(LOOK).await;
        }
    }

    /// Waits until so many requests of this kind were answered.
    pub(crate) async fn until_asked(&self, what: &str, n_requests: usize) -> Result<()> {
        eventually(PATIENCE, async || {
            ensure!(
                self.asked(what).len() >= n_requests,
                "{what} is not asked: {}",
                self.forwarder.log()?
            );
            Ok(())
        })
        .await
    }

    /// Times and statuses of the answered requests of this kind.
    pub(crate) fn asked(&self, what: &str) -> Vec<(i64, u16)> {
        let requests = self.defender.requests();
        let of = requests.iter().filter(|request| request.what == what && request.status > 0);
        of.map(|request| (request.at, request.status)).collect()
    }

    /// The value of `siem_forwarder_token_valid`, where there is one.
    pub(crate) async fn token_valid(&self) -> Result<Option<f64>> {
        let text = self.forwarder.get("metrics").await?;
        let line = text.lines().find_map(|line| line.strip_prefix("siem_forwarder_token_valid "));
        Ok(line.map(str::parse).transpose()?)
    }

    /// The most requests for records within any 60 seconds.
    pub(crate) fn most_in_a_minute(&self) -> usize {
        let requests = self.defender.requests();
        let times: Vec<i64> = requests
            .iter()
            .filter(|request| request.what != "token")
            .map(|request| request.at)
            .collect();
        let within =
            |from: i64| times.iter().filter(|at| (from..from + 60_000).contains(*at)).count();
        times.iter().map(|from| within(*from)).max().unwrap_or(0)
    }
}
