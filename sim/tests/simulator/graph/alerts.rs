//! `alerts_v2`: filters, orders, pages, and members of enumerations that a client may not know.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use reqwest::header;
use serde_json::Value;
use siem_agent_crds::report::Stream;
use siem_agent_sim::defender::{Defender, Options};

use super::super::ask::{client, unlimited};
use super::{Graph, OURS, refused, texts};

fn values(page: &Value) -> &[Value] {
    page["value"].as_array().unwrap()
}

fn tenant(n_alerts: usize) -> Options {
    Options { alert_history: Some(n_alerts), ..unlimited(0) }
}

#[tokio::test]
async fn filters_are_read_by_their_grammar() -> Result<()> {
    let defender = Defender::start(tenant(200)).await?;
    let graph = Graph::at(&defender).await;
    let ids = async |filter: &str| -> BTreeSet<String> {
        let page = graph.page(&[("$filter", filter), ("$top", "1000")]).await;
        texts(values(&page), "id").into_iter().collect()
    };
    let all = graph.page(&[("$top", "1000"), ("$count", "true")]).await;
    ensure!(all["@odata.count"].as_u64() == Some(values(&all).len() as u64));
    let at = values(&all)[50]["createdDateTime"].as_str().unwrap().to_owned();
    let expect = |holds: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
        let kept: Vec<_> = values(&all).iter().filter(|alert| holds(alert)).cloned().collect();
        texts(&kept, "id").into_iter().collect()
    };
    let created = |alert: &Value| -> jiff::Timestamp {
        alert["createdDateTime"].as_str().unwrap().parse().unwrap()
    };
    let moment: jiff::Timestamp = at.parse()?;
    let by_time: [(&str, &dyn Fn(jiff::Timestamp) -> bool); 6] = [
        ("ge", &|it| it >= moment),
        ("gt", &|it| it > moment),
        ("le", &|it| it <= moment),
        ("lt", &|it| it < moment),
        ("eq", &|it| it == moment),
        ("ne", &|it| it != moment),
    ];
    for (operator, holds) in by_time {
        let found = ids(&format!("createdDateTime {operator} {at}")).await;
        ensure!(found == expect(&|alert| holds(created(alert))), "{operator}");
    }
    let of = |field: &'static str, value: &'static str| {
        move |alert: &Value| alert[field].as_str() == Some(value)
    };
    ensure!(ids("severity eq 'high'").await == expect(&of("severity", "high")));
    let either = ids("(severity eq 'high' or severity eq 'low') and not (status eq 'new')").await;
    ensure!(
        either
            == expect(&|alert| {
                let severe = of("severity", "high")(alert) || of("severity", "low")(alert);
                severe && !of("status", "new")(alert)
            })
    );
    // `and` binds closer than `or`.
    let loose = ids("severity eq 'high' or severity eq 'low' and status eq 'new'").await;
    ensure!(
        loose
            == expect(&|alert| {
                of("severity", "high")(alert)
                    || of("severity", "low")(alert) && of("status", "new")(alert)
            })
    );
    let nobody = ids("assignedTo eq null and classification ne null").await;
    ensure!(
        nobody
            == expect(&|alert| alert["assignedTo"].is_null() && !alert["classification"].is_null())
    );
    ensure!(ids("not determination in ('malware','unknown')").await.len() < 200);
    ensure!(ids("assignedTo eq 'o''hara'").await.is_empty(), "a doubled quotation mark");
    ensure!(!ids("lastUpdateDateTime ge 2020-01-01T00:00:00+02:00").await.is_empty());
    ensure!(ids(OURS).await.len() == 200, "those of other products are left out");
    for wrong in [
        "",
        "severity",
        "severity eq",
        "severity eq high",
        "severity = 'high'",
        "severity eq 'high",
        "severity eq 'high' and",
        "(severity eq 'high'",
        "severity eq 'high')",
        "severity in ()",
        "severity in 'high'",
        "title eq 'x'",
        "contains(title,'x')",
        "id eq 'ca1'",
        "Severity eq 'high'",
        "createdDateTime ge '2026-01-01T00:00:00Z'",
        "createdDateTime ge 2026-01-01",
        "createdDateTime ge yesterday",
        "severity eq 2026-01-01T00:00:00Z",
        "severity eq 'high' severity eq 'low'",
        &format!("severity eq 'a'{}", " or severity eq 'b'".repeat(200)),
        &format!("{}severity eq 'a'", "(".repeat(200)),
    ] {
        let (status, code, message) = refused(graph.alerts(&[("$filter", wrong)]).await).await;
        ensure!(status == 400 && code == "BadRequest" && !message.is_empty(), "{wrong}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn pages_follow_each_other_by_next_link() -> Result<()> {
    let defender = Defender::start(Options { same_time: 7, ..tenant(250) }).await?;
    let graph = Graph::at(&defender).await;
    for order in [
        "createdDateTime asc",
        "createdDateTime",
        "lastUpdateDateTime desc",
        "severity asc,createdDateTime desc",
    ] {
        let options = [("$filter", OURS), ("$orderby", order), ("$top", "40")];
        let mut page = graph.page(&options).await;
        let mut found = values(&page).to_vec();
        while let Some(link) = page["@odata.nextLink"].as_str() {
            ensure!(values(&page).len() == 40);
            ensure!(
                link.starts_with(&format!("{}/v1.0/security/alerts_v2?", defender.url())),
                "{link}"
            );
            page = graph.get(link).await.json().await?;
            found.extend(values(&page).to_vec());
        }
        let ids: BTreeSet<_> = texts(&found, "id").into_iter().collect();
        ensure!(found.len() == 250 && ids.len() == 250, "{order}: {}", found.len());
        let field = order.split([' ', ',']).next().unwrap();
        let times = texts(&found, field);
        if let Ok(times) =
            times.iter().map(|it| it.parse()).collect::<Result<Vec<jiff::Timestamp>, _>>()
        {
            let ordered = if order.ends_with("desc") {
                times.iter().rev().is_sorted()
            } else {
                times.is_sorted()
            };
            ensure!(ordered, "{order}");
        }
    }
    let continued = defender.requests().iter().filter(|request| request.continued).count();
    ensure!(continued == 4 * 6, "{continued}");
    let page = graph.page(&[]).await;
    ensure!(values(&page).len() == 100, "by default");
    let newest: jiff::Timestamp = values(&page)[0]["createdDateTime"].as_str().unwrap().parse()?;
    let oldest: jiff::Timestamp = values(&page)[99]["createdDateTime"].as_str().unwrap().parse()?;
    ensure!(newest > oldest, "the newest first");
    let skipped = graph.page(&[("$skip", "250"), ("$top", "1000")]).await;
    ensure!(values(&skipped).len() < 60);
    for wrong in [
        ("$top", "1001"),
        ("$top", "0"),
        ("$top", "many"),
        ("$skip", "501"),
        ("$skip", "-1"),
        ("$count", "yes"),
        ("$orderby", "title"),
        ("$orderby", "createdDateTime up"),
        ("$orderby", ""),
        ("$skiptoken", "x"),
        ("$select", "id"),
    ] {
        ensure!(refused(graph.alerts(&[wrong]).await).await.0 == 400, "{wrong:?}");
    }
    Ok(())
}

#[tokio::test]
async fn times_have_up_to_seven_digits_and_fields_may_be_missing() -> Result<()> {
    let defender = Defender::start(tenant(300)).await?;
    let graph = Graph::at(&defender).await;
    let page = graph.page(&[("$filter", OURS), ("$top", "1000")]).await;
    let digits = |time: &str| time.split_once('.').map_or(0, |(_, fraction)| fraction.len() - 1);
    let lengths: BTreeSet<_> =
        texts(values(&page), "createdDateTime").iter().map(|time| digits(time)).collect();
    ensure!(lengths.len() >= 6 && lengths.contains(&7), "{lengths:?}");
    let any = |holds: &dyn Fn(&Value) -> bool| values(&page).iter().any(holds);
    ensure!(
        any(&|alert| alert["evidence"].is_null()) && any(&|alert| alert["description"].is_null())
    );
    ensure!(any(&|alert| alert.get("alertPolicyId").is_none() || alert.get("category").is_none()));
    let evidence = |kind: &str| {
        let kind = format!("#microsoft.graph.security.{kind}Evidence");
        any(&|alert| {
            let evidence = alert["evidence"].as_array();
            evidence.is_some_and(|all| all.iter().any(|one| one["@odata.type"] == kind))
        })
    };
    for kind in ["user", "ip", "cloudApplication", "file", "device"] {
        ensure!(evidence(kind), "{kind}");
    }
    let sources: BTreeSet<_> = texts(values(&page), "serviceSource").into_iter().collect();
    ensure!(sources.len() == 2, "{sources:?}");
    Ok(())
}

#[tokio::test]
async fn who_does_not_know_young_members_gets_unknown_future_value() -> Result<()> {
    let defender = Defender::start(tenant(200)).await?;
    let graph = Graph::at(&defender).await;
    let filter = [("$filter", "serviceSource eq 'microsoftSentinel'")];
    let known = graph.page(&filter).await;
    ensure!(!values(&known).is_empty());
    ensure!(values(&known).iter().all(|alert| alert["serviceSource"] == "microsoftSentinel"));
    let url = format!("{}/v1.0/security/alerts_v2?$top=1000", defender.url());
    let request = client().get(url).header(header::AUTHORIZATION, &graph.bearer);
    let page: Value = request.send().await?.json().await?;
    let sources: BTreeSet<_> = texts(values(&page), "serviceSource").into_iter().collect();
    ensure!(sources.contains("unknownFutureValue") && !sources.contains("microsoftSentinel"));
    Ok(())
}

#[tokio::test]
async fn an_alert_has_a_path_and_late_ones_show_up_later() -> Result<()> {
    let defender = Defender::start(Options { late: Duration::from_secs(2), ..tenant(0) }).await?;
    let graph = Graph::at(&defender).await;
    defender.produce_at(Stream::Alerts, 200, Duration::ZERO);
    let count = async || values(&graph.page(&[("$filter", OURS), ("$top", "1000")]).await).len();
    ensure!(count().await < 200, "some are late");
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while count().await < 200 {
        ensure!(tokio::time::Instant::now() < until, "and come in the end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let page = graph.page(&[("$top", "1")]).await;
    let id = values(&page)[0]["id"].as_str().unwrap();
    let at = |id: &str| format!("{}/v1.0/security/alerts_v2/{id}", defender.url());
    ensure!(graph.get(&at(id)).await.json::<Value>().await?["id"] == *id);
    let (status, code, _) = refused(graph.get(&at("ca0")).await).await;
    ensure!(status == 404 && code == "ResourceNotFound");
    let elsewhere = graph.get(&format!("{}/v1.0/security/alerts", defender.url())).await;
    ensure!(refused(elsewhere).await.0 == 400);
    Ok(())
}
