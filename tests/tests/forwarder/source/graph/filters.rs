//! The typed filters and `where`: what is wanted arrives and nothing else, and what Graph can filter it does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::arrival;
use siem_agent_sim::eventually::eventually;
use siem_agent_sim::forwarder::PATIENCE;

use super::{QUICK, n_delivered, prepare_with, rendered, tenant};
use crate::source::world::World;

/// A record at Graph, and its line.
struct Record {
    json: Value,
    line: String,
}

impl Record {
    /// A column or field as text, whatever its type.
    fn text(&self, name: &str) -> String {
        match &self.json[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    fn is_one_of(&self, name: &str, values: &[&str]) -> bool {
        values.contains(&self.text(name).as_str())
    }

    /// Whether the line's user is one of these, whatever the case.
    fn is_of(&self, users: &BTreeSet<String>) -> bool {
        let user = self.line.split(" suser=").nth(1).and_then(|rest| rest.split(' ').next());
        user.is_some_and(|user| users.contains(&user.to_lowercase()))
    }
}

/// Everything that Graph has of a stream.
fn records(world: &World, stream: Stream) -> Result<Vec<Record>> {
    let lines: BTreeMap<String, String> = rendered(world, stream)?
        .into_iter()
        .filter_map(|line| Some((arrival::id(&line)?.to_owned(), line)))
        .collect();
    let records = world.defender.graph_records(stream).into_iter().map(|json| {
        let json: Value = serde_json::from_str(&json)?;
        let id = json["ReportId"].as_str().or_else(|| json["providerAlertId"].as_str());
        let line = lines.get(id.context("an id")?).context("a line")?.clone();
        Ok(Record { json, line })
    });
    records.collect()
}

/// Exactly what is wanted of a stream arrives; Graph shows some that are not only where it cannot filter.
async fn exactly(
    filters: &str,
    (stream, other): (Stream, Stream),
    is_filtered_there: bool,
    is_wanted: impl Fn(&Record) -> bool,
) -> Result<()> {
    let more =
        format!("  eventTypes: {{{stream}: {{filter: {filters}}}, {other}: {{enabled: false}}}}\n");
    let mut world = prepare_with(tenant(900, 500), QUICK, &more).await?;
    let all = records(&world, stream)?;
    let wanted = all.iter().filter(|record| is_wanted(record));
    let wanted: BTreeSet<String> = wanted.map(|record| record.line.clone()).collect();
    ensure!(!wanted.is_empty() && wanted.len() < all.len(), "{filters}: {} wanted", wanted.len());
    world.forwarder.start().await?;
    eventually(PATIENCE, async || {
        let n_delivered = n_delivered(&world, stream);
        ensure!(n_delivered >= wanted.len(), "{n_delivered} of {}", wanted.len());
        Ok(())
    })
    .await
    .with_context(|| format!("{filters}: {}", world.forwarder.log().unwrap_or_default()))?;
    let what = if stream == Stream::Alerts { "graph-alerts" } else { "graph-hunting" };
    world.until_asked(what, world.asked(what).len() + 8).await?;
    let received: BTreeSet<String> = world.receiver.frames().into_iter().collect();
    let strange: Vec<_> = received.symmetric_difference(&wanted).take(3).collect();
    ensure!(strange.is_empty(), "{filters}: {} of {}: {strange:?}", received.len(), wanted.len());
    ensure!(world.receiver.frames().len() == wanted.len(), "{filters}: nothing repeats");
    let n_shown = world.defender.shown().len();
    let filtered = format!("siem_forwarder_records_filtered_total{{stream=\"{stream}\"}}");
    let n_filtered = world.forwarder.metric(&filtered).await?;
    let rest = n_shown - wanted.len();
    ensure!(format!("{n_filtered}") == format!("{rest}"), "{filters}: {n_filtered} of {rest}");
    ensure!((rest == 0) == is_filtered_there, "{filters}: {rest} were shown in vain");
    Ok(())
}

const OF_ALERTS: (Stream, Stream) = (Stream::Alerts, Stream::Activities);
const OF_ACTIVITIES: (Stream, Stream) = (Stream::Activities, Stream::Alerts);

fn users() -> BTreeSet<String> {
    (1..60).map(|number| format!("user{number}@contoso.com")).collect()
}

#[tokio::test]
async fn what_graph_can_filter_is_never_shown() -> Result<()> {
    let where_ = "{where: 'ActionType in (\"FileDownloaded\", \"LogonFailed\")'}";
    let of_both = "{countries: [NL], where: 'ActionType !in (\"FileDownloaded\") // or\n'}";
    let of_both = of_both.replace('\n', "");
    tokio::try_join!(
        exactly("{severities: [High, Low]}", OF_ALERTS, true, |alert| {
            alert.is_one_of("severity", &["high", "low"])
        }),
        exactly("{services: [11161, 20893, 15600]}", OF_ACTIVITIES, true, |row| {
            row.is_one_of("ApplicationId", &["11161", "20893", "15600"])
        }),
        exactly("{countries: [NL, JP]}", OF_ACTIVITIES, true, |row| {
            row.is_one_of("CountryCode", &["NL", "JP"]) || row.is_one_of("Location", &["NL", "JP"])
        }),
        exactly("{ipCategories: [CloudProvider]}", OF_ACTIVITIES, true, |row| {
            row.is_one_of("IPCategory", &["Cloud provider"])
        }),
        exactly(where_, OF_ACTIVITIES, true, |row| {
            row.is_one_of("ActionType", &["FileDownloaded", "LogonFailed"])
        }),
        exactly(&of_both, OF_ACTIVITIES, true, |row| {
            (row.is_one_of("CountryCode", &["NL"]) || row.is_one_of("Location", &["NL"]))
                && !row.is_one_of("ActionType", &["FileDownloaded"])
        }),
    )?;
    Ok(())
}

#[tokio::test]
async fn what_graph_cannot_filter_is_left_out_here_and_counted() -> Result<()> {
    let users = users();
    let named = users.iter().map(|user| user.to_uppercase()).collect::<Vec<_>>().join(", ");
    let (of_users, of_both) = (
        format!("{{users: [{named}]}}"),
        format!("{{users: [{named}], countries: [NL, JP, US, GB]}}"),
    );
    tokio::try_join!(
        exactly("{services: [11161, 20893, 15600]}", OF_ALERTS, false, |alert| {
            let evidence = alert.json["evidence"].as_array().cloned().unwrap_or_default();
            evidence
                .iter()
                .any(|one| ["11161", "20893", "15600"].contains(&one["appId"].to_string().as_str()))
        }),
        exactly("{policies: [62b1b0c0aa11bb22cc33dd55]}", OF_ALERTS, false, |alert| {
            alert.is_one_of("alertPolicyId", &["62b1b0c0aa11bb22cc33dd55"])
        }),
        exactly(&of_users, OF_ACTIVITIES, false, |row| row.is_of(&users)),
        exactly("{eventTypes: [EVENT_CATEGORY_LOGIN]}", OF_ACTIVITIES, false, |row| {
            row.line.contains("|EVENT_CATEGORY_LOGIN|")
        }),
        exactly(&of_both, OF_ACTIVITIES, false, |row| {
            let countries = ["NL", "JP", "US", "GB"];
            let is_there =
                row.is_one_of("CountryCode", &countries) || row.is_one_of("Location", &countries);
            is_there && row.is_of(&users)
        }),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_where_that_does_not_parse_is_said_in_graphs_words_while_alerts_flow() -> Result<()> {
    let more = "  eventTypes: {activities: {filter: {where: 'ActionType ==== \"x\"'}}}\n";
    let mut world = prepare_with(tenant(100, 100), QUICK, more).await?;
    world.forwarder.start().await?;
    let refused = |status: &Value| {
        status["source"]["reason"].as_str().is_some_and(|reason| reason.contains("(400)"))
    };
    let status = world.until("refused", refused).await?;
    let reason = status["source"]["reason"].as_str().unwrap();
    ensure!(reason.starts_with("the API refuses the filter (400): BadRequest: "), "{reason}");
    ensure!(status["token"]["state"] == "Valid", "{status}");
    let n_alerts = records(&world, Stream::Alerts)?.len();
    eventually(PATIENCE, async || {
        ensure!(n_delivered(&world, Stream::Alerts) == n_alerts, "alerts flow");
        Ok(())
    })
    .await?;
    ensure!(n_delivered(&world, Stream::Activities) == 0, "nothing is read without the filter");
    let n_queries = world.asked("graph-hunting").len();
    ensure!(n_queries <= 4, "{n_queries} times the same wrong question");
    // Mended, it reads on.
    let manifest = std::fs::read_to_string(world.forwarder.manifest())?;
    ensure!(world.forwarder.terminate().await?.success());
    std::fs::write(world.forwarder.manifest(), manifest.replace("====", "!="))?;
    world.forwarder.start().await?;
    super::each_once(&world).await
}
