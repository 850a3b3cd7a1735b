//! The metrics as programs show them, as `docs/metrics.md` lists them, and as the contract names them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use siem_agent_tests::alert_rules::text;

/// Names that users' tools depend on, with their labels.
const CONTRACT: [&str; 31] = [
    "siem_forwarder_delivered_through_timestamp_seconds{stream}",
    "siem_forwarder_delivery_lag_seconds{stream}",
    "siem_forwarder_token_valid",
    "siem_forwarder_target_up",
    "siem_forwarder_records_received_total{stream}",
    "siem_forwarder_records_delivered_total{stream}",
    "siem_forwarder_records_rejected_total{stream,reason}",
    "siem_forwarder_records_resent_total",
    "siem_forwarder_records_late_total{stream}",
    "siem_forwarder_records_filtered_total{stream}",
    "siem_forwarder_records_repeated_total{stream}",
    "siem_forwarder_records_trimmed_total{stream}",
    "siem_forwarder_gap_seconds_total{stream}",
    "siem_forwarder_event_latency_seconds{stream}",
    "siem_forwarder_source_requests_total{stream,code}",
    "siem_forwarder_build_info{version}",
    "siemagent_delivered_through_timestamp_seconds{namespace,name,stream}",
    "siemagent_delivery_lag_seconds{namespace,name,stream}",
    "siemagent_token_valid{namespace,name}",
    "siemagent_condition{namespace,name,type,status}",
    "siemagent_state{namespace,name,state}",
    "siemagent_records_delivered_total{namespace,name,stream}",
    "siemagent_records_rejected_total{namespace,name,stream}",
    "siemagent_operator_build_info{version}",
    "siemagent_info{namespace,name,format,protocol,image}",
    "controller_runtime_reconcile_total{controller,result}",
    "workqueue_depth{controller,name}",
    "rest_client_requests_total{code,method,host}",
    "leader_election_master_status{name}",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
];

/// Metrics by name, each with its labels.
pub(super) type Shown = BTreeMap<String, BTreeSet<String>>;

/// What a program shows, as one of Prometheus' texts; of a histogram only the name.
pub(super) fn shown(text: &str) -> Result<Shown> {
    let histograms: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"))
        .collect();
    let mut shown = Shown::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').with_context(|| format!("read {line}"))?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let base = base.filter(|base| histograms.contains(base)).unwrap_or(name);
        let all = shown.entry(base.to_owned()).or_default();
        // A value may hold commas, but a label's name stands before `="`.
        for part in labels.split("=\"").filter(|part| !part.is_empty()) {
            let label = part.rsplit([',', '{', '"']).next().unwrap_or_default();
            if !label.is_empty() && !label.contains('}') && !["le", "quantile"].contains(&label) {
                all.insert(label.to_owned());
            }
        }
    }
    Ok(shown)
}

fn named(name: &str) -> (String, BTreeSet<String>) {
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
    (name.to_owned(), labels.map(str::to_owned).collect())
}

/// What the page lists under a heading.
fn documented(heading: &str) -> Result<Shown> {
    let page = text("docs/metrics.md")?;
    let (_, after) = page.split_once(&format!("\n## {heading}\n")).context("find the heading")?;
    let section = after.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut listed = Shown::new();
    for row in rows {
        let (name, labels) = named(row);
        ensure!(listed.insert(name, labels).is_none(), "{row} is listed twice");
    }
    ensure!(!listed.is_empty(), "{heading} lists nothing");
    Ok(listed)
}

/// Compares what is shown with what is listed, both ways.
pub(super) fn are_listed(shown: &Shown, heading: &str) -> Result<()> {
    let mut listed = documented(heading)?;
    listed.extend(documented("Both")?);
    let texts = |metrics: &Shown| -> BTreeSet<String> {
        metrics.iter().map(|(name, labels)| format!("{name}{labels:?}")).collect()
    };
    let (shown, listed) = (texts(shown), texts(&listed));
    let unlisted: Vec<_> = shown.difference(&listed).collect();
    let unshown: Vec<_> = listed.difference(&shown).collect();
    ensure!(
        unlisted.is_empty() && unshown.is_empty(),
        "docs/metrics.md, {heading}: not listed so: {unlisted:#?}; not shown so: {unshown:#?}"
    );
    Ok(())
}

#[test]
fn the_page_lists_what_the_contract_names() -> Result<()> {
    let mut listed = documented("The forwarder")?;
    listed.extend(documented("The operator")?);
    listed.extend(documented("Both")?);
    for name in CONTRACT {
        let (name, labels) = named(name);
        assert_eq!(listed.get(&name), Some(&labels), "{name}");
    }
    Ok(())
}
