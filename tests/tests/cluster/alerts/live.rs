//! All of it at work: a real Prometheus scrapes a real operator and real forwarders, a real Alertmanager tells a pager.
//!
//! Everything is as it ships but for the time that things take: the rules come from the chart with short thresholds, the
//! scrape configuration is the plain one, and finds the forwarders by itself. The operators are no pods here; a file says
//! where they are.

mod fleet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use siem_agent_sim::arrival::Receiver as _;
use siem_agent_sim::forwarder::{LOOK, PATIENCE};
use siem_agent_tests::alert_rules::{render, rules};
use siem_agent_tests::prometheus::Prometheus;
use siem_agent_tests::scene::condition;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::dashboard;
use fleet::{Fleet, NEXT_TOKEN};

/// How it is shown that an alert's expression finds the series of a running fleet.
enum Shown {
    /// It compares a number with a threshold: with one that everything exceeds it returns data of a healthy fleet.
    Wide,
    /// By its nature it returns nothing where all is well: it does in this fault.
    In(&'static str),
}

const SHOWN: [(&str, Shown); 20] = [
    ("SiemAgentDeliveryLag", Shown::Wide),
    ("SiemAgentRecordsRejected", Shown::Wide),
    ("SiemAgentRetentionGap", Shown::Wide),
    ("SiemAgentCertificateExpiring", Shown::Wide),
    ("SiemAgentCheckpointNotSaved", Shown::Wide),
    ("SiemAgentReconcileErrors", Shown::Wide),
    ("SiemAgentTokenInvalid", Shown::In("the token of `revoked` is taken back")),
    ("SiemAgentTargetUnreachable", Shown::In("the SIEM of `away` is stopped")),
    ("SiemAgentSourceUnreachable", Shown::In("nothing listens where `dark` has its portal")),
    ("SiemAgentSourceThrottled", Shown::In("the portal of `throttled` answers 429 only")),
    ("SiemAgentNotReady", Shown::In("the image of `broken` cannot be pulled")),
    ("SiemAgentReportsMissing", Shown::In("what runs for `mute` is ready and reports nothing")),
    ("SiemAgentDisconnected", Shown::In("`dark` is made to have been away for 13 hours")),
    ("SiemAgentDuplicateExport", Shown::In("`unseen` and `mute` export the same")),
    ("SiemAgentForwarderDown", Shown::In("`unseen` is not scraped")),
    ("SiemAgentOperatorReplicaDown", Shown::In("the operator that does not lead is killed")),
    ("SiemAgentOperatorDown", Shown::In("the other one is killed too")),
    ("SiemAgentOperatorWithoutLeader", Shown::In("the Lease of the killed one has not ended yet")),
    ("SiemAgentRolloutHalted", Shown::In("the last operator brings an image that nobody has")),
    (
        "SiemAgentCrdOutdated",
        Shown::In("a field is taken out of the CRD before the next one starts"),
    ),
];

/// What is waited for here; a quarter of an hour becomes seconds.
fn short(more: Value) -> Value {
    let mut thresholds = json!({
        "hold": "10s",
        "lag": {
            // Longer than a pod takes to be another.
            "alerts": {"warningSeconds": 40, "criticalSeconds": 50},
            "activities": {"warningSeconds": 40, "criticalSeconds": 50},
            "horizonSeconds": 10,
        },
        "certificate": {"warningSeconds": 3600, "criticalSeconds": 1800},
        // As in what ships, longer than `hold`: what is seen once is believed for so long.
        "for": {
            "SiemAgentDeliveryLag": "12s", "SiemAgentTokenInvalid": "12s", "SiemAgentTargetUnreachable": "20s",
            "SiemAgentOperatorDown": "10s", "SiemAgentRecordsRejected": "0s", "SiemAgentRetentionGap": "0s",
        },
    });
    // Those whose expressions are shown by agents that are broken from the first: they need not fire for it.
    for name in [
        "SiemAgentSourceUnreachable",
        "SiemAgentSourceThrottled",
        "SiemAgentNotReady",
        "SiemAgentReportsMissing",
        "SiemAgentDisconnected",
        "SiemAgentDuplicateExport",
        "SiemAgentForwarderDown",
        "SiemAgentOperatorReplicaDown",
        "SiemAgentOperatorWithoutLeader",
        "SiemAgentCrdOutdated",
        "SiemAgentRolloutHalted",
    ] {
        thresholds["for"][name] = json!("1h");
    }
    if let (Some(all), Value::Object(more)) = (thresholds.as_object_mut(), more) {
        all.extend(more);
    }
    json!({"monitoring": {"rules": {"thresholds": thresholds}}})
}

fn wide() -> Value {
    let lag = json!({"warningSeconds": -1, "criticalSeconds": -1});
    let ever = 100 * 365 * 86_400_u64;
    short(json!({
        "lag": {"alerts": lag, "activities": lag, "horizonSeconds": 1_000_000},
        "certificate": {"warningSeconds": ever, "criticalSeconds": ever},
        "rejected": {"records": -1, "window": "1h"},
        "gap": {"seconds": -1, "window": "1h"},
        "unsaved": {"failures": -1, "window": "15m", "seconds": -1_000},
        "reconcileErrors": {"count": -1, "window": "15m"},
    }))
}

/// Asks for every expression again and again, until each has returned data once.
struct Seeker {
    pending: watch::Receiver<BTreeMap<String, String>>,
    task: JoinHandle<Result<()>>,
}

impl Drop for Seeker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seeker {
    fn start(prometheus: Arc<Prometheus>, expressions: BTreeMap<String, String>) -> Self {
        let (report, pending) = watch::channel(expressions.clone());
        let task = tokio::spawn(async move {
            let mut expressions = expressions;
            while !expressions.is_empty() {
                for (label, expression) in expressions.clone() {
                    let samples = prometheus.query(&expression).await?;
                    if samples.iter().any(|sample| sample.value.is_finite()) {
                        expressions.remove(&label);
                    }
                }
                report.send_replace(expressions.clone());
                sleep(LOOK * 4).await;
            }
            Ok(())
        });
        Self { pending, task }
    }

    /// Waits until all whose label begins so have returned data.
    async fn found(&mut self, begins: &str) -> Result<()> {
        let is_found = |pending: &BTreeMap<String, String>| {
            !pending.keys().any(|label| label.starts_with(begins))
        };
        let wait = tokio::time::timeout(2 * PATIENCE, self.pending.wait_for(is_found));
        if matches!(wait.await, Ok(Ok(_))) {
            return Ok(());
        }
        if self.task.is_finished() {
            (&mut self.task).await??;
        }
        let missing = self.pending.borrow().clone();
        ensure!(is_found(&missing), "no data: {missing:#?}");
        Ok(())
    }
}

/// Every expression of rules and dashboard.
async fn expressions(namespace: &str, rendered: &str) -> Result<BTreeMap<String, String>> {
    let wide = rules(&render(namespace, &wide(), &["--skip-schema-validation"]).await?)?;
    let mut all: BTreeMap<_, _> = dashboard::expressions()?.into_iter().collect();
    let mut named = BTreeSet::new();
    for (at, (rule, wide)) in rules(rendered)?.iter().zip(&wide).enumerate() {
        let expression = |rule: &Value| rule["expr"].as_str().unwrap_or_default().to_owned();
        let Some(name) = rule["alert"].as_str() else {
            all.insert(format!("record: {}", rule["record"]), expression(rule));
            continue;
        };
        named.insert(name.to_owned());
        let how = SHOWN.iter().find(|(known, _)| *known == name);
        match how.with_context(|| format!("say how {name} is shown"))?.1 {
            Shown::Wide => all.insert(format!("wide: {name} {at}"), expression(wide)),
            Shown::In(fault) => all.insert(format!("{name}: {fault}"), expression(rule)),
        };
    }
    ensure!(named.len() == SHOWN.len(), "all that are said to be shown are: {named:?}");
    Ok(all)
}

#[tokio::test]
async fn each_fault_pages_once_and_is_over_when_it_is_mended() -> Result<()> {
    let mut fleet = Fleet::start().await?;
    let rendered = render(&fleet.scene.namespace, &short(json!({})), &[]).await?;
    fleet.watch(&rendered).await?;
    let prometheus = fleet.prometheus()?;
    let mut seeker = Seeker::start(
        Arc::clone(&prometheus),
        expressions(&fleet.scene.namespace, &rendered).await?,
    );

    // Where all is well every rule is evaluated, and none has anything to say of these.
    seeker.found("record: ").await?;
    seeker.found("wide: ").await?;
    for rule in prometheus.rules().await? {
        ensure!(rule["health"] == "ok", "{rule:#}");
    }
    for alert in prometheus.alerts().await? {
        let name = alert["labels"]["name"].as_str().unwrap_or_default();
        ensure!(!["soc", "away", "revoked"].contains(&name), "{alert:#}");
    }
    // Another configuration is another pod: a roll-out.
    fleet.apply("soc", "  forwarder: {podLabels: {rolled: out}}\n").await?;

    // The SIEM is stopped, the token is revoked.
    fleet.siem_of_away.end(Signal::SIGKILL)?;
    fleet.revoked.set_token(NEXT_TOKEN);
    fleet.pager.until_told("SiemAgentTargetUnreachable", "away", true).await?;
    fleet.pager.until_told("SiemAgentTokenInvalid", "revoked", true).await?;
    for (alert, said) in [
        ("SiemAgentTargetUnreachable", "/away: the SIEM is unreachable"),
        ("SiemAgentTokenInvalid", "/revoked: its token or application is refused"),
    ] {
        let annotations = fleet.pager.annotations(alert).context("find what was told")?;
        let summary = annotations["summary"].as_str().unwrap_or_default().to_owned();
        ensure!(summary.contains(said), "{summary}");
    }
    // What comes of it fires as well, up to critical; nobody is told.
    for name in ["away", "revoked"] {
        fleet.until_fires("SiemAgentDeliveryLag", name, "critical").await?;
    }
    fleet.scene.until_ready_is("soc", "Delivering").await?;
    fleet.siem_of_away.again().await?;
    fleet.token("revoked", NEXT_TOKEN).await?;
    fleet.pager.until_told("SiemAgentTargetUnreachable", "away", false).await?;
    fleet.pager.until_told("SiemAgentTokenInvalid", "revoked", false).await?;
    fleet.until_quiet(&["soc", "away", "revoked", "unseen"]).await?;

    // What was broken from the first has had its minute.
    for alert in [
        "SiemAgentSource",
        "SiemAgentNotReady",
        "SiemAgentReportsMissing",
        "SiemAgentDuplicateExport",
        "SiemAgentForwarderDown",
    ] {
        seeker.found(alert).await?;
    }
    seeker.found("dashboard: ").await?;
    disconnect(&fleet).await?;
    seeker.found("SiemAgentDisconnected").await?;
    fleet.are_listed().await?;

    // The operator is killed: first the replica, then the one that leads.
    fleet.take_a_field_out_of_the_crd().await?;
    fleet.kill_operator("b")?;
    seeker.found("SiemAgentOperatorReplicaDown").await?;
    fleet.kill_operator("a")?;
    fleet.pager.until_told("SiemAgentOperatorDown", "", true).await?;
    fleet.start_operator("c", "forwarder:1").await?;
    seeker.found("SiemAgentCrdOutdated").await?;
    fleet.put_the_crd_right().await?;
    fleet.pager.until_told("SiemAgentOperatorDown", "", false).await?;
    seeker.found("SiemAgentOperator").await?;
    fleet.until("max(siemagent_operator_crd_outdated) == 0").await?;

    // Each was told once when it began and once when it was over, and nothing else was; but for those that were broken
    // from the first, and are late. Of what is not scraped only the operator's reports are known, too rare for thresholds
    // of seconds.
    let mut told: Vec<_> = fleet
        .pager
        .told()
        .into_iter()
        .filter(|told| {
            !["dark", "throttled", "broken", "mute", "unseen"].contains(&told.name.as_str())
        })
        .map(|told| {
            format!("{} {} {}", told.alert, told.name, if told.fires { "fires" } else { "is over" })
        })
        .collect();
    told.sort();
    let expected = [
        "SiemAgentOperatorDown  fires",
        "SiemAgentOperatorDown  is over",
        "SiemAgentTargetUnreachable away fires",
        "SiemAgentTargetUnreachable away is over",
        "SiemAgentTokenInvalid revoked fires",
        "SiemAgentTokenInvalid revoked is over",
    ];
    assert_eq!(told, expected);

    // Another operator brings another release, which one agent of those that are well cannot run.
    fleet.kill_operator("c")?;
    fleet.start_operator("d", "nowhere:2").await?;
    seeker.found("").await
}

/// Says in the status of `dark` that it has been away for thirteen hours; the operator counts from there.
async fn disconnect(fleet: &Fleet) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let agent = fleet.scene.until("siemagent/dark", |_| true).await?;
        if agent["status"]["state"] == "Disconnected" {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{:#}", agent["status"]);
        ensure!(condition(&agent, "Delivering")["status"] == "False", "{:#}", agent["status"]);
        let long_ago = siem_agent_sim::clock::millis() - 13 * 3_600_000;
        let long_ago = jiff::Timestamp::from_millisecond(long_ago - long_ago % 1000)?.to_string();
        let mut conditions = agent["status"]["conditions"].clone();
        for condition in conditions.as_array_mut().into_iter().flatten() {
            condition["lastTransitionTime"] = json!(long_ago);
        }
        let patch = json!({"status": {"state": "Connected", "conditions": conditions}}).to_string();
        let arguments =
            ["patch", "siemagent/dark", "--subresource=status", "--type=merge", "-p", &patch];
        fleet.scene.kubectl(&arguments, "").await?;
        sleep(LOOK * 20).await;
    }
}
