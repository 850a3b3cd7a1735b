//! The alerts and the dashboard: what is promised of each, unit tests by promtool, and all of them at work.

mod dashboard;
mod live;
mod metrics;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use siem_agent_tests::alert_rules::{document, file, render, rules, text};
use siem_agent_tests::prometheus::{Alertmanager, amtool, promtool};
use tokio::time::{Instant, sleep};

/// The rules with their default values, for whoever has no Prometheus Operator.
const PLAIN: &str = "deploy/prometheus/alerts.yaml";
const UNIT_TESTS: [&str; 4] = ["delivery", "forwarder", "operator", "quiet"];

fn unit_test(name: &str) -> String {
    format!("tests/prometheus/{name}.yaml")
}

fn alerts(text: &str) -> Result<Vec<Value>> {
    let alerts = rules(text)?.into_iter().filter(|rule| rule["alert"].is_string());
    Ok(alerts.collect())
}

fn name(alert: &Value) -> String {
    alert["alert"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
async fn the_plain_rules_are_the_charts_own() -> Result<()> {
    const HEAD: &str = "\
# The alerts for a Prometheus without the Prometheus Operator, for an operator in the namespace siem-system: what the chart
# renders with its defaults. For another namespace, or other thresholds, take what stands below `spec:` of
#   helm template siem-agent-operator charts/siem-agent-operator --namespace NAMESPACE --values VALUES \\
#     --set monitoring.renderMode=alwaysRender --show-only templates/prometheusrule.yaml
";
    let rendered = HEAD.to_owned() + &render("siem-system", &json!({}), &[]).await?;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(file(PLAIN), &rendered)?;
    }
    ensure!(text(PLAIN)? == rendered, "{PLAIN} is stale: UPDATE_EXPECT=1 cargo test --test alerts");
    promtool(&["check", "rules", "--lint-fatal", &file(PLAIN).display().to_string()]).await?;
    Ok(())
}

#[test]
fn what_is_believed_for_a_while_must_be_so_for_longer() -> Result<()> {
    let minutes = |text: &Value| -> Option<u32> { text.as_str()?.strip_suffix('m')?.parse().ok() };
    let mut n_alerts = 0;
    for alert in alerts(&text(PLAIN)?)? {
        let expression = alert["expr"].as_str().unwrap_or_default();
        if expression.contains("[3m]") || expression.contains("siemagent:") {
            let name = name(&alert);
            ensure!(minutes(&alert["for"]) > Some(3), "one scrape would do for {name}");
            n_alerts += 1;
        }
    }
    ensure!(n_alerts > 8, "{n_alerts}");
    Ok(())
}

#[tokio::test]
async fn rules_are_narrowed_labelled_and_left_out_by_values() -> Result<()> {
    let values = json!({
        "watchNamespaces": ["red", "blue"],
        "monitoring": {"rules": {
            "labels": {"team": "soc"},
            "disabled": ["SiemAgentCrdOutdated", "SiemAgentDeliveryLag"],
            "runbookUrl": "https://wiki.example.com/runbooks",
            "thresholds": {"certificate": {"warningSeconds": 86_400}, "for": {"SiemAgentTokenInvalid": "1m"}},
        }},
    });
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rules.yaml");
    let rendered = render("one", &values, &[]).await?;
    std::fs::write(&path, &rendered)?;
    promtool(&["check", "rules", "--lint-fatal", &path.display().to_string()]).await?;
    let default = alerts(&text(PLAIN)?)?;
    let narrowed = alerts(&rendered)?;
    let names = |alerts: &[Value]| alerts.iter().map(name).collect::<BTreeSet<_>>();
    let left_out: Vec<_> = names(&default).difference(&names(&narrowed)).cloned().collect();
    assert_eq!(left_out, ["SiemAgentCrdOutdated", "SiemAgentDeliveryLag"]);
    for rule in rules(&rendered)? {
        let expression = rule["expr"].as_str().unwrap_or_default();
        // Of two releases beside each other, each speaks of its own agents and its own operator only.
        for selector in selectors(expression) {
            let is_own = selector.contains("namespace=~\"red|blue\"")
                || selector.contains("namespace=\"one\"");
            // What is joined to a series that is narrowed need not be.
            let is_joined = expression.contains(&format!("on (namespace, name) {selector}"));
            ensure!(is_own || is_joined, "{selector} of {expression}");
        }
    }
    for alert in &narrowed {
        assert_eq!(alert["labels"]["team"], "soc", "{}", name(alert));
        let page = format!("https://wiki.example.com/runbooks/{}.md", name(alert));
        assert_eq!(alert["annotations"]["runbook_url"], page);
    }
    let token = narrowed.iter().find(|alert| name(alert) == "SiemAgentTokenInvalid");
    assert_eq!(token.context("find it")?["for"], "1m");
    Ok(())
}

/// The metrics of an expression, each with its braces where it has some.
fn selectors(expression: &str) -> Vec<String> {
    let metric = |text: &str| {
        ["siem", "controller_runtime_", "leader_", "up"].iter().any(|begin| text.starts_with(begin))
    };
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(|char: char| char.is_ascii_alphabetic()) {
        rest = &rest[at..];
        let is_part = |char: char| char.is_ascii_alphanumeric() || "_:".contains(char);
        let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
        let braces = rest[end..].starts_with('{').then(|| rest[end..].find('}')).flatten();
        let whole = &rest[..end + braces.map_or(0, |braces| braces + 1)];
        if metric(whole) {
            found.push(whole.to_owned());
        }
        rest = &rest[whole.len()..];
    }
    found
}

#[test]
fn every_alert_says_who_what_and_where_to_read_on() -> Result<()> {
    let documented = text("docs/metrics.md")?;
    let alerts = alerts(&text(PLAIN)?)?;
    ensure!(alerts.len() > 15, "{} alerts", alerts.len());
    for alert in &alerts {
        let name = name(alert);
        let annotation = |what: &str| alert["annotations"][what].as_str().unwrap_or_default();
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["critical", "warning"].contains(&severity), "{name}: {severity}");
        let summary = annotation("summary");
        let of_agent = "SiemAgent {{ $labels.namespace }}/{{ $labels.name }}";
        let of_operator = "siem-agent-operator in {{ $labels.namespace }}";
        ensure!(summary.starts_with(of_agent) || summary.starts_with(of_operator), "{summary}");
        ensure!(annotation("description").ends_with(['.', '}']), "{name} is described");
        let page = format!("docs/runbooks/{name}.md");
        ensure!(annotation("runbook_url").ends_with(&format!("/{page}")), "{name}: runbook_url");
        let page = text(&page)?;
        ensure!(page.starts_with(&format!("# {name}\n")), "the page of {name} has its name");
        let sections =
            ["\n## What it means\n", "\n## What to run\n", "\n```sh\n", "\n## What to do\n"];
        let mut rest = page.as_str();
        for section in sections {
            rest = rest.split_once(section).with_context(|| format!("{name}: {section}"))?.1;
        }
        let row = format!("| [{name}](runbooks/{name}.md) | ");
        let row = documented.lines().find(|line| line.starts_with(&row));
        let row = row.with_context(|| format!("docs/metrics.md has no row for {name}"))?;
        ensure!(row.contains(severity), "{row}: {severity}");
    }
    let names: BTreeSet<_> = alerts.iter().map(name).collect();
    let values = document("charts/siem-agent-operator/values.yaml")?;
    let waits = values["monitoring"]["rules"]["thresholds"]["for"].as_object();
    let waits: BTreeSet<String> = waits.context("for")?.keys().cloned().collect();
    assert_eq!(waits, names, "how long each waits is a value");
    let schema = document("charts/siem-agent-operator/values.schema.json")?;
    let can_be_left_out = schema
        .pointer("/properties/monitoring/properties/rules/properties/disabled/items/enum")
        .context("the names in the schema")?;
    let can_be_left_out: BTreeSet<String> = serde_json::from_value(can_be_left_out.clone())?;
    assert_eq!(can_be_left_out, names, "each can be left out by its name");
    for entry in std::fs::read_dir(file("docs/runbooks"))? {
        let page = entry?.file_name().to_string_lossy().replace(".md", "");
        ensure!(
            page == "README" || names.contains(&page),
            "docs/runbooks/{page}.md is of no alert"
        );
    }
    Ok(())
}

#[tokio::test]
async fn every_alert_is_shown_to_fire_and_not_to_fire() -> Result<()> {
    let paths = UNIT_TESTS.map(|name| file(&unit_test(name)).display().to_string());
    let mut arguments = vec!["test", "rules"];
    arguments.extend(paths.iter().map(String::as_str));
    promtool(&arguments).await?;

    // By severity, and where it may fire and does not; of those that no test speaks of nothing is known.
    let (mut fires, mut rests) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for file in UNIT_TESTS {
        let tests = document(&unit_test(file))?;
        for test in tests["tests"].as_array().into_iter().flatten() {
            for expected in test["alert_rule_test"].as_array().into_iter().flatten() {
                let name = expected["alertname"].as_str().unwrap_or_default().to_owned();
                let found = expected["exp_alerts"].as_array().cloned().unwrap_or_default();
                if found.is_empty() {
                    rests.entry(name.clone()).or_default().insert(file.to_owned());
                }
                for alert in found {
                    let severity = alert["exp_labels"]["severity"].as_str().unwrap_or_default();
                    fires.insert((name.clone(), severity.to_owned()));
                }
            }
        }
    }
    let alerts = alerts(&text(PLAIN)?)?;
    let known: BTreeSet<_> = alerts.iter().map(name).collect();
    let asked: BTreeSet<_> = rests.keys().chain(fires.iter().map(|(name, _)| name)).collect();
    for name in asked {
        // promtool finds every alert that does not exist quiet.
        ensure!(known.contains(name), "a test asks for {name}, which no rule has");
    }
    for alert in alerts {
        let name = name(&alert);
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default().to_owned();
        ensure!(
            fires.contains(&(name.clone(), severity)),
            "no test shows that {name} fires: {fires:?}"
        );
        let rests = rests.get(&name).cloned().unwrap_or_default();
        ensure!(rests.contains("quiet"), "no test shows that {name} is quiet where all is well");
        ensure!(rests.len() > 1, "no test shows that {name} waits before it fires");
    }
    Ok(())
}

#[tokio::test]
async fn the_plain_scrape_configuration_is_read() -> Result<()> {
    promtool(&[
        "check",
        "config",
        "--lint-fatal",
        &file("deploy/prometheus/scrape.yaml").display().to_string(),
    ])
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_cause_silences_what_comes_of_it_and_nothing_else() -> Result<()> {
    const SAMPLE: &str = "deploy/prometheus/alertmanager.yaml";
    amtool(&["check-config", &file(SAMPLE).display().to_string()])?;
    let alertmanager = Alertmanager::start(&document(SAMPLE)?).await?;
    let alert = |name: &str, severity: &str, agent: &str, stream: &str| json!({"alertname": name, "severity": severity, "namespace": "security", "name": agent, "stream": stream});
    let all = [
        // The SIEM of one is away, for so long that all that follows has followed.
        ("SiemAgentTargetUnreachable", "critical", "away", "", true),
        ("SiemAgentDeliveryLag", "warning", "away", "alerts", false),
        ("SiemAgentDeliveryLag", "critical", "away", "alerts", false),
        ("SiemAgentDisconnected", "critical", "away", "", false),
        ("SiemAgentCertificateExpiring", "critical", "away", "", false),
        ("SiemAgentRecordsRejected", "warning", "away", "", true),
        // Another is late, and nobody knows why.
        ("SiemAgentDeliveryLag", "warning", "late", "alerts", false),
        ("SiemAgentDeliveryLag", "critical", "late", "alerts", true),
        ("SiemAgentDeliveryLag", "warning", "late", "activities", true),
        // A third is throttled, and late for it: a warning is enough, but not for an hour.
        ("SiemAgentSourceThrottled", "warning", "throttled", "", true),
        ("SiemAgentDeliveryLag", "warning", "throttled", "alerts", false),
        ("SiemAgentDeliveryLag", "critical", "throttled", "activities", true),
        // What only warns never silences what pages; after half a day both give way to one page.
        ("SiemAgentReportsMissing", "warning", "mute", "", true),
        ("SiemAgentDeliveryLag", "warning", "mute", "alerts", false),
        ("SiemAgentDeliveryLag", "critical", "mute", "activities", true),
        ("SiemAgentReportsMissing", "warning", "lost", "", false),
        ("SiemAgentDeliveryLag", "critical", "lost", "activities", false),
        ("SiemAgentDisconnected", "critical", "lost", "", true),
        ("SiemAgentSourceThrottled", "warning", "refused", "", false),
        ("SiemAgentDeliveryLag", "warning", "refused", "alerts", false),
        ("SiemAgentDeliveryLag", "critical", "refused", "alerts", false),
        ("SiemAgentDisconnected", "critical", "refused", "", true),
    ];
    let posted: Vec<_> = all
        .iter()
        .map(|(name, severity, agent, stream, _)| alert(name, severity, agent, stream))
        .collect();
    alertmanager.post(&posted).await?;
    let told = |told: &(&str, &str, &str, &str, bool)| told.4;
    let expected: BTreeSet<String> = all
        .iter()
        .filter(|alert| told(alert))
        .map(|(name, severity, agent, stream, _)| format!("{name} {severity} {agent} {stream}"))
        .collect();
    let until = Instant::now() + siem_agent_sim::forwarder::PATIENCE;
    loop {
        let label =
            |labels: &Value, name: &str| labels[name].as_str().unwrap_or_default().to_owned();
        let active: BTreeSet<String> = alertmanager
            .active()
            .await?
            .iter()
            .map(|labels| {
                ["alertname", "severity", "name", "stream"]
                    .map(|name| label(labels, name))
                    .join(" ")
            })
            .collect();
        if active == expected {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{active:#?} instead of {expected:#?}: {}",
            alertmanager.log()
        );
        sleep(siem_agent_sim::forwarder::LOOK).await;
    }
}
