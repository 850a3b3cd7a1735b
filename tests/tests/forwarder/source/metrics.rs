//! `docs/metrics.md` names every series that `/metrics` shows, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use siem_agent_tests::prometheus::check_metrics;

use super::world::{Manifest, World, tenant};

#[tokio::test]
async fn the_documented_metrics_are_those_that_are_there() -> Result<()> {
    let world = World::start(tenant(60, 60), &Manifest::default()).await?;
    world.all_delivered().await?;
    // By then a whole page has said what time it is at the API.
    world.until_asked("activities", 2).await?;
    let shown = world.forwarder.get("metrics").await?;
    let rejects = r#"siem_forwarder_records_rejected_total{stream="alerts",reason="missing_id"} 0"#;
    ensure!(shown.contains(rejects), "there before the first of them: {shown}");
    check_metrics(&world.forwarder.url("metrics")).await?;
    let families = shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut shown: BTreeSet<String> = families
        .filter(|(name, _)| !name.starts_with("process_"))
        .map(|(name, _)| name.to_owned())
        .collect();
    // A connection that ended, and one with certificates.
    for other in ["target_disconnects_total", "tls_certificate_not_after_timestamp_seconds"] {
        shown.insert(format!("siem_forwarder_{other}"));
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let page = fs::read_to_string(page)?;
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `siem_forwarder_")?.split(['{', '`']).next())
        .map(|name| format!("siem_forwarder_{name}"))
        .collect();
    assert_eq!(shown, documented);
    Ok(())
}
