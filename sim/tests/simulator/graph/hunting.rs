//! `runHuntingQuery`: what the rows look like, the order in which they come, spans of time and limits.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{Defender, Hostility, Options};

use super::super::ask::unlimited;
use super::{Graph, refused, rows, texts};

/// A query as an exporter sends it, for a window and from a place in it.
fn query(from: &str, until: &str, after: &str, tail: &str) -> String {
    format!(
        "CloudAppEvents
| extend IngestionTime = coalesce(ingestion_time(), Timestamp)
| where IngestionTime >= datetime({from}) and IngestionTime < datetime({until})
{after}| where ApplicationId in (11161, 20893, 20892, 15600, 28375)
| where (
ActionType != \"MailItemsAccessed\" // not those
)
| order by IngestionTime asc, ReportId asc
| take 20
{tail}"
    )
}

#[tokio::test]
async fn a_walk_through_windows_and_places_finds_each_row_once() -> Result<()> {
    let options = Options { same_time: 9, hostile: Hostility::None, ..unlimited(600) };
    let defender = Defender::start(options).await?;
    let graph = Graph::at(&defender).await;
    let (from, until) = ("2020-01-01T00:00:00.0000000Z", "2200-01-01T00:00:00.0000000Z");
    let everything = "CloudAppEvents | where ApplicationId in (11161, 20893, 20892, 15600, 28375) \
                      and ActionType != 'MailItemsAccessed' | project ReportId";
    let expected: BTreeSet<_> =
        texts(rows(&graph.hunt(everything).await), "ReportId").into_iter().collect();
    ensure!(expected.len() > 60, "{}", expected.len());
    let (mut found, mut after, mut ties) = (Vec::new(), String::new(), 0);
    loop {
        let tail = "| extend Table = \"CloudAppEvents\"";
        let result = graph.hunt(&query(from, until, &after, tail)).await;
        let Some(last) = rows(&result).last() else { break };
        let (time, id) = (&last["IngestionTime"], &last["ReportId"]);
        let (time, id) = (time.as_str().unwrap(), id.as_str().unwrap());
        after = format!(
            "| where IngestionTime > datetime({time}) or (IngestionTime == datetime({time}) and strcmp(ReportId, \"{id}\") > 0)\n"
        );
        let times: Vec<jiff::Timestamp> =
            texts(rows(&result), "IngestionTime").iter().map(|it| it.parse().unwrap()).collect();
        ensure!(times.is_sorted());
        ties += times.windows(2).filter(|pair| pair[0] == pair[1]).count();
        ensure!(rows(&result).iter().all(|row| row["Table"] == "CloudAppEvents"));
        found.extend(texts(rows(&result), "ReportId"));
    }
    ensure!(found.len() == expected.len(), "each once: {} of {}", found.len(), expected.len());
    ensure!(found.iter().cloned().collect::<BTreeSet<_>>() == expected);
    ensure!(ties > 0, "some share one tick");

    let n_shown = defender.shown().len();
    let ids = graph.hunt(&query(from, until, "", "| project IngestionTime, ReportId")).await;
    let row = rows(&ids)[0].as_object().unwrap();
    ensure!(row.keys().map(String::as_str).collect::<Vec<_>>() == ["IngestionTime", "ReportId"]);
    let two = format!("CloudAppEvents | where ReportId in (\"{}\", \"{}\")", found[0], found[30]);
    ensure!(rows(&graph.hunt(&two).await).len() == 2);
    ensure!(defender.shown().len() == n_shown, "those were shown before, and ids show nothing");
    Ok(())
}

#[tokio::test]
async fn rows_have_types_that_vary_and_a_schema_that_does_not() -> Result<()> {
    let defender = Defender::start(unlimited(1_500)).await?;
    let graph = Graph::at(&defender).await;
    let result = graph.hunt("CloudAppEvents").await;
    let any = |holds: &dyn Fn(&Value) -> bool| rows(&result).iter().any(holds);
    for column in ["ActivityObjects", "RawEventData", "AdditionalFields"] {
        ensure!(any(&|row| row[column].is_string()), "{column} as JSON in a text");
        ensure!(any(&|row| row[column].is_object() || row[column].is_array()), "{column} as JSON");
    }
    let flag = "IsAdminOperation";
    ensure!(any(&|row| row[flag].is_boolean()) && any(&|row| row[flag].is_number()));
    ensure!(any(&|row| row[flag].is_string()) && any(&|row| row[flag].is_null()));
    ensure!(any(&|row| row.get("City").is_none()) && any(&|row| row["City"].is_null()));
    ensure!(any(&|row| row["Timestamp@odata.type"] == "#DateTimeOffset"));
    let schema = |result: &Value| -> Vec<(String, String)> {
        let columns = result["schema"].as_array().unwrap();
        texts(columns, "name").into_iter().zip(texts(columns, "type")).collect()
    };
    let types = schema(&result);
    for (name, kind) in [
        ("Timestamp", "DateTime"),
        ("ReportId", "String"),
        ("ApplicationId", "Int32"),
        ("IsAdminOperation", "SByte"),
        ("RawEventData", "Object"),
    ] {
        ensure!(types.contains(&(name.to_owned(), kind.to_owned())), "{name}");
    }
    let empty = graph.hunt("CloudAppEvents | where false").await;
    ensure!(rows(&empty).is_empty() && schema(&empty) == types, "an empty result keeps it");
    let count = graph.hunt("CloudAppEvents | count").await;
    ensure!(count["results"] == json!([{"Count": rows(&result).len()}]), "{count}");
    ensure!(count["schema"] == json!([{"name": "Count", "type": "Int64"}]));

    let logons = graph.hunt("IdentityLogonEvents").await;
    let actions: BTreeSet<_> = texts(rows(&logons), "ActionType").into_iter().collect();
    ensure!(actions == ["LogonFailed", "LogonSuccess"].map(str::to_owned).into());
    let produced = defender.produced();
    for row in rows(&logons) {
        let id = row["ReportId"].as_str().unwrap().to_owned();
        let is_foreign = row["Application"] == "Active Directory";
        ensure!(produced.contains(&(Stream::Activities, id)) != is_foreign, "{row}");
    }
    ensure!(texts(rows(&logons), "Application").contains(&"Active Directory".to_owned()));
    Ok(())
}

#[tokio::test]
async fn the_order_of_ingestion_is_another_and_rows_may_show_up_behind_it() -> Result<()> {
    let defender = Defender::start(unlimited(300)).await?;
    let graph = Graph::at(&defender).await;
    let by_ingestion = graph.hunt("CloudAppEvents | order by ingestion_time() asc").await;
    let times: Vec<jiff::Timestamp> =
        texts(rows(&by_ingestion), "Timestamp").iter().map(|it| it.parse().unwrap()).collect();
    ensure!(!times.is_sorted(), "what happened first is not ingested first");

    let out_of_order = Duration::from_secs(30);
    let defender = Defender::start(Options { out_of_order, ..unlimited(0) }).await?;
    let graph = Graph::at(&defender).await;
    defender.produce(600);
    let ingested = "CloudAppEvents | project It = ingestion_time(), ReportId | order by It asc";
    let n_all = defender.produced().iter().filter(|(of, _)| *of == Stream::Activities).count();
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    let first = loop {
        let first = graph.hunt(ingested).await;
        if !rows(&first).is_empty() {
            break first;
        }
        ensure!(tokio::time::Instant::now() < until, "none of {n_all} rows is ingested");
    };
    let newest = texts(rows(&first), "It").pop().unwrap();
    let behind = loop {
        let later = graph.hunt(ingested).await;
        let known: BTreeSet<_> = texts(rows(&first), "ReportId").into_iter().collect();
        let fresh: Vec<_> = rows(&later)
            .iter()
            .filter(|row| !known.contains(row["ReportId"].as_str().unwrap()))
            .cloned()
            .collect();
        if fresh.len() >= 3 {
            break texts(&fresh, "It");
        }
        ensure!(tokio::time::Instant::now() < until, "{n_all} rows, {} are new", fresh.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let newest: jiff::Timestamp = newest.parse()?;
    ensure!(behind.iter().any(|it| it.parse::<jiff::Timestamp>().unwrap() < newest));
    Ok(())
}

#[tokio::test]
async fn a_span_cuts_by_timestamp() -> Result<()> {
    let history = (400, Duration::from_secs(60 * 24 * 3_600));
    let defender = Defender::start(Options { history, ..unlimited(0) }).await?;
    let graph = Graph::at(&defender).await;
    let count = async |span: Value| -> u64 {
        let body = json!({"Query": "CloudAppEvents | count", "Timespan": span});
        let answer: Value = graph.ask(&body).await.json().await.unwrap();
        answer["results"][0]["Count"].as_u64().unwrap()
    };
    let (all, month, day) =
        (count(json!("P90D")).await, count(json!(null)).await, count(json!("P1D")).await);
    ensure!(all == month, "at most 30 days");
    ensure!((100..220).contains(&month) && day < 20 && day > 0, "{month} {day}");
    let now = jiff::Timestamp::from_millisecond(siem_agent_sim::clock::millis())?;
    let before = now - jiff::SignedDuration::from_hours(24);
    ensure!(count(json!(format!("{before}/{now}"))).await.abs_diff(day) <= 1);
    ensure!(count(json!(format!("{before}/P1D"))).await.abs_diff(day) <= 1);
    ensure!(count(json!("PT24H")).await.abs_diff(day) <= 1);
    for wrong in ["1d", "P", "PT", "P1M", "soon/later", "", "-P1D"] {
        let body = json!({"Query": "CloudAppEvents", "Timespan": wrong});
        ensure!(refused(graph.ask(&body).await).await.0 == 400, "{wrong}");
    }
    Ok(())
}

#[tokio::test]
async fn wrong_queries_and_results_that_are_too_large_are_400() -> Result<()> {
    let defender = Defender::start(Options { result_limit: 50_000, ..unlimited(200) }).await?;
    let graph = Graph::at(&defender).await;
    for (query, words) in [
        ("CloudAppEvents | where (ActionType ==)", "Syntax error: "),
        ("CloudAppEvents | where ActionType == 'a' | | take 1", "Syntax error: "),
        ("CloudAppEvents | where (\nActionType == 'a' | take 1\n)", "Syntax error: "),
        ("CloudAppEvents | where AccountUpn == 'a'", "Semantic error: "),
        ("Nothing | take 1", "Semantic error: "),
        ("CloudAppEvents", "Query execution has exceeded the allowed result size"),
        (" ", "The query is empty"),
    ] {
        let (status, code, message) = refused(graph.ask(&json!({"Query": query})).await).await;
        ensure!(status == 400 && code == "BadRequest" && message.starts_with(words), "{message}");
    }
    for wrong in [json!([]), json!({}), json!({"Query": 5}), json!({"Query": "x", "More": 1})] {
        ensure!(refused(graph.ask(&wrong).await).await.0 == 400, "{wrong}");
    }
    ensure!(rows(&graph.hunt("CloudAppEvents | take 5").await).len() == 5);
    let asked = defender.requests().pop().unwrap();
    ensure!(asked.what == "graph-hunting" && asked.question["Query"] == "CloudAppEvents | take 5");
    Ok(())
}

#[tokio::test]
async fn events_are_as_large_as_wanted_and_count_against_the_limit() -> Result<()> {
    let large = Options { raw_event_bytes: 4_000, ..unlimited(200) };
    let defender = Defender::start(large.clone()).await?;
    let answer = Graph::at(&defender).await.hunt("CloudAppEvents | take 20").await;
    for row in rows(&answer) {
        // A dynamic column comes as JSON, or as JSON in a text.
        let event = match &row["RawEventData"] {
            Value::String(text) => serde_json::from_str(text)?,
            event => event.clone(),
        };
        let parameters =
            event["Parameters"].as_array().map_or(0, |_| event["Parameters"].to_string().len());
        ensure!((3_500..4_500).contains(&parameters), "{parameters} bytes more");
    }
    let asked = defender.requests().pop().unwrap();
    ensure!((80_000..200_000).contains(&asked.n_bytes), "{} bytes", asked.n_bytes);
    let defender = Defender::start(Options { result_limit: 80_000, ..large }).await?;
    let body = json!({"Query": "CloudAppEvents | take 20"});
    let (status, _, message) = refused(Graph::at(&defender).await.ask(&body).await).await;
    ensure!(status == 400 && message.contains("exceeded the allowed result size"), "{message}");
    let findable = defender.findable().into_keys().collect::<BTreeSet<_>>();
    ensure!(findable == defender.produced(), "each id has a time from which on Graph has it");
    Ok(())
}
