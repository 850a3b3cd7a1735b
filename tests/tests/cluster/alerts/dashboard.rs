//! The dashboard's shape, as Grafana's classic model has it, and its expressions.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use siem_agent_tests::alert_rules::document;

const DASHBOARD: &str = "charts/siem-agent-operator/files/dashboard.json";
/// Columns of Grafana's grid.
const WIDTH: u64 = 24;

/// Every expression, under the title of its panel, with variables as somebody sees them who has chosen all.
pub(super) fn expressions() -> Result<Vec<(String, String)>> {
    let dashboard = document(DASHBOARD)?;
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        let title = panel["title"].as_str().unwrap_or_default();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap_or_default();
            let label =
                format!("dashboard: {title} {}", target["refId"].as_str().unwrap_or_default());
            // As Grafana does; four scrapes are its own least interval of a rate.
            let chosen = ["$namespace", "$name", "$operator"]
                .iter()
                .fold(expression.to_owned(), |text, variable| text.replace(variable, ".*"));
            found.push((label, chosen.replace("$__rate_interval", "10s")));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().into_iter().flatten() {
        // `label_values(SERIES, LABEL)` is Grafana's own; what it asks is the series with this label.
        let query = variable["definition"].as_str().unwrap_or_default();
        if let Some((series, label)) = query
            .strip_prefix("label_values(")
            .and_then(|rest| rest.trim_end_matches(')').rsplit_once(", "))
        {
            let series = series.replace("$namespace", ".*");
            found.push((
                format!("dashboard: variable {query}"),
                format!("count by ({label}) ({series})"),
            ));
        }
    }
    Ok(found)
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() -> Result<()> {
    let dashboard = document(DASHBOARD)?;
    ensure!(dashboard["schemaVersion"].as_u64() >= Some(39), "a schema of Grafana 11 or newer");
    assert_eq!(dashboard["uid"], "siem-agent-operator");
    assert_eq!(dashboard["id"], Value::Null, "Grafana gives it");
    for field in ["title", "description", "refresh", "timezone"] {
        ensure!(dashboard[field].is_string(), "{field}");
    }
    let variables = dashboard["templating"]["list"].as_array().cloned().unwrap_or_default();
    let named = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    assert_eq!(named("datasource").context("datasource")?["type"], "datasource");
    assert_eq!(named("datasource").context("datasource")?["query"], "prometheus");
    for name in ["namespace", "name", "operator"] {
        let variable = named(name).with_context(|| name.to_owned())?;
        assert_eq!(variable["type"], "query", "{name}");
        assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}");
        assert_eq!(variable["allValue"], ".*", "{name}");
    }
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    for panel in &panels {
        let title = panel["title"].as_str().filter(|title| !title.is_empty()).context("a title")?;
        ensure!(ids.insert(panel["id"].as_u64().context("an id")?), "{title}: its id is taken");
        let grid = |side: &str| panel["gridPos"][side].as_u64().context("a place");
        let (x, y, width, height) = (grid("x")?, grid("y")?, grid("w")?, grid("h")?);
        ensure!(x + width <= WIDTH && height > 0, "{title} is on the grid");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            ensure!(cells.insert(cell), "{title} lies on another panel");
        }
        let kind = panel["type"].as_str().unwrap_or_default();
        if kind == "row" {
            continue;
        }
        ensure!(["stat", "table", "timeseries"].contains(&kind), "{title}: {kind}");
        ensure!(panel["description"].is_string(), "{title} is described");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        ensure!(panel["fieldConfig"]["defaults"].is_object(), "{title}: fieldConfig");
        ensure!(panel["options"].is_object(), "{title}: options");
        let targets = panel["targets"].as_array().context("targets")?;
        ensure!(!targets.is_empty(), "{title} shows something");
        let mut references = BTreeSet::new();
        for target in targets {
            ensure!(references.insert(target["refId"].to_string()), "{title}: refId");
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let expression = target["expr"].as_str().unwrap_or_default();
            let chooses = ["namespace=~\"$namespace\",name=~\"$name\"", "namespace=~\"$operator\""];
            ensure!(
                chooses.iter().any(|chosen| expression.contains(chosen)),
                "{title}: {expression}"
            );
        }
    }
    let titles: BTreeSet<_> = panels.iter().filter_map(|panel| panel["title"].as_str()).collect();
    let wanted = [
        "Agents by state",
        "Lag by agent and stream",
        "Throughput",
        "Latency",
        "Token",
        "API budget used",
        "Sent again",
        "Rejected",
        "Passes",
        "Failed passes",
    ];
    for title in wanted {
        ensure!(titles.contains(title), "{title} is missing: {titles:?}");
    }
    Ok(())
}
